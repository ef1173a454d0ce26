"""Masks over time: what stands at a masked step must not matter.

Letters: B examples, T steps, D features.
"""

import jax
import jax.numpy as jnp


def zero_masked(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns `x` `[B, T, D]` with exact zeros where `mask` `[B, T]` is false, NaN included."""
    return jnp.where(mask[..., None], x, 0)


def masked_mean(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns `[B, D]`: the mean of `x` `[B, T, D]` over valid steps; zeros where there is none."""
    count = mask.sum(-1, keepdims=True)
    return zero_masked(x, mask).sum(-2) / jnp.maximum(count, 1)


def centred(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns `x` `[B, T, D]` less its mean over valid steps; zeros at the others."""
    return zero_masked(x - masked_mean(x, mask)[:, None], mask)


def standardized(x: jax.Array, mask: jax.Array, epsilon: float = 1e-2) -> jax.Array:
    """Returns `[B, T, D]`: each feature with mean 0 and deviation 1 over valid steps.

    Args:
      x: `[B, T, D]`.
      mask: `[B, T]`; masked steps come out as zeros.
      epsilon: added to the variance, in the squared unit of `x`.
    """
    x = centred(x, mask)
    return x * jax.lax.rsqrt(masked_mean(jnp.square(x), mask) + epsilon)[:, None]


def last_valid(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns `[B, D]`: `x` `[B, T, D]` at the last valid step; zeros where there is none."""
    steps = mask.shape[-1]
    index = steps - 1 - jnp.argmax(mask[:, ::-1], axis=-1)
    taken = jnp.take_along_axis(x, index[:, None, None], axis=1)[:, 0]
    return jnp.where(mask.any(-1)[:, None], taken, 0)


def shares(mask: jax.Array) -> jax.Array:
    """Returns `[B, T]`, where in its sequence each valid step lies, between 0 and 1.

    Args:
      mask: `[B, T]` bool; steps that are not valid get 0.
    """
    count = jnp.cumsum(mask, axis=-1)
    return (count - 0.5) * mask / jnp.maximum(count[..., -1:], 1)


def sinusoids(mask: jax.Array, width: int) -> jax.Array:
    """Returns position sinusoids `[B, T, D]`, sines in the first half and cosines in the second.

    Valid steps count 1, 2, ... wherever the padding stands; padded steps get zeros.

    Args:
      mask: `[B, T]` bool.
      width: D, at least 4.

    Source: Vaswani et al. 2017, section 3.5, in the layout of MulT's authors.
    """
    half = width // 2
    rate = jnp.exp(jnp.arange(half) * (-jnp.log(10000.0) / (half - 1)))
    position = jnp.cumsum(mask, axis=-1)
    angle = position[..., None] * rate
    table = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)
    return zero_masked(jnp.pad(table, ((0, 0), (0, 0), (0, width % 2))), mask)
