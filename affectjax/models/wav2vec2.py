"""wav2vec 2.0, HuBERT and WavLM: a waveform to a feature every 20 ms, and their mean.

Source: Baevski et al. 2020, "wav2vec 2.0: A Framework for Self-Supervised Learning of Speech
Representations"; Hsu et al. 2021, "HuBERT"; Chen et al. 2022, "WavLM: Large-Scale Self-Supervised
Pre-Training for Full Stack Speech Processing". The parameters hold what the published checkpoints
hold.
Letters: B examples, S samples, T frames, D width, H heads, L layers, C channels.
"""

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax import lax

from affectjax.errors import InputError
from affectjax.models.clip import activate
from affectjax.models.layers import check_heads, layer_norm
from affectjax.ops import masking
from affectjax.ops.attention import masked_softmax
from affectjax.ops.convolution import conv1d, grouped_conv1d

init = nn.initializers.normal(0.02)
zeros, ones = nn.initializers.zeros, nn.initializers.ones
NORMS = ("group", "layer")
# Of the norms between convolutions, which no config changes, and of that of a waveform.
EPSILON, SILENCE = 1e-5, 1e-7
# Numbers of which WavLM's two gates are sums.
GATES = 8


class SpeechBlock(nn.Module):
    """One layer: attention and an MLP, each added to its input, with a norm before or after.

    Attributes:
      width: D.
      heads: H, a divisor of D.
      hidden: units of the MLP.
      norm_first: whether the norms stand before attention and MLP, or after the sums.
      gated: whether the bias of the scores is gated by what asks, as in WavLM.
      activation: of the MLP, a name in `clip.ACTIVATIONS`.
      epsilon: of the layer norms.
      dtype: in which to compute; the norms and the softmax are in float32, as are all parameters.
    """

    width: int
    heads: int
    hidden: int
    norm_first: bool
    gated: bool
    activation: str
    epsilon: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, bias: jax.Array | None) -> jax.Array:
        """Maps `[B, T, D]` to itself; no frame attends to what is not in `mask` `[B, T]`.

        Args:
          x: `[B, T, D]`.
          mask: `[B, T]` bool, true at frames that are there.
          bias: `[H, T, T]` float32, of the scores; read where `gated`.
        """
        attention_norm = layer_norm("attention_norm", self.epsilon)
        feed_norm = layer_norm("feed_norm", self.epsilon)
        if self.norm_first:
            y = attention_norm(x).astype(self.dtype)
            x = x + self._attention(y, mask, bias)
            return x + self._feed_forward(feed_norm(x).astype(self.dtype))
        x = attention_norm(x + self._attention(x, mask, bias)).astype(self.dtype)
        return feed_norm(x + self._feed_forward(x)).astype(self.dtype)

    def _attention(self, x: jax.Array, mask: jax.Array, bias: jax.Array | None) -> jax.Array:
        """Returns what each frame gathers, `[B, T, D]`, by a softmax in float32."""
        split = functools.partial(rearrange, pattern="b t (h d) -> b h t d", h=self.heads)
        query, key, value = (
            split(self._dense(self.width, n)(x)) for n in ("query", "key", "value")
        )
        scores = jnp.einsum("bhqd,bhkd->bhqk", query, key, preferred_element_type=jnp.float32)
        scores = scores * query.shape[-1] ** -0.5
        if self.gated:
            scores = scores + self._gate(split(x))[..., None] * bias
        weights = masked_softmax(scores, mask[:, None, None]).astype(value.dtype)
        gathered = jnp.einsum("bhqk,bhkd->bhqd", weights, value)
        return self._dense(self.width, "out")(rearrange(gathered, "b h t d -> b t (h d)"))

    def _gate(self, x: jax.Array) -> jax.Array:
        """Returns how much of the bias each frame sees in each head, `[B, H, T]`.

        Source: Chi et al. 2022, "XLM-E", gated relative position bias.
        """
        sums = self._dense(GATES, "gate")(x).astype(jnp.float32)
        update, reset = nn.sigmoid(rearrange(sums, "b h t (n k) -> n b h t k", n=2).sum(-1))
        scale = self.param("gate_scale", ones, (self.heads,))[:, None]
        return update * (reset * scale - 1) + 2

    def _feed_forward(self, x: jax.Array) -> jax.Array:
        """Returns the MLP of `x` `[B, T, D]`."""
        return self._dense(self.width, "down")(
            activate(self.activation, self._dense(self.hidden, "up")(x))
        )

    def _dense(self, units: int, name: str) -> nn.Dense:
        return nn.Dense(units, kernel_init=init, dtype=self.dtype, name=name)


class SpeechTower(nn.Module):
    """wav2vec 2.0, HuBERT or WavLM, without heads.

    A sound has the same features in any batch: no frame sees what is beyond the sound, and the norm
    over time of the first convolution ("group") counts only frames that are there. PyTorch's models
    with that norm agree on a sound of its own; of a batch they count the padding too.

    Attributes:
      width: D.
      layers: L.
      heads: H.
      hidden: units of the MLPs.
      channels: C of each convolution over samples.
      kernels: their sizes.
      strides: steps between their windows.
      conv_norm: "group", over time after the first of them, or "layer", over channels after each.
      conv_bias: whether they have a bias.
      conv_activation: after them and after the convolution of positions.
      projection_norm: whether there is a layer norm before the map from C to D.
      position_size: frames of the kernel that tells positions.
      position_groups: of its features, a divisor of D.
      norm_first: see `SpeechBlock`; one more layer norm stands before the first layer, or after the
        last with `norm_first`.
      buckets: of distances between frames that have a bias of their own in WavLM, 0 for no bias.
      distance: frames from which on all distances have the same.
      normalise: whether a sound is brought to mean 0 and variance 1 first.
      activation, epsilon, dtype: see `SpeechBlock`.
    """

    width: int
    layers: int
    heads: int
    hidden: int
    channels: Sequence[int]
    kernels: Sequence[int]
    strides: Sequence[int]
    conv_norm: str = "group"
    conv_bias: bool = False
    conv_activation: str = "gelu"
    projection_norm: bool = True
    position_size: int = 128
    position_groups: int = 16
    norm_first: bool = False
    buckets: int = 0
    distance: int = 800
    normalise: bool = True
    activation: str = "gelu"
    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Maps sounds to the mean of their frames.

        Args:
          x: `[B, S]`, 16 kHz.
          mask: `[B, S]` bool, true at the samples of a sound, which come first.

        Returns:
          `[B, D]` float32, the mean of the last layer over frames, and `last` `[B, T, D]`, `mask`
          `[B, T]`, which frames are there, and `means` `[B, L + 1, D]`, the mean over frames of
          what enters the first layer and of what each layer gives, the last as in `last`. Zeros for
          frames that are not there, and for a sound too short for a frame.

        Raises:
          InputError: sizes of the tower do not fit each other.
        """
        self._check()
        x = jnp.where(mask, x.astype(jnp.float32), 0)
        x = normalised(x, mask) if self.normalise else x
        x, mask = self._frames(x, mask)
        if self.projection_norm:
            x = layer_norm("projection_norm", self.epsilon)(x).astype(self.dtype)
        x = nn.Dense(self.width, kernel_init=init, dtype=self.dtype, name="project")(x)
        x = masking.zero_masked(x, mask)
        x = x + self._positions(x)
        norm = layer_norm("encoder_norm", self.epsilon)
        if not self.norm_first:
            x = norm(x).astype(self.dtype)
        last, means = self._layers(x, mask)
        if self.norm_first:
            last = norm(last)
            means = jnp.concatenate([means[:, :-1], masking.masked_mean(last, mask)[:, None]], 1)
        last = masking.zero_masked(last.astype(jnp.float32), mask)
        return means[:, -1], {"last": last, "mask": mask, "means": means}

    def _frames(self, x: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns what the convolutions make of samples `[B, S]`: `[B, T, C]`, and which are there.

        A frame is there where all of its samples are.
        """
        least = receptive_field(self.kernels, self.strides)
        x = jnp.pad(x, ((0, 0), (0, max(0, least - x.shape[1]))))[..., None].astype(self.dtype)
        count = mask.sum(-1)
        stages = zip(self.channels, self.kernels, self.strides, strict=True)
        for i, (channels, size, stride) in enumerate(stages):
            kernel = self.param(
                f"conv_{i}", nn.initializers.he_normal(), (size, x.shape[-1], channels)
            )
            x = conv1d(x, kernel.astype(self.dtype), stride)
            if self.conv_bias:
                x = x + self.param(f"conv_{i}_bias", zeros, (channels,)).astype(self.dtype)
            count = jnp.maximum((count - size) // stride + 1, 0)
            if self.conv_norm == "layer":
                x = layer_norm(f"conv_{i}_norm", EPSILON)(x)
            elif i == 0:
                x = TimeNorm(name="conv_0_norm")(x, jnp.arange(x.shape[1]) < count[:, None])
            x = activate(self.conv_activation, x).astype(self.dtype)
        return x, jnp.arange(x.shape[1]) < count[:, None]

    def _positions(self, x: jax.Array) -> jax.Array:
        """Returns what neighbours tell of a frame's position, `[B, T, D]`."""
        shape = (self.position_size, self.width // self.position_groups, self.width)
        kernel = self.param("position", init, shape).astype(self.dtype)
        bias = self.param("position_bias", zeros, (self.width,)).astype(self.dtype)
        y = grouped_conv1d(x, kernel, self.position_groups) + bias
        return activate(self.conv_activation, y)

    def _layers(self, x: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the last layer `[B, T, D]`, and the means `[B, L + 1, D]` of all."""
        sizes = (self.width, self.heads, self.hidden, self.norm_first, self.buckets > 0)
        block = SpeechBlock(*sizes, self.activation, self.epsilon, self.dtype, parent=None)
        params = self.param("blocks", _stack_of(block, self.layers))
        bias = None
        if self.buckets:
            table = self.param("distance", init, (self.buckets, self.heads))
            bias = jnp.moveaxis(table[buckets(x.shape[1], self.buckets, self.distance)], -1, 0)

        def mean(x: jax.Array) -> jax.Array:
            return masking.masked_mean(x.astype(jnp.float32), mask)

        def layer(x, params):
            x = block.apply({"params": params}, x, mask, bias)
            return x, mean(x)

        first = mean(x)
        x, means = lax.scan(layer, x, params)
        return x, jnp.moveaxis(jnp.concatenate([first[None], means]), 0, 1)

    def _check(self) -> None:
        """Raises an InputError where sizes do not fit each other."""
        check_heads(self.width, self.heads)
        if self.conv_norm not in NORMS:
            raise InputError(f"conv_norm is {self.conv_norm!r}; allowed: {', '.join(NORMS)}")
        sizes = {len(self.channels), len(self.kernels), len(self.strides)}
        if len(sizes) != 1 or 0 in sizes:
            raise InputError(
                f"channels, kernels and strides are {self.channels}, {self.kernels} and "
                f"{self.strides}; allowed: as many of each, one at least"
            )
        if self.width % self.position_groups:
            raise InputError(
                f"a width of {self.width} cannot be split among {self.position_groups} groups of "
                "positions"
            )


class TimeNorm(nn.Module):
    """A norm of each channel over the frames that are there, in float32."""

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """Maps `[B, T, C]` to itself; `mask` `[B, T]` says which frames count."""
        scale = self.param("scale", ones, (x.shape[-1],))
        bias = self.param("bias", zeros, (x.shape[-1],))
        x = x.astype(jnp.float32)
        x = x - masking.masked_mean(x, mask)[:, None]
        variance = masking.masked_mean(x * x, mask)[:, None]
        return x * lax.rsqrt(variance + EPSILON) * scale + bias


def normalised(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns sounds `[B, S]` with mean 0 and variance 1 over the samples of `mask`, zeros else."""
    count = jnp.maximum(mask.sum(-1, keepdims=True), 1)
    x = jnp.where(mask, x - jnp.where(mask, x, 0).sum(-1, keepdims=True) / count, 0)
    return x * lax.rsqrt((x * x).sum(-1, keepdims=True) / count + SILENCE)


def receptive_field(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Returns the number of samples that a frame is made of."""
    samples = 1
    for size, stride in zip(reversed(kernels), reversed(strides), strict=True):
        samples = (samples - 1) * stride + size
    return samples


def buckets(steps: int, count: int, distance: int) -> np.ndarray:
    """Returns `[T, T]` int: the bucket of the distance from a frame that asks to another.

    Half of the buckets are for frames that come later. In each half the first half have a distance
    of their own, the others share in it by its logarithm, and the last has all from `distance` on.

    Args:
      steps: T.
      count: of buckets.
      distance: see `SpeechTower`.
    """
    half, exact = count // 2, count // 4
    apart = np.arange(steps)[None] - np.arange(steps)[:, None]
    far = np.log(np.maximum(np.abs(apart), 1).astype(np.float32) / np.float32(exact))
    far = far / np.float32(np.log(distance / exact)) * np.float32(half - exact)
    far = np.minimum(exact + far.astype(int), half - 1)
    return half * (apart > 0) + np.where(np.abs(apart) < exact, np.abs(apart), far)


def _stack_of(block: SpeechBlock, layers: int) -> Callable[[jax.Array], dict]:
    """Returns an initialiser of `layers` times the parameters of a block, stacked."""

    def draw(key):
        x, mask = jnp.zeros((1, 1, block.width), block.dtype), jnp.ones((1, 1), bool)
        keys = jax.random.split(key, layers)
        bias = jnp.zeros((block.heads, 1, 1))
        return jax.vmap(lambda k: block.init(k, x, mask, bias)["params"])(keys)

    return draw
