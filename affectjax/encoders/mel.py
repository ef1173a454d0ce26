"""A small convolutional tower from scratch over the log-mel spectrogram of a waveform."""

import dataclasses
import functools
from typing import ClassVar

from flax.core import FrozenDict

from affectjax.encoders import Context, Encoder
from affectjax.models.encoders import MelConv


@dataclasses.dataclass(frozen=True)
class Holes:
    """Config keys of what changes a spectrogram in training.

    Attributes:
      hole_steps, hole_bands, shift_bands: `steps`, `bands` and `shift` of
        `affectjax.ops.augment.mask_spectrogram`.
    """

    hole_steps: float = 0.0
    hole_bands: float = 0.0
    shift_bands: int = 0

    def __post_init__(self):
        for key in ("hole_steps", "hole_bands"):
            if not 0 <= getattr(self, key) <= 1:
                raise ValueError(f"{key} is {getattr(self, key)}; allowed: from 0 to 1")
        if self.shift_bands < 0:
            raise ValueError(f"shift_bands is {self.shift_bands}; allowed: from 0 up")

    @property
    def changes(self) -> dict[str, float]:
        """Returns them as that function takes them."""
        return {"steps": self.hole_steps, "bands": self.hole_bands, "shift": self.shift_bands}


@dataclasses.dataclass(frozen=True)
class Config(Holes):
    """Convolutions over a mel spectrogram.

    Attributes:
      audio_channels: of its stages, see `affectjax.models.encoders.MelConv`.
    """

    reads: ClassVar[str] = "waveform"
    weights_key: ClassVar[str] = ""
    audio_channels: tuple[int, ...] = (32, 64, 128, 192)

    def build(self, context: Context) -> Encoder:
        """Returns the tower."""
        args = {"dropout": context.dropout, "axis_name": context.axis_name}
        args |= {"channels": self.audio_channels, "projection": context.width}
        args["changes"] = FrozenDict(self.changes)
        return Encoder(functools.partial(MelConv, **args))


CONFIGS = {"audio": Config}
