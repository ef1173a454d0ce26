"""From `config.model.learner`, what unpaired data sets hold and pretrained weights to encoders.

Source: SPEC section 3, encoders.
"""

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from affectjax import encoders
from affectjax.data.batches.inputs import Inputs
from affectjax.encoders import DTYPES, adaptation, augmentation
from affectjax.modalities import MODALITIES

Tree = Any
SECTION = "config.model.learner"
STATISTICS = ("modality", "shared")
# The encoders where the config names none.
ENCODERS = {"text": "clip", "audio": "clap", "vision": "clip"}
# Of the attention over features, where the config says nothing.
HEADS = 4


@dataclasses.dataclass(frozen=True)
class LearnerConfig:
    """What of `config.model.learner` belongs to no encoder.

    Attributes:
      dtype: in which towers of transformers compute: "float32" or "bfloat16".
      width: D, of the features that enter the encoders of emotions.
      hidden: E, of the emotion features.
      statistics: see `affectjax.models.supramodal.Supramodal`.
      dropout: of "features", "mel" and the "conv" of sound.
    """

    dtype: str = "float32"
    width: int = 512
    hidden: int = 256
    statistics: str = "modality"
    dropout: float = 0.0

    def __post_init__(self):
        for key, allowed in (("dtype", DTYPES), ("statistics", STATISTICS)):
            if getattr(self, key) not in allowed:
                value = getattr(self, key)
                raise ValueError(f"{key} is {value!r}; allowed: {', '.join(allowed)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; allowed: from 0 to below 1")


def choose(section: Mapping[str, Any], modalities: Collection[str] = MODALITIES) -> encoders.Choice:
    """Returns the encoders that `config.model.learner` names for some modalities, and its parts."""
    more = (section, SECTION, ENCODERS, augmentation.PARTS, modalities)
    return adaptation.extend(encoders.Choice((LearnerConfig,), *more))


class Towers:
    """The encoders that fit the config and the data.

    Attributes:
      parts: of `config.model.learner`, by class.
      settings: what of it belongs to no encoder.
      makers: by modality, what makes the encoder, given a name.
      pretrained: by modality, the parameters of an encoder that came from a folder with weights.
      pixels: `mean` and `std` as the image tower's weights ask for; {} for the default.
    """

    def __init__(
        self, section: Mapping[str, Any], inputs: Mapping[str, Inputs], axis_name: str | None
    ):
        """Chooses the encoders and reads the weights.

        Args:
          section: `config.model.learner`.
          inputs: by modality, what its data set holds.
          axis_name: the mapped axis over which a batch is split, None where it is whole.

        Raises:
          InputError: a key that nobody reads, an encoder that cannot read what the data has, or no
            such weights.
        """
        choice = choose(section, tuple(inputs))
        self.parts = choice.read()
        self.settings: LearnerConfig = self.parts[LearnerConfig]
        self.makers: dict[str, Callable[..., nn.Module]] = {}
        self.pretrained: dict[str, Tree] = {}
        self.pixels: dict[str, Any] = {}
        load = functools.cache(lambda read, folder: read(folder))
        for m in inputs:
            kind = inputs[m].kinds[m]
            encoders.check_kind(choice.names[m], m, kind.kind, (kind.kind,), SECTION)
            config = self.parts[choice.configs[m]]
            encoder = config.build(self._context(m, inputs[m], axis_name, load))
            self.makers[m] = encoder.make
            if encoder.params is not None:
                self.pretrained[m] = encoder.params
            self.pixels |= encoder.pixels

    def _context(
        self, m: str, inputs: Inputs, axis_name: str | None, load: Callable[..., Any]
    ) -> encoders.Context:
        return encoders.Context(
            modality=m,
            kind=inputs.kinds[m],
            tokenizer=inputs.tokenizer,
            width=self.settings.width,
            heads=HEADS,
            dropout=self.settings.dropout,
            dtype=jnp.dtype(self.settings.dtype),
            axis_name=axis_name,
            section=SECTION,
            data=f"config.data.sources.{m}",
            load=load,
        )
