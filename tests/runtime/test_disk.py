"""A full disk in one sentence, whoever says it; a run that met one goes on, bit for bit."""

import errno
import shutil
from collections import namedtuple

import pytest
from conftest import assert_same_run, toy_config

from affectjax.data.prepare import prepared, write
from affectjax.errors import RunStopped
from affectjax.runtime import disk, workdir
from affectjax.training import loop

Usage = namedtuple("Usage", "total used free")


def behind(error):
    """Returns another exception that an exception led to."""
    try:
        try:
            raise error
        except Exception as cause:
            raise KeyError("x") from cause
    except KeyError as other:
        return other


FULL = OSError(errno.ENOSPC, "No space left on device", "a/b")
ORBAX = ValueError("RESOURCE_EXHAUSTED: Failed to write 770 bytes: No space left on device [...]")


@pytest.mark.parametrize("error", [FULL, ORBAX, behind(FULL), behind(behind(ORBAX))])
def test_a_full_disk_is_one_sentence(error):
    with (
        pytest.raises(RunStopped, match=r"the disk of x is full \(No space left .*same command"),
        disk.full_stops_a_run("x"),
    ):
        raise error


@pytest.mark.parametrize(
    "error", [OSError(errno.EACCES, "Permission denied"), ValueError("RESOURCE_EXHAUSTED: of GPU")]
)
def test_another_error_stays_what_it_is(error):
    with pytest.raises(type(error)) as raised, disk.full_stops_a_run("x"):
        raise error
    assert raised.value is error


@pytest.mark.parametrize("call", [1, 4])
def test_a_run_without_room_for_a_checkpoint_goes_on(call, finished, own, tmp_path, monkeypatch):
    usage, calls = shutil.disk_usage, []

    def counted(folder):
        calls.append(folder)
        return usage(folder) if len(calls) < call else Usage(1, 1, 0)

    monkeypatch.setattr(shutil, "disk_usage", counted)
    with pytest.raises(RunStopped, match=r"is full \(0\.0 MiB free, 0\.\d needed\)"):
        loop.train(toy_config(own), tmp_path)
    monkeypatch.undo()
    loop.train(toy_config(own), tmp_path)
    assert_same_run(finished, tmp_path)


def test_a_run_without_room_for_its_metrics_goes_on(finished, own, tmp_path, monkeypatch):
    appended = workdir.EventFile.write

    def refuse(self, step, scalars):
        if step > 4:
            raise FULL
        appended(self, step, scalars)

    monkeypatch.setattr(workdir.EventFile, "write", refuse)
    with pytest.raises(RunStopped, match=r"the disk of .* is full"):
        loop.train(toy_config(own), tmp_path)
    monkeypatch.undo()
    loop.train(toy_config(own), tmp_path)
    assert_same_run(finished, tmp_path)


def test_a_preparation_without_room(own, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise FULL

    monkeypatch.setattr(write, "write", refuse)
    with pytest.raises(RunStopped, match=f"the disk of {tmp_path} is full"):
        prepared.prepare("own", own, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_save_left_is_removed(finished, own, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "eval" / "test.json").unlink()  # so that it goes on
    left = tmp_path / "run" / "checkpoints" / "latest" / "9.orbax-checkpoint-tmp"
    (left / "tree").mkdir(parents=True)
    loop.train(toy_config(own), tmp_path / "run")
    assert not left.exists()
