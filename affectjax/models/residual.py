"""Small residual networks for training from scratch, over images and over spectrograms.

Group norms and standardised kernels instead of batch norms: neither neighbours in a batch nor the
devices that share it matter, and there are no statistics to keep. On FER2013 a network of this form
learned as fast as with batch norms, and far faster than with the channels of a pixel normalised.
Source: He et al. 2016, "Deep Residual Learning for Image Recognition"; Qiao et al. 2019,
"Micro-Batch Training with Batch-Channel Normalization and Weight Standardization"; Kolesnikov et
al. 2020, "Big Transfer (BiT)", for both together.
Letters: B examples, H height, W width, T steps, M mel bands, S samples, D features.
"""

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from flax.core import FrozenDict

from affectjax.models.layers import Dropout, layer_norm
from affectjax.models.norms import GroupNorm
from affectjax.ops import augment, masking, mel
from affectjax.ops.attention import masked_softmax
from affectjax.ops.convolution import conv2d

he = nn.initializers.he_normal()


class ConvNorm(nn.Module):
    """A convolution whose kernel is standardised, and a group norm.

    Attributes:
      features: D of the result.
      size: side of the kernel, odd.
      stride: pixels between its places.
    """

    features: int
    size: int = 3
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Maps `[B, H, W, D_in]` to `[B, H / stride, W / stride, D]`, sides rounded up.

        Args:
          x: an image.
          mask: `[B, H / stride]`, the rows of the result that count; None for all.
        """
        kernel = self.param("kernel", he, (self.size, self.size, x.shape[-1], self.features))
        kernel -= kernel.mean((0, 1, 2))
        # As much as relu takes, so that what comes out is about as large as what went in.
        kernel *= jnp.sqrt(2 / (jnp.square(kernel).sum((0, 1, 2)) + 1e-4))
        y = conv2d(x, kernel, self.stride, self.size // 2)
        return GroupNorm(name="norm")(y, mask)


class Trunk(nn.Module):
    """Stages that each halve an image, widen it, and add two convolutions to it.

    Attributes:
      channels: D of each stage. The first is one convolution of 5 x 5 pixels alone.
    """

    channels: Sequence[int]

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Maps `[B, H, W, D_in]` to `[B, H / 2^n, W / 2^n, D]`, sides rounded up, n stages.

        Args:
          x: an image; where there is a mask, zeros in the rows that do not count.
          mask: `[B, H]`, the rows that count, the first of them; None for all. Rows of the result
            whose middle does not count are zeros.
        """
        for i, width in enumerate(self.channels):
            size = 5 if i == 0 else 3
            mask = None if mask is None else mask[:, ::2]
            x = _kept(nn.relu(ConvNorm(width, size, stride=2, name=f"down_{i}")(x, mask)), mask)
            if i:
                y = _kept(nn.relu(ConvNorm(width, name=f"first_{i}")(x, mask)), mask)
                x = _kept(nn.relu(x + ConvNorm(width, name=f"second_{i}")(y, mask)), mask)
        return x


def _kept(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    return x if mask is None else masking.zero_masked(x, mask[..., None])


class ImageResNet(nn.Module):
    """Single images to features: each image around its mean, the trunk, the mean over pixels.

    Attributes:
      channels: see `Trunk`.
      projection: D of the result.
    """

    channels: Sequence[int]
    projection: int

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps `[B, H, W, 3]` in about [-2, 2] to `[B, D]`."""
        # Light and contrast of a picture say nothing of the face.
        x = images - images.mean((1, 2, 3), keepdims=True)
        x *= jax.lax.rsqrt(jnp.square(x).mean((1, 2, 3), keepdims=True) + 0.01)
        x = Trunk(self.channels, name="trunk")(x)
        return nn.Dense(self.projection, name="project")(x.mean((1, 2)))


class MelResNet(nn.Module):
    """A log-mel spectrogram to one feature: the trunk, attention over time, mean and deviation.

    Each band of a sound has mean 0 and deviation 1 over its time, which takes away much of the
    voice and of the microphone. What that was, the long-term average spectrum around its mean and
    the deviation of each band, joins what comes out of the trunk: effort and tension of a voice are
    in it, its loudness is not. Steps after the end of the sound are masked at every layer.

    Attributes:
      channels: see `Trunk`.
      projection: D of the result.
      hidden: features of a step that attention is over.
      dropout: rate, of the steps and before the projection.
      silence: decibels under the loudest frame of a sound; quieter ones before and after all
        louder ones are cut. 0 for none.
      steps: the most frames, of 10 ms, that are heard after that; 0 for all.
      speed: in training, the most that the speed differs from 1.
      changes: of the spectrogram in training, arguments of `ops.augment.mask_spectrogram`.
      axis_name: see `Dropout`.

    Source: of the mean and deviation by attention, Okabe et al. 2018, "Attentive Statistics Pooling
    for Deep Speaker Embedding".
    """

    channels: Sequence[int]
    projection: int
    hidden: int = 128
    dropout: float = 0.0
    silence: float = 30.0
    steps: int = 0
    speed: float = 0.0
    changes: Mapping[str, float] = FrozenDict()
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
        """Maps a waveform `[B, S]` in [-1, 1], 16 kHz, and its mask `[B, S]` to `[B, D]`."""
        loud, mask = mel.house_spectrogram(x, mask)
        if self.silence:
            loud, mask = mel.cut_silence(loud, mask, self.silence)
        if self.steps:
            loud, mask = loud[:, : self.steps], mask[:, : self.steps]
        if train and self.speed:
            key = self.make_rng("dropout")
            loud, mask = augment.change_speed(loud, mask, key, self.axis_name, self.speed)
        spectrum = _average_spectrum(loud, mask)
        x = masking.standardized(loud, mask)
        if train and any(self.changes.values()):
            key = self.make_rng("dropout")
            x = augment.mask_spectrogram(x, mask, key, self.axis_name, **self.changes)
        x = masking.zero_masked(x, mask)[..., None]
        x = Trunk(self.channels, name="trunk")(x, mask)
        mask = mask[:, :: 2 ** len(self.channels)]
        x = nn.Dense(self.hidden, name="steps")(rearrange(x, "b t m d -> b t (m d)"))
        x = nn.relu(layer_norm("norm")(x))
        x = Dropout(self.dropout, self.axis_name)(x, train=train)
        score = nn.Dense(1, name="score")(jnp.tanh(nn.Dense(64, name="attend")(x)))[..., 0]
        share = masked_softmax(score, mask)[..., None]
        mean = (share * x).sum(1)
        deviation = jnp.sqrt((share * jnp.square(x - mean[:, None])).sum(1) + 1e-6)
        x = Dropout(self.dropout, self.axis_name)(
            jnp.concatenate([mean, deviation, spectrum], axis=-1), train=train
        )
        return nn.Dense(self.projection, name="project")(x)


def _average_spectrum(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns `[B, 2 M]`, about 1 in size: mean of each band around that of all, and deviation.

    Args:
      x: `[B, T, M]` in decibels.
      mask: `[B, T]`, the frames that count.
    """
    mean = masking.masked_mean(x, mask)
    apart = jnp.square(x - mean[:, None])
    deviation = jnp.sqrt(masking.masked_mean(apart, mask) + 1e-3)
    tilt = mean - mean.mean(-1, keepdims=True)
    # Speech has deviations of about 10 dB.
    return jnp.concatenate([tilt / 10, (deviation - 10) / 4], axis=-1)
