"""Small recognisers that concepts can guide: ResNet-18 on faces, MulT's memory stack on sequences.

Source: SPEC section 3, downstream; the supramodal paper, sections 3.2 and 4.1.
Letters: B examples, T steps or frames, D features of a modality, E of the guided feature, C
classes, H height, W width.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from affectjax.models.encoders import encode_frames
from affectjax.models.layers import Dropout, TemporalConv
from affectjax.models.mult import Encoders
from affectjax.models.resnet import ResNet18
from affectjax.ops import masking

Batch = Mapping[str, Any]


class Faces(nn.Module):
    """Frames to one feature: ResNet-18 on each, their mean, Dense.

    Attributes:
      feature: E.
      width: of ResNet-18's first stage; 64 is ResNet-18.
      mean, std: of the pixels from 0 to 1, red, green and blue.
      axis_name: the mapped axis over which a batch is split, None where it is whole.
    """

    feature: int
    width: int = 64
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: jax.Array, weight: jax.Array, *, train: bool
    ) -> jax.Array:
        """Maps `[B, T, H, W, 3]` in [0, 255] and its mask `[B, T]` to `[B, E]`."""
        tower = ResNet18(self.width, axis_name=self.axis_name, name="resnet")
        # A frame counts in the statistics where it is one, of an example that is one.
        counts = (mask & (weight > 0)[:, None]).reshape(-1).astype(jnp.float32)
        seen = encode_frames(
            lambda images: tower(images, counts, train=train)[0], x, self.mean, self.std
        )
        return nn.Dense(self.feature, name="dense")(masking.masked_mean(seen, mask))


class Memory(nn.Module):
    """A sequence to one feature: convolution, MulT's memory stack of that width, its last step.

    Attributes:
      feature: E, the width of the stack.
      heads, layers: of the stack.
      dropout: rate, everywhere.
      axis_name: the mapped axis over which a batch is split, None where it is whole.
    """

    feature: int
    heads: int
    layers: int
    dropout: float = 0.0
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: jax.Array, weight: jax.Array, *, train: bool
    ) -> jax.Array:
        """Maps `[B, T, D]` and its mask `[B, T]` to `[B, E]`."""
        del weight
        x = masking.zero_masked(x.astype(jnp.float32), mask)
        x = Dropout(self.dropout, self.axis_name)(x, train=train)
        x = TemporalConv(self.feature, 1, name="project")(x, mask)
        rates = [self.dropout] * 4
        stack = Encoders(
            self.feature, self.heads, self.layers, *rates, False, self.axis_name, name="memory"
        )
        encoded, _ = stack([x], [mask], [None], [mask], train=train)
        return masking.last_valid(encoded[0], mask)


class Guided(nn.Module):
    """One modality, or several side by side, to a feature that concepts may guide, and to classes.

    Attributes:
      classes: C.
      modalities: in the order of MODALITIES.
      encoders: by modality, the arguments of a `Faces` (where there is a "width") or a `Memory`.
      feature: E.
      axis_name: the mapped axis over which a batch is split, None where it is whole.
    """

    classes: int
    modalities: tuple[str, ...]
    encoders: Mapping[str, Mapping[str, Any]]
    feature: int = 256
    axis_name: str | None = None

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns the logits `[B, C]`, and `feature` `[B, E]`, the one that is guided.

        Args:
          batch: by modality `x` and `mask`, `present`, and `weight` where some rows only pad.
          train: whether to drop, and to normalise by the batch.
        """
        found = []
        for m in self.modalities:
            encoder = Faces if "width" in self.encoders[m] else Memory
            here = batch["present"][m]
            weight = batch.get("weight", 1.0) * here.astype(jnp.float32)
            # What stands in a row that only pads has no part in a gradient: 0 * NaN is NaN.
            mask = batch[m]["mask"] & (weight > 0)[:, None]
            made = encoder(self.feature, **self.encoders[m], axis_name=self.axis_name, name=m)
            feature = made(batch[m]["x"], mask, weight, train=train)
            found.append(masking.zero_masked(feature, here))
        feature = found[0]
        if len(found) > 1:
            feature = nn.Dense(self.feature, name="together")(jnp.concatenate(found, axis=-1))
        logits = nn.Dense(self.classes, name="head")(feature)
        return logits, {"feature": feature} | {
            f"feature/{m}": own for m, own in zip(self.modalities, found, strict=True)
        }
