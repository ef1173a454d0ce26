"""Dropout whose bits depend on the example's place in the global batch, not on the device.

A counter-based hash draws the bits where they are used: XLA fuses it into the product with the
mask, nothing is stored for the backward pass, and four devices drop what one device would.
Letters: B examples on this device.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax


def _mix(h: jax.Array) -> jax.Array:
    """Returns `h` with every bit spread over the whole word, by multiply-xorshift rounds."""
    h = (h ^ (h >> 16)) * jnp.uint32(0x7FEB352D)
    h = (h ^ (h >> 15)) * jnp.uint32(0x846CA68B)
    return h ^ (h >> 16)


def _bits(key: jax.Array, rows: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Returns uint32 `shape`: a hash of (key, row, place within the row)."""
    first, second = key[0], key[1]
    ones = (1,) * (len(shape) - 1)
    row_a = _mix(first + rows * jnp.uint32(0x9E3779B9)).reshape(-1, *ones)
    row_b = _mix(second ^ (rows * jnp.uint32(0x85EBCA6B))).reshape(-1, *ones)
    place, stride = jnp.zeros((), jnp.uint32), 1
    for axis in range(len(shape) - 1, 0, -1):
        place = place + lax.broadcasted_iota(jnp.uint32, (1, *shape[1:]), axis) * jnp.uint32(stride)
        stride *= shape[axis]
    h = place ^ row_a
    h = (h ^ (h >> 16)) * jnp.uint32(0x7FEB352D) + row_b
    h = (h ^ (h >> 15)) * jnp.uint32(0x846CA68B)
    return h ^ (h >> 16)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _drop(x: jax.Array, key: jax.Array, rows: jax.Array, rate: float) -> jax.Array:
    keep = _bits(key, rows, x.shape) >= jnp.uint32(round(rate * 2**32))
    return jnp.where(keep, x * (1.0 / (1.0 - rate)), jnp.zeros((), x.dtype))


def _drop_forward(x, key, rows, rate):
    return _drop(x, key, rows, rate), (key, rows)


def _drop_backward(rate, residuals, cotangent):
    key, rows = residuals
    return _drop(cotangent, key, rows, rate), None, None


_drop.defvjp(_drop_forward, _drop_backward)


def global_rows(batch: int, axis_name: str | None) -> jax.Array:
    """Returns uint32 `[B]`: the places of this device's examples in the global batch."""
    offset = 0 if axis_name is None else lax.axis_index(axis_name) * batch
    return jnp.arange(batch, dtype=jnp.uint32) + jnp.asarray(offset, jnp.uint32)


def dropout(x: jax.Array, key: jax.Array, rate: float, axis_name: str | None = None) -> jax.Array:
    """Zeroes each element with probability `rate` and scales the others by `1 / (1 - rate)`.

    Args:
      x: `[B, ...]`, examples first.
      key: a JAX random key, the same on every device.
      rate: in [0, 1).
      axis_name: the mapped axis over which the batch is split, None where it is whole.

    Returns:
      As `x`. The same numbers for the same global batch, however many devices share it.
    """
    if rate == 0.0:
        return x
    words = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    words = words.astype(jnp.uint32).reshape(-1)
    return _drop(x, words[:2], global_rows(x.shape[0], axis_name), rate)
