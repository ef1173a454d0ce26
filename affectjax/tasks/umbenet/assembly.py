"""From `config.model`, the data's inputs and pretrained weights to a UMBEnet.

Source: SPEC section 1.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from affectjax import weights
from affectjax.data.batches.inputs import Inputs
from affectjax.data.batches.tokenizer import Tokenizer
from affectjax.errors import InputError
from affectjax.modalities import chosen
from affectjax.models.umbenet import TOWERS, UMBEnet

Tree = Any
WEIGHTS_OF = {"text_tower": "weights", "image_tower": "weights", "bert_tower": "bert_weights"}
DTYPES = ("float32", "bfloat16")
# Which encoders read which kind of input.
READS = {
    "text": {"text": ("clip", "bert"), "features": ("features", "clip", "bert")},
    "audio": {"waveform": ("conv",), "features": ("features",)},
    "vision": {"frames": ("clip", "conv"), "features": ("features", "clip", "conv")},
}


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """`config.model`.

    Attributes:
      modalities: those to use, () for all that the data has.
      weights: a local folder with CLIP's weights, "" for small towers from scratch.
      bert_weights: one with BERT's, where `text` is "bert".
      frozen: which of text_tower, image_tower, bert_tower do not train.
      dtype: in which the towers compute: "float32" or "bfloat16"; parameters are float32.
      text, audio, vision: the encoders, see `affectjax.models.umbenet.ENCODERS`.
      width: D, without `weights`.
      text_width, text_layers, text_heads: of the text tower, without `weights`.
      image_channels: of `vision="conv"`.
      image_patch, image_width, image_layers, image_heads: of `vision="clip"` without `weights`.
      logit_scale: of the cosines; 0 for that of `weights`.
      pull: weight of the loss that draws chosen keys to their queries.
      l1: weight of the sum of |W1| (eq. 13).
      flip, shift, contrast, brightness: of the augmentation of frames, see `ops.augment`.
      gain_db: of that of waveforms, decibels up or down at most.
      temporal_layers ... dropout: see `affectjax.models.umbenet.UMBEnet`.
    """

    modalities: tuple[str, ...] = ()
    weights: str = ""
    bert_weights: str = ""
    frozen: tuple[str, ...] = ()
    dtype: str = "float32"
    text: str = "clip"
    audio: str = "conv"
    vision: str = "clip"
    width: int = 512
    text_width: int = 128
    text_layers: int = 2
    text_heads: int = 4
    image_channels: tuple[int, ...] = (32, 64, 128, 192)
    image_patch: int = 16
    image_width: int = 192
    image_layers: int = 4
    image_heads: int = 4
    logit_scale: float = 0.0
    pull: float = 0.1
    l1: float = 1e-4
    flip: float = 0.0
    shift: float = 0.0
    contrast: float = 0.0
    brightness: float = 0.0
    gain_db: float = 0.0
    temporal_layers: int = 12
    temporal_heads: int = 8
    sequence_layers: int = 1
    fusion_layers: int = 1
    heads: int = 8
    pool_size: int = 32
    prompt_tokens: int = 32
    inherent_tokens: int = 32
    top_k: int = 5
    query_map: str = "identity"
    gate_hidden: int = 128
    dropout: float = 0.0

    def __post_init__(self):
        for key in ("text_layers", "image_layers", "fusion_layers"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key} is {getattr(self, key)}; allowed: 1 or more")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; allowed: from 0 to below 1")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype is {self.dtype!r}; allowed: {', '.join(DTYPES)}")
        unknown = [name for name in self.frozen if name not in TOWERS]
        if unknown:
            raise ValueError(f"frozen has {unknown[0]!r}; allowed: {', '.join(TOWERS)}")
        if not self.weights and not self.logit_scale:
            raise ValueError("logit_scale is 0, that of weights, but weights is empty")
        random = [n for n in self.frozen if not getattr(self, WEIGHTS_OF[n])]
        if random:
            raise ValueError(
                f"frozen has {random[0]}, but {WEIGHTS_OF[random[0]]} is empty; give a folder "
                "with weights, or freeze nothing and train small towers from scratch"
            )


class Assembly:
    """A network that fits the config and the data.

    Attributes:
      modalities: those that it uses, in house order.
      model: the network.
      pretrained: the parameters of its towers that came from a folder with weights.
    """

    def __init__(self, settings: ModelConfig, inputs: Inputs, axis_name: str | None):
        """Chooses the encoders, reads the weights and builds the network.

        Args:
          settings: `config.model`.
          inputs: what the batches hold.
          axis_name: the mapped axis over which a batch is split, None where it is whole.

        Raises:
          InputError: an encoder that cannot read what the data has, or no such weights.
        """
        self.settings, self.inputs, self.axis_name = settings, inputs, axis_name
        self.modalities = self._chosen()
        self.pretrained: Tree = {}
        self.model = self._model()

    def _chosen(self) -> tuple[str, ...]:
        """Returns the modalities to use, each with an encoder that reads what the data has."""
        wanted = self.settings.modalities
        found = chosen(wanted, self.inputs.modalities, "config.model.modalities")
        for m in found:
            encoder, kind = getattr(self.settings, m), self.kind(m)
            if encoder not in READS[m][kind]:
                raise InputError(
                    f'"config.model.{m}" is {encoder!r}, but the data has {kind}; allowed: '
                    f"{', '.join(READS[m][kind])}"
                )
            made_by = self._made_by(m)
            if made_by and encoder not in (made_by, "features"):
                raise InputError(
                    f'"config.model.{m}" is {encoder!r}, but the data has features that {made_by} '
                    f"made; allowed: {made_by}, features"
                )
        self._check_nothing_changes_frames(found)
        return found

    def _check_nothing_changes_frames(self, modalities: tuple[str, ...]) -> None:
        """Raises InputError for an augmentation of frames that are encoded already."""
        for key in ("flip", "shift", "contrast", "brightness"):
            value = getattr(self.settings, key)
            if value and "vision" in modalities and self._made_by("vision"):
                raise InputError(
                    f'"config.model.{key}" is {value}, but the frames of the data are encoded and '
                    "cannot be changed; allowed: 0"
                )

    def _made_by(self, m: str) -> str:
        """Returns the frozen tower that made the features of a modality, "" where none did."""
        return getattr(self.inputs.kinds[m], "encoder", "")

    def _check_made_with(self, tower: str, key: str, load: Callable[[], Any]) -> None:
        """Raises InputError where `tower` made features with other weights than the config's.

        Args:
          tower: "clip" or "bert".
          key: of `config.model`, the folder.
          load: returns what that folder holds.
        """
        sums = {self.inputs.kinds[m].checksum for m in self.modalities if self._made_by(m) == tower}
        if sums and sums != {weights.checksum(load())}:
            raise InputError(
                f'"config.model.{key}" is {getattr(self.settings, key)}, but other weights made '
                "the features of the data; allowed: those that affectjax.prepare was given"
            )

    def kind(self, m: str) -> str:
        """Returns what the data has of a modality: features, frames, waveform or text."""
        return self.inputs.kinds[m].kind

    def _model(self) -> UMBEnet:
        s = self.settings
        dtype = jnp.dtype(s.dtype)
        towers = {m: None for m in ("text", "image", "bert")}
        scale, pixels = s.logit_scale, {}
        if s.weights:
            found = weights.clip(s.weights)
            if found.text is None or (found.image is None and self.reads("vision", "clip")):
                raise InputError(
                    f"{s.weights} has not both towers of CLIP; prompts need that of text, "
                    "and frames that of images"
                )
            self._check_made_with("clip", "weights", lambda: found)
            towers |= {"text": found.text, "image": found.image}
            scale = scale or found.logit_scale
            pixels = {"mean": found.mean, "std": found.std}
            self.pretrained |= found.params
        if self.reads("text", "bert"):
            found = weights.bert(self._bert_folder())
            towers["bert"] = {**found.args, "dtype": dtype}
            self.pretrained |= {"bert_tower": found.params}
        if s.bert_weights:
            self._check_made_with("bert", "bert_weights", lambda: weights.bert(s.bert_weights))
        if not scale:
            raise InputError(
                f'{s.weights} has no logit_scale; "config.model.logit_scale" must be a number then'
            )
        tokenizer = self._tokenizer()
        towers["text"] = {**(towers["text"] or self._small_text(tokenizer)), "dtype": dtype}
        width = towers["text"]["projection"]
        self._check_widths(width)
        if self.reads("vision", "clip") or self.reads("vision", "conv"):
            towers["image"] = self._image(towers["image"], width, dtype)
        else:
            towers["image"] = None
        fields = {f.name for f in dataclasses.fields(UMBEnet)} & {
            f.name for f in dataclasses.fields(ModelConfig)
        }
        given = {name: getattr(s, name) for name in fields - {"modalities", "text", "logit_scale"}}
        model = UMBEnet(
            modalities=self.modalities,
            encoders={m: getattr(s, m) for m in self.modalities},
            text=towers["text"],
            image=towers["image"],
            bert=towers["bert"],
            sos=tokenizer.sos,
            class_tokens=class_tokens(tokenizer, self.inputs.spec.classes),
            logit_scale=scale,
            frames=self.inputs.kinds["vision"].shape[0] if "vision" in self.modalities else 0,
            axis_name=self.axis_name,
            **pixels,
            **given,
        )
        self._keep_what_is_used(model)
        return model

    def reads(self, m: str, tower: str) -> bool:
        """Returns whether a modality comes raw and is read by a tower."""
        return (
            m in self.modalities
            and getattr(self.settings, m) == tower
            and self.kind(m) != "features"
        )

    def _check_widths(self, width: int) -> None:
        """Raises InputError where frames that a tower has encoded are not as wide as the model."""
        if "vision" not in self.modalities or self.kind("vision") != "features":
            return
        found = self.inputs.kinds["vision"].width
        if self.settings.vision != "features" and found != width:
            raise InputError(
                f'"config.model.vision" is {self.settings.vision!r}, but the data has features of '
                f"width {found}, and the model's is {width}; allowed: features, or what that tower "
                "made"
            )

    def _bert_folder(self) -> str:
        """Returns the folder of BERT's weights, whose words the data's tokens are."""
        folder = self.settings.bert_weights
        if not folder:
            raise InputError(
                '"config.model.text" is "bert", but "config.model.bert_weights" is empty; give a '
                "local folder with BERT's weights"
            )
        own, have = Tokenizer.load(folder).vocab, self.inputs.tokenizer.vocab
        if own != have:
            raise InputError(
                f'"config.data.tokenizer" has {have} words and "config.model.bert_weights" {own}; '
                "allowed: the same folder for both"
            )
        return folder

    def _keep_what_is_used(self, model: UMBEnet) -> None:
        """Leaves in `pretrained` only the towers that the model has."""
        runs = {"text_tower"}
        if self.reads("vision", "clip"):
            runs.add("image_tower")
        if model.bert is not None:
            runs.add("bert_tower")
        self.pretrained = {name: tree for name, tree in self.pretrained.items() if name in runs}

    def _tokenizer(self) -> Tokenizer:
        """Returns what reads the class names: the data's own tokenizer, or that of the weights."""
        s = self.settings
        if s.weights:
            own = Tokenizer.load(s.weights)
            if self.reads("text", "clip") and self.inputs.tokenizer.vocab != own.vocab:
                raise InputError(
                    '"config.data.tokenizer" must be the folder of "config.model.weights", so that '
                    "the text tower knows its words"
                )
            return own
        if self.reads("text", "clip"):
            return self.inputs.tokenizer
        return Tokenizer.train(self.inputs.spec.classes)

    def _small_text(self, tokenizer: Tokenizer) -> dict[str, Any]:
        """Returns the arguments of a text tower from scratch."""
        s = self.settings
        names = max(map(len, class_tokens(tokenizer, self.inputs.spec.classes)))
        needed = 1 + s.prompt_tokens + s.inherent_tokens + names
        return {
            "vocab": tokenizer.vocab,
            "length": max(needed, getattr(self.inputs.kinds.get("text"), "tokens", 0)),
            "width": s.text_width,
            "layers": s.text_layers,
            "heads": s.text_heads,
            "hidden": 4 * s.text_width,
            "projection": s.width,
        }

    def _image(self, found: Mapping[str, Any] | None, width: int, dtype: Any) -> dict[str, Any]:
        """Returns the arguments of the tower over frames."""
        s = self.settings
        if s.vision == "conv":
            return {"channels": s.image_channels, "projection": width}
        if found is not None:
            return {**found, "dtype": dtype}
        return {
            "image_size": self.inputs.kinds["vision"].size,
            "patch": s.image_patch,
            "width": s.image_width,
            "layers": s.image_layers,
            "heads": s.image_heads,
            "hidden": 4 * s.image_width,
            "projection": width,
            "dtype": dtype,
        }


def class_tokens(tokenizer: Tokenizer, classes: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    """Returns by class the tokens after the prompts: its name, a full stop, the end."""
    rows = (tokenizer.words(f"{name.replace('_', ' ')}.") for name in classes)
    return tuple((*row, tokenizer.eos) for row in rows)
