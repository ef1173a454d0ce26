"""The triplet loss and orthogonality against loops, by hand, and on one device and four."""

import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import numpy_concepts as loops
import pytest
from conftest import FOUR
from jax import lax

from affectjax.ops.contrast import orthogonality, triplet
from affectjax.runtime.parallel import AXIS, Engine

value_and_grad = jax.jit(
    jax.value_and_grad(triplet, has_aux=True), static_argnames=("margin", "axis_name")
)


def batch(seed, size=(7, 9, 5), width=6, classes=3, left_out=0.2):
    """Returns features, modalities, labels and weights; some labels are -1, some weights 0."""
    rng = np.random.default_rng(seed)
    count = sum(size)
    label = rng.integers(0, classes, count)
    centre = rng.standard_normal((classes, width))
    features = (centre[label] + rng.standard_normal((count, width))).astype(np.float32)
    modality = rng.permutation(np.repeat(np.arange(len(size)), size)).astype(np.int32)
    label[rng.random(count) < left_out] = -1
    weight = rng.choice([0.0, 0.5, 1.0], count, p=[left_out, 0.2, 0.8 - left_out])
    return features, modality, label.astype(np.int32), weight.astype(np.float32)


SIZES = {"three": (7, 9, 5), "two": (0, 11, 8), "one": (12,), "many": (30, 14, 27), "few": (1, 2)}


@pytest.mark.parametrize("margin", [0.0, 0.2, 1.5])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_triplet_is_the_loop_over_triples(size, margin):
    given = batch(len(size), size)
    (loss, count), gradient = value_and_grad(*given, margin=margin)
    expected, slope, found = loops.triplet(*given, margin)
    assert count == found
    np.testing.assert_allclose(loss, expected, atol=1e-6)
    np.testing.assert_allclose(gradient, slope, atol=1e-6)
    assert found == 0 or margin == 0 or expected > 0.01


def test_triplet_of_near_equal_features_keeps_small_differences():
    """Where all cosines lie near 1 the hinge is near the margin, whatever was summed."""
    features, *rest = batch(3, left_out=0)
    given = (5 + 1e-3 * features, *rest)
    (loss, _), gradient = value_and_grad(*given)
    expected, slope, _ = loops.triplet(*given)
    np.testing.assert_allclose(loss, expected, atol=1e-6)
    np.testing.assert_allclose(gradient, slope, atol=1e-6)


def test_triplet_by_hand():
    # Two images of classes 0 and 1, a text of class 0: S is the image 0, the text, the image 1.
    features = np.array([[1, 0], [3, 4], [0, 2]], np.float32)
    modality, label, weight = np.array([2, 2, 0]), np.array([0, 1, 0]), np.ones(3)
    loss, count = triplet(features, modality, label, weight)
    assert count == 1
    np.testing.assert_allclose(loss, 0.2 - 0.0 + 0.6, rtol=1e-6)
    # The text of class 1: S is the image 1, the text, the image 0; 0.2 - 0.8 + 0.6 = 0.
    loss, count = triplet(features, modality, np.array([0, 1, 1]), weight, 0.3)
    assert count == 1
    np.testing.assert_allclose(loss, 0.1, rtol=1e-5)


EMPTY = {
    "one modality": {"modality": [1, 1, 1, 1]},
    "one class": {"label": [2, 2, 2, 2]},
    "no label": {"label": [-1, -1, -1, -1]},
    "no class in common": {"label": [0, 1, 2, 3]},
    "only padding": {"weight": [0, 0, 0, 0]},
    "no two of a class but padding": {"weight": [1, 1, 0, 1]},
}


@pytest.mark.parametrize("changes", EMPTY.values(), ids=EMPTY.keys())
def test_without_triples_loss_and_gradient_are_zero(changes):
    given = {"modality": [0, 0, 1, 1], "label": [0, 1, 0, 2], "weight": [1, 1, 1, 1]} | changes
    features = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    (loss, count), gradient = value_and_grad(
        features, *(np.array(given[k]) for k in ("modality", "label", "weight"))
    )
    assert loss == 0 and count == 0 and not gradient.any()


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-9])
def test_features_without_length_have_no_cosine_and_no_gradient(scale):
    features, *rest = batch(5)
    short = np.arange(len(features)) % 4 == 0
    features = np.where(short[:, None], scale * features, features)
    (loss, _), gradient = value_and_grad(features, *rest)
    zeroed = np.where(short[:, None], 0, features)
    expected, slope, _ = loops.triplet(zeroed, *rest)
    np.testing.assert_allclose(loss, expected, atol=1e-6)
    np.testing.assert_allclose(gradient, slope, atol=1e-6)


@pytest.mark.parametrize("junk", [np.nan, np.inf, 1e38])
def test_rows_that_are_left_out_may_hold_anything(junk):
    features, modality, label, weight = batch(6)
    out = (weight == 0) | (label == -1)
    assert 2 < out.sum() < len(out) - 4
    expected = value_and_grad(features, modality, label, weight)
    spoilt = np.where(out[:, None], np.float32(junk), features)
    chex.assert_trees_all_close(value_and_grad(spoilt, modality, label, weight), expected)
    assert not np.asarray(expected[1])[out].any()


def test_a_feature_that_counts_and_is_not_finite_shows():
    features, modality, label, weight = batch(7, left_out=0)
    features[3, 2] = np.nan
    assert np.isnan(value_and_grad(features, modality, label, weight)[0][0])


def test_triplet_in_a_scan_and_under_vmap_is_each_alone():
    given = [batch(seed) for seed in (1, 2, 3)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *given)
    alone = [value_and_grad(*one) for one in given]
    expected = jax.tree.map(lambda *leaves: np.stack(leaves), *alone)
    together = jax.jit(jax.vmap(jax.value_and_grad(triplet, has_aux=True)))(*stacked)
    chex.assert_trees_all_close(together, expected, atol=1e-6)
    scanned = jax.jit(lambda xs: lax.scan(lambda s, x: (s, value_and_grad(*x)), 0, xs)[1])(stacked)
    chex.assert_trees_all_close(scanned, expected, atol=1e-6)


def test_triplet_of_half_precision_is_computed_in_full():
    features, *rest = batch(8)
    half = jnp.asarray(features, jnp.bfloat16)
    (loss, _), gradient = value_and_grad(half, *rest)
    assert loss.dtype == jnp.float32 and gradient.dtype == jnp.bfloat16
    np.testing.assert_allclose(loss, loops.triplet(np.float32(half), *rest)[0], atol=1e-6)


def test_triplet_does_not_hold_all_triples():
    """An array of [N, N, N] would take 54 MiB in int32 and 13 in bool."""
    given = (jnp.zeros((240, 16)), *(jnp.zeros(240, jnp.int32) for _ in range(3)))
    memory = value_and_grad.lower(*given).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 8 * 2**20


# ---- orthogonality ------------------------------------------------------------------------------


@pytest.mark.parametrize("normalize", [True, False])
def test_orthogonality_is_the_loop(normalize):
    rng = np.random.default_rng(0)
    emotion, other = rng.standard_normal((2, 9, 5)).astype(np.float32)
    weight = np.array([1, 1, 0, 0.5, 1, 1, 0, 1, 1], np.float32)
    ours = orthogonality(emotion, other, weight, normalize=normalize)
    expected = loops.orthogonality(emotion, other, weight, normalize)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_orthogonality_by_hand():
    # The product is [[1, 0], [2, 3]]: squares 14, over 2 * 2.
    emotion, other = np.array([[1.0, 2], [0, 1]]), np.array([[1.0, 0], [0, 3]])
    np.testing.assert_allclose(orthogonality(emotion, other, np.ones(2)), 14 / 4)
    np.testing.assert_allclose(orthogonality(emotion, other, np.ones(2), normalize=False), 14)


def test_orthogonality_leaves_out_rows_of_no_weight():
    rng = np.random.default_rng(1)
    emotion, other = rng.standard_normal((2, 6, 4)).astype(np.float32)
    weight = np.array([1, 0, 1, 1, 0, 1], np.float32)
    both = jax.value_and_grad(orthogonality, argnums=(0, 1))
    expected, slopes = both(emotion[weight > 0], other[weight > 0], np.ones(4))
    for junk in (0, np.nan, np.inf):
        spoilt = [np.where(weight[:, None] > 0, x, np.float32(junk)) for x in (emotion, other)]
        ours, gradients = both(*spoilt, weight)
        np.testing.assert_allclose(ours, expected, rtol=1e-6)
        for gradient, slope in zip(gradients, slopes, strict=True):
            np.testing.assert_allclose(gradient[weight > 0], slope, rtol=1e-5, atol=1e-7)
            assert not gradient[weight == 0].any()


@pytest.mark.parametrize("normalize", [True, False])
def test_orthogonality_of_no_examples_is_zero(normalize):
    x = np.full((3, 2), np.nan, np.float32)
    loss, gradient = jax.value_and_grad(orthogonality)(x, x, np.zeros(3), normalize=normalize)
    assert loss == 0 and not gradient.any()


# ---- devices ------------------------------------------------------------------------------------


def losses(w, batch, axis_name):
    """Returns both losses of features that one linear map makes, and |S|."""
    x, modality, label, weight = batch
    emotion, other = jnp.tanh(x @ w["emotion"]), jnp.tanh(x @ w["other"])
    contrast, count = triplet(emotion, modality, label, weight, axis_name=axis_name)
    apart = orthogonality(emotion, other, weight, axis_name)
    paper = orthogonality(emotion, other, weight, axis_name, normalize=False)
    return jnp.stack([contrast, apart, 1e-3 * paper]), count


def measured(w, batch, axis_name=None):
    """Returns the losses, |S|, and the gradient of each loss to the map, over all devices."""
    slopes, count = jax.jacrev(losses, has_aux=True)(w, batch, axis_name)
    out = (losses(w, batch, axis_name)[0], count, slopes)
    return out if axis_name is None else lax.pmean(out, axis_name)


def problem():
    """Returns a linear map, and 24 examples: of four parts the last is padding alone."""
    rng = np.random.default_rng(9)
    w = {k: rng.standard_normal((6, 5)).astype(np.float32) for k in ("emotion", "other")}
    x, modality, label, weight = batch(2, (8, 9, 7), left_out=0.1)
    weight[18:] = 0
    return w, (x, modality, label, weight)


def on_four(out):
    """Writes what one device and four find, by both engines."""
    w, given = problem()
    assert len(jax.devices()) == 4
    found = {}
    for kind in ("pmap", "shard_map"):
        for count in (1, 4):
            engine = Engine(kind, jax.devices()[:count])
            run = engine.compile(lambda w, b: measured(w, b, AXIS), (None, 0))
            result = engine.fetch(run(engine.replicate(w), engine.shard(given, 0)))
            found[f"{kind}-{count}"] = jax.tree.map(lambda x: np.asarray(x).tolist(), result)
    with open(out, "w") as file:
        json.dump(found, file)


def test_four_devices_are_one(start, tmp_path):
    out = tmp_path / "found.json"
    code, _, said = start(on_four, str(out), XLA_FLAGS=FOUR).wait()
    assert code == 0, said
    w, given = problem()
    alone = jax.jit(measured)(w, given)
    expected = loops.triplet(np.tanh(given[0] @ w["emotion"]), *given[1:])
    np.testing.assert_allclose(alone[0][0], expected[0], atol=1e-6)
    assert alone[1] == expected[2] > 100
    # Every loss moves the emotion map; orthogonality alone moves the other.
    assert np.abs(alone[2]["emotion"]).max((1, 2)).min() > 1e-4
    assert np.abs(alone[2]["other"]).max((1, 2))[1:].min() > 1e-4
    for name, found in json.loads(out.read_text()).items():
        value, count, slopes = found
        np.testing.assert_allclose(value, alone[0], rtol=1e-5, err_msg=name)
        assert count == alone[1]
        for k, slope in slopes.items():
            np.testing.assert_allclose(slope, alone[2][k], atol=1e-6, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_any_split_of_the_batch_is_the_whole(parts):
    """vmap with an axis name stands for devices."""
    w, given = problem()
    alone = measured(w, given)
    split = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), given)
    mapped = jax.vmap(lambda b: measured(w, b, "batch"), axis_name="batch")
    ours = jax.tree.map(lambda x: x[0], jax.jit(mapped)(split))
    chex.assert_trees_all_close(ours, alone, atol=1e-6, rtol=1e-5)
