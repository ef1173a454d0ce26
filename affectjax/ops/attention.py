"""Masked multi-head attention between two sequences.

Letters: B examples, H heads, Tq target steps, Tk source steps, Dh features a head.
"""

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


def attention_weights(
    query: jax.Array,
    key: jax.Array,
    *,
    key_mask: jax.Array | None = None,
    bias: jax.Array | None = None,
) -> jax.Array:
    """Returns the attention of each target step over the source steps.

    Args:
      query: `[B, Tq, H, Dh]`.
      key: `[B, Tk, H, Dh]`.
      key_mask: `[B, Tk]` bool, true at steps that may be attended to.
      bias: added to the scores, broadcastable to `[B, H, Tq, Tk]`; -inf forbids.

    Returns:
      `[B, H, Tq, Tk]`, rows summing to one, or all zero where nothing may be attended to.

    Source: Vaswani et al. 2017; eq. 1 of the MCR paper.
    """
    scale = 1.0 / query.shape[-1] ** 0.5
    scores = jnp.einsum("bqhd,bkhd->bhqk", query * scale, _clean(key, key_mask))
    if bias is not None:
        scores = scores + jnp.maximum(bias, jnp.finfo(scores.dtype).min)
    return masked_softmax(scores, _allowed(key_mask, bias, key.shape[1]))


def apply_attention(
    weights: jax.Array, value: jax.Array, *, key_mask: jax.Array | None = None
) -> jax.Array:
    """Returns `[B, Tq, H, Dh]`: the `value` `[B, Tk, H, Dh]` summed by `weights`."""
    return jnp.einsum("bhqk,bkhd->bqhd", weights, _clean(value, key_mask))


def crossmodal_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    key_mask: jax.Array | None = None,
    bias: jax.Array | None = None,
) -> jax.Array:
    """Returns what each target step gathers from the source, through JAX's own attention.

    Args:
      query: `[B, Tq, H, Dh]`, from the target.
      key: `[B, Tk, H, Dh]`, from the source.
      value: `[B, Tk, H, Dh]`, from the source.
      key_mask: `[B, Tk]` bool, true at steps that may be attended to.
      bias: added to the scores, broadcastable to `[B, H, Tq, Tk]`; -inf forbids.

    Returns:
      `[B, Tq, H, Dh]`; exact zeros for a row with nothing to attend to, with finite gradients.

    Source: eq. 1 of the MCR paper.
    """
    allowed = _allowed(key_mask, bias, key.shape[1])
    if bias is not None:
        bias = jnp.maximum(bias, jnp.finfo(query.dtype).min)
    gathered = jax.nn.dot_product_attention(
        query, _clean(key, key_mask), _clean(value, key_mask), bias=bias, mask=allowed
    )
    if allowed is None:
        return gathered
    some = jnp.broadcast_to(allowed, (*allowed.shape[:-1], key.shape[1])).any(-1)  # [B, H|1, Tq|1]
    return jnp.where(jnp.swapaxes(some, 1, 2)[..., None], gathered, 0)


def causal_bias(targets: int, sources: int) -> jax.Array:
    """Returns `[1, 1, Tq, Tk]`: 0 where a source step is not later than the target step, else -inf.

    With unequal lengths the longer one may run ahead by the difference, as in MulT's own mask.

    Source: Tsai et al. 2019, the authors' future mask.
    """
    ahead = jnp.arange(sources)[None, :] - jnp.arange(targets)[:, None]
    return jnp.where(ahead <= abs(sources - targets), 0.0, -jnp.inf)[None, None]
