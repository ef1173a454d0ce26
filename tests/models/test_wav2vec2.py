"""Speech towers: sizes, masks, short sounds, gradients, bfloat16.

That they are wav2vec 2.0, HuBERT and WavLM is shown in tests/weights/test_from_wav2vec2.py.
Letters: B examples, S samples, T frames, D width.
"""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_mcr import draw, quick

from affectjax.errors import InputError
from affectjax.models.wav2vec2 import SpeechTower, buckets, normalised, receptive_field
from affectjax.weights import lora

SMALL = {
    "width": 16, "layers": 3, "heads": 4, "hidden": 24, "channels": (6, 8, 10),
    "kernels": (10, 3, 2), "strides": (5, 2, 2), "position_size": 16, "position_groups": 4,
}  # fmt: skip
VARIANTS = {
    "wav2vec2 base": {},
    "wav2vec2 large": {"conv_norm": "layer", "conv_bias": True, "norm_first": True},
    "wavlm base": {"buckets": 12, "distance": 20, "normalise": False},
    "wavlm large": {"buckets": 12, "distance": 20, "conv_norm": "layer", "norm_first": True},
}
each_variant = pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())


def sounds(samples=400):
    """Returns sounds `[4, S]` and a mask: whole, a part, a frame of 30 samples, too short."""
    x = np.random.default_rng(0).standard_normal((4, samples)).astype(np.float32)
    return x, np.arange(samples) < np.array([400, 251, 30, 29])[:, None]


def small_tower(**changes):
    tower = SpeechTower(**SMALL | changes)
    return tower, draw(jax.eval_shape(lambda: tower.init(jax.random.key(0), *sounds())), 0)


def linear(i, o):
    return i * o + o


def size_by_hand(tower):
    """Returns the number of parameters, from the papers' descriptions."""
    t, total, before = tower, 0, 1
    for i, (channels, size) in enumerate(zip(t.channels, t.kernels, strict=True)):
        total += before * channels * size + channels * t.conv_bias
        total += 2 * channels * (t.conv_norm == "layer" or i == 0)
        before = channels
    total += 2 * before + linear(before, t.width)
    total += t.position_size * t.width // t.position_groups * t.width + t.width + 2 * t.width
    layer = 4 * linear(t.width, t.width) + 2 * 2 * t.width
    layer += linear(t.width, t.hidden) + linear(t.hidden, t.width)
    if t.buckets:
        total += t.buckets * t.heads
        layer += linear(t.width // t.heads, 8) + t.heads
    return total + t.layers * layer


@each_variant
def test_exact_size(changes):
    tower, variables = small_tower(**changes)
    assert sum(x.size for x in jax.tree.leaves(variables)) == size_by_hand(tower)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {np.dtype("float32")}


def test_exact_size_of_the_published():
    base = {
        "width": 768, "layers": 12, "heads": 12, "hidden": 3072, "channels": (512,) * 7,
        "kernels": (10, 3, 3, 3, 3, 2, 2), "strides": (5, 2, 2, 2, 2, 2, 2),
    }  # fmt: skip
    tower = SpeechTower(**base)
    shapes = jax.eval_shape(lambda: tower.init(jax.random.key(0), *sounds()))
    held = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    # What transformers counts, less a vector for masked frames and the magnitudes of a kernel.
    assert held == size_by_hand(tower) == 94_371_712 - 768 - 128
    assert receptive_field(base["kernels"], base["strides"]) == 400


@each_variant
def test_shapes(changes):
    tower, variables = small_tower(**changes)
    mean, out = quick(tower.apply)(variables, *sounds())
    chex.assert_shape(mean, (4, 16))
    chex.assert_shape(out["last"], (4, 19, 16))
    chex.assert_shape(out["means"], (4, 4, 16))
    np.testing.assert_array_equal(out["mask"].sum(-1), [19, 12, 1, 0])
    chex.assert_type([mean, out["last"], out["means"]], jnp.float32)
    by_hand = [out["last"][i, :n].mean(0) for i, n in enumerate((19, 12, 1))]
    np.testing.assert_allclose(mean[:3], by_hand, atol=1e-5)
    np.testing.assert_allclose(out["means"][:, -1], mean, atol=1e-6)
    assert not np.any(mean[3]) and not np.any(out["means"][3])
    assert np.abs(mean[0] - mean[1]).max() > 0.01


@each_variant
def test_padding_of_a_batch_changes_no_feature(changes):
    """Junk behind a sound, a longer buffer, and other neighbours."""
    tower, variables = small_tower(**changes)
    run, (x, mask) = quick(tower.apply), sounds()
    expected, out = run(variables, x, mask)
    chex.assert_tree_all_finite(out)
    for junk in (np.nan, 1e30):
        padded = np.where(mask, x, junk).astype(np.float32)
        chex.assert_trees_all_equal(run(variables, padded, mask), (expected, out))
    longer = [np.pad(a, ((0, 0), (0, 333))) for a in (x, mask)]
    np.testing.assert_allclose(run(variables, *longer)[0], expected, atol=1e-5)
    alone = run(variables, x[1:2, :251], mask[1:2, :251])[0]
    np.testing.assert_allclose(alone, expected[1:2], atol=1e-5)
    # A buffer shorter than a frame.
    none = run(variables, x[:, :7], mask[:, :7])
    assert none[1]["last"].shape == (4, 1, 16)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(none))


@each_variant
def test_gradients_are_finite_and_reach_every_parameter(changes):
    """Of silence too, and of a batch in which nothing is there."""
    tower, variables = small_tower(**changes)
    x, mask = sounds()
    x[1] = 0

    def loss(variables, x, mask):
        mean, out = tower.apply(variables, x, mask)
        return jnp.sin(mean).sum() + jnp.sin(out["means"]).sum()

    gradient = quick(jax.grad(loss, (0, 1)))
    grads = gradient(variables, x, mask)
    chex.assert_tree_all_finite(grads)
    assert not np.any(np.asarray(grads[1])[~mask])
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads[0]):
        if path[-2].key != "key" or path[-1].key != "bias":  # which no softmax sees
            assert np.abs(leaf).max() > 0, path
    chex.assert_tree_all_finite(gradient(variables, x, mask & False))


def test_louder_sounds_and_shifted_ones_are_the_same_where_normalised():
    (tower, variables), (x, mask) = small_tower(conv_norm="layer", conv_bias=True), sounds()
    run = quick(tower.apply)
    expected = run(variables, x, mask)[0]
    np.testing.assert_allclose(run(variables, 3 * x + 1, mask)[0], expected, atol=1e-4)
    plain = quick(tower.clone(normalise=False).apply)
    assert np.abs(plain(variables, 3 * x + 1, mask)[0] - expected)[:3].max() > 0.01


def test_normalised_by_hand():
    x, mask = sounds()
    got = normalised(x, mask)
    for row, own, there in zip(got, x.astype(np.float64), mask, strict=True):
        own = own[there]
        np.testing.assert_allclose(row[there], (own - own.mean()) / own.std(), atol=1e-5)
        assert not np.any(row[~there])
    assert not np.any(normalised(np.ones_like(x), mask))


def test_buckets_by_hand():
    """12 buckets, distances from 20 on alike: 3 of their own on each side, 3 by logarithm."""
    got = buckets(30, 12, 20)
    one_side = [0, 1, 2, *[3] * 3, *[4] * 5, *[5] * 19]
    # 3 (20 / 3) ** (i / 3) for i = 1 and 2: 5.6 and 10.6.
    np.testing.assert_array_equal(got[:, 0], one_side)
    np.testing.assert_array_equal(got[0, 1:], np.array(one_side[1:]) + 6)


def test_attention_kernels_are_found_by_their_names():
    found = lora.init(jax.random.key(0), small_tower(buckets=12)[1]["params"], 2)
    assert set(found) == {"blocks"} and set(found["blocks"]) == {"query", "key", "value", "out"}
    assert found["blocks"]["query"]["kernel"]["a"].shape == (3, 16, 2)


@each_variant
def test_bfloat16_is_close(changes):
    tower, variables = small_tower(**changes)
    half, given = tower.clone(dtype=jnp.bfloat16), sounds()
    expected, got = (quick(t.apply)(variables, *given)[0] for t in (tower, half))
    assert got.dtype == jnp.float32
    assert 0 < np.abs(got - expected).max() < 0.1 * np.abs(expected).max()


def test_what_does_not_fit_is_refused():
    for changes, message in (
        ({"heads": 3}, "a width of 16 cannot be split among 3 heads"),
        ({"conv_norm": "batch"}, "conv_norm is 'batch'; allowed: group, layer"),
        ({"strides": (5, 2)}, r"\(5, 2\); allowed: as many of each, one at least"),
        ({"position_groups": 3}, "a width of 16 cannot be split among 3 groups of positions"),
        ({"activation": "swish"}, "activation 'swish' is none of gelu, "),
        ({"conv_activation": "swish"}, "activation 'swish' is none of gelu, "),
    ):
        tower = SpeechTower(**SMALL | changes)
        with pytest.raises(InputError, match=message):
            jax.eval_shape(lambda t=tower: t.init(jax.random.key(0), *sounds()))
