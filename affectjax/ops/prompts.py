"""The prompt pool: retrieval by similarity, what its usage costs, and sparse feature fusion.

Letters: B examples, D features, N prompts of the pool, k prompts an example, L tokens of a prompt,
Dt features of a token, H hidden features of the gates, M modalities.
"""

import jax
import jax.numpy as jnp
from jax import lax


def _unit(x: jax.Array) -> jax.Array:
    """Returns `x` `[..., D]` at length one, in float32; a zero vector stays, without gradient."""
    x = x.astype(jnp.float32)
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    some = square >= jnp.finfo(jnp.float32).tiny
    # Two selects: the root's slope at zero is infinite, and infinity times zero is NaN.
    return jnp.where(some, x / jnp.sqrt(jnp.where(some, square, 1)), 0)


def cosine(query: jax.Array, keys: jax.Array) -> jax.Array:
    """Returns `[B, N]` float32: the cosine of each query `[B, D]` with each key `[N, D]`.

    Zero where one of the two is a zero vector, with zero gradient to that vector.

    Equation: UMBEnet (8)
    """
    # Full precision: in the products of an accelerator close prompts would change places.
    return jnp.matmul(_unit(query), _unit(keys).T, precision=lax.Precision.HIGHEST)


def retrieve(
    query: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    k: int,
    penalty: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the k prompts most similar to each query, best first, ties to the lower index.

    The choice passes no gradient; the values and the similarity do.

    Args:
      query: `[B, D]`.
      keys: `[N, D]`.
      values: `[N, L, Dt]`.
      k: from 1 to N.
      penalty: `[N]`, taken from the cosines before the choice (see `usage_penalty`), or None.

    Returns:
      values `[B, k, L, Dt]`, index `[B, k]` int32 and similarity `[B, k]`, the cosine without the
      penalty.

    Raises:
      ValueError: the pool holds fewer than k prompts.

    Equation: UMBEnet (4)
    Equation: UMBEnet (6)
    Equation: UMBEnet (7)
    Equation: UMBEnet (9)

    Source: section 3.2 of that paper, but an example at a time.
    """
    if not 1 <= k <= len(keys):
        raise ValueError(f"k = {k} prompts of a pool of {len(keys)}: allowed is 1 to {len(keys)}")
    similarity = cosine(query, keys)
    score = similarity if penalty is None else similarity - penalty
    # top_k ranks 0 above -0, and the cosines of a zero query have either sign.
    _, index = lax.top_k(lax.stop_gradient(jnp.where(score == 0, 0, score)), k)
    return values[index], index, jnp.take_along_axis(similarity, index, axis=1)


def pull_loss(query: jax.Array, keys: jax.Array, index: jax.Array) -> jax.Array:
    """Returns `[B]`: how far the chosen keys are from the query, which they alone move towards.

    Args:
      query: `[B, D]`; no gradient flows to it.
      keys: `[N, D]`.
      index: `[B, k]` int32, of the chosen keys.

    Source: `mean(1 - cos(stop_gradient(query), key))`, as in L2P (Wang et al. 2022), since
    a top-k passes no gradient to the keys.
    """
    similarity = cosine(lax.stop_gradient(query), keys)
    return jnp.mean(1 - jnp.take_along_axis(similarity, index, axis=1), axis=1)


def usage(index: jax.Array, weight: jax.Array, prompts: int) -> jax.Array:
    """Returns `[N]` float32: how often each prompt was chosen.

    Args:
      index: `[B, k]` int32, of the chosen prompts.
      weight: `[B]`, what a choice of the example counts; 0 on rows that only pad.
      prompts: N.
    """
    chosen = jax.nn.one_hot(index, prompts).sum(1)  # [B, N]
    return jnp.sum(chosen * weight[:, None], axis=0)


def usage_penalty(counts: jax.Array, rate: float) -> jax.Array:
    """Returns `[N]`: `rate` times each prompt's share of all choices so far, zeros before any.

    Args:
      counts: `[N]`, the choices so far.
      rate: what a prompt that is always chosen loses in similarity.
    """
    total = jnp.sum(counts)
    return rate * counts / jnp.where(total > 0, total, 1)


def sparse_gates(
    x: jax.Array, w1: jax.Array, b1: jax.Array, w2: jax.Array, b2: jax.Array
) -> jax.Array:
    """Returns `[..., 1]`: the gate of each token, in (0, 1).

    Args:
      x: `[..., Dt]` tokens.
      w1: `[Dt, H]`, the matrix that `l1` keeps sparse.
      b1: `[H]`.
      w2: `[H, 1]`.
      b2: `[1]`.

    Equation: UMBEnet (11)
    Equation: UMBEnet (12)
    """
    return jax.nn.sigmoid(jax.nn.relu(x @ w1 + b1) @ w2 + b2)


def sparse_fuse(values: jax.Array, gates: jax.Array) -> jax.Array:
    """Returns `[B, L, Dt]`: the prompts `[B, k, L, Dt]` summed over k by gates `[B, k, L, 1]`.

    Equation: UMBEnet (10)
    """
    return jnp.sum(values * gates, axis=1)


def l1(w: jax.Array) -> jax.Array:
    """Returns the sum of the absolute values of `w`.

    Equation: UMBEnet (13)
    """
    # Not jnp.abs, whose slope at zero is 1: a weight that has become zero may stay there.
    return jnp.sum(w * jnp.sign(w))


def activated(counts: jax.Array, threshold: float) -> jax.Array:
    """Returns `[N]` bool: the prompts that serve some modality, to be handed over.

    A prompt serves a modality that has chosen it, and at least `threshold` times as often as if
    the modality had chosen all N alike. A modality that has chosen nothing is served by none.

    Args:
      counts: `[M, N]`, the choices by modality.
      threshold: in units of the uniform share, 1 / N of the modality's choices.

    Source: section 3.4 of the UMBEnet paper.
    """
    uniform = jnp.mean(counts, axis=1, keepdims=True)
    return jnp.any((counts > 0) & (counts >= threshold * uniform), axis=0)
