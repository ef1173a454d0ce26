"""Losses an example at a time, and the one mean that is right on every number of devices.

Letters: B examples on this device, C classes, K binary tasks.
"""

import jax
import jax.numpy as jnp
import optax
from jax import lax


def weighted_mean(values: jax.Array, weight: jax.Array, axis_name: str | None = None) -> jax.Array:
    """Returns this device's part of the weighted mean over the global batch.

    The mean of the returned parts over the devices is the weighted mean over all examples, also
    where padded rows (weight 0) lie on some devices only.

    Args:
      values: `[B]`.
      weight: `[B]`, 0 on rows that only pad.
      axis_name: the mapped axis over which the batch is split, None where it is whole.
    """
    total = jnp.sum(weight)
    total = total if axis_name is None else lax.pmean(total, axis_name)
    # A padded row may hold anything: select before the product, since 0 * NaN is NaN.
    return jnp.sum(jnp.where(weight > 0, values, 0) * weight) / jnp.maximum(total, 1e-9)


def l1(score: jax.Array, label: jax.Array) -> jax.Array:
    """Returns `[B]` absolute errors of scores `[B]`. Source: section 4.2 of the MCR paper."""
    return jnp.abs(score - label)


def cross_entropy(
    logits: jax.Array, label: jax.Array, smoothing: jax.Array | float | None = None
) -> jax.Array:
    """Returns `[B]` cross-entropies of `logits` `[B, C]` with classes `[B]` int.

    Args:
      logits: `[B, C]`.
      label: `[B]`.
      smoothing: the part of a label's weight that all classes share alike; None for none. Source:
        Szegedy et al. 2016, "Rethinking the Inception Architecture", section 7.
    """
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    if smoothing is None:
        return loss
    return (1 - smoothing) * loss - smoothing * jax.nn.log_softmax(logits).mean(-1)


def binary_tasks(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Returns `[B]`: the mean over tasks of two-way cross-entropies.

    Args:
      logits: `[B, K, 2]`.
      label: `[B, K]` int, 0 or 1.

    Source: IEMOCAP as four binary tasks, section 4.1.2 of the MCR paper.
    """
    return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean(-1)
