"""wav2vec 2.0, HuBERT or WavLM, whichever the folder holds, with pretrained weights alone.

It gives the mean over time of each layer; the model learns how much each of them counts.

Letters: B examples, S samples, L layers, D features.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar

import jax

from affectjax import weights
from affectjax.encoders import Context, Encoder
from affectjax.errors import InputError
from affectjax.models.wav2vec2 import SpeechTower


class Sounds(SpeechTower):
    """A speech tower, of which only the mean over time of each layer is wanted."""

    def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
        """Maps waveforms `[B, S]` in [-1, 1], 16 kHz, and their mask to `[B, L + 1, D]`."""
        del train
        return super().__call__(x, mask)[1]["means"]


@dataclasses.dataclass(frozen=True)
class Config:
    """A speech tower; nothing is dropped in it and no frame masked in training.

    Attributes:
      wav2vec2_weights: a local folder with the weights of wav2vec 2.0, HuBERT or WavLM.
    """

    reads: ClassVar[str] = "waveform"
    weights_key: ClassVar[str] = "wav2vec2_weights"
    wav2vec2_weights: str = ""

    def pretrained(self, load: Callable[..., Any]) -> weights.Wav2Vec2Weights:
        """Returns what the folder holds."""
        return load(weights.wav2vec2, self.wav2vec2_weights)

    def build(self, context: Context) -> Encoder:
        """Returns the tower."""
        if not self.wav2vec2_weights:
            raise InputError(
                f'"{context.section}.{context.modality}" is "wav2vec2", but '
                f'"{context.section}.wav2vec2_weights" is empty; give a local folder with the '
                "weights of wav2vec 2.0, HuBERT or WavLM"
            )
        found = self.pretrained(context.load)
        return Encoder(functools.partial(Sounds, **found.args, dtype=context.dtype), found.params)


CONFIGS = {"audio": Config}
