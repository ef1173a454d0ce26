"""Work of every kind, killed at random moments; `python -m tests.faults` does it for longer."""

import pytest

from tests.faults import kills


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mcr", "prepare"])
def test_killed_work_ends_as_undisturbed(kind, tmp_path):
    faults = kills.Faults(tmp_path, seed=1, kinds=(kind,))
    faults.run(4)
    assert faults.counts[kind].kills >= 4 and not faults.counts[kind].wrong, faults.table()


def test_a_difference_is_found(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "x").write_bytes(b"1")
    assert kills.difference("predict", tmp_path / "a", tmp_path / "b") == ""
    (tmp_path / "b" / "deep" / "x").write_bytes(b"2")
    assert kills.difference("predict", tmp_path / "a", tmp_path / "b") == "deep/x differs"
    (tmp_path / "b" / "deep" / "x").unlink()
    assert kills.difference("prepare", tmp_path / "a", tmp_path / "b") == "deep/x differs"
