"""UMBEnet: clips in which any modality may be missing, read through a pool of prompts.

Source: SPEC section 1; Mai et al. 2024, sections 3.1 to 3.4.
Letters: B examples, M modalities, T steps, D features, N prompts of the pool, k chosen ones, L
tokens of a prompt, Dt width of the text tower, C classes, S tokens of a class name.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange, repeat
from jax import lax

from affectjax.errors import InputError
from affectjax.models.clip import TextTower
from affectjax.models.coincidence import Coincidence
from affectjax.models.encoders import FrameHead, LayerSum, encode, encode_frames
from affectjax.models.layers import Dropout, check_heads
from affectjax.ops import masking, mel, prompts

POOL = "pool"
SEVERAL = "several"  # in place of a modality: several at once
QUERY_MAPS = ("identity", "linear", "mlp")
small = nn.initializers.normal(0.02)


class Fusion(nn.Module):
    """Adaptive fusion: one token a modality, attended to where it is present.

    Equation: UMBEnet (2)
    Equation: UMBEnet (3)
    """

    modalities: int
    width: int
    layers: int
    heads: int
    dropout: float = 0.0
    axis_name: str | None = None

    @nn.compact
    def __call__(self, tokens: jax.Array, present: jax.Array, *, train: bool) -> jax.Array:
        """Maps `[B, M, D]` and `present` `[B, M]` to `[B, D]` of length 1 (0 where none is)."""
        table = self.param("embedding", small, (self.modalities, self.width))
        x = masking.zero_masked(tokens + table, present)
        x = encode(self, "layers", x, present, train=train)
        return normalize(masking.masked_mean(x, present))


class Pool(nn.Module):
    """The prompt pool, and the counts of what it was asked for.

    Variables of the collection `pool`, summed over devices: `total` `[N]`, activations in training
    since the stage began; `epoch` `[M + 1, N]`, those since the epoch began, by the one modality
    that an example showed, or in the last row when it showed several; `served` `[M + 1, N]`, the
    counts at the end of the stage before; `turn`, the steps taken.
    """

    size: int
    length: int
    width: int
    keys: int
    modalities: int
    top_k: int
    query_map: str
    penalty: float
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, fused: jax.Array, present: jax.Array, weight: jax.Array, *, train: bool
    ) -> dict[str, jax.Array]:
        """Returns `values` `[B, k, L, Dt]`, `index` and `similarity` `[B, k]`, `pull` `[B]`.

        Args:
          fused: `[B, D]`.
          present: `[B, M]` bool.
          weight: `[B]`, 0 on rows that do not count.
          train: whether to count activations, and to penalise those chosen often.
        """
        keys = self.param("keys", small, (self.size, self.keys))
        values = self.param("values", small, (self.size, self.length, self.width))
        total = self.variable(POOL, "total", jnp.zeros, (self.size,))
        epoch = self.variable(POOL, "epoch", jnp.zeros, (self.modalities + 1, self.size))
        self.variable(POOL, "served", jnp.zeros, (self.modalities + 1, self.size))
        self.variable(POOL, "turn", jnp.zeros, (), jnp.int32)
        query = self._query(fused)
        penalty = prompts.usage_penalty(total.value, self.penalty) if train else None
        chosen, index, similarity = prompts.retrieve(query, keys, values, self.top_k, penalty)
        if train and not self.is_initializing():
            row = jnp.where(present.sum(-1) == 1, jnp.argmax(present, -1), self.modalities)
            of_row = jax.nn.one_hot(row, self.modalities + 1) * (weight > 0)[:, None]
            counts = jax.vmap(lambda own: prompts.usage(index, own, self.size))(of_row.T)
            if self.axis_name is not None:
                counts = lax.psum(counts, self.axis_name)
            total.value += counts.sum(0)
            epoch.value += counts
        pull = prompts.pull_loss(query, keys, index)
        return {"values": chosen, "index": index, "similarity": similarity, "pull": pull}

    def _query(self, fused: jax.Array) -> jax.Array:
        """Returns the query `[B, D]` of a fused feature: a selectable mapping (section 3.2)."""
        if self.query_map == "identity":
            return fused
        if self.query_map == "mlp":
            fused = nn.relu(nn.Dense(self.keys, name="query_hidden")(fused))
        return nn.Dense(self.keys, name="query")(fused)


class SparseFusion(nn.Module):
    """Sparse feature fusion: the k prompts, a gate a token, become one."""

    hidden: int

    @nn.compact
    def __call__(self, values: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Maps `[B, k, L, Dt]` to `[B, L, Dt]`, the gates `[B, k, L, 1]` and `sum |W1|`."""
        w1 = self.param("w1", nn.initializers.lecun_normal(), (values.shape[-1], self.hidden))
        b1 = self.param("b1", nn.initializers.zeros, (self.hidden,))
        w2 = self.param("w2", nn.initializers.lecun_normal(), (self.hidden, 1))
        b2 = self.param("b2", nn.initializers.zeros, (1,))
        gates = prompts.sparse_gates(values, w1, b1, w2, b2)
        return prompts.sparse_fuse(values, gates), gates, prompts.l1(w1)


class Moments(nn.Module):
    """What is said at the moments that stand out in voice and face, as evidence for the classes.

    Words are token embeddings or encoded states; a voice is its mel spectrogram, four frames of 10
    ms in one; a face is what little is left of each frame on a grid of 8 x 8. See `Coincidence`.

    Attributes:
      classes: C.
      heads: of the moments.
      width: of each head's words.
      dropout: rate, see `Coincidence`.
      axis_name: see `Dropout`.
    """

    classes: int
    heads: int
    width: int = 32
    dropout: float = 0.0
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self,
        words: jax.Array,
        words_mask: jax.Array,
        sources: Mapping[str, jax.Array],
        masks: Mapping[str, jax.Array],
        *,
        train: bool,
    ) -> dict[str, jax.Array]:
        """Returns by source the logits `[B, C]` of the words at its moments.

        Args:
          words: `[B, Tt, D]`.
          words_mask: `[B, Tt]`.
          sources: by modality `[B, Ts, D_m]`.
          masks: by modality `[B, Ts]`.
          train: whether to drop.
        """
        rates = (self.dropout, self.axis_name)
        unit = Coincidence(self.width, self.heads, *rates, name="coincide")
        found, _ = unit(words, words_mask, dict(sources), dict(masks), train=train)
        found = Dropout(*rates)(found, train=train)
        parts = jnp.split(found, len(sources), axis=-1)
        zeros = nn.initializers.zeros
        return {
            m: nn.Dense(self.classes, kernel_init=zeros, name=f"of_{m}")(part)
            for m, part in zip(sources, parts, strict=True)
        }


class UMBEnet(nn.Module):
    """The whole network.

    Attributes:
      modalities: those used, in the order of MODALITIES.
      encoders: by modality, what makes the module that reads it: no arguments, but a name, see
        `affectjax.encoders.Encoder`. None where the data comes encoded, a feature a layer.
      towers: by modality, text or vision, what makes the module before its head, in place of an
        encoder; the head is a Dense of text, a `FrameHead` of frames. None where no module runs:
        the data comes encoded, or the text tower itself reads it.
      text: the arguments of the text tower, a `TextTower`; its projection is D.
      sos: the number of the token before everything.
      class_tokens: by class, the tokens after the prompts: name, full stop, end.
      mean, std: of the pixels, from 0 to 1.
      frames: the most there are in a clip.
      temporal_layers, temporal_heads: of the transformer over frames.
      fusion_layers, heads: of the transformers that are not the towers.
      pool_size, prompt_tokens, inherent_tokens, top_k, query_map, usage_penalty: see `Pool`.
      gate_hidden: see `SparseFusion`.
      logit_scale: of the cosines.
      center_classes: take the mean over the classes from the class features. A text tower that
        nobody has trained gives all classes nearly one feature, and so one gradient.
      evidence: add to the logits a linear map of each feature that is shown: log-probabilities of
        modalities that are independent given the class add up, and each tower has a gradient that
        no other tower stands in the way of.
      moments: with `evidence`, heads of the words at the moments that stand out in voice and face,
        see `Moments`; 0 for none.
      dropout: in the transformers that are not towers, and on features.
      skip_absent: do not run an encoder where no example of the batch on this device has the
        modality.
      axis_name: the mapped axis over which a batch is split, None where it is whole.
    """

    modalities: tuple[str, ...]
    encoders: Mapping[str, Callable[[], nn.Module] | None]
    towers: Mapping[str, Callable[[], nn.Module] | None]
    text: Mapping[str, Any]
    sos: int
    class_tokens: tuple[tuple[int, ...], ...]
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.25, 0.25, 0.25)
    frames: int = 16
    temporal_layers: int = 12
    temporal_heads: int = 8
    fusion_layers: int = 1
    heads: int = 8
    pool_size: int = 32
    prompt_tokens: int = 32
    inherent_tokens: int = 32
    top_k: int = 5
    query_map: str = "identity"
    usage_penalty: float = 0.0
    gate_hidden: int = 128
    logit_scale: float = 100.0
    center_classes: bool = False
    evidence: bool = False
    moments: int = 0
    dropout: float = 0.0
    skip_absent: bool = True
    axis_name: str | None = None

    def __post_init__(self):
        if self.fusion_layers < 1:
            raise ValueError(f"fusion_layers is {self.fusion_layers}; allowed: 1 or more")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; allowed: from 0 to below 1")
        if self.moments < 0 or (self.moments and not self.evidence):
            raise ValueError(f"moments is {self.moments}; allowed: 0, or more with evidence")
        super().__post_init__()

    @property
    def width(self) -> int:
        """D."""
        return self.text["projection"]

    def setup(self):
        """Makes the parts; raises InputError for values that are not allowed."""
        if self.query_map not in QUERY_MAPS or not 0 < self.top_k <= self.pool_size:
            raise InputError(
                f'"config.model" has query_map {self.query_map!r} and top_k {self.top_k}; allowed: '
                f"{', '.join(QUERY_MAPS)}, and 1 to pool_size ({self.pool_size})"
            )
        check_heads(self.width, self.heads)
        if "vision" in self.towers and self.temporal_layers:
            check_heads(self.width, self.temporal_heads)
        common = {"dropout": self.dropout, "axis_name": self.axis_name}
        self.text_tower = TextTower(**self.text)
        made = {**self.encoders, **self.towers}
        self.readers = {m: make() for m, make in made.items() if make is not None}
        # Where a module with weights gives another width than D.
        self.widths = {m: nn.Dense(self.width, name=f"{m}_width") for m in self.modalities}
        self.layer_sums = {m: LayerSum(name=f"{m}_layers") for m in self.encoders}
        self.text_dense = nn.Dense(self.width)
        self.frame_head = FrameHead(
            self.frames, self.width, self.temporal_layers, self.temporal_heads, **common
        )
        self.fusion = Fusion(
            len(self.modalities), self.width, self.fusion_layers, self.heads, **common
        )
        self.pool = Pool(
            size=self.pool_size,
            length=self.prompt_tokens,
            width=self.text["width"],
            keys=self.width,
            modalities=len(self.modalities),
            top_k=self.top_k,
            query_map=self.query_map,
            penalty=self.usage_penalty,
            axis_name=self.axis_name,
        )
        self.sparse = SparseFusion(self.gate_hidden)
        classes = len(self.class_tokens)
        self.of_feature = {m: nn.Dense(classes, name=f"{m}_evidence") for m in self.modalities}
        self.of_moments = Moments(classes, self.moments, **common)
        self.inherent = self.param("inherent", small, (self.inherent_tokens, self.text["width"]))

    def __call__(
        self, batch: Mapping[str, Any], *, train: bool
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns logits `[B, C]`, the scaled cosines of clip and classes, and what led to them.

        Equation: UMBEnet (5)

        Args:
          batch: by modality `x` and `mask`, and `present`; frames, text and sound may also come as
            what a frozen tower gave for them, `[B, T, D]`. `shown` `[B, M]`, part of what is
            present, is what is fused; all where it is not there.
          train: whether to drop, and to count activations.

        Returns:
          The logits, and `feature/<modality>` `[B, D]`, `fused` `[B, D]`, `prompt_index` and
          `prompt_similarity` `[B, k]`, `gates` `[B, k, L, 1]`, `class_feature` `[B, C, D]`,
          `pull` `[B]`, `l1` scalar, and `evidence` `[B, M, M, C]` where there is any, see `weigh`.
        """
        present = jnp.stack([batch["present"][m] for m in self.modalities], axis=1)
        features = {m: self._feature(m, batch, train) for m in self.modalities}
        shown = batch.get("shown", present)
        stacked = jnp.stack([features[m] for m in self.modalities], axis=1)
        fused = self.fusion(stacked, shown, train=train)
        weight = batch.get("weight", jnp.ones(len(present)))
        found = self.pool(fused, shown, weight, train=train)
        merged, gates, l1 = self.sparse(found["values"])
        classes = normalize(self._classes(merged))
        if self.center_classes:
            classes = normalize(classes - classes.mean(1, keepdims=True))
        logits = self.logit_scale * jnp.einsum("bd,bcd->bc", fused, classes)
        evidence = self._evidence(stacked, batch, train=train) if self.evidence else None
        if evidence is not None:
            logits += weigh(evidence, shown[:, None])[:, 0]
        out = {f"feature/{m}": feature for m, feature in features.items()}
        return logits, out | {
            "fused": fused,
            "prompt_index": found["index"],
            "prompt_similarity": found["similarity"],
            "gates": gates,
            "class_feature": classes,
            "pull": found["pull"],
            "l1": l1,
            **({} if evidence is None else {"evidence": evidence}),
        }

    def of_subsets(
        self,
        features: jax.Array,
        shown: jax.Array,
        classes: jax.Array,
        evidence: jax.Array | None = None,
        *,
        train: bool,
    ) -> jax.Array:
        """Returns the logits `[B, S, C]` as if an example had some of its modalities alone.

        The encoders and the tower of the class prompts do not run again: the prompts are those that
        the example has chosen with what was shown of it.

        Args:
          features: `[B, M, D]`, of the modalities.
          shown: `[B, S, M]` bool, which modalities each of S subsets has.
          classes: `[B, C, D]`, `class_feature` of the call that gave the features.
          evidence: of that call, None where it has none.
          train: whether to drop.
        """
        subsets = shown.shape[1]
        tokens = repeat(features, "b m d -> (b s) m d", s=subsets)
        fused = self.fusion(tokens, rearrange(shown, "b s m -> (b s) m"), train=train)
        fused = rearrange(fused, "(b s) d -> b s d", s=subsets)
        logits = self.logit_scale * jnp.einsum("bsd,bcd->bsc", fused, classes)
        return logits if evidence is None else logits + weigh(evidence, shown)

    def _evidence(self, features: jax.Array, batch: Mapping[str, Any], *, train: bool) -> jax.Array:
        """Returns `[B, M, M, C]` for `weigh`: of each modality, and of words at moments of others.

        Source: Hinton 2002, "Training Products of Experts by Minimizing Contrastive Divergence",
        of the sum of logits.
        """
        single = [self.of_feature[m](features[:, i]) for i, m in enumerate(self.modalities)]
        own = jnp.stack(single, axis=1)
        pairs = own[:, :, None] * jnp.eye(len(self.modalities))[:, :, None]
        if not self.moments or "text" not in self.modalities:
            return pairs
        steps = {m: self._steps(m, batch) for m in self.modalities}
        words, words_mask = steps.pop("text") or (None, None)
        sources = {m: found for m, found in steps.items() if found is not None}
        if words is None or not sources:
            return pairs
        seen = {m: x for m, (x, _) in sources.items()}
        masks = {m: mask for m, (_, mask) in sources.items()}
        found = self.of_moments(words, words_mask, seen, masks, train=train)
        text = self.modalities.index("text")
        for m, logits in found.items():
            there = words_mask.any(-1) & masks[m].any(-1)
            logits = jnp.where(there[:, None], logits, 0)
            pairs = pairs.at[:, text, self.modalities.index(m)].set(logits)
        return pairs

    def _steps(self, m: str, batch: Mapping[str, Any]) -> tuple[jax.Array, jax.Array] | None:
        """Returns `[B, T, D]` of a modality in time and its mask; None where it has no time."""
        x, mask = batch[m]["x"], batch[m]["mask"] & batch["present"][m][:, None]
        if m == "text" and jnp.issubdtype(x.dtype, jnp.integer):
            if self.towers.get("text") is not None:  # tokens of another tower's words
                return None
            # Neither start nor end is a word.
            place = jnp.cumsum(mask, axis=1)
            mask &= (place > 1) & (place < mask.sum(1, keepdims=True))
            return self.text_tower.embed(x), mask
        if m == "audio" and x.ndim == 2:
            loud, mask = mel.house_spectrogram(x, mask)
            loud = masking.zero_masked(loud, mask)
            return _merged(loud, mask, 4)
        if m == "vision" and x.ndim == 5:
            return _small(x, 8) / 64, mask
        # Features of a sequence; of a layer each they have no time.
        return (x.astype(jnp.float32), mask) if self.encoders.get(m) is not None else None

    def _classes(self, merged: jax.Array) -> jax.Array:
        """Returns `[B, C, D]`: the text tower on `[SOS][P'][inherent][class]`.

        Equation: UMBEnet (14)

        Here the tower is frozen also where it trains as the encoder of text: trained from both
        sides it soon gives all classes the same feature, and learning stands still. Where LoRA
        adapts the tower to the text of clips, that is read by another one, and this has no LoRA.
        """
        batch = (len(merged),)
        start = lax.stop_gradient(self.text_tower.embed(jnp.full((*batch, 1), self.sos)))
        inherent = jnp.broadcast_to(self.inherent, (*batch, *self.inherent.shape))
        prefix = jnp.concatenate([start, merged, inherent], axis=1)
        tokens, mask = pad_tokens(self.class_tokens)
        if self.is_initializing():
            return self.text_tower.class_prompts(prefix, tokens, mask)
        frozen = lax.stop_gradient(self.text_tower.variables)
        tower = TextTower(**self.text, parent=None)
        return tower.apply(frozen, prefix, tokens, mask, method="class_prompts")

    def _feature(self, m: str, batch: Mapping[str, Any], train: bool) -> jax.Array:
        """Returns one modality's feature `[B, D]`, zeros where it is absent."""
        present, x, mask = batch["present"][m], batch[m]["x"], batch[m]["mask"]
        mask = mask & present[:, None]

        def run(model, x, mask):
            return model.encode(m, x, mask, train=train).astype(jnp.float32)

        def nothing(model, x, mask):
            return jnp.zeros((len(x), model.width), jnp.float32)

        if not self.skip_absent or self.is_initializing():
            feature = run(self, x, mask)
        else:
            feature = nn.cond(present.any(), run, nothing, self, x, mask)
        return jnp.where(present[:, None], feature, 0)

    def encode(self, m: str, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
        """Returns the feature `[B, D]` of a modality as it stands in a batch."""
        if m in self.encoders:
            if self.encoders[m] is not None:
                x = self.readers[m](x, mask, train=train)
            return self._resized(m, self.layer_sums[m](x) if x.ndim == 3 else x)
        if m == "vision":
            if x.ndim == 5:  # not encoded yet
                x = encode_frames(self.readers["vision"], x, self.mean, self.std)
            return self.frame_head(self._resized(m, x), mask, train=train)
        if jnp.issubdtype(x.dtype, jnp.floating):  # encoded already, `[B, T, D]`
            return self.text_dense(masking.masked_mean(x, mask))
        if self.towers["text"] is None:
            return self.text_dense(self.text_tower(x, mask)[0])
        return self.text_dense(self.readers["text"](x, mask, train=train))

    def _resized(self, m: str, x: jax.Array) -> jax.Array:
        return x if x.shape[-1] == self.width else self.widths[m](x)


def normalize(x: jax.Array) -> jax.Array:
    """Returns `x` `[..., D]` scaled to length 1; zeros stay zeros, with finite gradients."""
    return x * lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-12))


def pad_tokens(rows: tuple[tuple[int, ...], ...]) -> tuple[np.ndarray, np.ndarray]:
    """Returns tokens `[C, S]` int32, padded with 0, and their mask `[C, S]`."""
    longest = max(map(len, rows))
    tokens = np.array([[*row, *[0] * (longest - len(row))] for row in rows], np.int32)
    mask = np.array([[i < len(row) for i in range(longest)] for row in rows])
    return tokens, mask


def activations(served: np.ndarray, epoch: np.ndarray) -> np.ndarray:
    """Returns the counts `[M + 1, N]` that say which modality a prompt serves.

    Args:
      served: `[M + 1, N]`, of the stage before; all 0 where there was none.
      epoch: `[M + 1, N]`, of the last epoch.
    """
    return served if served.any() else epoch


def weigh(evidence: jax.Array, shown: jax.Array) -> jax.Array:
    """Returns the logits `[B, S, C]` of the evidence for which all that it needs is shown.

    Args:
      evidence: `[B, M, M, C]`: on the diagonal that of each modality alone, elsewhere that of two.
      shown: `[B, S, M]` bool.
    """
    there = shown.astype(jnp.float32)
    return jnp.einsum("bsm,bsn,bmnc->bsc", there, there, evidence)


def _merged(x: jax.Array, mask: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """Returns `[B, T / count, D]`, the means of neighbouring steps in tens, and their mask."""
    more = -x.shape[1] % count
    x, mask = jnp.pad(x, ((0, 0), (0, more), (0, 0))), jnp.pad(mask, ((0, 0), (0, more)))
    mask = rearrange(mask, "b (t n) -> b t n", n=count)
    x = rearrange(x, "b (t n) d -> b t n d", n=count)
    x = (x * mask[..., None]).sum(2) / jnp.maximum(mask.sum(2), 1)[..., None]
    return x / 10, mask.any(-1)


def _small(frames: jax.Array, side: int) -> jax.Array:
    """Returns `[B, T, side * side * 3]` float32: each frame `[B, T, H, W, 3]` on a coarse grid."""
    b, t, height, width, _ = frames.shape
    high, wide = max(height // side, 1), max(width // side, 1)
    cut = frames[:, :, : height // high * high, : width // wide * wide].astype(jnp.float32)
    cut = rearrange(cut, "b t (h i) (w j) c -> b t h i w j c", i=high, j=wide).mean((3, 5))
    return cut[:, :, :side, :side].reshape(b, t, -1)
