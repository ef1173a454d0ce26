import json
import time

import numpy as np
import pytest

from affectjax.errors import InputError
from tests.fuzz import __main__ as fuzz
from tests.fuzz import kinds
from tests.fuzz.mutate import mutate


def test_damage_is_drawn_by_its_seed():
    data, other = bytes(range(256)) * 4, b"other" * 50
    drawn = [mutate(data, other, np.random.default_rng(seed)) for seed in (0, 0, *range(1, 50))]
    assert drawn[0] == drawn[1] and len({*drawn}) > 45
    assert mutate(b"", b"", np.random.default_rng(0)) is not None


def damaged(folder):
    """Reads a file that says what is to go wrong."""
    what = (folder / "a").read_bytes()
    if what[:2] == b"ok":
        return
    if what[:1] < b"\x40":
        raise InputError("no")
    if what[:1] < b"\xc0":
        raise KeyError("lost")
    time.sleep(3600)


def test_what_becomes_of_inputs_is_counted_and_failures_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "SECONDS", 1)
    outcomes = {"read": b"ok", "refused": b"\x01", "raised": b"\x80", "endless": b"\xff"}
    for name, content in outcomes.items():
        case, count = tmp_path / name, fuzz.Count()
        case.mkdir()
        (case / "a").write_bytes(content)
        fuzz._count(count, kinds.Kind(None, damaged), case, tmp_path / f"kept {name}")
        failed = name in ("raised", "endless")
        assert count == fuzz.Count(1, name == "read", name == "refused", failed)
        assert (tmp_path / f"kept {name}" / "a").exists() == failed
    assert "KeyError: 'lost'" in (tmp_path / "kept raised" / "said.txt").read_text()
    assert "SIGALRM" in (tmp_path / "kept endless" / "said.txt").read_text()
    assert "raised" in fuzz.table({"raised": count})


@pytest.mark.slow
def test_no_damage_is_more_than_an_input_error(tmp_path):
    counts = fuzz.fuzz(1.0, int(time.time()), tmp_path)
    assert min(count.tried for count in counts.values()) > 0
    kept = {path.name: (path / "said.txt").read_text() for path in tmp_path.iterdir()}
    assert not kept, json.dumps(kept, indent=1)
