"""MulT: crossmodal transformers over unaligned sequences, the baseline of MCR.

Source: Tsai et al. 2019, "Multimodal Transformer for Unaligned Multimodal Language Sequences".
Letters: B examples, T steps, D width, S sources of a target.
"""

import functools
from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from affectjax.models.layers import (
    Block,
    Dropout,
    Layers,
    TemporalConv,
    Units,
    check_heads,
    layer_norm,
    sources_of,
    stack_units,
)
from affectjax.ops import masking

Batch = Mapping[str, Mapping[str, jax.Array]]


class _Step(nn.Module):
    """One layer of several encoders side by side."""

    block: functools.partial
    stacked: bool

    @nn.compact
    def __call__(self, targets, sources, masks, *, train):
        inputs = [(t, s, m) for t, s, m in zip(targets, sources, masks, strict=True)]
        outputs = Units(self.block, self.stacked, name="encoders")(inputs, train=train)
        return [x for x, _ in outputs], [weights for _, weights in outputs]


class Encoders(nn.Module):
    """Transformer encoders side by side, with scaled, positioned input and a last layer norm.

    Attributes:
      width: D.
      heads, layers: of each encoder.
      embed_dropout, attention_dropout, relu_dropout, residual_dropout: rates.
      stacked: see `Units`.
      axis_name: see `Dropout`.
    """

    width: int
    heads: int
    layers: int
    embed_dropout: float
    attention_dropout: float
    relu_dropout: float
    residual_dropout: float
    stacked: bool
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self,
        targets: Sequence[jax.Array],
        target_masks: Sequence[jax.Array],
        sources: Sequence[jax.Array | None],
        source_masks: Sequence[jax.Array],
        *,
        train: bool,
    ) -> tuple[list[jax.Array], list[jax.Array]]:
        """Encodes each target `[B, Tq, D]` with its source `[B, Tk, D]`, None for itself.

        Returns the encoded targets and the attention weights, each `[layers, B, H, Tq, Tk]`.
        """
        embed = functools.partial(self._embed, train=train)
        carry = [embed(x, m) for x, m in zip(targets, target_masks, strict=True)]
        memory = [
            None if x is None else embed(x, m) for x, m in zip(sources, source_masks, strict=True)
        ]
        block = functools.partial(
            Block,
            self.width,
            self.heads,
            self.attention_dropout,
            self.relu_dropout,
            self.residual_dropout,
            causal=True,
            axis_name=self.axis_name,
        )
        step = functools.partial(_Step, block, self.stacked)
        stack = Layers(step, self.layers, name="stack")
        encoded, weights = stack(carry, memory, list(source_masks), train=train)
        encoded = Units(_Norm, self.stacked, name="norm")([(x,) for x in encoded], train=train)
        pairs = zip(encoded, target_masks, strict=True)
        return [masking.zero_masked(x, m) for x, m in pairs], weights

    def _embed(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
        x = self.width**0.5 * x + masking.sinusoids(mask, self.width)
        return Dropout(self.embed_dropout, self.axis_name)(x, train=train)


class _Norm(nn.Module):
    """A layer norm that can stand in `Units`."""

    @nn.compact
    def __call__(self, x, *, train):
        return layer_norm("norm")(x)


class MulT(nn.Module):
    """MulT over the modalities of the batch, one to three.

    Attributes:
      outputs: numbers a prediction has.
      modalities: those to use, in the order of MODALITIES; all others in the batch are ignored.
      kernels: of the temporal convolution, by modality.
      width: D of the crossmodal stacks; the memory stacks have S * D.
      heads, layers: of every stack.
      embed_dropout, attention_dropout, relu_dropout, residual_dropout, output_dropout: rates.
      axis_name: the mapped axis over which the batch is split, None where it is whole.
    """

    outputs: int
    modalities: tuple[str, ...]
    kernels: Mapping[str, int]
    width: int = 30
    heads: int = 10
    layers: int = 4
    embed_dropout: float = 0.25
    attention_dropout: float = 0.1
    relu_dropout: float = 0.1
    residual_dropout: float = 0.1
    output_dropout: float = 0.0
    axis_name: str | None = None

    def __post_init__(self):
        check_heads(self.width, self.heads)
        super().__post_init__()

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Maps sequences to predictions.

        Args:
          batch: by modality `{"x": [B, T, D_m], "mask": [B, T]}`.
          train: whether to drop.

        Returns:
          Logits or scores `[B, outputs]`, and `fused` `[B, M * S * D]` and
          `attention/<source>_to_<target>/<layer>` `[B, H, Tq, Tk]` (evaluation only).
        """
        mask = {m: batch[m]["mask"] for m in self.modalities}
        hidden = {}
        for m in self.modalities:
            x = masking.zero_masked(batch[m]["x"].astype(jnp.float32), mask[m])
            # As the authors do: the words alone are dropped before the projection.
            x = Dropout(self.embed_dropout, self.axis_name)(x, train=train and m == "text")
            hidden[m] = TemporalConv(self.width, self.kernels[m], name=f"project_{m}")(x, mask[m])
        pairs = [(s, t) for t in self.modalities for s in sources_of(t, self.modalities)]
        stacked = stack_units({m: mask[m].shape[1] for m in self.modalities})
        crossed, weights = self._encoders(self.width, stacked, "crossmodal")(
            [hidden[t] for _, t in pairs],
            [mask[t] for _, t in pairs],
            [hidden[s] for s, _ in pairs],
            [mask[s] for s, _ in pairs],
            train=train,
        )
        memory_in = [
            jnp.concatenate([x for x, (_, t) in zip(crossed, pairs, strict=True) if t == m], -1)
            for m in self.modalities
        ]
        masks = list(mask.values())
        width = memory_in[0].shape[-1]
        memory, _ = self._encoders(width, stacked, "memory")(
            memory_in, masks, [None] * len(masks), masks, train=train
        )
        last = [masking.last_valid(x, m) for x, m in zip(memory, masks, strict=True)]
        fused = jnp.concatenate(last, axis=-1)
        out = {"fused": fused}
        if not train:
            for (s, t), maps in zip(pairs, weights, strict=True):
                out |= {f"attention/{s}_to_{t}/{i}": maps[i] for i in range(self.layers)}
        return self._head(fused, train=train), out

    def _encoders(self, width: int, stacked: bool, name: str) -> Encoders:
        return Encoders(
            width,
            self.heads,
            self.layers,
            self.embed_dropout,
            self.attention_dropout,
            self.relu_dropout,
            self.residual_dropout,
            stacked,
            self.axis_name,
            name=name,
        )

    def _head(self, fused: jax.Array, *, train: bool) -> jax.Array:
        width = fused.shape[-1]
        y = nn.relu(nn.Dense(width, name="head_up")(fused))
        y = Dropout(self.output_dropout, self.axis_name)(y, train=train)
        return nn.Dense(self.outputs, name="head")(fused + nn.Dense(width, name="head_down")(y))


Model = MulT  # what `config.model.name` builds
