"""Dropout by counter: rates, independence, gradients, the same bits on any number of devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from affectjax.models.layers import Dropout
from affectjax.ops.dropout import dropout

SHAPE = (64, 16, 32)
RATES = (0.1, 0.25, 0.5, 0.9)
COMMON = (0, 1, 2, 3, 42)


def kept(seed=0, rate=0.5, shape=SHAPE):
    """Returns which elements are kept, and checks that they are scaled."""
    y = np.asarray(dropout(jnp.ones(shape), jax.random.key(seed), rate))
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / (1 - rate))}
    return y > 0


def correlation(a, b):
    """Returns the correlation of two sets of coin flips in standard errors."""
    a, b = (np.asarray(x, np.float64).ravel() for x in (a, b))
    return np.corrcoef(a, b)[0, 1] * np.sqrt(a.size)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("seed", COMMON)
def test_rate_is_kept_overall_and_along_every_axis(seed, rate):
    keep = kept(seed, rate)
    assert abs(keep.mean() - (1 - rate)) < 5 * np.sqrt(rate * (1 - rate) / keep.size)
    for axes in ((1, 2), (0, 2), (0, 1), 0, 1, 2):
        part = keep.mean(axes)
        error = np.sqrt(rate * (1 - rate) * part.size / keep.size)
        # Up to 2048 averages: six standard errors happen once in a hundred thousand runs. At the
        # rates' ends averages of 16 are skew, so the bound for them is wider.
        assert (
            np.abs(part - (1 - rate)).max() < (6.5 if keep.size // part.size >= 512 else 8) * error
        )
        # Neither too even: the averages vary as those of coin flips do.
        spread = part.var() / error**2
        assert abs(spread - 1) < 6 * np.sqrt(2 / part.size)


@pytest.mark.parametrize("seed", COMMON)
def test_rows_steps_and_features_are_not_correlated(seed):
    keep = kept(seed)
    for axis, length in enumerate(SHAPE):
        for lag in (1, 2, 3, 4, 8, 15):
            there = np.take(keep, range(lag, length), axis)
            here = np.take(keep, range(length - lag), axis)
            assert abs(correlation(here, there)) < 5, (axis, lag)
    rows = np.corrcoef(keep.reshape(len(keep), -1).astype(float))
    np.fill_diagonal(rows, 0)
    assert np.abs(rows).max() < 5.5 / np.sqrt(keep[0].size)
    # A hash that mixes badly repeats a row's bits at other places of another row.
    for a, b in ((0, 1), (0, 2), (3, 17)):
        first, second = (keep[r].ravel() * 2.0 - 1 for r in (a, b))
        circular = np.fft.ifft(np.fft.fft(first) * np.conj(np.fft.fft(second))).real
        assert np.abs(circular).max() < 6 * np.sqrt(first.size)
        swapped = [np.sum(first * second[np.arange(first.size) ^ x]) for x in range(first.size)]
        assert np.abs(swapped).max() < 6 * np.sqrt(first.size)


def test_keys_are_not_correlated():
    keys = [*map(jax.random.key, range(6)), *jax.random.split(jax.random.key(0), 6)]
    keys += [jax.random.fold_in(jax.random.key(1), i) for i in range(6)]
    # Raw neighbours in both words, as a counter would make them.
    keys += [jax.random.wrap_key_data(jnp.array(w, jnp.uint32)) for w in ((1, 0), (2, 0), (7, 9))]
    x = jnp.ones((16, 16, 32))
    masks = [np.asarray(dropout(x, key, 0.5)) > 0 for key in keys]
    for i, a in enumerate(masks):
        for b in masks[:i]:
            assert abs(correlation(a, b)) < 5
            assert abs(correlation(a[1:], b[:-1])) < 5


def test_dimensions_beyond_the_first_are_one_place():
    """What lies where in a row decides, not how the row is shaped."""
    flat = dropout(jnp.ones((4, 24)), jax.random.key(5), 0.5)
    for shape in ((4, 6, 4), (4, 2, 3, 4), (4, 24, 1)):
        shaped = dropout(jnp.ones(shape), jax.random.key(5), 0.5)
        np.testing.assert_array_equal(shaped.reshape(4, 24), flat)


def test_mean_is_kept():
    x = np.random.default_rng(0).uniform(1, 2, SHAPE).astype(np.float32)
    for rate in RATES:
        y = np.asarray(dropout(x, jax.random.key(1), rate), np.float64)
        error = np.sqrt(rate / (1 - rate) * np.mean(x.astype(np.float64) ** 2) / x.size)
        assert abs(y.mean() - x.mean(dtype=np.float64)) < 5 * error


def test_kept_values_are_scaled_and_others_are_zero_even_of_nan():
    x = jnp.where(jnp.arange(4 * 64).reshape(4, 64) % 2 == 0, jnp.nan, 3.0)
    y = np.asarray(dropout(x, jax.random.key(2), 0.5))
    keep = kept(2, 0.5, (4, 64))
    np.testing.assert_array_equal(y[~keep], 0)
    np.testing.assert_array_equal(y[keep], np.asarray(x)[keep] * 2)


@pytest.mark.parametrize("rate", (0.1, 0.5))
def test_gradient_is_the_mask_over_the_rate_kept(rate):
    key, shape = jax.random.key(3), (8, 5, 4)
    rng = np.random.default_rng(0)
    x, weight = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(dropout(x, key, rate) * weight)))(x)
    np.testing.assert_allclose(gradient, weight * kept(3, rate, shape) / (1 - rate), rtol=1e-6)


def test_rate_zero_is_identity():
    x = jnp.arange(6.0).reshape(2, 3)
    assert dropout(x, jax.random.key(0), 0.0) is x


def test_same_numbers_jitted_and_from_raw_key_data():
    x, key = jnp.ones((8, 7)), jax.random.key(11)
    expected = dropout(x, key, 0.3)
    jitted = jax.jit(lambda x, k: dropout(x, k, 0.3))
    np.testing.assert_array_equal(jitted(x, key), expected)
    np.testing.assert_array_equal(dropout(x, jax.random.key_data(key), 0.3), expected)
    assert (np.asarray(jitted(x, jax.random.key(12))) != expected).any()


@pytest.mark.parametrize("parts", (2, 4, 8))
def test_batch_split_over_mapped_rows_drops_the_same(parts):
    """vmap with an axis name stands for devices: `axis_index` is the device's number."""
    rng = np.random.default_rng(1)
    x, weight = (rng.standard_normal((8, 6, 5)).astype(np.float32) for _ in range(2))
    key = jax.random.key(4)

    def both(x, weight, axis_name):
        value = lambda x: jnp.sum(dropout(x, key, 0.4, axis_name) * weight)  # noqa: E731
        return dropout(x, key, 0.4, axis_name), jax.grad(value)(x)

    split = lambda a: a.reshape(parts, 8 // parts, *a.shape[1:])  # noqa: E731
    mapped = jax.jit(jax.vmap(lambda x, w: both(x, w, "batch"), axis_name="batch"))
    ours = mapped(split(x), split(weight))
    for part, whole in zip(ours, both(x, weight, None), strict=True):
        np.testing.assert_array_equal(part.reshape(whole.shape), whole)


def test_models_that_train_side_by_side_drop_what_each_alone_would():
    """vmap over keys, as `config.seeds` does, changes no model's mask."""
    keys, x = jax.random.split(jax.random.key(6), 3), jnp.ones((4, 9))
    together = jax.vmap(lambda k: dropout(x, k, 0.5))(keys)
    for key, ours in zip(keys, together, strict=True):
        np.testing.assert_array_equal(ours, dropout(x, key, 0.5))


def test_half_precision_keeps_its_type():
    y = dropout(jnp.ones((4, 8), jnp.bfloat16), jax.random.key(0), 0.5)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(y, np.float32) > 0, kept(0, 0.5, (4, 8)))


def test_module_drops_in_training_only_and_by_its_rng():
    x, net = jnp.ones((4, 32)), Dropout(0.5)
    apply = lambda seed: net.apply({}, x, train=True, rngs={"dropout": jax.random.key(seed)})  # noqa: E731
    np.testing.assert_array_equal(net.apply({}, x, train=False), x)
    np.testing.assert_array_equal(apply(0), apply(0))
    assert (np.asarray(apply(0)) != np.asarray(apply(1))).any()
