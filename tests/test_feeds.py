"""What a stage is fed: the same batches from the devices' memory and as a stream, on any devices.

Letters: S seeds, B batch, C steps of an epoch, W devices.
"""

import pickle
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import FOUR, Child, write_own
from jax import lax

from affectjax.data.batches.dataset import DataConfig, Dataset
from affectjax.data.batches.unpaired import Turns
from affectjax.modalities import MODALITIES
from affectjax.runtime import parallel
from affectjax.runtime.parallel import AXIS, Engine
from affectjax.training.device_data import TrainingData, UnpairedTrainingData

# Of 29 training examples of each, those that have the modality: all of text, fewer of the others.
BATCH = {"text": 7, "audio": 5, "vision": 6}
ORDER = ("vision", "text", "audio")
SEEDS = (0, 4)
TURNS = {
    "in turn": Turns(ORDER, cycle=2, unit="batches"),
    "two epochs": Turns(ORDER, cycle=2, unit="epochs"),
    "together": Turns(MODALITIES, together=True),
}


def opened(folder, resident):
    changes = {} if resident else {"resident_mib": 0.0}
    return {
        m: Dataset(
            DataConfig("own", str(folder), modalities=(m,), standardize=(), **changes),
            unpaired=True,
        )
        for m in MODALITIES
    }


def gathered(pick):
    """Returns `(data, xs) -> the batches [C, B of all devices, ...]` of one device's part."""

    def run(data, xs):
        batches = lax.map(lambda x: pick(data, x), xs)
        turn = batches.pop("turn", None)
        wide = jax.tree.map(lambda x: lax.all_gather(x, AXIS, axis=1, tiled=True), batches)
        return wide if turn is None else wide | {"turn": turn}

    return run


def batches_of(feed, engine, epoch, seeds=SEEDS, stage=1):
    """Returns all batches of an epoch, as the step sees them: leaves `[S, C, B, ...]`."""
    drawn = [feed.rows(seed, stage, epoch) for seed in seeds]
    rows = jax.tree.map(lambda *xs: np.stack(xs), *drawn)
    run = parallel.over_seeds(gathered(feed.pick), len(seeds), (None, 0))
    run = engine.compile(run, (None, 2))
    if feed.resident:
        return engine.fetch(run(feed.data, engine.shard(rows, 2)))
    mine = jax.tree.map(engine.mine, rows)
    found = [
        engine.fetch(run(feed.data, engine.shard(batch, 2)))
        for batch in feed.stream(mine, epoch, seeds)
    ]
    return jax.tree.map(lambda *xs: np.concatenate(xs, axis=1), *found)


def made(folder, resident, turns, kind="pmap", devices=1):
    engine = Engine(kind, jax.devices()[:devices])
    datasets = opened(folder, resident)
    return UnpairedTrainingData(datasets, engine, BATCH, turns), engine, datasets


def real(batch):
    """Returns a batch with zeros in the rows that only pad, whatever stands there."""
    weight = batch["weight"]
    shaped = lambda x: weight.reshape(*weight.shape, *[1] * (x.ndim - weight.ndim))  # noqa: E731
    return jax.tree.map(lambda x: np.where(shaped(x) > 0, x, 0), batch)


def assert_same_batches(ours, theirs):
    assert ours.keys() == theirs.keys()
    np.testing.assert_array_equal(ours["turn"], theirs["turn"])
    for m in MODALITIES:
        a, b = real(ours[m]), real(theirs[m])
        assert a.keys() == b.keys()
        jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_own(tmp_path_factory.mktemp("raw") / "own")


@pytest.fixture(scope="module", params=TURNS.values(), ids=TURNS.keys())
def both(request, folder):
    """Returns the feeds of one kind of turns, resident and streamed."""
    return [made(folder, resident, request.param) for resident in (True, False)]


def test_resident_and_streamed_give_the_same_batches(both):
    (resident, engine, _), (streamed, *_) = both
    assert resident.resident and not streamed.resident and streamed.data == {}
    assert resident.steps == streamed.steps
    for epoch in (0, 3):
        ours = batches_of(resident, engine, epoch)
        assert_same_batches(ours, batches_of(streamed, engine, epoch))
        assert ours["turn"].shape == (len(SEEDS), resident.steps)


def test_batches_are_the_examples_of_the_rows(both):
    """Of the arrays on disk, by the rows that are drawn; a data set whose turn it is not pads."""
    (feed, engine, datasets), _ = both
    found = batches_of(feed, engine, 1, seeds=(4,))
    rows = feed.rows(4, 1, 1)
    np.testing.assert_array_equal(found["turn"][0], rows["turn"][:, 0])
    for m in MODALITIES:
        arrays = datasets[m].arrays(datasets[m].part("train"))
        assert rows[m].shape == (feed.steps, BATCH[m])
        for c, row in enumerate(rows[m]):
            weight = found[m]["weight"][0, c]
            np.testing.assert_array_equal(weight, row >= 0)
            if not feed.turns.together and feed.turns.names[rows["turn"][c, 0]] != m:
                assert not weight.any()
            for b in np.flatnonzero(row >= 0):
                np.testing.assert_array_equal(found[m][m]["x"][0, c, b], arrays[m]["x"][row[b]])
                assert found[m]["label"][0, c, b] == arrays["label"][row[b]]
                assert found[m]["present"][m][0, c, b]


def test_seeds_have_orders_of_their_own_and_epochs_too(both):
    (feed, *_), _ = both
    flat = lambda rows: tuple(np.concatenate([rows[m].ravel() for m in MODALITIES]))  # noqa: E731
    places = ((0, 0, 0), (4, 0, 0), (0, 1, 0), (0, 0, 2))
    assert len({flat(feed.rows(*place)) for place in places}) == len(places)
    assert flat(feed.rows(4, 1, 3)) == flat(feed.rows(4, 1, 3))


def test_examples_without_the_modality_are_no_part_of_its_set(folder):
    _, _, datasets = made(folder, True, TURNS["in turn"])
    sizes = {m: len(dataset.part("train")) for m, dataset in datasets.items()}
    with np.load(folder / "features.npz") as raw:
        expected = {m: int((raw[f"{m}_lengths"][:29] > 0).sum()) for m in MODALITIES}
    assert sizes == expected and min(sizes.values()) < 29


def test_all_of_them_are_streamed_where_one_does_not_fit(folder):
    datasets = opened(folder, True) | {"text": opened(folder, False)["text"]}
    engine = Engine("pmap", jax.devices()[:1])
    feed = UnpairedTrainingData(datasets, engine, BATCH, TURNS["together"])
    assert not feed.resident and feed.data == {}


def test_a_stream_goes_on_where_it_stopped(folder):
    feed, engine, _ = made(folder, False, TURNS["in turn"])
    rows = jax.tree.map(lambda x: engine.mine(x[None]), feed.rows(0, 0, 0))
    whole = list(feed.stream(rows, 0, (0,)))
    stopped = feed.stream(rows, 0, (0,))
    batches = iter(stopped)
    for _ in range(3):
        next(batches)
    again = feed.stream(rows, 0, (0,))
    again.restore(stopped.state())
    rest = list(again)
    assert len(rest) == feed.steps - 3 == len(whole) - 3
    for ours, theirs in zip(rest, whole[3:], strict=True):
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_one_data_set_alone(folder):
    """`TrainingData`: a stage that reads `config.data` itself."""
    config = {True: {}, False: {"resident_mib": 0.0}}
    engine, found = Engine("pmap", jax.devices()[:1]), {}
    for resident, changes in config.items():
        feed = TrainingData(Dataset(DataConfig("own", str(folder), **changes)), engine, 6)
        assert feed.resident is resident and feed.steps == 5
        found[resident] = real(batches_of(feed, engine, 2))
    jax.tree.map(np.testing.assert_array_equal, found[True], found[False])
    assert found[True]["weight"].sum() == 2 * 29


# ---- four devices -------------------------------------------------------------------------------


def on_four(folder, out):
    """Writes the batches of one and of four devices, with both engines, resident and streamed."""
    found = {}
    for kind, devices, resident in (
        ("pmap", 1, True),
        ("pmap", 4, True),
        ("shard_map", 4, True),
        ("pmap", 4, False),
        ("shard_map", 4, False),
    ):
        feed, engine, _ = made(folder, resident, TURNS["in turn"], kind, devices)
        found[kind, devices, resident] = batches_of(feed, engine, 1), feed.columns
    Path(out).write_bytes(pickle.dumps(found))


@pytest.fixture(scope="module")
def devices(tmp_path_factory, folder):
    there = tmp_path_factory.mktemp("devices")
    out = there / "batches"
    child = Child(on_four, (str(folder), str(out)), there, {"XLA_FLAGS": FOUR})
    code, _, said = child.wait(200)
    assert code == 0, said
    found = pickle.loads(out.read_bytes())
    return found.pop(("pmap", 1, True)), found


def test_one_device_and_four_read_the_same_rows(devices):
    """Four share batches of 7, 5 and 6 as rows of 8, of which the last ones pad."""
    (alone, columns), others = devices
    assert columns == BATCH
    for batches, wide in others.values():
        assert wide == {"text": 8, "audio": 8, "vision": 8}
        narrow = {
            m: jax.tree.map(lambda x, m=m: x[:, :, : BATCH[m]], batches[m]) for m in MODALITIES
        }
        assert_same_batches(alone, narrow | {"turn": batches["turn"]})
        for m in MODALITIES:
            assert not batches[m]["weight"][:, :, BATCH[m] :].any()
