"""Waveforms to mel spectrograms in decibels, as CLAP hears them or at the house's own rate.

All of it runs on the device, in float32. Frames are neighbouring rows side by side, and their
spectrum is a real FFT: a DFT as a matrix product took half as long again on a CPU, and twice as
long backward.
Letters: B examples, S samples, T frames, F frequencies, M mel bands.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from affectjax.ops.masking import zero_masked

# The filter of `resample`: zero crossings on each side, and the shape of its Kaiser window, which
# keeps what lies beyond the pass band 90 dB down.
CROSSINGS, BETA = 32, 9.0
# Samples that one row of the matrix product resamples, about. With many more, most of the matrix
# is zeros; with many fewer, most of a row is its neighbours.
BLOCK = 64
# The least power that is told from silence: -100 dB.
FLOOR = 1e-10


@dataclasses.dataclass(frozen=True)
class FrontEnd:
    """How a waveform becomes a spectrogram.

    Attributes:
      rate: samples a second.
      frame: samples of a frame, under a Hann window.
      hop: samples from frame to frame.
      fft: points of the transform, at least `frame`.
      mels: M.
      low: where the lowest band begins, in Hz.
      high: where the highest band ends, in Hz, at most half of `rate`.
      scale: `slaney`, whose bands have equal areas, or `htk`, whose bands have equal peaks.
      edge: what stands before and after the samples: `zero`, or the sound itself as in a mirror
        (`reflect`).
      length: samples to which a sound is repeated or cut; None leaves it as it is.
    """

    rate: int = 16000
    frame: int = 400
    hop: int = 160
    fft: int = 512
    mels: int = 64
    low: float = 0.0
    high: float = 8000.0
    scale: str = "slaney"
    edge: str = "zero"
    length: int | None = None

    def __post_init__(self):
        """Raises a ValueError where the values do not fit each other."""
        for name, value, allowed in (
            ("scale", self.scale, ("slaney", "htk")),
            ("edge", self.edge, ("zero", "reflect")),
        ):
            if value not in allowed:
                raise ValueError(f"{name} is {value!r}; allowed: {', '.join(allowed)}")
        for name in ("rate", "frame", "hop", "mels", "length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; allowed: one or more")
        if self.fft < self.frame:
            raise ValueError(f"fft is {self.fft}; allowed: at least the frame of {self.frame}")
        if not 0 <= self.low < self.high <= self.rate / 2:
            raise ValueError(
                f"bands from {self.low} to {self.high} Hz; allowed: rising, within 0 and "
                f"{self.rate / 2}"
            )


def spectrogram(x: jax.Array, mask: jax.Array, rate: int, front: FrontEnd) -> jax.Array:
    """Returns what `front` makes of sounds at any rate: resampled, repeated or cut, log mel.

    Args:
      x: `[B, S]` in [-1, 1].
      mask: `[B, S]` bool, true at the valid samples, which come first.
      rate: of `x`, samples a second.
      front: the settings.

    Returns:
      `[B, T, M]` in decibels.
    """
    x, mask = resample(x, mask, rate, front.rate)
    if front.length is None:
        return log_mel(x, front, mask)
    return log_mel(repeat_pad(x, mask, front.length), front)


# ---- samples ------------------------------------------------------------------------------------


def resample(
    x: jax.Array, mask: jax.Array, source: int, target: int
) -> tuple[jax.Array, jax.Array]:
    """Returns sounds at another rate, by a windowed sinc as one matrix product over blocks.

    Args:
      x: `[B, S]`.
      mask: `[B, S]` bool, true at valid samples; what stands at the others does not matter.
      source: rate of `x`, samples a second.
      target: rate of the result.

    Returns:
      `[B, ceil(S * target / source)]`, zeros at masked samples, and its mask.

    Source: the polyphase filter of Crochiere and Rabiner 1983, with `filter_taps`.
    """
    x = jnp.where(mask, x, 0)
    if source == target:
        return x, mask
    up, down = _ratio(source, target)
    matrix, around, step = _block_matrix(up, down)
    samples = x.shape[1]
    blocks = -(-samples // step)
    # A block of `step` samples and its neighbourhood, as rows of that length side by side.
    rows = -(-len(matrix) // step)
    x = jnp.pad(x, ((0, 0), (around, (blocks + rows - 1) * step - samples - around)))
    windows = _frames(x, blocks, len(matrix), step)
    x = jnp.einsum("btn,nm->btm", windows, matrix, precision=lax.Precision.HIGHEST)
    wanted = -(-samples * up // down)
    mask = mask[:, np.arange(wanted) * down // up]
    return jnp.where(mask, x.reshape(len(x), -1)[:, :wanted], 0), mask


def filter_taps(source: int, target: int) -> np.ndarray:
    """Returns the taps of the low-pass filter of `resample`, at the rate that both divide.

    They add up to `target` over the greatest common divisor, which is what zeros between the
    samples take away.
    """
    up, down = _ratio(source, target)
    half = CROSSINGS * max(up, down)
    at = np.arange(-half, half + 1)
    taps = np.sinc(at / max(up, down)) * np.kaiser(2 * half + 1, BETA)
    return taps * (up / taps.sum())


def _ratio(source: int, target: int) -> tuple[int, int]:
    """Returns by how much samples become more, and then fewer."""
    common = math.gcd(source, target)
    return target // common, source // common


@functools.cache
def _block_matrix(up: int, down: int) -> tuple[np.ndarray, int, int]:
    """Returns what maps a block and its neighbours to the resampled block, and both their numbers.

    Sample j of the result stands at j * down and sample i of the block at i * up, both counted at
    the rate that they share.
    """
    taps = filter_taps(down, up)
    half = len(taps) // 2
    around = -(-half // up)
    repeats = max(BLOCK // down, 1)
    given = np.arange(-around, repeats * down + around)[:, None]
    place = np.arange(repeats * up) * down - given * up + half
    inside = (place >= 0) & (place < len(taps))
    matrix = np.where(inside, taps[np.where(inside, place, 0)], 0)
    return matrix.astype(np.float32), around, repeats * down


def repeat_pad(x: jax.Array, mask: jax.Array, length: int) -> jax.Array:
    """Returns `[B, length]`: short sounds repeated while they fit whole, then zeros.

    Of a longer sound the first `length` samples are taken: always the same, where CLAP's own
    feature extractor cuts at random. Nothing gives silence.

    Args:
      x: `[B, S]`.
      mask: `[B, S]` bool, true at the valid samples, which come first.
      length: samples of the result.

    Source: `repeatpad` of the feature extractor of Wu et al. 2023.
    """
    count = mask.sum(-1, keepdims=True)
    place = jnp.arange(length)
    kept = jnp.maximum(length // jnp.maximum(count, 1), 1) * count
    taken = jnp.take_along_axis(
        jnp.where(mask, x, 0), place % jnp.maximum(count, 1), axis=1, mode="clip"
    )
    return jnp.where(place < kept, taken, 0)


# ---- frames -------------------------------------------------------------------------------------


def log_mel(x: jax.Array, front: FrontEnd, mask: jax.Array | None = None) -> jax.Array:
    """Returns the power in each mel band and frame, in decibels of a full scale of one.

    Frame t has sample t * hop at its centre.

    Args:
      x: `[B, S]`, at least one sample.
      front: the settings; neither its rate nor its length is brought about here.
      mask: `[B, S]` bool, true at valid samples; None where all are. Masked samples are silent,
        and the frames that `frame_mask` leaves out are zeros.

    Returns:
      `[B, 1 + S // hop, M]`, at least -100; finite for silence, as are all gradients. In float32 a
      band that is 60 dB below the loudest of its frame begins to drown in rounding.

    Raises:
      ValueError: a mask, and a mirror, which would stand where the padding ends.
    """
    if mask is not None:
        if front.edge == "reflect":
            raise ValueError("edge is 'reflect'; allowed for sounds that are padded: zero")
        x = jnp.where(mask, x, 0)
    frames = 1 + x.shape[1] // front.hop
    half = front.frame // 2
    x = jnp.pad(
        x, ((0, 0), (half, half)), mode="reflect" if front.edge == "reflect" else "constant"
    )
    x = _frames(x, frames, front.frame, front.hop)
    # The window is periodic: it would be zero again at the first sample of the next frame.
    window = np.hanning(front.frame + 1)[:-1].astype(np.float32)
    spectrum = jnp.fft.rfft(x * window, front.fft)
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    bands = jnp.einsum("btf,fm->btm", power, filterbank(front), precision=lax.Precision.HIGHEST)
    decibels = 10 / math.log(10) * jnp.log(jnp.maximum(bands, FLOOR))
    return decibels if mask is None else zero_masked(decibels, frame_mask(mask, front))


def frame_mask(mask: jax.Array, front: FrontEnd) -> jax.Array:
    """Returns `[B, 1 + S // hop]`: whether a frame's centre lies in or at the end of the sound.

    A sound has the same frames however many samples `mask` `[B, S]` pads it with.
    """
    padded = jnp.pad(mask, ((0, 0), (1, 1)))
    return (padded[:, :-1] | padded[:, 1:])[:, :: front.hop]


def _frames(x: jax.Array, count: int, size: int, hop: int) -> jax.Array:
    """Returns `[B, count, size]`: windows of `x` `[B, S]` every `hop` samples, zeros beyond it."""
    rows = -(-size // hop)
    needed = (count + rows - 1) * hop
    x = jnp.pad(x, ((0, 0), (0, max(needed - x.shape[1], 0))))[:, :needed]
    x = x.reshape(len(x), -1, hop)
    return jnp.concatenate([x[:, i : i + count] for i in range(rows)], axis=-1)[..., :size]


@functools.cache
def filterbank(front: FrontEnd) -> np.ndarray:
    """Returns the weights `[F, M]` float32 of the triangular bands, F = fft // 2 + 1.

    Source: Slaney 1998, "Auditory Toolbox", and Young et al., "The HTK Book".
    """
    edges = np.linspace(*_to_mel(np.array([front.low, front.high]), front.scale), front.mels + 2)
    edges = _to_hertz(edges, front.scale)
    hertz = np.linspace(0, front.rate / 2, front.fft // 2 + 1)[:, None]
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (hertz - left) / (centre - left), (right - hertz) / (right - centre)
    weights = np.maximum(np.minimum(rising, falling), 0)
    if front.scale == "slaney":
        weights *= 2 / (right - left)
    return weights.astype(np.float32)


def _to_mel(hertz: np.ndarray, scale: str) -> np.ndarray:
    """Returns places on a mel scale: `slaney` is linear below 1 kHz, where it has 15 mel."""
    if scale == "htk":
        return 2595 * np.log10(1 + hertz / 700)
    above = 15 + 27 * np.log(np.maximum(hertz, 1000) / 1000) / np.log(6.4)
    return np.where(hertz < 1000, hertz * 15 / 1000, above)


def _to_hertz(mel: np.ndarray, scale: str) -> np.ndarray:
    """Returns what `_to_mel` maps to `mel`."""
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    above = 1000 * 6.4 ** ((np.maximum(mel, 15) - 15) / 27)
    return np.where(mel < 15, mel * 1000 / 15, above)


def house_spectrogram(x: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the spectrogram of waveforms at the house's own rate, and the mask of its frames.

    Args:
      x: `[B, S]` in [-1, 1], 16 kHz.
      mask: `[B, S]` bool, true at samples that count.

    Returns:
      `[B, T, M]` in decibels and `[B, T]` bool, as the defaults of `FrontEnd` say.
    """
    front = FrontEnd()
    return spectrogram(x, mask, front.rate, front), frame_mask(mask, front)


def cut_silence(x: jax.Array, mask: jax.Array, below: float) -> tuple[jax.Array, jax.Array]:
    """Returns a spectrogram without the silence before and after its sound, and its mask.

    Args:
      x: `[B, T, M]` in decibels.
      mask: `[B, T]` bool, true at frames that count, which come first.
      below: decibels under the loudest frame of a sound that are silence.

    Returns:
      `[B, T, M]`, the sound first, and `[B, T]`. What was masked, or is silence, is masked.
    """
    loud = jnp.where(mask, jax.nn.logsumexp(x * (math.log(10) / 10), axis=-1), -jnp.inf)
    heard = mask & (loud >= loud.max(-1, keepdims=True) - below * (math.log(10) / 10))
    steps = jnp.arange(x.shape[1])
    start = jnp.argmax(heard, axis=-1)
    stop = x.shape[1] - jnp.argmax(heard[:, ::-1], axis=-1)
    place = jnp.clip(steps + start[:, None], 0, x.shape[1] - 1)
    kept = (steps < (stop - start)[:, None]) & heard.any(-1, keepdims=True)
    return jnp.take_along_axis(x, place[..., None], axis=1), kept
