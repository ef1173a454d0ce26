"""From `config.model.learner`, what unpaired data sets hold and pretrained weights to encoders.

Source: SPEC section 3, encoders.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from affectjax import encoders
from affectjax.data.batches.inputs import Inputs
from affectjax.encoders import DTYPES
from affectjax.encoders.augmentation import Augmentation
from affectjax.errors import InputError
from affectjax.runtime import configs

Tree = Any
SECTION = "config.model.learner"
STATISTICS = ("modality", "shared")
# Of the attention over features, where the config says nothing.
HEADS = 4


@dataclasses.dataclass(frozen=True)
class LearnerConfig:
    """What of `config.model.learner` belongs to no encoder.

    Attributes:
      text, audio, vision: the encoders, files of `affectjax.encoders` or dotted names.
      lora_rank: of what trains in encoders with weights, which are frozen otherwise; 0 for nothing.
      lora_alpha, lora_dropout: see `affectjax.weights.lora.Lora`.
      dtype: in which towers of transformers compute: "float32" or "bfloat16".
      width: D, of the features that enter the encoders of emotions.
      hidden: E, of the emotion features.
      statistics: see `affectjax.models.supramodal.Supramodal`.
      dropout: of "features", "mel" and the "conv" of sound.
    """

    text: str = "clip"
    audio: str = "clap"
    vision: str = "clip"
    lora_rank: int = 6
    lora_alpha: float = 36.0
    lora_dropout: float = 0.2
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
        if self.lora_rank < 0:
            raise ValueError(f"lora_rank is {self.lora_rank}; allowed: 0 or more")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; allowed: from 0 to below 1")


def parts(section: Mapping[str, Any]) -> tuple[tuple[type, ...], tuple[type, ...]]:
    """Returns the parts of `config.model.learner`, and those of the encoders not chosen."""
    own = (LearnerConfig, Augmentation)
    return encoders.parts(own, encoders.chosen(section, LearnerConfig, SECTION))


class Towers:
    """The encoders that fit the config and the data.

    Attributes:
      settings: what of the config belongs to no encoder.
      augmentation: of what encoders read.
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
        read, others = parts(section)
        made = dict(zip(read, configs.read(read, section, SECTION, others), strict=True))
        self.settings: LearnerConfig = made[LearnerConfig]
        self.augmentation: Augmentation = made[Augmentation]
        own = {
            m: made[config]
            for m, config in encoders.chosen(section, LearnerConfig, SECTION).items()
        }
        self.makers: dict[str, Callable[..., nn.Module]] = {}
        self.pretrained: dict[str, Tree] = {}
        self.pixels: dict[str, Any] = {}
        load = functools.cache(lambda read, folder: read(folder))
        for m in inputs:
            kind = inputs[m].kinds[m]
            encoders.check_kind(getattr(self.settings, m), m, kind.kind, (kind.kind,), SECTION)
            encoder = own[m].build(self._context(m, inputs[m], axis_name, load))
            self.makers[m] = encoder.make
            if encoder.params is not None:
                self.pretrained[m] = encoder.params
            self.pixels |= encoder.pixels
        self._check_folders(own, tuple(inputs))

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

    def _check_folders(self, own: Mapping[str, Any], used: tuple[str, ...]) -> None:
        """Raises InputError for a folder with weights of which no encoder was made."""
        keys = {own[m].weights_key for m in used}
        for config in own.values():
            key = config.weights_key
            if key and key not in keys and getattr(config, key):
                towers = ", ".join(getattr(self.settings, m) for m in used)
                raise InputError(
                    f'"{SECTION}.{key}" is {getattr(config, key)}, but no tower is read from it; '
                    f"the towers are {towers}"
                )
