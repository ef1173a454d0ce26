"""Masked multi-head attention between two sequences.

Letters: B examples, H heads, Tq target steps, Tk source steps, Dh features a head.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def _allowed(key_mask: jax.Array | None, bias: jax.Array | None, length: int) -> jax.Array | None:
    """Returns bool, broadcastable to `[B, H, Tq, Tk]`, or None where every step is allowed."""
    allowed = None if key_mask is None else key_mask[:, None, None, :]
    if bias is not None:
        finite = bias > -jnp.inf
        finite = jnp.broadcast_to(finite, (*finite.shape[:-1], length))
        allowed = finite if allowed is None else allowed & finite
    return allowed


def masked_softmax(scores: jax.Array, allowed: jax.Array | None) -> jax.Array:
    """Returns the softmax of `scores` over the last axis, zero wherever not `allowed`.

    Args:
      scores: `[..., T]`.
      allowed: bool, broadcastable to `scores`, or None.

    Returns:
      As `scores`; each row sums to one, or to exactly zero where nothing is allowed. Gradients
      are finite in both cases, whatever stands at places that are not allowed.
    """
    if allowed is None:
        return jax.nn.softmax(scores, axis=-1)
    # A finite floor, because softmax of a row of -inf is NaN, forward and backward.
    scores = jnp.where(allowed, scores, jnp.finfo(scores.dtype).min)
    return jnp.where(allowed, jax.nn.softmax(scores, axis=-1), 0)


def _clean(x: jax.Array, key_mask: jax.Array | None) -> jax.Array:
    """Returns `x` `[B, Tk, H, Dh]` with zeros at masked steps: zero times NaN is NaN."""
    return x if key_mask is None else jnp.where(key_mask[:, :, None, None], x, 0)


def attention_scores(
    query: jax.Array, key: jax.Array, *, key_mask: jax.Array | None = None
) -> jax.Array:
    """Returns how well each source step answers each target step, `[B, H, Tq, Tk]`.

    Args:
      query: `[B, Tq, H, Dh]`, from the target.
      key: `[B, Tk, H, Dh]`, from the source.
      key_mask: `[B, Tk]` bool, true at steps that are there.
    """
    scale = 1.0 / query.shape[-1] ** 0.5
    return jnp.einsum("bqhd,bkhd->bhqk", query * scale, _clean(key, key_mask))


def crossmodal_attention(
    scores: jax.Array,
    value: jax.Array,
    *,
    key_mask: jax.Array | None = None,
    bias: jax.Array | None = None,
    drop: Callable[[jax.Array], jax.Array] = lambda weights: weights,
) -> tuple[jax.Array, jax.Array]:
    """Returns what each target step gathers from the source, and its attention.

    Equation: MCR (1)

    Args:
      scores: `[B, H, Tq, Tk]`, see `attention_scores`; MCR adds those of another source to them.
      value: `[B, Tk, H, Dh]`, from the source.
      key_mask: `[B, Tk]` bool, true at steps that may be attended to.
      bias: added to the scores, broadcastable to `[B, H, Tq, Tk]`; -inf forbids.
      drop: dropout of the attention.

    Returns:
      `[B, Tq, H, Dh]`, and the attention `[B, H, Tq, Tk]` before dropout, whose rows sum to one.
      Exact zeros in rows with nothing to attend to; gradients are finite there too.

    Source: Vaswani et al. 2017.
    """
    if bias is not None:
        scores = scores + jnp.maximum(bias, jnp.finfo(scores.dtype).min)
    weights = masked_softmax(scores, _allowed(key_mask, bias, value.shape[1]))
    gathered = jnp.einsum("bhqk,bkhd->bqhd", drop(weights), _clean(value, key_mask))
    return gathered, weights


def causal_bias(targets: int, sources: int) -> jax.Array:
    """Returns `[1, 1, Tq, Tk]`: 0 where a source step is not later than the target step, else -inf.

    With unequal lengths the longer one may run ahead by the difference, as in MulT's own mask.

    Source: Tsai et al. 2019, the authors' future mask.
    """
    ahead = jnp.arange(sources)[None, :] - jnp.arange(targets)[:, None]
    return jnp.where(ahead <= abs(sources - targets), 0.0, -jnp.inf)[None, None]
