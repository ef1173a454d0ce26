"""One device or four, pmap or shard_map, seeds apart, one process or two: the same numbers.

Everything runs in processes of its own, since the number of devices is that of the process.
"""

import importlib.util
import json
import os
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import (
    FOUR,
    QUICK,
    Child,
    assert_close_lines,
    lines_of,
    on_devices,
    toy_config,
)

from affectjax.data.batches.dataset import DataConfig, Dataset, order, rows_of
from affectjax.runtime import optim, parallel, steps
from affectjax.runtime.checkpoints import Checkpoints
from affectjax.runtime.parallel import AXIS, ENGINES, Engine, ParallelConfig
from affectjax.tasks import base
from affectjax.training import evaluator, loop

TOLERANCE = 1e-5
EPOCHS = 5  # of four steps


def record_losses(losses):
    """Makes the training loop leave the loss of every step, `[S, C]` an epoch, in a list."""
    check = loop.Trainer._check_finite

    def checked(self, series):
        losses.append(series["loss"])
        check(self, series)

    loop.Trainer._check_finite = checked


# Batches of 6 leave two of four devices a row that only pads, the last one more.
TOY = {
    "stages__train__epochs": EPOCHS,
    "stages__train__batch_size": 6,
    "seeds": (2, 9),
    "optim__clip_norm": 0.5,
}


def toy_runs(folder, own):
    """Trains the toy with both engines on one device and on four; writes the losses."""
    assert len(jax.devices()) == 4
    make, losses, found = Engine.__init__, [], {}
    record_losses(losses)
    for count in (1, 4):
        _, Engine.__init__ = on_devices(count)
        for kind in ENGINES:
            loop.train(
                toy_config(own, **TOY, parallel__engine=kind), Path(folder) / f"{kind}-{count}"
            )
            found[f"{kind}-{count}"] = np.concatenate(losses, 1).tolist()
            losses.clear()
        Engine.__init__ = make
    (Path(folder) / "losses.json").write_text(json.dumps(found))


def toy_apart(folder, own):
    """Trains the toy with a device for each seed, which the run makes; writes the losses."""
    losses = []
    record_losses(losses)
    loop.train(toy_config(own, **TOY), Path(folder) / "apart")
    assert len(jax.devices()) == 2
    (Path(folder) / "apart.json").write_text(json.dumps(np.concatenate(losses, 1).tolist()))
    # The next run of the process has one model, and one device for it.
    engine = parallel.engine(ParallelConfig(), 1)
    assert engine.count == engine.groups == 1


@pytest.fixture(scope="module")
def toys(tmp_path_factory, own):
    """The folder of four runs of the toy, and their losses."""
    folder = tmp_path_factory.mktemp("devices")
    where = (str(folder), str(own))
    for runs, flags in ((toy_runs, FOUR), (toy_apart, "")):
        code, _, said = Child(runs, where, folder, {"XLA_FLAGS": flags}).wait(300)
        assert code == 0, said
    losses = json.loads((folder / "losses.json").read_text())
    return folder, losses | {"apart": json.loads((folder / "apart.json").read_text())}


OTHERS = ("shard_map-1", "pmap-4", "shard_map-4", "apart")


@pytest.mark.parametrize("other", OTHERS)
def test_losses_of_all_steps_agree(toys, other):
    _, losses = toys
    assert np.shape(losses["pmap-1"]) == (2, EPOCHS * 5)
    np.testing.assert_allclose(losses[other], losses["pmap-1"], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("other", OTHERS)
def test_all_that_is_logged_agrees(toys, other):
    folder, _ = toys
    assert_close_lines(lines_of(folder / other), lines_of(folder / "pmap-1"))


@pytest.mark.parametrize("other", OTHERS)
def test_final_state_agrees(toys, other):
    folder, _ = toys
    states = []
    for name in ("pmap-1", other):
        manager = Checkpoints(folder / name / "checkpoints" / "latest", 2)
        states.append(manager.restore()[0])
        manager.close()
    ours, theirs = states
    assert ours.keys() == theirs.keys()
    for path, x in ours.items():
        np.testing.assert_allclose(x, theirs[path], atol=TOLERANCE, rtol=TOLERANCE, err_msg=path)


@pytest.mark.parametrize("other", OTHERS)
def test_evaluation_agrees(toys, other):
    folder, _ = toys
    for name in ("test.json", "valid.json", "missing.json"):
        ours, theirs = (
            json.loads((folder / run / "eval" / name).read_text()) for run in (other, "pmap-1")
        )
        for (path, x), (_, y) in zip(*map(jax.tree.leaves_with_path, (ours, theirs)), strict=True):
            assert x == pytest.approx(y, abs=TOLERANCE), path


# ---- a system, step by step ---------------------------------------------------------------------


def twenty_steps(config_path, arguments, combinations, own, out):
    """Writes the losses of twenty steps of a system, for each kind of engine and device count."""
    spec = importlib.util.spec_from_file_location("config", config_path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config("own").to_dict()
    config["model"] |= {"width": 8, "heads": 2, **arguments}
    dataset = Dataset(DataConfig("own", own))
    task = base.find(config).Task(config, dataset.inputs, AXIS)
    stage, part = task.stages[0], dataset.part("train")
    tx = optim.optimizer(stage.optim)
    rates = np.broadcast_to(optim.schedule(stage.optim, 9, 4)(np.arange(20)), 20)
    params, variables = jax.jit(lambda key: task.init(key, dataset.zeros(2)))(jax.random.key(0))
    state = steps.new_state(params, variables, tx, jax.random.key(1))
    one = jax.tree.map(lambda x: np.asarray(x)[None], state)
    rows = np.concatenate([rows_of(order(len(part), 0, 0, e), 8, 8) for e in range(5)])[None]
    losses = {}
    for kind, count in combinations:
        engine = Engine(kind, jax.devices()[:count])
        chunk = steps.train_chunk(steps.train_step(stage.loss, tx), steps.pick_rows)
        axes, models = (None, None, None, None, 2), (0, 0, None, None, 0)
        run = engine.compile(chunk, axes, donate=(0,), models=models)
        data = engine.replicate(dataset.arrays(part))
        placed, numbers = engine.replicate((one, {"rate": rates, "settings": {}}))
        _, measured = run(placed, {}, data, numbers, engine.shard(rows, 2))
        losses[f"{kind}-{count}"] = engine.fetch(measured["loss"])[0].tolist()
    Path(out).write_text(json.dumps(losses))


def check_system(name, model, combinations, own, start, tmp_path):
    out = tmp_path / "losses.json"
    config = Path(__file__).parents[1] / "configs" / f"{name}.py"
    child = start(
        twenty_steps,
        str(config),
        model,
        combinations,
        str(own),
        str(out),
        XLA_FLAGS=f"{FOUR} {QUICK}",
    )
    code, _, said = child.wait(500)
    assert code == 0, said
    first, *others = json.loads(out.read_text()).values()
    assert len(set(first)) == 20  # it does train
    for other in others:
        np.testing.assert_allclose(other, first, atol=TOLERANCE, rtol=0)


ALL = (("pmap", 1), ("shard_map", 1), ("pmap", 4), ("shard_map", 4))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mcr", "mult"])
def test_twenty_steps_of_a_system_with_every_engine(name, own, start, tmp_path):
    check_system(name, {"layers": 1}, ALL, own, start, tmp_path)


# ---- two processes ------------------------------------------------------------------------------


def one_of_two(process, port, folder, own, seeds):
    """Trains with both engines as one of two processes of two devices each."""
    two = {"parallel__coordinator": f"127.0.0.1:{port}", "parallel__processes": 2}
    two |= {"parallel__process": process}
    for kind in ENGINES:
        changes = {"parallel__engine": kind, "seeds": seeds, "stages__train__epochs": 2, **two}
        if kind == "shard_map":
            changes |= {"data__resident_mib": 0.0}
        config = toy_config(own, **changes)
        written = []
        if process:
            watch_writes(written, folder)
        result = loop.train(config, Path(folder) / kind)
        # The second process is told what the first one reads.
        assert loop.train(config, Path(folder) / kind) == json.loads(json.dumps(result))
        assert jax.process_count() == 2 and len(jax.devices()) == 4
        assert not written, written
    config = toy_config(own, **two, data__kfold=3, stages__train__epochs=1)
    result = loop.train(config, Path(folder) / "folds")
    assert list(result["per_fold"]) == ["1", "2", "3"]
    assert evaluator.evaluate(Path(folder) / "folds") == result


def watch_writes(written, folder):
    """Notes every file below a folder that this process opens to write, and every new folder."""

    def hook(event, arguments):
        if event not in ("open", "os.mkdir", "os.rename", "os.remove"):
            return
        reads = event == "open" and not set(arguments[1] or "") & set("wax+")
        if not reads and str(arguments[0]).startswith(folder):
            written.append((event, *arguments))

    sys.addaudithook(hook)


def test_two_processes_are_one_run(own, start, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = "--xla_force_host_platform_device_count=2"
    workdir = tmp_path / "runs"
    children = [
        start(one_of_two, process, port, str(workdir), str(own), (1, 6), XLA_FLAGS=flags)
        for process in range(2)
    ]
    loop.train(toy_config(own, seeds=(1, 6), stages__train__epochs=2), tmp_path / "alone")
    for child in children:
        code, _, said = child.wait(300)
        assert code == 0, said
    for kind in ENGINES:
        assert_close_lines(lines_of(workdir / kind), lines_of(tmp_path / "alone"))
        ours, theirs = (
            json.loads((folder / "eval" / "test.json").read_text())
            for folder in (workdir / kind, tmp_path / "alone")
        )
        assert ours["mean"] == pytest.approx(theirs["mean"], abs=TOLERANCE)
        assert (workdir / kind / "eval" / "missing.json").exists()


# ---- a process that is lost ---------------------------------------------------------------------


def part_of_a_run(process, port, workdir, own, devices):
    """Trains the toy for many epochs as one of two processes, or alone; ends as an app does."""
    from affectjax.runtime import app

    several = {
        "parallel__coordinator": f"127.0.0.1:{port}",
        "parallel__processes": 2,
        "parallel__process": process,
    }
    changes = {**TOY, "stages__train__epochs": 40} | (several if port else {})
    _, Engine.__init__ = on_devices(devices)
    sys.argv = ["part"]
    app.run(lambda argv: loop.train(toy_config(own, **changes), workdir) and None)


def start_two(start, workdir, own):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = "--xla_force_host_platform_device_count=2"
    where = (port, str(workdir), str(own), 4)
    return [start(part_of_a_run, number, *where, XLA_FLAGS=flags) for number in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_lost_process_is_named_and_the_run_goes_on_on_any_devices(victim, own, start, tmp_path):
    workdir = tmp_path / "run"
    children = start_two(start, workdir, own)
    file = workdir / "metrics.jsonl"
    while not file.exists() or file.read_bytes().count(b"\n") < 12:
        assert all(child.process.is_alive() for child in children), [c.wait() for c in children]
        time.sleep(0.01)
    os.kill(children[victim].process.pid, signal.SIGKILL)
    code, _, said = children[1 - victim].wait(30)
    # Where the first process is lost JAX aborts the others, too: whichever comes first ends them.
    assert code in ((1, -signal.SIGABRT) if victim == 0 else (1,)), said
    if code == 1:
        assert "Traceback" not in said, said
        assert said.splitlines()[-1].startswith(f"error: process {victim} of the run is lost")
    children[victim].wait()
    for name in ("one", "four"):
        shutil.copytree(workdir, tmp_path / name)
    alone = (0, 0, str(tmp_path / "one"), str(own), 1), (0, 0, str(tmp_path / "four"), str(own), 4)
    again = [start(part_of_a_run, *where, XLA_FLAGS=FOUR) for where in alone]
    again += [*start_two(start, workdir, own)]
    loop.train(toy_config(own, **TOY | {"stages__train__epochs": 40}), tmp_path / "whole")
    for child in again:
        code, _, said = child.wait(300)
        assert code == 0, said
    for ours in (workdir, tmp_path / "one", tmp_path / "four"):
        assert_close_lines(lines_of(ours), lines_of(tmp_path / "whole"))
