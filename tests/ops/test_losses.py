"""Losses by hand, and the weighted mean over any split of the batch."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from affectjax.ops import losses

# Twelve examples; the last five pad, so that a split over four gives a part of padding alone.
WEIGHT = np.array([1, 1, 2, 0.5, 1, 0, 1] + [0] * 5, np.float32)
VALUES = np.arange(1.0, 13.0, dtype=np.float32)
# 1 + 2 + 2 * 3 + 0.5 * 4 + 5 + 7 = 23, over a weight of 6.5.
MEAN = 23 / 6.5


def test_weighted_mean_by_hand():
    np.testing.assert_allclose(losses.weighted_mean(VALUES, WEIGHT), MEAN, rtol=1e-6)
    assert losses.weighted_mean(VALUES, np.zeros(12)) == 0


@pytest.mark.parametrize("parts", [1, 2, 3, 4, 6])
def test_mean_of_the_parts_is_the_mean_of_the_whole(parts):
    split = lambda x: x.reshape(parts, -1)  # noqa: E731

    def part(scale, values, weight):
        return losses.weighted_mean(scale * values, weight, "batch")

    each = jax.vmap(part, in_axes=(None, 0, 0), axis_name="batch")(
        2.0, split(VALUES), split(WEIGHT)
    )
    chex.assert_shape(each, (parts,))
    np.testing.assert_allclose(each.mean(), 2 * MEAN, rtol=1e-6)
    gradient = jax.vmap(jax.grad(part), in_axes=(None, 0, 0), axis_name="batch")
    np.testing.assert_allclose(gradient(2.0, split(VALUES), split(WEIGHT)).mean(), MEAN, rtol=1e-6)


def test_padded_rows_may_hold_anything():
    expected = jax.value_and_grad(losses.weighted_mean)(VALUES, WEIGHT)
    for junk in (np.nan, np.inf, 1e38):
        values = np.where(WEIGHT > 0, VALUES, np.float32(junk))
        ours = jax.value_and_grad(losses.weighted_mean)(values, WEIGHT)
        chex.assert_trees_all_close(ours, expected, rtol=1e-6)
    assert (np.asarray(expected[1])[WEIGHT == 0] == 0).all()


def test_l1_by_hand():
    score, label = jnp.array([1.5, -2.0, 0.0]), jnp.array([1.0, 2.0, 0.0])
    np.testing.assert_allclose(losses.l1(score, label), [0.5, 4, 0])


def test_cross_entropy_by_hand():
    logits = jnp.log(jnp.array([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]])) + 3  # a constant is no matter
    ours = losses.cross_entropy(logits, jnp.array([0, 2]))
    np.testing.assert_allclose(ours, -np.log([0.7, 0.5]), rtol=1e-5)


def test_smoothed_labels_are_those_of_torch():
    torch = pytest.importorskip("torch")
    logits = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    label = np.array([0, 3, 1, 1, 2])
    for smoothing in (0.0, 0.1, 0.7):
        theirs = torch.nn.functional.cross_entropy(
            *map(torch.from_numpy, (logits, label)), label_smoothing=smoothing, reduction="none"
        )
        ours = losses.cross_entropy(logits, label, smoothing)
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-5)


def test_binary_tasks_by_hand():
    probability = np.array([[[0.9, 0.1], [0.4, 0.6]], [[0.5, 0.5], [0.8, 0.2]]])  # [B, K, 2]
    ours = losses.binary_tasks(jnp.log(probability), jnp.array([[0, 1], [1, 1]]))
    expected = [-(np.log(0.9) + np.log(0.6)) / 2, -(np.log(0.5) + np.log(0.2)) / 2]
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_losses_of_extreme_logits_are_finite():
    logits = jnp.array([[1e4, -1e4], [-1e4, 1e4]])
    value, gradient = jax.value_and_grad(
        lambda x: losses.cross_entropy(x, jnp.array([1, 1])).sum()
    )(logits)
    np.testing.assert_allclose(value, 2e4, rtol=1e-6)
    chex.assert_tree_all_finite(gradient)
