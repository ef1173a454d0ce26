"""The device axis on one device; `test_devices.py` has more of them."""

import chex
import jax
import numpy as np
import pytest
from jax import lax

from affectjax.errors import InputError
from affectjax.runtime import parallel
from affectjax.runtime.parallel import AXIS, Engine, ParallelConfig

ENGINES = pytest.mark.parametrize("kind", parallel.ENGINES)


def tree():
    return {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.int32(4), "b": np.bool_(1)}


@ENGINES
def test_replicate_then_fetch_is_the_same(kind):
    engine = Engine(kind)
    back = engine.fetch(engine.replicate(tree()))
    chex.assert_trees_all_equal(back, tree())
    chex.assert_trees_all_equal_dtypes(back, tree())
    chex.assert_trees_all_equal(
        engine.fetch(engine.replicate(engine.replicate(tree()))) if kind == "shard_map" else back,
        tree(),
    )


@ENGINES
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_sharded_axis_is_reduced(kind, axis):
    engine = Engine(kind)
    x = np.random.default_rng(0).normal(size=(4, 8, 12)).astype(np.float32)
    total = engine.compile(lambda x: lax.psum(x.sum(axis), AXIS), (axis,))
    np.testing.assert_allclose(engine.fetch(total(engine.shard(x, axis))), x.sum(axis), rtol=1e-5)


@ENGINES
def test_a_donated_argument_is_given_up(kind):
    engine = Engine(kind)
    add = engine.compile(lambda x, y: x + y, (None, None), donate=(0,))
    x, y = engine.replicate(np.ones(3)), engine.replicate(np.ones(3))
    assert engine.fetch(add(x, y)).tolist() == [2, 2, 2]
    assert x.is_deleted() and not y.is_deleted()


def test_columns_are_the_next_multiple_of_the_devices():
    engine = Engine("pmap")
    assert engine.columns(7) == 7
    engine.devices = engine.devices * 4
    assert [engine.columns(n) for n in (1, 4, 7, 8)] == [4, 4, 8, 8]


def test_each_process_has_its_part_of_the_columns(monkeypatch):
    rows = np.arange(12).reshape(2, 6)
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    parts = []
    for process in range(3):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        parts.append(Engine.mine(None, rows))
    np.testing.assert_array_equal(np.concatenate(parts, -1), rows)
    assert [part.tolist()[0] for part in parts] == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize("seeds", [1, 3])
def test_over_seeds_is_each_model_alone(seeds):
    a = np.random.default_rng(0).normal(size=(seeds, 4)).astype(np.float32)
    b = np.random.default_rng(1).normal(size=4).astype(np.float32)
    both = parallel.over_seeds(lambda p, x: {"y": p["a"] * x, "s": x.sum()}, seeds, (0, None))
    out = jax.device_get(both({"a": a}, b))
    np.testing.assert_allclose(out["y"], a * b)
    np.testing.assert_allclose(out["s"], [b.sum()] * seeds, rtol=1e-6)


def test_one_model_has_no_batch_axis_within():
    seen = []
    parallel.over_seeds(lambda x: seen.append(type(x)) or x, 1, (0,))(np.ones((1, 2)))
    assert seen == [np.ndarray]


CONFIGS = {
    "engine": ({"engine": "pmpa"}, "engine is 'pmpa'; allowed: pmap, shard_map"),
    "alone": ({"processes": 2}, "processes > 1 needs coordinator"),
    "process": ({"processes": 2, "coordinator": "a:1", "process": 2}, "process"),
    "none": ({"processes": 0}, "processes"),
    "seeds": ({"seeds": "alone"}, "together"),
    "apart": ({"seeds": "apart", "processes": 2, "coordinator": "a:1"}, "one process"),
}


@pytest.mark.parametrize(("values", "message"), CONFIGS.values(), ids=CONFIGS.keys())
def test_what_a_config_cannot_be(values, message):
    with pytest.raises(ValueError, match=message):
        ParallelConfig(**values)


def test_seeds_are_apart_only_where_devices_share_them_evenly(monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: [jax.local_devices()[0]] * 2)
    groups = lambda where, seeds: parallel.engine(ParallelConfig(seeds=where), seeds).groups  # noqa: E731
    assert [groups("auto", seeds) for seeds in (1, 2, 3, 4)] == [1, 2, 1, 2]
    assert groups("together", 4) == 1 and groups("apart", 4) == 2
    with pytest.raises(InputError, match="3 seeds cannot be shared evenly by 2 devices"):
        groups("apart", 3)


def test_one_process_joins_nothing(monkeypatch):
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_: pytest.fail("joined"))
    parallel.initialize(ParallelConfig())
