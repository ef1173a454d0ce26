"""The checkpoints of a run: what is frozen is written once a stage, and found with the rest."""

import shutil

import numpy as np
import pytest
from conftest import assert_same_run, newest, two_stages

from affectjax.errors import InputError
from affectjax.runtime.checkpoints import Checkpoints
from affectjax.training import evaluator, loop
from affectjax.training.run_checkpoints import RunCheckpoints

LARGE = 2**18  # floats: a megabyte


def tree(value=0.0):
    """Returns what the loop saves of one seed: a head of two numbers trains."""
    params = {"head": {"kernel": np.full((1, 2), value, np.float32)}}
    variables = {"seen": np.full((1, 3), value + 1, np.float32)}
    best = {"params": params, "variables": variables}
    return {"state": {"params": params, "variables": variables, "step": np.int32(5)}, "best": best}


def frozen(value=7.0):
    return {"tower": {"kernel": np.full((1, LARGE), value, np.float32)}}


def meta(stage=0):
    return {"stage": stage, "epoch": 0, "finished": False}


@pytest.fixture
def opened(tmp_path):
    """Opens the store of a workdir, as often as it is asked to, and closes them all."""
    stores = []

    def open_store():
        stores.append(RunCheckpoints(tmp_path))
        return stores[-1]

    yield open_store
    for store in stores:
        store.close()


def files(folder):
    """Returns bytes, time of change and inode of all files below a folder, by path."""
    return {
        str(f.relative_to(folder)): (f.stat().st_size, f.stat().st_mtime_ns, f.stat().st_ino)
        for f in folder.rglob("*")
        if f.is_file()
    }


def size(folder):
    return sum(entry[0] for entry in files(folder).values())


def numbers(folder):
    return sorted(int(f.name) for f in folder.iterdir() if f.name.isdigit())


def flat(folder):
    manager = Checkpoints(folder, 2)
    found = manager.restore()[0]
    manager.close()
    return found


def saved(store, steps, stage=0, some=True):
    """Saves checkpoints whose best epoch is each time another."""
    for step in steps:
        store.save(step, tree(float(step)), meta(stage), np.array([step]), some)
    store.wait()


# ---- written once -------------------------------------------------------------------------------


def test_what_is_frozen_is_written_once_a_stage(opened, tmp_path):
    store, folder = opened(), tmp_path / "checkpoints"
    store.save_frozen(0, frozen())
    saved(store, [1, 2])
    before = files(folder / "frozen")
    assert numbers(folder / "frozen") == [0] and size(folder / "frozen") > 0
    saved(store, [3, 4, 5])
    assert files(folder / "frozen") == before
    assert numbers(folder / "latest") == numbers(folder / "best") == [4, 5]
    for kind in ("latest", "best"):
        assert not [path for path in flat(folder / kind) if "tower" in path or "frozen" in path]
    kept = flat(folder / "frozen")
    np.testing.assert_array_equal(kept["frozen/tower/kernel"], frozen()["tower"]["kernel"])
    # A run that goes on finds it there.
    again = opened()
    again.save_frozen(0, frozen())
    saved(again, [6])
    assert files(folder / "frozen") == before


def test_the_bytes_of_a_checkpoint_are_those_of_what_trains(opened, tmp_path):
    """Random numbers, which compress little: a megabyte frozen, and next to nothing saved."""
    store, folder = opened(), tmp_path / "checkpoints"
    noise = np.random.default_rng(0).random((1, LARGE), np.float32)
    store.save_frozen(0, {"tower": {"kernel": noise}})
    saved(store, [1, 2, 3])
    assert size(folder / "frozen") > 3 * LARGE
    assert size(folder / "latest") + size(folder / "best") < 4 * LARGE / 8


def test_each_stage_has_its_own(opened, tmp_path):
    store, folder = opened(), tmp_path / "checkpoints"
    store.save_frozen(0, frozen(1.0))
    saved(store, [1])
    store.save_frozen(1, {"head": {"bias": np.full((1, 4), 2.0, np.float32)}})
    saved(store, [2], stage=1)
    assert numbers(folder / "frozen") == [0, 1]
    arrays, where = store.restore()
    assert where["stage"] == 1 and "frozen/tower/kernel" not in arrays
    np.testing.assert_array_equal(arrays["frozen/head/bias"], np.full((1, 4), 2.0))


def test_where_nothing_is_frozen_nothing_is_written(opened, tmp_path):
    store, folder = opened(), tmp_path / "checkpoints"
    store.save_frozen(0, {})
    store.save_frozen(0, {"tower": {}})
    saved(store, [1], some=False)
    assert numbers(folder / "frozen") == []
    arrays, where = store.restore()
    assert where["frozen"] is False and not [path for path in arrays if path.startswith("frozen")]


def test_best_is_written_when_another_epoch_is_the_best(opened, tmp_path):
    store, folder = opened(), tmp_path / "checkpoints"
    epochs = ([0], [0], [2], [2])
    for step, best in enumerate(epochs, 1):
        store.save(step, tree(float(step)), meta(), np.array(best), False)
    # The same epoch number in another stage is another epoch.
    store.save(5, tree(5.0), meta(1), np.array([2]), False)
    store.wait()
    assert numbers(folder / "best") == [3, 5] and numbers(folder / "latest") == [4, 5]
    assert store.restore_best()[1] == {"stage": 1, "epoch": [2], "frozen": False}


# ---- found again --------------------------------------------------------------------------------


def test_nothing_is_there_before_the_first_checkpoint(opened):
    store = opened()
    assert store.restore() is None and store.restore_best() is None
    # Not even where a run stopped between the frozen part and its first checkpoint.
    store.save_frozen(0, frozen())
    store.wait()
    assert opened().restore() is None and opened().restore_best() is None


def test_restoring_puts_what_is_frozen_among_the_others(opened):
    store = opened()
    store.save_frozen(0, frozen())
    saved(store, [3])
    arrays, where = opened().restore()
    assert where == {**meta(), "number": 3, "frozen": True}
    assert sorted(arrays) == [
        "best/params/head/kernel", "best/variables/seen", "frozen/tower/kernel",
        "state/params/head/kernel", "state/step", "state/variables/seen",
    ]  # fmt: skip
    model, where = opened().restore_best()
    assert where == {"stage": 0, "epoch": [3], "frozen": True}
    assert set(model) == {"params", "variables"} and set(model["params"]) == {"tower", "head"}
    np.testing.assert_array_equal(model["params"]["tower"]["kernel"], frozen()["tower"]["kernel"])
    np.testing.assert_array_equal(model["params"]["head"]["kernel"], [[3.0, 3.0]])
    np.testing.assert_array_equal(model["variables"]["seen"], [[4.0] * 3])


def test_what_is_frozen_may_share_a_module_with_what_trains(opened):
    store = opened()
    store.save_frozen(0, {"head": {"bias": np.ones((1, 2), np.float32)}})
    saved(store, [1])
    model, _ = opened().restore_best()
    assert {name: x.tolist() for name, x in model["params"]["head"].items()} == {
        "bias": [[1.0, 1.0]], "kernel": [[1.0, 1.0]],
    }  # fmt: skip


def test_a_lost_frozen_part_is_named(opened, tmp_path):
    store = opened()
    store.save_frozen(0, frozen())
    saved(store, [1])
    shutil.rmtree(tmp_path / "checkpoints" / "frozen" / "0")
    for restore in (opened().restore, opened().restore_best):
        with pytest.raises(InputError, match=r"checkpoints/frozen has no checkpoint of stage 0"):
            restore()


def test_what_is_later_is_forgotten(opened, tmp_path):
    store, folder = opened(), tmp_path / "checkpoints"
    store.save_frozen(0, frozen())
    saved(store, [1, 2])
    store.save_frozen(1, frozen(8.0))
    store.wait()
    again = opened()
    again.remove_after(1, 0)
    assert numbers(folder / "latest") == numbers(folder / "best") == [1]
    assert numbers(folder / "frozen") == [0]
    again.remove_after(-1, -1)
    assert not any(numbers(folder / kind) for kind in ("latest", "best", "frozen"))


# ---- a run of two stages ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory, own):
    """A run that never stopped: the body is frozen in its first stage, the head in its second."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    loop.train(two_stages(own), workdir)
    return workdir


class Stopped(Exception):
    """What ends a run in these tests."""


def stop(monkeypatch, method, stage, epoch):
    """Makes a run end when a method of its trainer is reached in a stage after some epochs."""
    original = getattr(loop.Trainer, method)

    def stopped(self, *args):
        if (self.progress.stage, self.progress.epoch) == (stage, epoch):
            raise Stopped
        return original(self, *args)

    monkeypatch.setattr(loop.Trainer, method, stopped)


def count_frozen(monkeypatch):
    """Returns a list that gets the stage whenever a frozen part is written."""
    written, save = [], Checkpoints.save

    def counted(self, step, tree, meta):
        if self.folder.name == "frozen":
            written.append(step)
        save(self, step, tree, meta)

    monkeypatch.setattr(Checkpoints, "save", counted)
    return written


def test_a_run_writes_the_frozen_part_of_each_stage_once(own, tmp_path, monkeypatch):
    written = count_frozen(monkeypatch)
    loop.train(two_stages(own), tmp_path)
    assert written == [0, 1]


# After two of the second stage's three epochs; after its first; before any checkpoint of it.
@pytest.mark.parametrize(("epoch", "again"), [(2, []), (1, []), (0, [1])])
def test_a_run_resumed_in_stage_two_freezes_what_that_stage_freezes(
    whole, own, tmp_path, monkeypatch, epoch, again
):
    with monkeypatch.context() as patch:
        stop(patch, "_run_epoch", 1, epoch)
        with pytest.raises(Stopped):
            loop.train(two_stages(own), tmp_path)
    assert numbers(tmp_path / "checkpoints" / "frozen") == [0, 1]
    written, kept = count_frozen(monkeypatch), []
    over = loop.Trainer._stage_is_over

    def watched(self):
        kept.append((self.program.stage.name, *self.frozen))
        return over(self)

    monkeypatch.setattr(loop.Trainer, "_stage_is_over", watched)
    loop.train(two_stages(own), tmp_path)
    assert written == again
    assert set(kept) - {("first", "body")} == {("second", "head")}
    assert_same_run(whole, tmp_path)
    np.testing.assert_array_equal(
        flat(tmp_path / "checkpoints" / "frozen")["frozen/head/kernel"],
        flat(whole / "checkpoints" / "frozen")["frozen/head/kernel"],
    )


def test_an_evaluation_finds_the_frozen_part(whole, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(whole, workdir)
    shutil.rmtree(workdir / "eval")
    evaluator.evaluate(workdir)
    for file in ("test.json", "test.csv"):
        assert (workdir / "eval" / file).read_text() == (whole / "eval" / file).read_text()
    assert newest(workdir / "checkpoints" / "frozen").name == "1"
