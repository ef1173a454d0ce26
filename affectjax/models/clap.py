"""CLAP's audio tower: HTSAT, a Swin transformer over the mel spectrogram folded to a square.

Source: Chen et al. 2022, "HTS-AT: A Hierarchical Token-Semantic Audio Transformer"; Liu et al.
2021, "Swin Transformer"; Wu et al. 2023, "Large-scale Contrastive Language-Audio Pretraining".
The parameters hold what the published checkpoints hold.
Letters: B examples, T frames, H rows and W columns of tokens, D width, N tokens of a window,
V windows, K heads, R folds of the spectrogram.
"""

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from affectjax.errors import InputError
from affectjax.models.clip import activate
from affectjax.models.layers import check_heads, layer_norm

constant = nn.initializers.constant
# Swin cuts this off at 2, a hundred deviations away.
draw = nn.initializers.normal(0.02)
# Voices in [-1, 1] have decibels of -40, give or take 25: a tower from scratch begins there.
FIRST_SCALE, FIRST_BIAS = 1 / 25, 1.6


class Block(nn.Module):
    """One pre-norm layer: attention within windows, then an MLP, each added to its input.

    Attributes:
      width: D.
      heads: K, a divisor of D.
      hidden: units of the MLP.
      window: side of a window in tokens.
      activation: of the MLP, a name in `clip.ACTIVATIONS`.
      epsilon: of the layer norms.
      dtype: in which to compute; the norms and the softmax are in float32, as are all parameters.
    """

    width: int
    heads: int
    hidden: int
    window: int
    activation: str = "gelu"
    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, shift: int) -> jax.Array:
        """Maps `[B, H, W, D]` to itself; windows begin `shift` tokens down and to the right."""
        dense = functools.partial(nn.Dense, kernel_init=draw, dtype=self.dtype)
        norm = functools.partial(layer_norm, epsilon=self.epsilon)
        side, (height, width) = self.window, x.shape[1:3]
        y = norm("attention_norm")(x).astype(self.dtype)
        y = jnp.roll(y, (-shift, -shift), (1, 2))
        y = rearrange(y, "b (h p) (w q) d -> b (h w) (p q) d", p=side, q=side)
        query, key, value = (dense(self.width, name=n)(y) for n in ("query", "key", "value"))
        table = self.param("position", draw, ((2 * side - 1) ** 2, self.heads))
        y = attend(query, key, value, bias_of(table, side, (height, width), shift))
        y = dense(self.width, name="out")(y)
        y = rearrange(y, "b (h w) (p q) d -> b (h p) (w q) d", h=height // side, p=side, q=side)
        x = x + jnp.roll(y, (shift, shift), (1, 2))
        y = dense(self.hidden, name="up")(norm("feed_norm")(x))
        return x + dense(self.width, name="down")(activate(self.activation, y))


def attend(query: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array) -> jax.Array:
    """Returns what each token gathers from its window, with a float32 softmax.

    Args:
      query: `[B, V, N, D]`, as `key` and `value`.
      key: see `query`.
      value: see `query`.
      bias: `[V or 1, K, N, N]`, added to the scores.
    """
    heads = bias.shape[1]
    query, key, value = (
        rearrange(x, "b v n (k d) -> b v k n d", k=heads) for x in (query, key, value)
    )
    scores = jnp.einsum("bvknd,bvkmd->bvknm", query, key, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(scores * query.shape[-1] ** -0.5 + bias).astype(value.dtype)
    return rearrange(jnp.einsum("bvknm,bvkmd->bvknd", weights, value), "b v k n d -> b v n (k d)")


def bias_of(table: jax.Array, side: int, grid: tuple[int, int], shift: int) -> jax.Array:
    """Returns `[V or 1, K, N, N]`: a learnt bias by relative place, the least float where apart.

    Args:
      table: `[(2 side - 1)^2, K]`.
      side: of a window.
      grid: H and W.
      shift: of the windows. Those that the shift wraps around the border hold tokens from both
        ends of the image, which must not see each other.
    """
    place = np.stack(np.meshgrid(*2 * [np.arange(side)], indexing="ij"), -1).reshape(-1, 2)
    apart = place[:, None] - place[None] + side - 1
    bias = jnp.moveaxis(table[apart[..., 0] * (2 * side - 1) + apart[..., 1]], -1, 0)[None]
    if not shift:
        return bias
    wrapped = [np.arange(extent) >= extent - shift for extent in grid]
    part = 2 * wrapped[0][:, None] + wrapped[1]
    part = rearrange(part, "(h p) (w q) -> (h w) (p q)", p=side, q=side)
    same = part[:, None, :, None] == part[:, None, None, :]
    return jnp.where(same, bias, jnp.finfo(jnp.float32).min)


class AudioTower(nn.Module):
    """HTSAT, and CLAP's projection of what it pools.

    The spectrogram is cut into R pieces of equal time, which are put one below the other: a square
    image, R = spec_size / mels. Stages of windowed attention follow, each on half as many rows and
    columns as the one before it and twice as wide.

    The layers are written out, not scanned over: at full size a scan over the pairs of a stage took
    half as long again, to compile and to run.

    Attributes:
      spec_size: side of the image.
      mels: bands of the spectrogram.
      patch: side of a token in the image.
      width: D of the first stage.
      depths: layers of each stage; every other one looks through shifted windows.
      heads: K of each stage.
      window: side of a window in tokens.
      projection: size of the feature.
      ratio: units of an MLP over its width.
      activation: of the MLPs, a name in `clip.ACTIVATIONS`.
      projection_activation: between the two maps of the projection.
      epsilon: of the layer norms of `Block`; the others have 1e-5.
      dtype: see `Block`.
    """

    spec_size: int
    mels: int
    patch: int
    width: int
    depths: Sequence[int]
    heads: Sequence[int]
    window: int
    projection: int
    ratio: float = 4.0
    activation: str = "gelu"
    projection_activation: str = "relu"
    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, mel: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Maps spectrograms to their features.

        Args:
          mel: `[B, T, mels]` in decibels, T at most R * spec_size; fewer frames are stretched.

        Returns:
          `[B, projection]` float32, and `last` `[B, T', F, D]`, the normed tokens in the order of
          time and of frequency, and `pooled` `[B, D]`, their mean.

        Raises:
          InputError: the spectrograms have another size, or sizes of the tower do not fit.
        """
        self._check(mel.shape)
        folds, side = self.spec_size // self.mels, self.patch
        # A batch norm with fixed statistics is one scale and one bias a band.
        scale = self.param("mel_scale", constant(FIRST_SCALE), (self.mels,))
        bias = self.param("mel_bias", constant(FIRST_BIAS), (self.mels,))
        x = stretch(mel * scale + bias, folds * self.spec_size)
        x = rearrange(x, "b (r w q) (f p) -> b (r f) w (p q)", r=folds, p=side, q=side)
        dense = functools.partial(nn.Dense, kernel_init=draw, dtype=self.dtype)
        x = layer_norm("patch_norm")(dense(self.width, name="patches")(x)).astype(self.dtype)
        for stage, (depth, heads) in enumerate(zip(self.depths, self.heads, strict=True)):
            if stage:
                # The four neighbours side by side, in the order of the checkpoints.
                x = rearrange(x, "b (h i) (w j) d -> b h w (j i d)", i=2, j=2)
                width = x.shape[-1] // 2
                x = layer_norm(f"merge_{stage}_norm")(x)
                x = dense(width, use_bias=False, name=f"merge_{stage}")(x)
            block = self._block(x.shape[-1], heads)
            # Where one window is the whole image there is nothing to shift.
            shift = self.window // 2 if x.shape[2] > self.window else 0
            for i in range(depth):
                x = block(name=f"stage_{stage}_{i}")(x, shift * (i % 2))
        x = layer_norm("last_norm")(x)
        x = rearrange(x, "b (r f) w d -> b (r w) f d", r=folds)
        pooled = x.mean((1, 2))
        y = nn.Dense(self.projection, name="project_first")(pooled)
        y = activate(self.projection_activation, y)
        y = nn.Dense(self.projection, name="project_second")(y)
        return y, {"last": x, "pooled": pooled}

    def _block(self, width: int, heads: int) -> Callable[..., Block]:
        """Returns what makes the layers of a stage."""
        check_heads(width, heads)
        hidden = int(self.ratio * width)
        given = (width, heads, hidden, self.window, self.activation, self.epsilon, self.dtype)
        return functools.partial(Block, *given)

    def _check(self, shape: tuple[int, ...]) -> None:
        """Raises an InputError where `shape` `[B, T, mels]` or sizes of the tower do not fit."""
        stages = len(self.depths)
        if stages != len(self.heads):
            raise InputError(f"depths has {stages} stages, but heads has {len(self.heads)}")
        token = self.patch * 2 ** (stages - 1)  # side of one of the last stage in the image
        for name, value, unit in (
            ("spec_size", self.spec_size, token * self.window),
            ("spec_size", self.spec_size, self.mels),
            ("mels", self.mels, token),
        ):
            if value % unit:
                raise InputError(
                    f"{name} is {value}; allowed with {self.mels} mels, patch {self.patch}, window "
                    f"{self.window} and {stages} stages: a multiple of {unit}"
                )
        frames = self.spec_size**2 // self.mels
        if shape[2] != self.mels or not 0 < shape[1] <= frames:
            raise InputError(
                f"spectrograms of shape {shape[1:]} reach a tower for at most {(frames, self.mels)}"
            )


def stretch(x: jax.Array, frames: int) -> jax.Array:
    """Returns `x` `[B, T, mels]` with `frames` frames, by cubic interpolation from end to end.

    Source: Keys 1981, "Cubic convolution interpolation for digital image processing", with -0.75
    for its free coefficient as PyTorch has it; beyond an end stands what stands there.
    """
    steps, a = x.shape[1], -0.75
    if steps == frames:
        return x
    at = np.linspace(0, steps - 1, frames)
    first = np.floor(at).astype(int)
    total = jnp.zeros(())
    for neighbour in range(-1, 3):
        far = np.abs(at - first - neighbour)
        near = ((a + 2) * far - (a + 3)) * far**2 + 1
        beyond = ((far - 5) * far + 8) * a * far - 4 * a
        weight = np.where(far <= 1, near, beyond).astype(np.float32)
        total = total + weight[:, None] * x[:, np.clip(first + neighbour, 0, steps - 1)]
    return total
