"""The supramodal concept learner: one emotion encoder for every modality, read by towers.

Source: SPEC section 3; the supramodal paper, section 3.1 and figure 1.
Letters: B examples, T steps, S samples, D features, E features of an emotion, H height, W width.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from affectjax.models.encoders import LayerSum, encode_frames
from affectjax.models.norms import BatchNorm
from affectjax.ops import masking

SEVEN, THREE = 7, 3


class Reader(nn.Module):
    """One modality, raw or as features, to one feature.

    Attributes:
      encoder: what makes the module that reads it, given a name, see `affectjax.encoders.Encoder`;
        of features of its layers a sum is learned.
      width: D of the feature; where the encoder gives another, a Dense follows.
      mean, std: of the pixels from 0 to 1, red, green and blue.
    """

    encoder: Callable[..., nn.Module]
    width: int
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
        """Maps `[B, T, ...]` and its mask `[B, T]` to `[B, D]` float32."""
        encoder = self.encoder(name="tower")
        if x.ndim == 5:
            feature = masking.masked_mean(encode_frames(encoder, x, self.mean, self.std), mask)
        else:
            feature = encoder(x, mask, train=train)
        if feature.ndim == 3:
            feature = LayerSum(name="layers")(feature)
        feature = feature.astype(jnp.float32)
        if feature.shape[-1] != self.width:
            feature = nn.Dense(self.width, name="dense")(feature)
        return feature


class TwoLayers(nn.Module):
    """Dense, BatchNorm and ReLU, twice: the emotion encoder, and those of what is no emotion.

    Attributes:
      width: E.
      groups: names that have running statistics of their own, see `BatchNorm`.
      axis_name: the mapped axis over which a batch is split, None where it is whole.
    """

    width: int
    groups: tuple[str, ...] = ()
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, weight: jax.Array, *, train: bool, group: str | None = None
    ) -> jax.Array:
        """Maps `[B, D]` to `[B, E]`; rows of weight 0 have no part in the statistics."""
        for i in range(2):
            norm = BatchNorm(axis_name=self.axis_name, groups=self.groups, name=f"norm_{i}")
            x = nn.Dense(self.width, use_bias=False, name=f"dense_{i}")(x)
            x = nn.relu(norm(x, weight, train=train, group=group))
        return x


class Supramodal(nn.Module):
    """Towers, one shared emotion encoder, one encoder a modality of the rest, and two heads.

    Attributes:
      modalities: in the order of MODALITIES.
      encoders: by modality, `encoder` of its `Reader`.
      width: D, of the features that the towers give.
      hidden: E.
      statistics: "modality": the emotion encoder remembers means and variances by modality, so
        that the last one that it saw is not in the way of the others; or "shared": of all.
      mean, std: see `Reader`.
      axis_name: the mapped axis over which a batch is split, None where it is whole.
    """

    modalities: tuple[str, ...]
    encoders: Mapping[str, Callable[..., nn.Module]]
    width: int = 512
    hidden: int = 256
    statistics: str = "modality"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    axis_name: str | None = None

    def setup(self):
        """Makes the modules, whichever modalities come first."""
        pixels = {"mean": self.mean, "std": self.std}
        self.readers = {
            m: Reader(self.encoders[m], self.width, **pixels, name=m) for m in self.modalities
        }
        two = functools.partial(TwoLayers, self.hidden, axis_name=self.axis_name)
        self.emotion = two(groups=self.modalities if self.statistics == "modality" else ())
        self.rest = {m: two(name=f"non_emotion_{m}") for m in self.modalities}
        self.seven, self.three = nn.Dense(SEVEN), nn.Dense(THREE)

    def __call__(
        self, batch: Mapping[str, Any], *, train: bool
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns the logits of the seven emotions `[B, 7]`, a mean over the modalities, and more.

        Args:
          batch: by modality `x` and `mask`, and `present`; any of them may be missing.
          train: whether to drop, and to normalise by the batch.

        Returns:
          The logits, and what `read` returns of each modality, as in "emotion/text" `[B, E]`.
        """
        here = [m for m in self.modalities if m in batch]
        weight = batch.get("weight", 1.0)
        present = {m: batch["present"][m] for m in here}
        views = {
            m: {**batch[m], "mask": batch[m]["mask"] & present[m][:, None]}
            | {"weight": present[m] * weight}
            for m in here
        }
        found = self.read(views, train=train)
        stacked = jnp.stack([found[m]["seven"] for m in here], axis=1)
        logits = masking.masked_mean(stacked, jnp.stack([present[m] for m in here], axis=1))
        # Of a modality that an example does not have, nothing is said.
        out = {
            f"{name}/{m}": masking.zero_masked(value, present[m])
            for m in here
            for name, value in found[m].items()
        }
        return logits, out

    def read(
        self, views: Mapping[str, Mapping[str, jax.Array]], *, train: bool
    ) -> dict[str, dict[str, jax.Array]]:
        """Returns what each modality says; their batches need neither be paired nor alike in size.

        Args:
          views: by modality `x`, `mask` `[B, T]` and `weight` `[B]`.
          train: whether to drop, and to normalise by the batch.

        Returns:
          By modality `feature` `[B, D]` of its tower, `emotion` and `non_emotion` `[B, E]`, and
          the logits `seven` `[B, 7]` and `three` `[B, 3]`.
        """
        here = [m for m in self.modalities if m in views]
        weight = {m: views[m]["weight"] for m in here}
        # What stands in a row that only pads has no part in a gradient either: 0 * NaN is NaN.
        mask = {m: views[m]["mask"] & (weight[m] > 0)[:, None] for m in here}
        feature = {m: self.readers[m](views[m]["x"], mask[m], train=train) for m in here}
        if self.statistics == "modality":
            emotion = {m: self.emotion(feature[m], weight[m], train=train, group=m) for m in here}
        else:
            emotion = self._pooled(feature, weight, train)
        return {
            m: {
                "feature": feature[m],
                "emotion": emotion[m],
                "non_emotion": self.rest[m](feature[m], weight[m], train=train),
                "seven": self.seven(emotion[m]),
                "three": self.three(emotion[m]),
            }
            for m in here
        }

    def _pooled(
        self, feature: Mapping[str, jax.Array], weight: Mapping[str, jax.Array], train: bool
    ) -> dict[str, jax.Array]:
        """Returns the emotion features, normalised by the batches of all modalities at once."""
        sizes: Sequence[int] = [len(x) for x in feature.values()]
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]
        x, w = (jnp.concatenate(list(values.values())) for values in (feature, weight))
        return dict(zip(feature, jnp.split(self.emotion(x, w, train=train), ends), strict=True))
