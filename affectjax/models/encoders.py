"""One modality of a clip to one feature: what stands before UMBEnet's fusion.

Letters: B examples, T steps, S samples, F frames, L layers, D features, H height, W width.
"""

from collections.abc import Callable, Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from flax.core import FrozenDict

from affectjax.models.layers import Block, Dropout, Layers, layer_norm
from affectjax.ops import augment, masking, mel

# The audio encoder of SPEC section 1: six convolutions, each five times shorter than its input.
AUDIO_CHANNELS = (16, 32, 64, 128, 256, 512)
AUDIO_KERNEL, AUDIO_STRIDE = 15, 5


class ImageConv(nn.Module):
    """A small convolutional tower over single images, for training from scratch.

    Each stage is one matrix product over windows: on a CPU a convolution inside a `lax.scan` over
    steps takes some twenty times as long, and under `vmap` over seeds it would be a grouped one.

    Attributes:
      channels: of each stage; the first takes patches of 4 pixels, every other halves the image
        with a kernel of 3.
      projection: D of the result.
    """

    channels: Sequence[int]
    projection: int

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps `[B, H, W, 3]` in about [-2, 2] to `[B, D]`."""
        x = images
        for i, width in enumerate(self.channels):
            x = nn.Dense(width, name=f"conv_{i}")(_patches(x, 4) if i == 0 else _halving(x))
            # Over the channels of a pixel: no statistic of a batch, so neighbours do not matter.
            x = nn.relu(layer_norm(f"norm_{i}")(x))
        # Where in the face something is matters: the last pixels are not averaged.
        return nn.Dense(self.projection, name="project")(rearrange(x, "b h w d -> b (h w d)"))


def _patches(x: jax.Array, size: int) -> jax.Array:
    """Returns the patches `[B, H / size, W / size, size * size * D]` of `x`, zeros beyond it."""
    more = [(0, -extent % size) for extent in x.shape[1:3]]
    x = jnp.pad(x, ((0, 0), *more, (0, 0)))
    return rearrange(x, "b (h i) (w j) d -> b h w (i j d)", i=size, j=size)


def _halving(x: jax.Array) -> jax.Array:
    """Returns the 3 x 3 windows `[B, H / 2, W / 2, 9 * D]` around every other pixel of `x`."""
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = [x[:, i : i + height : 2, j : j + width : 2] for i in range(3) for j in range(3)]
    return jnp.concatenate(windows, axis=-1)


class FrameHead(nn.Module):
    """Frame features to one feature of a clip: positions, temporal transformer, residual, mean.

    Source: SPEC section 1, vision.
    """

    frames: int
    width: int
    layers: int
    heads: int
    dropout: float = 0.0
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
        """Maps frame features `[B, F, D]` and their mask `[B, F]` to `[B, D]`."""
        table = self.param("positions", nn.initializers.normal(0.02), (self.frames, self.width))
        x = masking.zero_masked(x, mask)
        if self.layers:
            y = masking.zero_masked(x + table[: x.shape[1]], mask)
            x = x + encode(self, "temporal", y, mask, train=train)
        return masking.masked_mean(x, mask)


class SequenceEncoder(nn.Module):
    """Any precomputed features: Dense, positions, a small transformer, masked mean."""

    width: int
    layers: int
    heads: int
    dropout: float = 0.0
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
        """Maps `[B, T, D_m]` and its mask `[B, T]` to `[B, D]`."""
        x = masking.zero_masked(x.astype(jnp.float32), mask)
        x = Dropout(self.dropout, self.axis_name)(x, train=train)
        x = nn.Dense(self.width, name="dense")(x) + masking.sinusoids(mask, self.width)
        x = masking.zero_masked(x, mask)
        if self.layers:
            x = encode(self, "layers", x, mask, train=train)
        return masking.masked_mean(layer_norm("norm")(x), mask)


class LayerSum(nn.Module):
    """A feature a layer of a tower to one: their sum, by weights that are learned and add to one.

    At first it is their mean. Source: Yang et al. 2021, "SUPERB: Speech Processing Universal
    PERformance Benchmark", section 3.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, L, D]` to `[B, D]` float32."""
        weights = self.param("weights", nn.initializers.zeros, (x.shape[1],))
        return jnp.einsum("l,bld->bd", jax.nn.softmax(weights), x.astype(jnp.float32))


class AudioConv(nn.Module):
    """A waveform to one feature: strided convolutions, Dense, LayerNorm.

    A convolution is one matrix product over windows, as everywhere here (`layers.Conv1d`). Steps
    whose window begins after the end of the sound are masked at every layer, so the padding of a
    batch changes nothing. Source: SPEC section 1, audio.
    """

    width: int
    channels: Sequence[int] = AUDIO_CHANNELS
    dropout: float = 0.0
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
        """Maps `[B, S]` in [-1, 1] and its mask `[B, S]` to `[B, D]`."""
        samples = mask.sum(-1)
        x = masking.zero_masked(x[..., None], mask)
        for i, width in enumerate(self.channels):
            x = nn.relu(nn.Dense(width, name=f"conv_{i}")(_windows(x)))
            samples = -(-samples // AUDIO_STRIDE)
            mask = jnp.arange(x.shape[1]) < samples[:, None]
            x = masking.zero_masked(x, mask)
        x = Dropout(self.dropout, self.axis_name)(masking.masked_mean(x, mask), train=train)
        return layer_norm("norm")(nn.Dense(self.width, name="dense")(x))


def _windows(x: jax.Array) -> jax.Array:
    """Returns the windows `[B, T / stride, kernel * D]` of `x` `[B, T, D]`, zeros beyond it."""
    steps = -(-x.shape[1] // AUDIO_STRIDE)
    around = (AUDIO_KERNEL - AUDIO_STRIDE) // 2
    after = steps * AUDIO_STRIDE - x.shape[1] + AUDIO_KERNEL - AUDIO_STRIDE - around
    x = jnp.pad(x, ((0, 0), (around, after), (0, 0)))
    # The kernel is a whole number of strides, so windows are neighbouring rows side by side.
    rows = rearrange(x, "b (t s) d -> b t (s d)", s=AUDIO_STRIDE)
    shifts = range(AUDIO_KERNEL // AUDIO_STRIDE)
    return jnp.concatenate([rows[:, i : i + steps] for i in shifts], axis=-1)


class MelConv(nn.Module):
    """A log-mel spectrogram to one feature: convolutions over time and pitch, mean and maximum.

    The spectrogram is seen twice: as it is, and relative to the mean of each band over the clip,
    which takes away much of the voice and of the microphone. Steps after the end of the sound are
    masked at every layer.

    Attributes:
      channels: of each stage, see `ImageConv`.
      projection: D of the result.
      dropout: rate before the projection.
      changes: of the spectrogram in training, arguments of `ops.augment.mask_spectrogram`.
      axis_name: see `Dropout`.
    """

    channels: Sequence[int]
    projection: int
    dropout: float = 0.0
    changes: Mapping[str, float] = FrozenDict()
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
        """Maps a waveform `[B, S]` in [-1, 1], 16 kHz, and its mask `[B, S]` to `[B, D]`."""
        loud, mask = mel.house_spectrogram(x, mask)
        if train and any(self.changes.values()):
            key = self.make_rng("dropout")
            loud = augment.mask_spectrogram(loud, mask, key, self.axis_name, **self.changes)
        relative = loud - masking.masked_mean(loud, mask)[:, None]
        # Decibels to numbers of about one; speech lies around -40.
        x = jnp.stack([(loud + 40) / 20, relative / 10], axis=-1)
        x = masking.zero_masked(x, mask[..., None])
        for i, width in enumerate(self.channels):
            x = nn.Dense(width, name=f"conv_{i}")(_patches(x, 4) if i == 0 else _halving(x))
            x = nn.relu(layer_norm(f"norm_{i}")(x))
            mask = mask[:, :: 4 if i == 0 else 2]
            x = masking.zero_masked(x, mask[..., None])
        x = rearrange(x, "b t m d -> b t (m d)")
        # What is left is not negative, so the zeros of masked steps are no maximum.
        x = jnp.concatenate([masking.masked_mean(x, mask), x.max(axis=1)], axis=-1)
        x = Dropout(self.dropout, self.axis_name)(x, train=train)
        return nn.Dense(self.projection, name="project")(x)


def encode(
    parent: nn.Module, name: str, x: jax.Array, mask: jax.Array, *, train: bool
) -> jax.Array:
    """Returns `x` `[B, T, D]` after the pre-norm transformer that `parent` describes.

    Args:
      parent: has width, layers, heads, dropout and axis_name.
      name: of the layers among its parameters.
      x: `[B, T, D]`.
      mask: `[B, T]`, the steps that may be attended to.
      train: whether to drop.
    """

    def block(**kwargs):
        rates = dict.fromkeys(
            ("attention_dropout", "relu_dropout", "residual_dropout"), parent.dropout
        )
        return Block(parent.width, parent.heads, **rates, axis_name=parent.axis_name, **kwargs)

    layers = Layers(block, parent.layers, name=name)
    return layers(x, None, mask, train=train)[0]


def encode_frames(
    tower: Callable[[jax.Array], jax.Array],
    frames: jax.Array,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> jax.Array:
    """Returns what a tower gives for each frame, `[B, T, D]`.

    Args:
      tower: maps images `[B T, H, W, 3]` to `[B T, D]`.
      frames: `[B, T, H, W, 3]` in [0, 255].
      mean: of the pixels from 0 to 1, red, green and blue.
      std: their deviation.
    """
    flat = frames.reshape(-1, *frames.shape[2:]).astype(jnp.float32)
    flat = (flat / 255.0 - jnp.array(mean)) / jnp.array(std)
    return tower(flat).reshape(*frames.shape[:2], -1)
