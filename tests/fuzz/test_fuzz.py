import subprocess
import sys
import time
from pathlib import Path

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
    monkeypatch.setattr(fuzz, "SECONDS", 3)
    # What a process has forked counts as its own: here that is all of the tests.
    monkeypatch.setattr(fuzz, "RESIDENT", 2**50)
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
    """In a process of its own: what the others here hold would count as memory of the readers."""
    command = [sys.executable, "-m", "tests.fuzz", "--minutes=1", "--seed=3", f"--keep={tmp_path}"]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    kept = {path.name: (path / "said.txt").read_text() for path in tmp_path.iterdir()}
    assert done.returncode == 0 and not kept, f"{done.stdout}{done.stderr}{kept}"
