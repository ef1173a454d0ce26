"""A run that is stopped in any way and started again ends as one that never stopped."""

import os
import random
import shutil
import signal
import time

import pytest
from absl import logging
from conftest import (
    CONFIG_FILE,
    STEPS,
    assert_same_run,
    lines_of,
    newest,
    stop_at,
    toy_config,
    two_stages,
)

from affectjax.data.batches.dataset import Dataset
from affectjax.runtime.checkpoints import Checkpoints
from affectjax.training import loop

# ---- SIGTERM ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def streamed(tmp_path_factory, own):
    workdir = tmp_path_factory.mktemp("streamed")
    loop.train(toy_config(own, data__resident_mib=0.0), workdir)
    return workdir


# Four steps an epoch: the first of all, one within the second epoch, the last of the first.
@pytest.mark.parametrize("call", [1, 6, STEPS], ids=["first", "within", "last of an epoch"])
def test_sigterm_within_an_epoch_of_a_stream(call, streamed, own, tmp_path):
    config = toy_config(own, data__resident_mib=0.0)
    stop_at(config, tmp_path, call)
    manager = Checkpoints(tmp_path / "checkpoints" / "latest", 2)
    _, meta = manager.restore()
    manager.close()
    # The last step of an epoch is saved with the whole epoch.
    assert len(meta["series"].get("loss", [[]])[0]) == call % STEPS
    assert meta["epoch"] == call // STEPS
    assert not (tmp_path / "eval").exists()
    loop.train(config, tmp_path)
    assert_same_run(streamed, tmp_path)


def test_a_streamed_epoch_goes_on_where_the_data_would_lie_on_the_devices(
    streamed, own, tmp_path, monkeypatch
):
    config = toy_config(own)
    with monkeypatch.context() as patch:
        patch.setattr(Dataset, "fits", lambda *_, **__: False)
        stop_at(config, tmp_path, 6)
    loop.train(config, tmp_path)
    assert lines_of(tmp_path) == lines_of(streamed)


def test_sigterm_twice_within_one_epoch(streamed, own, tmp_path):
    config = toy_config(own, data__resident_mib=0.0)
    stop_at(config, tmp_path, 5)
    stop_at(config, tmp_path, 2)
    loop.train(config, tmp_path)
    assert_same_run(streamed, tmp_path)


def test_sigterm_with_everything_that_has_a_state(own, tmp_path):
    """Early stops, plateaus, schedules, decay and averages of several seeds."""
    config = toy_config(
        own,
        seeds=(0, 1, 2, 3),
        stages__train__patience=3,
        stages__train__epochs=8,
        optim__name="adamw",
        optim__learning_rate=0.1,
        optim__weight_decay=0.01,
        optim__average_decay=0.5,
        optim__plateau_patience=1,
        optim__schedule="cosine",
        optim__warmup_epochs=0.5,
    )
    loop.train(config, tmp_path / "whole")
    ends = {line["seed"]: line["epoch"] for line in lines_of(tmp_path / "whole")}
    assert len(set(ends.values())) > 1  # else no seed stops before another
    stop_at(config, tmp_path / "parts", 5)
    loop.train(config, tmp_path / "parts")
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("hand_over", ["double", "grow"])
def test_sigterm_in_the_second_stage(hand_over, own, tmp_path):
    config = two_stages(own, hand_over)
    loop.train(config, tmp_path / "whole")
    # Two epochs of the first stage, then the second epoch of the second.
    stop_at(config, tmp_path / "parts", 4)
    assert lines_of(tmp_path / "parts")[-1]["stage"] == "second"
    loop.train(config, tmp_path / "parts")
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_sigterm_at_the_end_of_the_first_stage(own, tmp_path):
    config = two_stages(own)
    loop.train(config, tmp_path / "whole")
    stop_at(config, tmp_path / "parts", 2)
    loop.train(config, tmp_path / "parts")
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


# ---- processes: SIGTERM and kill -9 -------------------------------------------------------------

# Both models on one device, as in this process, where the devices are there already.
LONG = {"stages__train__epochs": 25, "seeds": (3, 1), "parallel__seeds": "together"}
STREAM = {"data__resident_mib": 0.0, "train__checkpoint_steps": 3}


def arguments(own, workdir, streamed):
    flags = [f"--config={CONFIG_FILE}:{own}", f"--workdir={workdir}"]
    flags += ["--config.stages.train.epochs=25", "--config.seeds=(3,1)"]
    flags += ["--config.parallel.seeds=together"]
    if streamed:
        flags += ["--config.data.resident_mib=0.0", "--config.train.checkpoint_steps=3"]
    return flags


def wait_for_lines(child, workdir, count):
    """Returns once metrics.jsonl has that many lines."""
    file = workdir / "metrics.jsonl"
    while not file.exists() or file.read_bytes().count(b"\n") < count:
        assert child.process.is_alive(), child.wait()
        time.sleep(0.01)


@pytest.fixture(scope="module", params=[False, True], ids=["resident", "streamed"])
def uninterrupted(request, tmp_path_factory, own):
    changes = LONG | (STREAM if request.param else {})
    workdir = tmp_path_factory.mktemp("uninterrupted")
    loop.train(toy_config(own, **changes), workdir)
    return request.param, toy_config(own, **changes), workdir


def test_kill_9_at_random_moments(uninterrupted, own, tmp_path, start):
    streamed, config, whole = uninterrupted
    workdir, lines = tmp_path / "run", 2
    for _ in range(2):
        child = start("main", *arguments(own, workdir, streamed))
        wait_for_lines(child, workdir, lines)
        time.sleep(random.uniform(0, 0.3))
        os.kill(child.process.pid, signal.SIGKILL)
        code, _, said = child.wait()
        assert code == -signal.SIGKILL, said
        lines = len((workdir / "metrics.jsonl").read_bytes().splitlines()) + 4
    assert not (workdir / "eval").exists()
    loop.train(config, workdir)
    assert_same_run(whole, workdir)


def test_sigterm_ends_the_process_with_143(uninterrupted, own, tmp_path, start):
    streamed, config, whole = uninterrupted
    workdir = tmp_path / "run"
    child = start("main", *arguments(own, workdir, streamed))
    wait_for_lines(child, workdir, 8)
    os.kill(child.process.pid, signal.SIGTERM)
    code, _, said = child.wait()
    assert code == 143, said
    assert "SIGTERM" in said and "Traceback" not in said
    loop.train(config, workdir)
    assert_same_run(whole, workdir)


MCR = """--config=configs/mcr.py:own --config.data.dir={own} --config.model.width=8
--config.model.heads=2 --config.model.layers=1 --config.stages.train.epochs=12
--config.stages.train.batch_size=8 --config.train.progress=False --workdir={workdir}"""


@pytest.mark.slow
def test_mcr_killed_at_a_random_step(own, tmp_path, start):
    def run(name):
        return start("main", *MCR.format(own=own, workdir=tmp_path / name).split())

    assert run("whole").wait(300)[0] == 0
    child = run("parts")
    wait_for_lines(child, tmp_path / "parts", 4)
    time.sleep(random.uniform(0, 1))
    os.kill(child.process.pid, signal.SIGKILL)
    assert child.wait()[0] == -signal.SIGKILL
    code, _, said = run("parts").wait(300)
    assert code == 0, said
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


# ---- a damaged checkpoint -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def halves(tmp_path_factory, own):
    """A finished run of six epochs, and one that was stopped after the fourth."""
    config = toy_config(own, stages__train__epochs=6)
    whole, half = (tmp_path_factory.mktemp(name) for name in ("whole", "half"))
    loop.train(config, whole)
    stop_at(config, half, 4)
    return config, whole, half


def largest(folder):
    return max((f for f in folder.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)


def truncate(folder):
    file = largest(folder / "tree")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(folder):
    file = largest(folder / "tree")
    data = bytearray(file.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 8] = bytes(b ^ 0xFF for b in data[middle : middle + 8])
    file.write_bytes(data)


def flip_meta(folder):
    file = largest(folder / "meta")
    file.write_bytes(file.read_bytes().replace(b'"epoch"', b'"epoxy"'))


DAMAGE = {
    "truncated": truncate,
    "flipped bytes": flip,
    "empty file": lambda folder: largest(folder / "tree").write_bytes(b""),
    "missing file": lambda folder: largest(folder / "tree").unlink(),
    "missing folder": lambda folder: shutil.rmtree(folder / "tree"),
    "empty meta": lambda folder: largest(folder / "meta").write_bytes(b""),
    "wrong meta": flip_meta,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_checkpoint_is_passed_over(damage, halves, tmp_path, monkeypatch):
    config, whole, half = halves
    workdir = tmp_path / "run"
    shutil.copytree(half, workdir)
    damaged = newest(workdir / "checkpoints" / "latest")
    damage(damaged)
    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: said.append(text % values))
    loop.train(config, workdir)
    assert any("damaged" in line and damaged.name in line for line in said)
    assert_same_run(whole, workdir)


def test_the_best_checkpoint_alone_is_damaged(halves, own, tmp_path):
    config, whole, half = halves
    workdir = tmp_path / "run"
    shutil.copytree(half, workdir)
    truncate(newest(workdir / "checkpoints" / "best"))
    loop.train(config, workdir)
    assert_same_run(whole, workdir)
