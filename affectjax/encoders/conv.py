"""Small convolutional towers from scratch, over frames and over waveforms."""

import dataclasses
import functools
from typing import ClassVar

from affectjax.encoders import Context, Encoder
from affectjax.models.encoders import AudioConv, ImageConv


@dataclasses.dataclass(frozen=True)
class ImageConfig:
    """Convolutions over frames.

    Attributes:
      image_channels: of its stages, see `affectjax.models.encoders.ImageConv`.
    """

    reads: ClassVar[str] = "frames"
    weights_key: ClassVar[str] = ""
    image_channels: tuple[int, ...] = (32, 64, 128, 192)

    def build(self, context: Context) -> Encoder:
        """Returns the tower."""
        return Encoder(
            functools.partial(ImageConv, channels=self.image_channels, projection=context.width)
        )


@dataclasses.dataclass(frozen=True)
class AudioConfig:
    """The strided convolutions over a waveform have no keys."""

    reads: ClassVar[str] = "waveform"
    weights_key: ClassVar[str] = ""

    def build(self, context: Context) -> Encoder:
        """Returns the encoder."""
        args = {"dropout": context.dropout, "axis_name": context.axis_name}
        return Encoder(functools.partial(AudioConv, width=context.width, **args))


CONFIGS = {"audio": AudioConfig, "vision": ImageConfig}
