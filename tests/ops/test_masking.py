"""Masks over time, against loops over the steps."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from affectjax.ops import masking

# Whole; padded at the end; at the front; with a hole; nothing valid.
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 1, 1, 1], [1, 0, 1, 0, 0], [0] * 5], bool)
B, T, D = 5, 5, 6


def values(junk=0.0):
    x = np.random.default_rng(0).standard_normal((B, T, D)).astype(np.float32)
    return np.where(MASK[..., None], x, np.float32(junk))


def literal(x, kind):
    rows = [[x[b, t] for t in range(T) if MASK[b, t]] for b in range(B)]
    nothing = np.zeros(D)
    if kind == "mean":
        return np.stack([sum(row) / len(row) if row else nothing for row in rows])
    return np.stack([row[-1] if row else nothing for row in rows])


POOLS = {"mean": masking.masked_mean, "last": masking.last_valid}


@pytest.mark.parametrize("junk", [0, 1e38, np.nan, np.inf])
@pytest.mark.parametrize("kind", POOLS)
def test_pooling_is_the_literal_one_whatever_is_masked(kind, junk):
    x = values(junk)
    pooled = POOLS[kind](x, MASK)
    chex.assert_shape(pooled, (B, D))
    np.testing.assert_allclose(pooled, literal(x, kind), atol=1e-6)
    gradient = jax.grad(lambda x: jnp.sum(jnp.sin(POOLS[kind](x, MASK))))(x)
    clean = jax.grad(lambda x: jnp.sum(jnp.sin(POOLS[kind](x, MASK))))(values())
    chex.assert_tree_all_finite(gradient)
    np.testing.assert_array_equal(gradient, clean)
    assert (np.asarray(gradient)[~MASK] == 0).all()


@pytest.mark.parametrize("junk", [7, np.nan, -np.inf])
def test_zero_masked(junk):
    zeroed = masking.zero_masked(values(junk), MASK)
    np.testing.assert_array_equal(zeroed, values())
    assert not np.signbit(np.asarray(zeroed)[~MASK]).any()


@pytest.mark.parametrize("width", [4, 6, 7, 40])
def test_sinusoids_are_the_formula(width):
    """Position p of feature i: sin(p / 10000^(i / (half - 1))), the cosines after, then a zero."""
    half = width // 2
    expected = np.zeros((B, T, width))
    for b in range(B):
        position = 0
        for t in range(T):
            if MASK[b, t]:
                position += 1
                for i in range(half):
                    angle = position / 10000 ** (i / (half - 1))
                    expected[b, t, i] = np.sin(angle)
                    expected[b, t, half + i] = np.cos(angle)
    table = masking.sinusoids(jnp.asarray(MASK), width)
    chex.assert_shape(table, (B, T, width))
    np.testing.assert_allclose(table, expected, atol=1e-5)
    assert (np.asarray(table)[~MASK] == 0).all()
    # Padding at the front or at the end: the valid steps get the same positions.
    np.testing.assert_array_equal(table[2, 2:], table[0, :3])
    np.testing.assert_array_equal(table[1, :2], table[0, :2])


def test_sinusoids_of_long_sequences_stay_exact():
    table = np.asarray(masking.sinusoids(jnp.ones((1, 1500), bool), 4))[0]
    position = np.arange(1, 1501)
    for i, rate in enumerate((1.0, 1e-4)):
        np.testing.assert_allclose(table[:, i], np.sin(position * rate), atol=2e-4)
        np.testing.assert_allclose(table[:, 2 + i], np.cos(position * rate), atol=2e-4)


@pytest.mark.parametrize("junk", [7, np.nan, -np.inf])
def test_standardized_is_numpys_over_valid_steps(junk):
    x = np.random.default_rng(0).normal(3, 2, (3, 6, 4)).astype(np.float32)
    mask = np.arange(6) < np.array([6, 2, 0])[:, None]
    ours = np.asarray(masking.standardized(np.where(mask[..., None], x, junk), mask, 1e-12))
    for row, given, valid in zip(ours[:2], x, mask, strict=False):
        expected = (given[valid] - given[valid].mean(0)) / given[valid].std(0)
        np.testing.assert_allclose(row[valid], expected, atol=1e-4)
    assert not np.any(ours[~mask])
