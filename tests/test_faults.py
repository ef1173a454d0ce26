"""Work of every kind, killed at random moments; `python -m tests.faults` does it for longer."""

import pytest

from tests.faults import kills


@pytest.mark.slow
def test_killed_work_ends_as_undisturbed(tmp_path):
    """Of trainings the script alone does it: each of their starts compiles for a minute or so."""
    faults = kills.Faults(tmp_path, seed=1, kinds=("prepare",))
    faults.run(4)
    found = faults.counts["prepare"]
    assert found.kills >= 4 and not found.wrong, faults.table()


def test_a_difference_is_found(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "x").write_bytes(b"1")
    assert kills.difference("predict", tmp_path / "a", tmp_path / "b") == ""
    (tmp_path / "b" / "deep" / "x").write_bytes(b"2")
    assert kills.difference("predict", tmp_path / "a", tmp_path / "b") == "deep/x differs"
    (tmp_path / "b" / "deep" / "x").unlink()
    assert kills.difference("prepare", tmp_path / "a", tmp_path / "b") == "deep/x differs"
