"""Augmentation on the device: of clips one gather, of waveforms one product.

What is drawn depends on the key and on the example's place in the global batch, so four devices
change a batch as one would.
Letters: B examples on this device, T frames, H height, W width, S samples.
"""

import jax
import jax.numpy as jnp

from affectjax.ops.dropout import global_rows

WHITE = 255.0


def _draw(key: jax.Array, batch: int, axis_name: str | None, count: int) -> list[jax.Array]:
    """Returns `count` arrays `[B]`, uniform in [0, 1)."""
    one = lambda row: jax.random.uniform(jax.random.fold_in(key, row), (count,))  # noqa: E731
    return list(jax.vmap(one)(global_rows(batch, axis_name)).T)


def _moves(u: jax.Array, most: int) -> jax.Array:
    """Returns whole numbers from -most to most, all alike likely, from `u` in [0, 1)."""
    return jnp.floor(u * (2 * most + 1)).astype(jnp.int32) - most


def warp(
    frames: jax.Array,
    flipped: jax.Array,
    down: jax.Array,
    right: jax.Array,
    gain: jax.Array,
    offset: jax.Array,
) -> jax.Array:
    """Returns the clips moved, then mirrored, then in another light; float32 in [0, 255].

    Args:
      frames: `[B, T, H, W, 3]` in [0, 255], uint8 or floating.
      flipped: `[B]` bool, which clips are mirrored.
      down: `[B]` int32, pixels to move down; the edge is repeated where nothing was.
      right: `[B]` int32, pixels to move right.
      gain: `[B]`, times the grey levels.
      offset: `[B]`, then added to them.
    """
    height, width = frames.shape[2:4]
    rows = jnp.clip(jnp.arange(height) - down[:, None], 0, height - 1)
    columns = jnp.arange(width)
    columns = jnp.where(flipped[:, None], width - 1 - columns, columns)
    columns = jnp.clip(columns - right[:, None], 0, width - 1)
    # One gather, into which XLA fuses what follows: the clips are read once and written once.
    moved = jax.vmap(lambda x, i, j: x[:, i[:, None], j])(frames, rows, columns)
    gain, offset = (x[:, None, None, None, None] for x in (gain, offset))
    return jnp.clip(moved.astype(jnp.float32) * gain + offset, 0, WHITE)


def flip_and_shift(
    frames: jax.Array,
    key: jax.Array,
    axis_name: str | None,
    *,
    flip: float = 0.5,
    shift: float = 0.0,
    contrast: float = 0.0,
    brightness: float = 0.0,
) -> jax.Array:
    """Returns the clips changed at random, all frames of a clip alike; float32 in [0, 255].

    Args:
      frames: `[B, T, H, W, 3]` in [0, 255], uint8 or floating.
      key: a JAX random key, the same on every device.
      axis_name: the mapped axis over which the batch is split, None where it is whole.
      flip: the probability that a clip is mirrored.
      shift: of height and width, the part by which a clip moves at most, in whole pixels.
      contrast: the most that the factor around mid-grey differs from 1. Mid-grey and not the
        clip's mean, which would take a pass of its own and see padded frames.
      brightness: of white, the part that is added or taken away at most.
    """
    height, width = frames.shape[2:4]
    mirror, down, right, factor, light = _draw(key, len(frames), axis_name, 5)
    gain = 1 + contrast * (2 * factor - 1)
    return warp(
        frames,
        mirror < flip,
        _moves(down, round(shift * height)),
        _moves(right, round(shift * width)),
        gain,
        WHITE / 2 * (1 - gain) + WHITE * brightness * (2 * light - 1),
    )


def jitter_waveform(
    x: jax.Array, mask: jax.Array, key: jax.Array, axis_name: str | None, *, gain_db: float
) -> jax.Array:
    """Returns `[B, S]` float32: each waveform louder or softer at random, zeros where masked.

    Args:
      x: `[B, S]`.
      mask: `[B, S]` bool, true at samples that count.
      key: a JAX random key, the same on every device, and not the one that changes the frames.
      axis_name: the mapped axis over which the batch is split, None where it is whole.
      gain_db: decibels of amplitude, up or down at most.
    """
    (u,) = _draw(key, len(x), axis_name, 1)
    gain = 10 ** (gain_db * (2 * u - 1) / 20)
    return jnp.where(mask, x.astype(jnp.float32) * gain[:, None], 0)
