"""Layers that several architectures share.

Letters: B examples, T steps, D features, H heads, Tq target steps, Tk source steps.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax import lax

from affectjax.errors import InputError
from affectjax.ops import attention, masking
from affectjax.ops.dropout import dropout

xavier = nn.initializers.xavier_uniform()
zeros = nn.initializers.zeros
lecun = nn.initializers.lecun_normal()
# Query, key and value are drawn as one [D, 3D] matrix would be: half the variance each.
xavier_third = nn.initializers.variance_scaling(0.5, "fan_avg", "uniform")


def check_heads(width: int, heads: int) -> None:
    """Raises an InputError where `heads` does not divide `width`."""
    if heads < 1 or width % heads:
        raise InputError(f"a width of {width} cannot be split among {heads} heads")


class Dropout(nn.Module):
    """Dropout that does not depend on how many devices share the batch (`ops/dropout.py`)."""

    rate: float
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns `x` `[B, ...]`, with elements dropped in training."""
        if not train or self.rate == 0.0:
            return x
        return dropout(x, self.make_rng("dropout"), self.rate, self.axis_name)


def layer_norm(name: str | None = None, epsilon: float = 1e-5) -> nn.LayerNorm:
    """Returns a layer norm in float32, by default with PyTorch's epsilon."""
    return nn.LayerNorm(epsilon, jnp.float32, use_fast_variance=False, name=name)


class Conv1d(nn.Module):
    """A convolution over time, same length out as in, as one matrix product over windows.

    The product, because several models trained together (vmap) would make of a convolution a
    grouped one, which is slow everywhere.

    Attributes:
      features: output channels.
      size: steps of the kernel, `[size, D_in, features]`.
      use_bias: whether to add one.
    """

    features: int
    size: int
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, T, D_in]` to `[B, T, features]`, with zeros before and after the sequence."""
        shape = (self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", lecun, shape)
        before = (self.size - 1) // 2
        padded = jnp.pad(x, ((0, 0), (before, self.size - 1 - before), (0, 0)))
        steps = x.shape[1]
        windows = [padded[:, i : i + steps] for i in range(self.size)]
        y = jnp.concatenate(windows, axis=-1) @ rearrange(kernel, "k i o -> (k i) o")
        if self.use_bias:
            y = y + self.param("bias", zeros, (self.features,))
        return y


class TemporalConv(nn.Module):
    """A convolution over time that brings a modality to the common width; no bias."""

    width: int
    kernel: int

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """Maps `[B, T, D_m]` to `[B, T, D]`; padded steps go in and come out as zeros."""
        x = masking.zero_masked(x.astype(jnp.float32), mask)
        x = Conv1d(self.width, self.kernel, use_bias=False, name="conv")(x)
        return masking.zero_masked(x, mask)


class Attention(nn.Module):
    """Multi-head attention from a target to a source, with attention dropout.

    Attributes:
      width: D of query, key, value and output together.
      heads: H.
      dropout: rate on the attention weights.
      axis_name: see `Dropout`.
      zero_init: the output map starts at zero.
    """

    width: int
    heads: int
    dropout: float = 0.0
    axis_name: str | None = None
    zero_init: bool = False

    @nn.compact
    def __call__(
        self,
        target: jax.Array,
        source: jax.Array,
        source_mask: jax.Array,
        *,
        causal: bool = False,
        train: bool,
    ) -> tuple[jax.Array, jax.Array]:
        """Maps target `[B, Tq, D]` and source `[B, Tk, D]` to `[B, Tq, D]` and the weights.

        The weights `[B, H, Tq, Tk]` are those before dropout.
        """
        split = "b t (n h d) -> n b t h d"
        query = nn.Dense(self.width, kernel_init=xavier_third, name="query")(target)
        memory = nn.Dense(2 * self.width, kernel_init=_pair(xavier_third), name="key_value")(source)
        (query,) = rearrange(query, split, n=1, h=self.heads)
        key, value = rearrange(memory, split, n=2, h=self.heads)
        bias = attention.causal_bias(query.shape[1], key.shape[1]) if causal else None
        rate = self.dropout if train else 0.0
        seed = self.make_rng("dropout") if rate else jnp.zeros(2, jnp.uint32)

        # Not kept for the backward pass but made again: reading [B, H, Tq, Tk] back costs more
        # time than two small products, and at unaligned lengths it would not fit in memory.
        @jax.checkpoint
        def gather(query, key, value):
            scores = attention.attention_scores(query, key, key_mask=source_mask)
            drop = functools.partial(dropout, key=seed, rate=rate, axis_name=self.axis_name)
            return attention.crossmodal_attention(
                scores, value, key_mask=source_mask, bias=bias, drop=drop
            )

        gathered, weights = gather(query, key, value)
        gathered = rearrange(gathered, "b t h d -> b t (h d)")
        init = zeros if self.zero_init else xavier
        return nn.Dense(self.width, kernel_init=init, name="out")(gathered), weights


def _pair(init: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Returns an initialiser for `[D, 2D]` that draws two `[D, D]` matrices side by side."""

    def draw(key, shape, dtype=jnp.float32):
        first, second = jax.random.split(key)
        half = (shape[0], shape[1] // 2)
        return jnp.concatenate([init(first, half, dtype), init(second, half, dtype)], axis=1)

    return draw


class FeedForward(nn.Module):
    """Layer norm, Dense to 4D, ReLU, Dense back, added to its input (position-wise)."""

    width: int
    relu_dropout: float = 0.0
    residual_dropout: float = 0.0
    axis_name: str | None = None
    zero_init: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps `[B, T, D]` to `[B, T, D]`."""
        y = layer_norm("norm")(x)
        y = nn.relu(nn.Dense(4 * self.width, kernel_init=xavier, name="up")(y))
        y = Dropout(self.relu_dropout, self.axis_name)(y, train=train)
        init = zeros if self.zero_init else xavier
        y = nn.Dense(self.width, kernel_init=init, name="down")(y)
        return x + Dropout(self.residual_dropout, self.axis_name)(y, train=train)


class Block(nn.Module):
    """One pre-norm transformer layer, from a source or from the target itself.

    Source: Tsai et al. 2019, section 3.2; Vaswani et al. 2017.
    """

    width: int
    heads: int
    attention_dropout: float = 0.0
    relu_dropout: float = 0.0
    residual_dropout: float = 0.0
    causal: bool = False
    axis_name: str | None = None
    zero_init: bool = False

    @nn.compact
    def __call__(
        self,
        target: jax.Array,
        source: jax.Array | None,
        source_mask: jax.Array,
        *,
        train: bool,
    ) -> tuple[jax.Array, jax.Array]:
        """Maps target `[B, Tq, D]` and source `[B, Tk, D]` (None: itself) to `[B, Tq, D]`.

        Returns also the attention weights `[B, H, Tq, Tk]`.
        """
        norm = layer_norm("norm")
        query = norm(target)
        memory = query if source is None else norm(source)
        y, weights = Attention(
            self.width,
            self.heads,
            self.attention_dropout,
            self.axis_name,
            self.zero_init,
            name="attention",
        )(query, memory, source_mask, causal=self.causal, train=train)
        x = target + Dropout(self.residual_dropout, self.axis_name)(y, train=train)
        feed_forward = FeedForward(
            self.width,
            self.relu_dropout,
            self.residual_dropout,
            self.axis_name,
            self.zero_init,
            name="feed",
        )
        return feed_forward(x, train=train), weights


class Layers(nn.Module):
    """Equal layers, one after the other, as one `lax.scan`: compiled once, whatever their number.

    Attributes:
      block: makes the layer, a module `(carry, *constants, train) -> (carry, output)`.
      length: number of layers; every parameter gets a leading axis of this length.
    """

    block: Callable[..., nn.Module]
    length: int

    @nn.compact
    def __call__(self, carry: Any, *constants: Any, train: bool) -> tuple[Any, Any]:
        """Returns the last carry, and the outputs stacked over the layers."""
        block = self.block(parent=None)

        def init(key):
            keys = jax.random.split(key, self.length)
            return jax.vmap(lambda k: block.init(k, carry, *constants, train=False)["params"])(keys)

        params = self.param("layers", init)
        key = self.make_rng("dropout") if train else jax.random.key(0)

        def layer(carry, inputs):
            params, key = inputs
            rngs = {"dropout": key} if train else {}
            return block.apply({"params": params}, carry, *constants, train=train, rngs=rngs)

        return lax.scan(layer, carry, (params, jax.random.split(key, self.length)))


class Units(nn.Module):
    """Equal modules side by side, each with its own inputs; parameters stacked on a unit axis.

    Attributes:
      block: makes the unit.
      stacked: run as one batched program, which needs equal shapes; else one after the other.
        Batched, an accelerator launches a sixth of the kernels; on a CPU the loop is quicker.
    """

    block: Callable[..., nn.Module]
    stacked: bool

    @nn.compact
    def __call__(self, inputs: Sequence[tuple], *, train: bool) -> list[Any]:
        """Returns a list: the output of unit i for the positional arguments `inputs[i]`."""
        block = self.block(parent=None)
        count = len(inputs)

        def init(key):
            keys = jax.random.split(key, count)
            return jax.vmap(lambda k: block.init(k, *inputs[0], train=False)["params"])(keys)

        params = self.param("units", init)
        keys = jax.random.split(self.make_rng("dropout") if train else jax.random.key(0), count)

        def unit(params, key, args):
            rngs = {"dropout": key} if train else {}
            return block.apply({"params": params}, *args, train=train, rngs=rngs)

        if self.stacked:
            together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *inputs)
            outputs = jax.vmap(unit)(params, keys, together)
            return [jax.tree.map(lambda leaf, i=i: leaf[i], outputs) for i in range(count)]
        take = lambda i: jax.tree.map(lambda leaf: leaf[i], params)  # noqa: E731
        return [unit(take(i), keys[i], inputs[i]) for i in range(count)]


def stack_units(lengths: Mapping[str, int]) -> bool:
    """Returns whether equal units should run batched: equal lengths, and an accelerator."""
    return len(set(lengths.values())) == 1 and jax.default_backend() != "cpu"


def sources_of(target: str, modalities: Sequence[str]) -> tuple[str, ...]:
    """Returns the other modalities, or the target itself where it is the only one.

    Source: section 4.5.1 of the MCR paper (attention within the modality in the unimodal case).
    """
    return tuple(m for m in modalities if m != target) or (target,)
