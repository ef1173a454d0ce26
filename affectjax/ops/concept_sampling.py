"""Replay of concepts: what a batch draws of their pools, and how far its features are from that.

Letters: B examples on this device, Y labels, P members of the pools of a source, D features, M
sources, K drawn members.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from affectjax.ops.dropout import global_rows
from affectjax.ops.losses import weighted_mean

# By source: "features" [P, D], "rows" [Y, Pmax] int32 and "count" [Y] int32: the members of the
# pool of label y are features[rows[y, :count[y]]].
Arrays = Mapping[str, Mapping[str, Any]]


def draw(
    arrays: Arrays,
    label: jax.Array,
    key: jax.Array,
    count: int = 8,
    axis_name: str | None = None,
    generalize: bool = True,
    *,
    numbers: Mapping[str, int],
) -> tuple[jax.Array, jax.Array]:
    """Returns concepts `[B, D]`, zeros where there is none, and `[B]` bool, where there is one.

    From the pool of the label in each source, `count` members are drawn without replacement, or
    with it where there are fewer. A concept is their mean, then the mean over the sources that
    have such a pool.

    Args:
      arrays: see `Arrays`.
      label: `[B]` int; one that is none of the Y has no concept.
      key: a JAX random key, the same on every device.
      count: K.
      axis_name: the mapped axis over which the batch is split, None where it is whole. The
        same global batch draws the same, however many devices share it.
      generalize: False takes one member of one of those sources, both at random, in place of
        the means.
      numbers: of all sources that there could be, in their order, the numbers from 0.

    Equation: Supramodal (6)

    Source: that paper's section 4.4 for the ablation.
    """
    held = [m for m in numbers if m in arrays]
    pools = [jax.tree.map(jnp.asarray, dict(arrays[m])) for m in held]
    safe = jnp.clip(label, 0, len(pools[0]["count"]) - 1)
    sizes = jnp.stack([pool["count"][safe] for pool in pools], 1)  # [B, M]
    sizes = jnp.where((label == safe)[:, None], sizes, 0)

    fold_in, take = jax.random.fold_in, count if generalize else 1
    keys = jax.vmap(fold_in, (None, 0))(key, global_rows(len(label), axis_name))
    # By the number of the source: the others draw the same where one is taken out.
    own = jax.vmap(jax.vmap(fold_in, (None, 0)), (0, None))(
        keys, jnp.array([numbers[m] for m in held])
    )
    places = jax.vmap(jax.vmap(lambda k, size: _places(k, size, take)))(own, sizes)  # [B, M, K]
    means = [
        pool["features"][pool["rows"][safe[:, None], places[:, m]]].mean(1)
        for m, pool in enumerate(pools)
    ]

    available = sizes > 0
    share = available / jnp.maximum(available.sum(1, keepdims=True), 1)
    if not generalize:
        last = jax.vmap(fold_in, (0, None))(keys, len(numbers))
        chance = jax.vmap(lambda k: jax.random.uniform(k, (len(held),)))(last)
        best = jnp.where(available, chance, -1.0).argmax(1)
        share = available * jax.nn.one_hot(best, len(held))
    return jnp.sum(share[..., None] * jnp.stack(means, 1), axis=1), available.any(1)


def _places(key: jax.Array, size: jax.Array, count: int) -> jax.Array:
    """Returns `[K]` places below `size`, distinct where `size` allows; zeros where it is 0.

    Floyd's algorithm: at step t a number is drawn up to size - K + t, and where it was taken
    before, that limit is taken, which is new. K steps however large the pool, and every subset is
    as likely as any other.
    """
    distinct = size >= count
    limits = jnp.maximum(jnp.where(distinct, size - count + jnp.arange(count), size - 1), 0)
    drawn = jax.random.randint(key, (count,), 0, limits + 1)

    def step(t, taken):
        again = distinct & (taken == drawn[t]).any()
        return taken.at[t].set(jnp.where(again, limits[t], drawn[t]))

    return lax.fori_loop(0, count, step, jnp.full(count, -1, drawn.dtype))


def guidance(
    feature: jax.Array,
    concept: jax.Array,
    present: jax.Array | None = None,
    weight: jax.Array | None = None,
    axis_name: str | None = None,
    reduce: str = "mean",
) -> jax.Array:
    """Returns this device's part of the mean squared distance of features from their concepts.

    Args:
      feature: `[B, D]`, of the guided model.
      concept: `[B, D]`.
      present: `[B]` bool, which examples have a concept; None: those whose concept is not all 0.
        The mean is over these alone.
      weight: `[B]`, 0 on rows that only pad; None: 1 for all.
      axis_name: the mapped axis over which the batch is split, None where it is whole.
      reduce: of the D squares of an example, "mean" or "sum". The paper does not say which; a sum
        counts D times as much beside the cross-entropy.

    Raises:
      ValueError: another `reduce`.

    Equation: Supramodal (7)
    """
    if reduce not in ("mean", "sum"):
        raise ValueError(f"reduce is {reduce!r}; allowed: mean, sum")
    present = (concept != 0).any(-1) if present is None else present
    weight = jnp.where(present, 1.0 if weight is None else weight, 0.0)
    # Selected before the square: a padded row may hold anything, and NaN * 0 is a NaN gradient.
    apart = jnp.where((weight > 0)[:, None], feature - concept, 0).astype(jnp.float32)
    return weighted_mean(getattr(jnp, reduce)(apart**2, axis=-1), weight, axis_name)
