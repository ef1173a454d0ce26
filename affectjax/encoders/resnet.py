"""Small residual networks from scratch, over frames and over log-mel spectrograms of waveforms."""

import dataclasses
import functools
from typing import ClassVar

from flax.core import FrozenDict

from affectjax.encoders import Context, Encoder
from affectjax.encoders.mel import Holes
from affectjax.models.residual import ImageResNet, MelResNet


@dataclasses.dataclass(frozen=True)
class ImageConfig:
    """Residual stages over frames.

    Attributes:
      image_channels: of its stages, see `affectjax.models.residual.Trunk`.
    """

    reads: ClassVar[str] = "frames"
    weights_key: ClassVar[str] = ""
    image_channels: tuple[int, ...] = (16, 32, 64, 128, 192)

    def build(self, context: Context) -> Encoder:
        """Returns the tower."""
        return Encoder(
            functools.partial(ImageResNet, channels=self.image_channels, projection=context.width)
        )


@dataclasses.dataclass(frozen=True)
class AudioConfig(Holes):
    """Residual stages over a mel spectrogram.

    Attributes:
      audio_channels: of its stages, see `affectjax.models.residual.Trunk`.
      silence_db, audio_steps, speed, holes: see `silence`, `steps` and `speed` of
        `affectjax.models.residual.MelResNet`, and `affectjax.ops.augment.mask_spectrogram`.
    """

    reads: ClassVar[str] = "waveform"
    weights_key: ClassVar[str] = ""
    audio_channels: tuple[int, ...] = (16, 32, 64, 96)
    silence_db: float = 30.0
    audio_steps: int = 0
    speed: float = 0.0
    holes: int = 2

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.speed < 1 or self.silence_db < 0 or self.holes < 1 or self.audio_steps < 0:
            raise ValueError(
                f"speed is {self.speed}, silence_db {self.silence_db}, audio_steps "
                f"{self.audio_steps} and holes {self.holes}; allowed: from 0 to below 1, from 0 "
                "up, from 0 up, and from 1 up"
            )

    def build(self, context: Context) -> Encoder:
        """Returns the tower."""
        args = {"dropout": context.dropout, "axis_name": context.axis_name}
        args |= {"channels": self.audio_channels, "projection": context.width}
        args |= {"silence": self.silence_db, "steps": self.audio_steps, "speed": self.speed}
        args["changes"] = (
            FrozenDict(**self.changes, holes=self.holes)
            if any(self.changes.values())
            else FrozenDict()
        )
        return Encoder(functools.partial(MelResNet, **args))


CONFIGS = {"audio": AudioConfig, "vision": ImageConfig}
