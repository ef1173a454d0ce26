"""A small convolutional tower from scratch over the log-mel spectrogram of a waveform."""

import dataclasses
import functools
from typing import ClassVar

from affectjax.encoders import Context, Encoder
from affectjax.models.encoders import MelConv


@dataclasses.dataclass(frozen=True)
class Config:
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
        return Encoder(functools.partial(MelConv, **args))


CONFIGS = {"audio": Config}
