"""One run at a time in a workdir."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys

import pytest
from absl import logging
from conftest import CONFIG_FILE, toy_config

from affectjax.errors import InputError
from affectjax.runtime import workdir_lock
from affectjax.training import loop

HOLD = """
import sys, time
from affectjax.runtime import workdir_lock
with workdir_lock.hold(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the lock of `run`."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_who_holds_it_is_named(tmp_path, other):
    for _ in range(2):
        with pytest.raises(InputError) as refused, workdir_lock.hold(tmp_path / "run"):
            pass
        words = f"in use by process {other.pid} on host {socket.gethostname()}, since 20"
        assert words in str(refused.value)
        assert "choose another --workdir" in str(refused.value)


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_its_process(tmp_path, other, ending):
    os.kill(other.pid, ending)
    other.wait()
    # What the killed one wrote is still there, and means nothing.
    assert json.loads((tmp_path / "run" / "lock").read_text())["process"] == other.pid
    with workdir_lock.hold(tmp_path / "run"):
        assert json.loads((tmp_path / "run" / "lock").read_text())["process"] == os.getpid()


def test_a_child_does_not_keep_it(tmp_path):
    with workdir_lock.hold(tmp_path):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        with workdir_lock.hold(tmp_path):
            pass
    finally:
        child.kill()
        child.wait()


def test_it_ends_with_an_exception_too(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), workdir_lock.hold(tmp_path):
            raise KeyboardInterrupt
        assert (tmp_path / "lock").read_text() == ""


def test_twice_in_one_process(tmp_path):
    with workdir_lock.hold(tmp_path):
        with pytest.raises(InputError, match=f"process {os.getpid()}"), workdir_lock.hold(tmp_path):
            pass
        with workdir_lock.hold(tmp_path / "folds" / "1"):
            pass


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: said.append(text % values))

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(workdir_lock.fcntl, "flock", refuse)
    with workdir_lock.hold(tmp_path):
        pass
    assert len(said) == 1 and "No locks available" in said[0] and "second run" in said[0]


def test_a_workdir_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with (
            pytest.raises(InputError, match="cannot write to the workdir"),
            workdir_lock.hold(path),
        ):
            pass


def test_a_second_run_ends_with_one_sentence(own, tmp_path, other, start):
    child = start("main", f"--config={CONFIG_FILE}:{own}", f"--workdir={tmp_path / 'run'}")
    code, _, said = child.wait()
    assert code == 2
    assert f"is in use by process {other.pid} on host" in said and "Traceback" not in said
    assert [f.name for f in (tmp_path / "run").iterdir()] == ["lock"]


def test_folds_are_locked_as_a_whole(own, tmp_path, other):
    config = toy_config(own, data__kfold=3)
    with pytest.raises(InputError, match=f"in use by process {other.pid}"):
        loop.train(config, tmp_path / "run")


def test_a_lock_that_cannot_be_opened_is_an_error_where_others_could_write(tmp_path):
    (tmp_path / "lock").mkdir()
    with (
        pytest.raises(InputError, match="cannot write to the workdir"),
        workdir_lock.hold(tmp_path),
    ):
        pass
