"""MCR: target and source modality co-reinforcement over asynchronous sequences.

Source: Yang et al. 2023, "Target and source modality co-reinforcement for emotion understanding
from asynchronous multimodal sequences"; the equations are that paper's.
Letters: B examples, T steps (Tt of the target, Ts of a source), D width, H heads, M modalities.
"""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from affectjax.models.coincidence import Coincidence
from affectjax.models.layers import (
    Attention,
    Block,
    Conv1d,
    Dropout,
    FeedForward,
    Layers,
    TemporalConv,
    check_heads,
    layer_norm,
    lecun,
    sources_of,
    zeros,
)
from affectjax.ops import attention, masking

Streams = dict[str, jax.Array]
Batch = Mapping[str, Mapping[str, jax.Array]]

SOURCE_UPDATES = ("memory", "sum", "feed_forward", "low_level")
ATTENTION_LAYERS = ("collapsed", "full", "none")
STRUCTURES = ("parallel", "serial")
LINEAR_PATHS = ("none", "mean", "moments")


class CrossMutualUnit(nn.Module):
    """CMU: attention from a target to each source, each corrected by the other's.

    Equation: MCR (2)

    Attributes:
      width: D.
      exchange_kernel: of the convolution along target steps that turns the scores over one
        source's steps into scores over the other's.
      mutual: false leaves the correction out (Table 5, "w/o Mutual Attention").
      attention_dropout, relu_dropout, residual_dropout: rates.
      axis_name: see `Dropout`.
      zero_init: see `MCR`.
    """

    width: int
    exchange_kernel: int = 1
    mutual: bool = True
    attention_dropout: float = 0.0
    relu_dropout: float = 0.0
    residual_dropout: float = 0.0
    axis_name: str | None = None
    zero_init: bool = False

    @nn.compact
    def __call__(
        self,
        target: jax.Array,
        target_mask: jax.Array,
        sources: Streams,
        source_masks: Streams,
        *,
        train: bool,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Maps target `[B, Tt, D]` and one or two sources `[B, Ts, D]` to `[B, Tt, D]`.

        Returns also `attention/<source>` `[B, Tt, Ts]` and, with two sources,
        `alpha/<source>` `[B, Ts]`.
        """
        normed = layer_norm("norm_target")(target)
        query = nn.Dense(self.width, name="query")(normed)
        scores, values = {}, {}
        init = zeros if self.zero_init else lecun
        for s, x in sources.items():
            memory = layer_norm(f"norm_{s}")(x)
            key = nn.Dense(self.width, name=f"key_{s}")(memory)
            values[s] = nn.Dense(self.width, kernel_init=init, name=f"value_{s}")(memory)
            found = attention.attention_scores(query[:, :, None], key[:, :, None])
            scores[s] = found[:, 0]  # of the one head
        alpha = {}
        if self.mutual and len(sources) == 2:
            scores, alpha = self._exchange(scores, target_mask, sources, source_masks)
        reinforced, weights = normed, {}
        for s in sources:
            attend = functools.partial(attention.crossmodal_attention, key_mask=source_masks[s])
            drop = functools.partial(Dropout(self.attention_dropout, self.axis_name), train=train)
            y, attended = attend(scores[s][:, None], values[s][:, :, None], drop=drop)
            weights[s] = attended[:, 0]
            drop = Dropout(self.residual_dropout, self.axis_name)
            reinforced += drop(y[:, :, 0], train=train)
        feed_forward = FeedForward(
            self.width,
            self.relu_dropout,
            self.residual_dropout,
            self.axis_name,
            self.zero_init,
            name="feed",
        )
        out = {f"attention/{s}": w for s, w in weights.items()}
        out |= {f"alpha/{s}": a for s, a in alpha.items()}
        return masking.zero_masked(feed_forward(reinforced, train=train), target_mask), out

    def _exchange(self, scores, target_mask, sources, source_masks):
        """Returns the scores with the other source's scores added, and alpha, the reliability.

        Equation: MCR (3)
        Equation: MCR (4)
        Equation: MCR (5)
        """
        first, second = sources
        reliability = jnp.concatenate([sources[s].sum(-1) for s in sources], axis=-1)
        valid = jnp.concatenate([source_masks[s] for s in sources], axis=-1)
        split = sources[first].shape[1]
        alpha = attention.masked_softmax(reliability, valid)
        alpha = dict(zip(sources, jnp.split(alpha, [split], axis=-1), strict=True))
        mutual = {}
        for s, other in ((first, second), (second, first)):
            inside = target_mask[:, :, None] & source_masks[s][:, None, :]
            channels = sources[other].shape[1]
            exchange = Conv1d(channels, self.exchange_kernel, name=f"exchange_{s}")
            mutual[other] = exchange(jnp.where(inside, scores[s], 0))
        return {s: scores[s] + alpha[s][:, None, :] * mutual[s] for s in sources}, alpha


class SelfCrossUnit(nn.Module):
    """SCU: attention to all sources at once and to the target itself, mixed by weight.

    Equation: MCR (6)
    Equation: MCR (7)
    Equation: MCR (8)
    Equation: MCR (10)
    Equation: MCR (11)

    Attributes:
      width: D.
      heads: H.
      attention_layer: "collapsed": beta as one vector of length Tt * D a branch, the same function
        as the paper's in O(Tt D) parameters; "full": the paper's U and W; "none": the two branches
        are added (Table 5, "w/o Attention Layer").
      attention_dropout, relu_dropout, residual_dropout: rates.
      axis_name: see `Dropout`.
      zero_init: see `MCR`.
    """

    width: int
    heads: int
    attention_layer: str = "collapsed"
    attention_dropout: float = 0.0
    relu_dropout: float = 0.0
    residual_dropout: float = 0.0
    axis_name: str | None = None
    zero_init: bool = False

    @nn.compact
    def __call__(
        self,
        target: jax.Array,
        target_mask: jax.Array,
        joined: jax.Array,
        joined_mask: jax.Array,
        *,
        train: bool,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Maps target `[B, Tt, D]` and joined sources `[B, Ts1 + Ts2, D]` to `[B, Tt, D]`.

        Returns also `attention/joined` and `attention/self` `[B, H, Tt, ...]`, and `gamma`
        `[B, 2]`, the weights of the crossmodal and of the self branch.
        """
        query = layer_norm("norm_target")(target)
        memory = layer_norm("norm_joined")(joined)
        unit = functools.partial(
            Attention,
            self.width,
            self.heads,
            self.attention_dropout,
            self.axis_name,
            self.zero_init,
        )
        cross, cross_weights = unit(name="cross")(query, memory, joined_mask, train=train)
        own, own_weights = unit(name="self")(query, query, target_mask, train=train)
        branches = [masking.zero_masked(x, target_mask) for x in (cross, own)]
        out = {"attention/joined": cross_weights, "attention/self": own_weights}
        if self.attention_layer == "none":
            mixed = branches[0] + branches[1]
        else:
            gamma = jax.nn.softmax(self._beta(branches), axis=-1)
            mixed = gamma[:, 0, None, None] * branches[0] + gamma[:, 1, None, None] * branches[1]
            out["gamma"] = gamma
        mixed = Dropout(self.residual_dropout, self.axis_name)(mixed, train=train)
        feed_forward = FeedForward(
            self.width,
            self.relu_dropout,
            self.residual_dropout,
            self.axis_name,
            self.zero_init,
            name="feed",
        )
        return masking.zero_masked(feed_forward(mixed, train=train), target_mask), out

    def _beta(self, branches: list[jax.Array]) -> jax.Array:
        """Returns `[B, 2]`: one number for each branch `[B, Tt, D]`.

        Equation: MCR (9)
        """
        flat = [x.reshape(x.shape[0], -1) for x in branches]
        if self.attention_layer == "collapsed":
            pairs = zip(("cross", "self"), flat, strict=True)
            return jnp.concatenate([nn.Dense(1, name=f"beta_{n}")(x) for n, x in pairs], axis=-1)
        size = flat[0].shape[-1]
        pairs = zip(("cross", "self"), flat, strict=True)
        hidden = [nn.Dense(size, name=f"beta_{n}")(x) for n, x in pairs]
        shared = nn.Dense(1, use_bias=False, name="beta_shared")
        return jnp.concatenate([shared(x) for x in hidden], axis=-1)


class Gate(nn.Module):
    """A sigmoid gate over steps and features: sigmoid(sum of Dense maps + bias).

    Attributes:
      width: D.
      steps: T of a bias `[T, D]` (the paper's), or None for one of `[D]`.
    """

    width: int
    steps: int | None

    @nn.compact
    def __call__(self, *inputs: jax.Array) -> jax.Array:
        """Maps inputs `[B, T, D]` to the gate `[B, T, D]`."""
        maps = [
            nn.Dense(self.width, use_bias=False, name=f"weight_{i}")(x)
            for i, x in enumerate(inputs)
        ]
        shape = (self.width,) if self.steps is None else (self.steps, self.width)
        return nn.sigmoid(sum(maps) + self.param("bias", zeros, shape))


class SourceUpdate(nn.Module):
    """SUM, first half: a source stream learns from its modality's new target.

    Equation: MCR (12)
    Equation: MCR (13)
    Equation: MCR (14)

    Attributes:
      width: D.
      update: "memory": the selective memory; "sum": features are added (Table 5, "SUM w/o SMM");
        "feed_forward": the target is not used; "low_level": the input features stay.
      time_bias: gates with a bias `[T, D]` (paper) or `[D]`.
    """

    width: int
    update: str = "memory"
    time_bias: bool = True

    @nn.compact
    def __call__(self, source: jax.Array, target: jax.Array, mask: jax.Array) -> jax.Array:
        """Maps source and same-modality target `[B, T, D]` to the new source `[B, T, D]`."""
        if self.update == "low_level":
            return source
        y = nn.relu(nn.Dense(4 * self.width, name="up")(source))
        own = nn.Dense(self.width, name="down")(y)
        if self.update == "feed_forward":
            return masking.zero_masked(own, mask)
        if self.update == "sum":
            return masking.zero_masked(own + target, mask)
        steps = source.shape[1] if self.time_bias else None
        keep = Gate(self.width, steps, name="gate")(own, target)
        return masking.zero_masked((1 - keep) * jnp.tanh(target) + keep * own, mask)


class Reinforcement(nn.Module):
    """One layer: every target reinforced, then every source updated (Fig. 1b).

    Attributes: those of `MCR` of the same names.
    """

    config: "MCR"

    @nn.compact
    def __call__(
        self,
        carry: tuple[Streams, Streams, Streams],
        masks: Streams,
        joined_masks: Streams,
        *,
        train: bool,
    ) -> tuple[tuple[Streams, Streams, Streams], dict[str, jax.Array]]:
        """Maps (targets, sources, joined sources of each target) to the same, one layer on."""
        c = self.config
        targets, sources, joined = carry
        new, out = dict(targets), {}
        for t in c.reinforced:
            others = {s: sources[s] for s in sources_of(t, c.modalities)}
            new[t], maps = self._target(
                t, targets[t], others, joined[t], masks, joined_masks, train=train
            )
            out |= {f"{t}/{name}": value for name, value in maps.items()}
        memory = functools.partial(SourceUpdate, c.width, c.source_update, c.time_bias)
        sources = {
            m: memory(name=f"memory_{m}")(sources[m], new[m], masks[m]) for m in c.modalities
        }
        joined = {t: self._join(t, sources, joined_masks[t]) for t in c.reinforced}
        return (new, sources, joined), out

    def _target(self, t, target, others, joined, masks, joined_masks, *, train):
        """Returns the new target stream (section 3.3) and what was seen on the way."""
        c = self.config
        rates = (c.attention_dropout, c.relu_dropout, c.residual_dropout, c.axis_name, c.zero_init)
        out = {}
        fine = mixed = 0.0
        if c.cmu:
            unit = CrossMutualUnit(c.width, c.exchange_kernel, c.mutual, *rates, name=f"cmu_{t}")
            other_masks = {s: masks[s] for s in others}
            fine, maps = unit(target, masks[t], others, other_masks, train=train)
            out |= {f"cmu/{name}": value for name, value in maps.items()}
        if c.scu:
            serial = c.structure == "serial" and c.cmu
            unit = SelfCrossUnit(c.width, c.heads, c.attention_layer, *rates, name=f"scu_{t}")
            start = fine if serial else target
            mixed, maps = unit(start, masks[t], joined, joined_masks[t], train=train)
            out |= {f"scu/{name}": value for name, value in maps.items()}
            fine = 0.0 if serial else fine
        return fine + mixed, out

    def _join(self, t: str, sources: Streams, mask: jax.Array) -> jax.Array:
        """Returns the sources of `t` concatenated over time, gated once more.

        Equation: MCR (15)
        Equation: MCR (16)
        """
        c = self.config
        joined = join(t, sources, c.modalities)
        if c.source_update != "memory":
            return joined
        steps = joined.shape[1] if c.time_bias else None
        gate = Gate(c.width, steps, name=f"select_{t}")(joined)
        return masking.zero_masked(gate * jnp.tanh(joined), mask)


def join(target: str, streams: Streams, modalities: tuple[str, ...]) -> jax.Array:
    """Returns the streams of the sources of `target`, concatenated over time."""
    return jnp.concatenate([streams[s] for s in sources_of(target, modalities)], axis=1)


class MCR(nn.Module):
    """MCR over the modalities of the batch, one to three.

    Attributes:
      outputs: numbers a prediction has.
      modalities: those to use, in the order of MODALITIES; all others in the batch are ignored.
      kernels: of the temporal convolution, by modality.
      targets: which modalities are reinforced and classified, () for all (Table 5, one direction
        only); a modality that is none keeps its target stream as it was.
      width, heads, layers: D, H and the number of reinforcement layers.
      encoder_layers: of the transformer over the concatenated targets.
      pool: "mean" over valid steps, or "last" valid step, of each modality.
      cmu, scu, mutual: false leaves the unit, or the mutual attention, out.
      attention_layer: see `SelfCrossUnit`.
      source_update: see `SourceUpdate`.
      structure: "parallel", or "serial": SCU after CMU.
      exchange_kernel: see `CrossMutualUnit`.
      time_bias: gates with a bias `[T, D]` (paper), or `[D]`.
      encoder_norm: a layer norm after the transformer over the targets.
      zero_init: the last map of every residual branch, and the values of CMU, start at zero, so
        that training starts from the pooled projections alone; steadier on small sets.
      linear_path: what a linear map of the inputs, beside the network, adds to the prediction, from
        zero on: "none"; "mean", that of the mean of each modality over time; or "moments", that
        of means and deviations.
      coincidence: by modality, heads of what it does at the moments that stand out in the others,
        see `Coincidence`; a linear map of it, from zero on, is added to the prediction. None where
        it is not named.
      input_dropout: rates of whole input features, by modality; none where it is not named.
      embed_dropout, attention_dropout, relu_dropout, residual_dropout, output_dropout: rates.
      axis_name: the mapped axis over which the batch is split, None where it is whole.
    """

    outputs: int
    modalities: tuple[str, ...]
    kernels: Mapping[str, int]
    targets: tuple[str, ...] = ()
    width: int = 40
    heads: int = 10
    layers: int = 3
    encoder_layers: int = 1
    pool: str = "mean"
    cmu: bool = True
    scu: bool = True
    mutual: bool = True
    attention_layer: str = "collapsed"
    source_update: str = "memory"
    structure: str = "parallel"
    exchange_kernel: int = 1
    time_bias: bool = True
    encoder_norm: bool = True
    zero_init: bool = False
    linear_path: str = "none"
    coincidence: Mapping[str, int] = FrozenDict()
    input_dropout: Mapping[str, float] = FrozenDict()
    embed_dropout: float = 0.1
    attention_dropout: float = 0.1
    relu_dropout: float = 0.1
    residual_dropout: float = 0.1
    output_dropout: float = 0.1
    axis_name: str | None = None

    def __post_init__(self):
        for name, allowed in (
            ("attention_layer", ATTENTION_LAYERS),
            ("source_update", SOURCE_UPDATES),
            ("structure", STRUCTURES),
            ("pool", ("mean", "last")),
            ("linear_path", LINEAR_PATHS),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"model.{name} is {getattr(self, name)!r}; allowed: {allowed}")
        for m, heads in self.coincidence.items():
            if m not in self.modalities or heads < 1:
                raise ValueError(
                    f"model.coincidence has {m!r}: {heads}; allowed: {', '.join(self.modalities)}, "
                    "and 1 head or more"
                )
        check_heads(self.width, self.heads)
        if self.targets and not set(self.targets) <= set(self.modalities):
            raise ValueError(
                f"model.targets is {self.targets}; allowed: {', '.join(self.modalities)}"
            )
        if not (self.cmu or self.scu):
            raise ValueError("model.cmu and model.scu are both off: nothing is left to train")
        super().__post_init__()

    @property
    def reinforced(self) -> tuple[str, ...]:
        """The target modalities, in the order of MODALITIES."""
        return tuple(m for m in self.modalities if not self.targets or m in self.targets)

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool) -> tuple[jax.Array, dict[str, Any]]:
        """Maps sequences to predictions.

        Args:
          batch: by modality `{"x": [B, T, D_m], "mask": [B, T]}`. Lengths are part of the
            parameters: those of every later batch must be the same.
          train: whether to drop.

        Returns:
          Logits or scores `[B, outputs]`, and `fused` `[B, M * D]`; in evaluation also, by target
          and layer, `cmu/attention/<source>_to_<target>/<layer>` `[B, Tt, Ts]`, `cmu/alpha/...`
          `[B, Ts]`, `scu/attention/...` `[B, H, Tt, ...]` and `scu/gamma/...` `[B, 2]`; and
          `moments/<source>_to_<target>` `[B, H, Ts]`, see `Coincidence`.
        """
        masks = {m: batch[m]["mask"] for m in self.modalities}
        inputs = {m: self._drop_inputs(m, batch[m], train=train) for m in masks}
        streams = {m: self._embed(m, x, masks[m], train=train) for m, x in inputs.items()}
        joined_masks = {t: join(t, masks, self.modalities) for t in self.reinforced}
        joined = {t: join(t, streams, self.modalities) for t in self.reinforced}
        layer = functools.partial(Reinforcement, self.clone(parent=None))
        (targets, _, _), seen = Layers(layer, self.layers, name="reinforce")(
            (streams, streams, joined), masks, joined_masks, train=train
        )
        fused = self._fuse(targets, masks, train=train)
        out = {"fused": fused}
        if not train:
            out |= self._by_layer(seen)
        y = nn.relu(nn.Dense(fused.shape[-1], name="head_up")(fused))
        y = Dropout(self.output_dropout, self.axis_name)(y, train=train)
        y = nn.Dense(self.outputs, name="head")(y)
        for m, x in inputs.items() if self.linear_path != "none" else ():
            summary = self._summarise(x, masks[m])
            y += nn.Dense(self.outputs, kernel_init=zeros, name=f"linear_{m}")(summary)
        if self.coincidence:
            moments, maps = self._coincide(inputs, masks, train=train)
            out |= {} if train else maps
            y += nn.Dense(self.outputs, kernel_init=zeros, name="linear_coincidence")(moments)
        return y, out

    def _coincide(
        self, inputs: Streams, masks: Streams, *, train: bool
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns `[B, ...]`, what coincides, and `moments/<source>_to_<target>` `[B, H, Ts]`."""
        found, out = [], {}
        rates = (self.output_dropout, self.axis_name)
        for t in (m for m in self.modalities if m in self.coincidence):
            others = {s: inputs[s] for s in sources_of(t, self.modalities)}
            unit = Coincidence(self.width, self.coincidence[t], *rates, name=f"coincide_{t}")
            own, maps = unit(inputs[t], masks[t], others, masks, train=train)
            found.append(Dropout(*rates)(own, train=train))
            out |= {f"{name}_to_{t}": value for name, value in maps.items()}
        return jnp.concatenate(found, axis=-1), out

    def _drop_inputs(self, m: str, own: Mapping[str, jax.Array], *, train: bool) -> jax.Array:
        x = masking.zero_masked(own["x"].astype(jnp.float32), own["mask"])
        # Whole features of an example, over all its steps: a step's neighbours would tell them.
        features = jnp.ones((len(x), 1, x.shape[-1]))
        rate = self.input_dropout.get(m, 0.0)
        return x * Dropout(rate, self.axis_name)(features, train=train)

    def _summarise(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """Returns `[B, D_m]`, the mean over valid steps, or `[B, 2 D_m]`, the deviation too."""
        mean = masking.masked_mean(x, mask)
        if self.linear_path == "mean":
            return mean
        variance = masking.masked_mean(jnp.square(x - mean[:, None]), mask)
        return jnp.concatenate([mean, jnp.sqrt(variance + 1e-6)], axis=-1)

    def _embed(self, m: str, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
        x = TemporalConv(self.width, self.kernels[m], name=f"project_{m}")(x, mask)
        x = x + masking.sinusoids(mask, self.width)
        return Dropout(self.embed_dropout, self.axis_name)(x, train=train)

    def _fuse(self, targets: Streams, masks: Streams, *, train: bool) -> jax.Array:
        """Returns `[B, M * D]`: a transformer over all targets, pooled by modality."""
        together = jnp.concatenate([targets[t] for t in self.reinforced], axis=1)
        valid = jnp.concatenate([masks[t] for t in self.reinforced], axis=1)
        block = functools.partial(
            Block,
            self.width,
            self.heads,
            self.attention_dropout,
            self.relu_dropout,
            self.residual_dropout,
            axis_name=self.axis_name,
            zero_init=self.zero_init,
        )
        encoder = Layers(block, self.encoder_layers, name="encoder")
        together, _ = encoder(together, None, valid, train=train)
        if self.encoder_norm:
            together = layer_norm("norm")(together)
        pool = masking.masked_mean if self.pool == "mean" else masking.last_valid
        pooled, start = [], 0
        for t in self.reinforced:
            stop = start + masks[t].shape[1]
            pooled.append(pool(together[:, start:stop], masks[t]))
            start = stop
        return jnp.concatenate(pooled, axis=-1)

    def _by_layer(self, seen: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Returns what the layers saw, one entry a layer, named as the class says."""
        out = {}
        for name, values in seen.items():
            target, unit, kind, *source = name.split("/")
            where = f"{source[0]}_to_{target}" if source else target
            out |= {f"{unit}/{kind}/{where}/{i}": values[i] for i in range(self.layers)}
        return out


Model = MCR  # what `config.model.name` builds
