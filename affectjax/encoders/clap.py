"""CLAP's audio tower: a waveform's mel spectrogram to a feature.

Letters: B examples, S samples, D features.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
from flax.core import FrozenDict

from affectjax import weights
from affectjax.encoders import Context, Encoder
from affectjax.modalities import SAMPLE_RATE
from affectjax.models.clap import AudioTower
from affectjax.ops import mel


class Sounds(AudioTower):
    """CLAP's audio tower behind its own spectrogram; only the feature is wanted.

    Attributes:
      front: the arguments of `ops.mel.FrontEnd`.
    """

    front: Mapping[str, Any] = FrozenDict()

    def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
        """Maps waveforms `[B, S]` in [-1, 1], 16 kHz, and their mask to `[B, D]`."""
        del train
        front = mel.FrontEnd(**self.front)
        return super().__call__(mel.spectrogram(x, mask, SAMPLE_RATE, front))[0]


@dataclasses.dataclass(frozen=True)
class Config:
    """CLAP's tower of sound.

    Attributes:
      clap_weights: a folder, or a name on the hub, with CLAP's weights; "" for a small tower from
        scratch.
      audio_width, audio_depths: of its stages, without `clap_weights`.
    """

    reads: ClassVar[str] = "waveform"
    weights_key: ClassVar[str] = "clap_weights"
    clap_weights: str = ""
    audio_width: int = 24
    audio_depths: tuple[int, ...] = (2, 2)

    def pretrained(self, load: Callable[..., Any]) -> weights.ClapWeights:
        """Returns what the folder holds."""
        return load(weights.clap, self.clap_weights)

    def build(self, context: Context) -> Encoder:
        """Returns the tower."""
        if self.clap_weights:
            found = self.pretrained(context.load)
            make = functools.partial(Sounds, **found.audio, front=found.front, dtype=context.dtype)
            return Encoder(make, found.params["audio_tower"])
        args = {
            "spec_size": 256,
            "mels": 64,
            "patch": 4,
            "width": self.audio_width,
            "depths": self.audio_depths,
            "heads": tuple(2 * 2**stage for stage in range(len(self.audio_depths))),
            "window": 8,
            "projection": context.width,
        }
        return Encoder(functools.partial(Sounds, **args, dtype=context.dtype))


CONFIGS = {"audio": Config}
