"""From `config.model.learner`, what unpaired data sets hold and pretrained weights to towers.

Source: SPEC section 3, encoders.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from affectjax import weights
from affectjax.data.batches.inputs import Inputs
from affectjax.data.batches.tokenizer import Tokenizer
from affectjax.errors import InputError
from affectjax.tasks.umbenet.assembly import DTYPES

Tree = Any
# Which towers read which kind of input.
READS = {
    "text": {"text": ("clip", "bert"), "features": ("features",)},
    "audio": {"waveform": ("clap", "mel", "conv"), "features": ("features",)},
    "vision": {"frames": ("clip", "conv"), "features": ("features",)},
}
STATISTICS = ("modality", "shared")


@dataclasses.dataclass(frozen=True)
class LearnerConfig:
    """`config.model.learner`.

    Attributes:
      text, audio, vision: the towers, see `affectjax.models.supramodal.Reader`.
      weights: a local folder with CLIP's weights, for towers "clip"; "" for small ones from
        scratch.
      bert_weights: one with BERT's, which "bert" needs.
      clap_weights: one with CLAP's, for "clap"; "" for a small one from scratch.
      lora_rank: of what trains in towers with weights, which are frozen otherwise; 0 for nothing.
      lora_alpha, lora_dropout: see `affectjax.weights.lora.Lora`.
      dtype: in which towers of transformers compute: "float32" or "bfloat16".
      width: D, of the features that enter the encoders.
      hidden: E, of the emotion features.
      statistics: see `affectjax.models.supramodal.Supramodal`.
      text_width, text_layers, text_heads: of a text tower from scratch.
      sequence_layers, sequence_heads: of "features".
      image_channels: of "conv".
      image_patch, image_width, image_layers, image_heads: of an image tower "clip" from scratch.
      audio_channels: of "mel".
      audio_width, audio_depths: of a tower "clap" from scratch.
      dropout: of "features", "mel" and the "conv" of sound.
      flip, shift, contrast, brightness: of the augmentation of frames, see `ops.augment`.
      gain_db: of that of waveforms, decibels up or down at most.
    """

    text: str = "clip"
    audio: str = "clap"
    vision: str = "clip"
    weights: str = ""
    bert_weights: str = ""
    clap_weights: str = ""
    lora_rank: int = 6
    lora_alpha: float = 36.0
    lora_dropout: float = 0.2
    dtype: str = "float32"
    width: int = 512
    hidden: int = 256
    statistics: str = "modality"
    text_width: int = 128
    text_layers: int = 2
    text_heads: int = 4
    sequence_layers: int = 1
    sequence_heads: int = 4
    image_channels: tuple[int, ...] = (32, 64, 128, 192)
    image_patch: int = 16
    image_width: int = 192
    image_layers: int = 4
    image_heads: int = 4
    audio_channels: tuple[int, ...] = (32, 64, 128, 192)
    audio_width: int = 24
    audio_depths: tuple[int, ...] = (2, 2)
    dropout: float = 0.0
    flip: float = 0.0
    shift: float = 0.0
    contrast: float = 0.0
    brightness: float = 0.0
    gain_db: float = 0.0

    def __post_init__(self):
        for key, allowed in (("dtype", DTYPES), ("statistics", STATISTICS)):
            if getattr(self, key) not in allowed:
                value = getattr(self, key)
                raise ValueError(f"{key} is {value!r}; allowed: {', '.join(allowed)}")
        if self.lora_rank < 0:
            raise ValueError(f"lora_rank is {self.lora_rank}; allowed: 0 or more")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; allowed: from 0 to below 1")


class Towers:
    """The towers that fit the config and the data.

    Attributes:
      kinds: by modality, the tower's kind.
      arguments: by modality, what it is made with.
      given: by modality, the parameters of a tower that came from a folder with weights.
      pixels: `mean` and `std` as the image tower's weights ask for; {} for the default.
    """

    def __init__(
        self, settings: LearnerConfig, inputs: Mapping[str, Inputs], axis_name: str | None
    ):
        """Chooses the towers and reads the weights.

        Args:
          settings: `config.model.learner`.
          inputs: by modality, what its data set holds.
          axis_name: the mapped axis over which a batch is split, None where it is whole.

        Raises:
          InputError: a tower that cannot read what the data has, or no such weights.
        """
        self.settings, self.inputs, self.axis_name = settings, inputs, axis_name
        self.kinds: dict[str, str] = {}
        self.arguments: dict[str, dict[str, Any]] = {}
        self.given: dict[str, Tree] = {}
        self.pixels: dict[str, Any] = {}
        self._clip = weights.clip(settings.weights) if settings.weights else None
        for m in inputs:
            kind, has = getattr(settings, m), self._kind(m).kind
            if kind not in READS[m][has]:
                raise InputError(
                    f'"config.model.learner.{m}" is {kind!r}, but its data set has {has}; '
                    f"allowed: {', '.join(READS[m][has])}"
                )
            self.kinds[m] = kind
            self.arguments[m] = getattr(self, f"_{kind}_{m}", self._features)(m)
        for key, kind in (("weights", "clip"), ("bert_weights", "bert"), ("clap_weights", "clap")):
            if getattr(settings, key) and kind not in self.kinds.values():
                raise InputError(
                    f'"config.model.learner.{key}" is {getattr(settings, key)}, but no tower is '
                    f'"{kind}"; the towers are {", ".join(self.kinds.values())}'
                )

    def _kind(self, m: str) -> Any:
        return self.inputs[m].kinds[m]

    def _features(self, m: str) -> dict[str, Any]:
        """Returns the arguments of an encoder of sequences."""
        s = self.settings
        return {
            "width": s.width,
            "layers": s.sequence_layers,
            "heads": s.sequence_heads,
            "dropout": s.dropout,
            "axis_name": self.axis_name,
        }

    def _clip_text(self, m: str) -> dict[str, Any]:
        """Returns the arguments of CLIP's text tower."""
        s, tokenizer = self.settings, self.inputs[m].tokenizer
        if self._clip is not None:
            if self._clip.text is None:
                raise InputError(f"{s.weights} has no text tower of CLIP")
            self._check_words(m, s.weights)
            self.given[m] = self._clip.params["text_tower"]
            return {**self._clip.text, "dtype": jnp.dtype(s.dtype)}
        return {
            "vocab": tokenizer.vocab,
            "length": self._kind(m).tokens,
            "width": s.text_width,
            "layers": s.text_layers,
            "heads": s.text_heads,
            "hidden": 4 * s.text_width,
            "projection": s.width,
            "dtype": jnp.dtype(s.dtype),
        }

    def _bert_text(self, m: str) -> dict[str, Any]:
        """Returns the arguments of BERT."""
        s = self.settings
        if not s.bert_weights:
            raise InputError(
                '"config.model.learner.text" is "bert", but "config.model.learner.bert_weights" is '
                "empty; give a local folder with BERT's weights"
            )
        self._check_words(m, s.bert_weights)
        found = weights.bert(s.bert_weights)
        self.given[m] = found.params
        return {**found.args, "dtype": jnp.dtype(s.dtype)}

    def _check_words(self, m: str, folder: str) -> None:
        """Raises InputError where the data's tokens are not those that the weights know."""
        own, have = Tokenizer.load(folder).vocab, self.inputs[m].tokenizer.vocab
        if own != have:
            raise InputError(
                f'"config.data.sources.{m}.tokenizer" has {have} words and {folder} {own}; '
                "allowed: the same folder for both"
            )

    def _clip_vision(self, m: str) -> dict[str, Any]:
        """Returns the arguments of CLIP's image tower."""
        s, size = self.settings, self._kind(m).size
        if self._clip is not None:
            if self._clip.image is None:
                raise InputError(f"{s.weights} has no image tower of CLIP")
            self.given[m] = self._clip.params["image_tower"]
            self.pixels = {"mean": self._clip.mean, "std": self._clip.std}
            return {**self._clip.image, "dtype": jnp.dtype(s.dtype)}
        return {
            "image_size": size,
            "patch": s.image_patch,
            "width": s.image_width,
            "layers": s.image_layers,
            "heads": s.image_heads,
            "hidden": 4 * s.image_width,
            "projection": s.width,
            "dtype": jnp.dtype(s.dtype),
        }

    def _conv_vision(self, m: str) -> dict[str, Any]:
        """Returns the arguments of a small convolutional tower."""
        del m
        return {"channels": self.settings.image_channels, "projection": self.settings.width}

    def _clap_audio(self, m: str) -> dict[str, Any]:
        """Returns the arguments of CLAP's audio tower."""
        s = self.settings
        if s.clap_weights:
            found = weights.clap(s.clap_weights)
            self.given[m] = found.params["audio_tower"]
            return {**found.audio, "front": found.front, "dtype": jnp.dtype(s.dtype)}
        return {
            "front": {},
            "spec_size": 256,
            "mels": 64,
            "patch": 4,
            "width": s.audio_width,
            "depths": s.audio_depths,
            "heads": tuple(2 * 2**stage for stage in range(len(s.audio_depths))),
            "window": 8,
            "projection": s.width,
            "dtype": jnp.dtype(s.dtype),
        }

    def _mel_audio(self, m: str) -> dict[str, Any]:
        """Returns the arguments of a small convolutional tower over a log-mel spectrogram."""
        del m
        s = self.settings
        return {
            "channels": s.audio_channels,
            "projection": s.width,
            "dropout": s.dropout,
            "axis_name": self.axis_name,
        }

    def _conv_audio(self, m: str) -> dict[str, Any]:
        """Returns the arguments of the strided convolutions over a waveform."""
        del m
        return {
            "width": self.settings.width,
            "dropout": self.settings.dropout,
            "axis_name": self.axis_name,
        }
