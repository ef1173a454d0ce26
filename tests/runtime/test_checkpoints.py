"""Checkpoints: a round trip of every type, how many are kept, and what a broken one does."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import newest

from affectjax.errors import InputError
from affectjax.runtime import checkpoints
from affectjax.runtime.checkpoints import Checkpoints


def tree(value=0.0):
    """Returns a tree of every type that a training state has, optax's named tuples among them."""
    params = {"head": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3) + value}}
    return {
        "params": params,
        "opt": optax.adam(0.1).init(params),
        "key": np.array([1, 2**32 - 1], np.uint32),
        "active": np.array([True, False]),
        "half": np.asarray(jnp.array([1.5, np.nan, np.inf], jnp.bfloat16)),
        "count": np.int32(7),
        "value": np.float64(0.1),
    }


def write(folder, *steps, keep=2):
    manager = Checkpoints(folder, keep)
    for step in steps:
        manager.save(step, tree(step), {"step": step, "list": [1, None, "a"], "big": 2**60})
    manager.close()


def read(folder):
    manager = Checkpoints(folder, 2)
    found = manager.restore()
    manager.close()
    return found


def test_round_trip_keeps_every_bit_and_type(tmp_path):
    write(tmp_path / "c", 3)
    flat, meta = read(tmp_path / "c")
    expected = checkpoints.flatten(tree(3))
    assert flat.keys() == expected.keys() and "opt/0/mu/head/kernel" in flat
    for path, x in expected.items():
        assert (flat[path].dtype, flat[path].shape) == (x.dtype, x.shape), path
        assert flat[path].tobytes() == x.tobytes(), path
    assert meta == {"step": 3, "list": [1, None, "a"], "big": 2**60}


def test_fill_gives_the_containers_back(tmp_path):
    write(tmp_path / "c", 3)
    back = checkpoints.fill(jax.tree.map(np.zeros_like, tree()), read(tmp_path / "c")[0])
    chex.assert_trees_all_equal_structs(back, tree())
    chex.assert_trees_all_equal(back, tree(3))


def test_the_newest_of_those_kept_is_read(tmp_path):
    write(tmp_path / "c", 2, 10, 9999)
    assert sorted(f.name for f in (tmp_path / "c").iterdir()) == ["10", "9999"]
    assert read(tmp_path / "c")[1]["step"] == 9999


def test_nothing_is_none(tmp_path):
    assert read(tmp_path / "c") is None


def test_arrays_may_change_once_save_returned(tmp_path):
    manager, state = Checkpoints(tmp_path / "c", 2), {"x": np.zeros(200_000, np.float32)}
    manager.save(1, state, {})
    state["x"][:] = 5
    manager.close()
    assert not read(tmp_path / "c")[0]["x"].any()


def test_a_number_that_is_there_already_is_written_again(tmp_path):
    """After a fallback, or a kill between the two folders, a step comes a second time."""
    write(tmp_path / "c", 1, 2)
    manager = Checkpoints(tmp_path / "c", 2)
    manager.remove_after(1)
    manager.save(2, tree(20), {"step": 20})
    manager.close()
    flat, meta = read(tmp_path / "c")
    assert meta == {"step": 20}
    np.testing.assert_array_equal(flat["params/head/kernel"], tree(20)["params"]["head"]["kernel"])


def test_what_a_killed_writer_left_is_passed_over(tmp_path):
    write(tmp_path / "c", 1, 2)
    left = tmp_path / "c" / "3.orbax-checkpoint-tmp"
    (left / "tree").mkdir(parents=True)
    (left / "tree" / "manifest.ocdbt").write_bytes(b"half")
    assert read(tmp_path / "c")[1]["step"] == 2
    write(tmp_path / "c", 3)
    assert read(tmp_path / "c")[1]["step"] == 3


def break_all(folder):
    for step in folder.iterdir():
        for file in (f for f in step.rglob("*") if f.is_file()):
            file.write_bytes(b"")


def test_all_damaged_is_an_error_that_names_them(tmp_path):
    write(tmp_path / "c", 4, 5)
    break_all(tmp_path / "c")
    with pytest.raises(InputError, match=re.escape(f"{tmp_path / 'c'} is damaged: [4, 5]")):
        read(tmp_path / "c")


def test_reading_deletes_nothing(tmp_path):
    """An evaluation of a damaged run leaves the evidence, and a wrong reader costs nobody a run."""
    write(tmp_path / "c", 4, 5)
    before = sorted(f.name for f in (tmp_path / "c").iterdir())
    break_all(tmp_path / "c")
    with pytest.raises(InputError):
        read(tmp_path / "c")
    assert sorted(f.name for f in (tmp_path / "c").iterdir()) == before


def test_the_checksum_sees_values_names_shapes_and_types():
    base = {"a": np.zeros((2, 3), np.float32), "b": np.ones(2, np.int32)}
    others = (
        base | {"a": np.float32([[0, 0, 0], [0, 0, 1e-30]])},
        base | {"a": np.zeros((3, 2), np.float32)},
        base | {"b": np.ones(2, np.uint32)},
        {"a": base["a"], "c": base["b"]},
        {"a": base["a"]},
    )
    sums = [checkpoints._checksum(flat, {"epoch": 1}) for flat in (base, *others)]
    sums.append(checkpoints._checksum(base, {"epoch": 2}))
    assert len(set(sums)) == len(sums)
    assert checkpoints._checksum(dict(reversed(base.items())), {"epoch": 1}) == sums[0]


FILLS = {
    "other shape": ({"a": np.zeros((2, 3))}, r"a is shape \[2, 3\] there and shape \[2, 4\] here"),
    "lacks": ({}, r"a is nothing there and shape \[2, 4\] here"),
    "has more": ({"a": np.zeros((2, 4)), "b": np.zeros(1)}, r"b is shape \[1\] there and nothing"),
}


@pytest.mark.parametrize(("flat", "message"), FILLS.values(), ids=FILLS.keys())
def test_what_does_not_fit_is_named(flat, message):
    with pytest.raises(InputError, match=message):
        checkpoints.fill({"a": np.zeros((2, 4))}, flat)


def test_newest_of_the_helpers_is_by_number(tmp_path):
    write(tmp_path / "c", 9, 10)
    assert newest(tmp_path / "c").name == "10"
