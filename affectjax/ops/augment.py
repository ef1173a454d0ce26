"""Augmentation on the device: of clips and spectrograms one gather, of waveforms one product.

What is drawn depends on the key and on the example's place in the global batch, so four devices
change a batch as one would.
Letters: B examples on this device, T frames or tokens, H height, W width, S samples, M mel bands.
"""

import jax
import jax.numpy as jnp

from affectjax.ops.dropout import global_rows
from affectjax.ops.masking import masked_mean

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


def turn(
    frames: jax.Array,
    flipped: jax.Array,
    down: jax.Array,
    right: jax.Array,
    angle: jax.Array,
    scale: jax.Array,
) -> jax.Array:
    """Returns the clips mirrored, then turned and scaled around their middle, then moved; float32.

    Between pixels by the four around; the edge is repeated where nothing was.

    Args:
      frames: `[B, T, H, W, D]`, uint8 or floating.
      flipped: `[B]` bool, which clips are mirrored.
      down: `[B]`, pixels to move down.
      right: `[B]`, pixels to move right.
      angle: `[B]`, radians, clockwise as seen.
      scale: `[B]`, above 1 for larger.
    """
    height, width = frames.shape[2:4]
    middle = (height - 1) / 2, (width - 1) / 2
    down, right, cosine, sine = (
        x[:, None, None] for x in (down, right, jnp.cos(angle) / scale, jnp.sin(angle) / scale)
    )
    y = jnp.arange(height)[:, None] - middle[0] - down
    x = jnp.arange(width) - middle[1] - right
    rows = jnp.clip(cosine * y - sine * x + middle[0], 0, height - 1)
    columns = jnp.clip(cosine * x + sine * y + middle[1], 0, width - 1)
    columns = jnp.where(flipped[:, None, None], width - 1 - columns, columns)
    top, left = jnp.floor(rows).astype(jnp.int32), jnp.floor(columns).astype(jnp.int32)
    below, beside = (rows - top)[:, None, ..., None], (columns - left)[:, None, ..., None]
    flat = frames.reshape(*frames.shape[:2], height * width, -1)
    pick = jax.vmap(lambda clip, place: clip[:, place])

    def row(y):
        first = pick(flat, y * width + left)
        second = pick(flat, y * width + jnp.minimum(left + 1, width - 1))
        return first * (1 - beside) + second * beside

    return row(top) * (1 - below) + row(jnp.minimum(top + 1, height - 1)) * below


def flip_and_shift(
    frames: jax.Array,
    key: jax.Array,
    axis_name: str | None,
    *,
    flip: float = 0.5,
    shift: float = 0.0,
    contrast: float = 0.0,
    brightness: float = 0.0,
    rotate: float = 0.0,
    zoom: float = 0.0,
    erase: float = 0.0,
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
      rotate: degrees by which a clip turns around its middle at most.
      zoom: the most that its scale differs from 1.
      erase: of height and width, the part that a grey square takes, on half of the clips; 0 for no
        square. Source: DeVries and Taylor 2017, "Improved Regularization of Convolutional Neural
        Networks with Cutout"; Zhong et al. 2020, "Random Erasing Data Augmentation", who leave half
        of the images as they are.
    """
    height, width = frames.shape[2:4]
    mirror, down, right, factor, light = _draw(key, len(frames), axis_name, 5)
    mirrored = mirror < flip
    down, right = _moves(down, round(shift * height)), _moves(right, round(shift * width))
    if rotate or zoom:
        turned, grown = _draw(jax.random.fold_in(key, 1), len(frames), axis_name, 2)
        angle, scale = jnp.radians(rotate) * (2 * turned - 1), 1 + zoom * (2 * grown - 1)
        frames = turn(frames, mirrored, down, right, angle, scale)
        mirrored, down, right = mirrored & False, 0 * down, 0 * right
    gain = 1 + contrast * (2 * factor - 1)
    offset = WHITE / 2 * (1 - gain) + WHITE * brightness * (2 * light - 1)
    frames = warp(frames, mirrored, down, right, gain, offset)
    return _erased(frames, jax.random.fold_in(key, 2), axis_name, erase) if erase else frames


def _erased(frames: jax.Array, key: jax.Array, axis_name: str | None, part: float) -> jax.Array:
    """Returns the clips `[B, T, H, W, D]`, on half of them a grey square, see `flip_and_shift`."""
    height, width = frames.shape[2:4]
    u, y, x = _draw(key, len(frames), axis_name, 3)

    def hole(u, extent):
        size = jnp.full(len(u), round(part * extent))
        return _hole(u, size, jnp.full(len(u), extent), extent)

    square = hole(y, height)[:, :, None] & hole(x, width)[:, None] & (u < 0.5)[:, None, None]
    return jnp.where(square[:, None, ..., None], WHITE / 2, frames)


def hide_tokens(mask: jax.Array, key: jax.Array, axis_name: str | None, rate: float) -> jax.Array:
    """Returns the mask `[B, T]` with tokens hidden at random, never the first and last of a text.

    Args:
      mask: `[B, T]` bool, true at the tokens of a text.
      key: a JAX random key, the same on every device.
      axis_name: the mapped axis over which the batch is split, None where it is whole.
      rate: the probability that a token is hidden.
    """
    hidden = jnp.stack(_draw(key, len(mask), axis_name, mask.shape[1]), axis=1) < rate
    place = jnp.cumsum(mask, axis=1)
    ends = (place == 1) | (place == mask.sum(1, keepdims=True))
    return mask & (ends | ~hidden)


def jitter_waveform(
    x: jax.Array,
    mask: jax.Array,
    key: jax.Array,
    axis_name: str | None,
    *,
    gain_db: float = 0.0,
    delay: float = 0.0,
    noise: float = 0.0,
) -> jax.Array:
    """Returns `[B, S]` float32: each waveform changed at random, zeros where masked.

    Args:
      x: `[B, S]`.
      mask: `[B, S]` bool, true at samples that count.
      key: a JAX random key, the same on every device, and not the one that changes the frames.
      axis_name: the mapped axis over which the batch is split, None where it is whole.
      gain_db: decibels of amplitude, up or down at most.
      delay: of S, the part by which a waveform comes later or sooner at most, in whole samples;
        silence where nothing was.
      noise: the largest amplitude of white noise at most.
    """
    samples = x.shape[1]
    u, late, loud = _draw(key, len(x), axis_name, 3)
    x = jnp.where(mask, x.astype(jnp.float32), 0) * (10 ** (gain_db * (2 * u - 1) / 20))[:, None]
    if delay:
        place = jnp.arange(samples) - _moves(late, round(delay * samples))[:, None]
        moved = jnp.take_along_axis(x, jnp.clip(place, 0, samples - 1), axis=1)
        x = jnp.where((place >= 0) & (place < samples), moved, 0)
    if noise:
        rows = jax.vmap(jax.random.fold_in, (None, 0))(key, global_rows(len(x), axis_name))
        # Another key than that of the draws above.
        hiss = lambda row: jax.random.uniform(jax.random.fold_in(row, 1), (samples,), minval=-1)  # noqa: E731
        x += noise * loud[:, None] * jax.vmap(hiss)(rows)
    return jnp.where(mask, x, 0)


def mask_spectrogram(
    x: jax.Array,
    mask: jax.Array,
    key: jax.Array,
    axis_name: str | None,
    *,
    steps: float = 0.0,
    bands: float = 0.0,
    shift: int = 0,
    holes: int = 1,
) -> jax.Array:
    """Returns spectrograms `[B, T, M]` with other voices and with holes; float32.

    What stands in a hole is the mean of the sound.

    Args:
      x: `[B, T, M]` in decibels.
      mask: `[B, T]` bool, true at frames that count, which come first; only they have holes.
      key: a JAX random key, the same on every device.
      axis_name: the mapped axis over which the batch is split, None where it is whole.
      steps: of a sound's frames, the part that a hole in time takes at most.
      bands: of M, the part that a hole in pitch takes at most.
      shift: bands by which a sound moves up or down at most; the edge is repeated where nothing
        was. It makes a throat of another size.
      holes: how many there are in time, and as many in pitch.

    Source: Park et al. 2019, "SpecAugment"; Jaitly and Hinton 2013, "Vocal Tract Length
    Perturbation", here as a shift of the mel scale.
    """
    frames, count = mask.sum(-1), x.shape[2]
    up, *draws = _draw(key, len(x), axis_name, 1 + 4 * holes)
    place = jnp.arange(count) - _moves(up, shift)[:, None]
    x = jnp.take_along_axis(x, jnp.clip(place, 0, count - 1)[:, None], axis=2)
    whole = masked_mean(x.mean(-1, keepdims=True), mask)
    hole = jnp.zeros(x.shape, bool)
    for when, where, long, wide in zip(*[iter(draws)] * 4, strict=True):
        in_time = _hole(when, steps * long * frames, frames, x.shape[1])
        in_pitch = _hole(where, bands * wide * count, jnp.full(len(x), count), count)
        hole |= in_time[:, :, None] | in_pitch[:, None]
    return jnp.where(hole & mask[..., None], whole[:, None], x)


def change_speed(
    x: jax.Array, mask: jax.Array, key: jax.Array, axis_name: str | None, most: float
) -> tuple[jax.Array, jax.Array]:
    """Returns spectrograms `[B, T, M]` played faster or slower, and their masks `[B, T]`.

    Between frames it is linear. What a slower sound has after T frames is cut.

    Args:
      x: `[B, T, M]`.
      mask: `[B, T]` bool, true at frames that count, which come first.
      key: a JAX random key, the same on every device.
      axis_name: the mapped axis over which the batch is split, None where it is whole.
      most: the most that the speed differs from 1.

    Source: Ko et al. 2015, "Audio Augmentation for Speech Recognition".
    """
    (u,) = _draw(key, len(x), axis_name, 1)
    length = mask.sum(-1, keepdims=True)
    place = jnp.arange(x.shape[1]) * (1 + most * (2 * u - 1))[:, None]
    before = jnp.clip(jnp.floor(place).astype(jnp.int32), 0, jnp.maximum(length - 1, 0))
    after = jnp.minimum(before + 1, jnp.maximum(length - 1, 0))
    part = (place - before)[..., None]
    first, second = (jnp.take_along_axis(x, i[..., None], axis=1) for i in (before, after))
    return first + part * (second - first), (place <= length - 1) & mask.any(-1, keepdims=True)


def _hole(u: jax.Array, width: jax.Array, length: jax.Array, places: int) -> jax.Array:
    """Returns `[B, places]`: which of the first `length` are in a hole, which `u` `[B]` places."""
    width = jnp.floor(width)
    start = jnp.floor(u * (length - width + 1))[:, None]
    place = jnp.arange(places)
    return (place >= start) & (place < start + width[:, None])
