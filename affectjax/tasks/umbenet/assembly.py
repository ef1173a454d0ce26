"""From `config.model`, the data's inputs and pretrained weights to a UMBEnet.

With LoRA (`lora_rank`) every tower with weights that reads clips, and is not in `frozen`, trains by
what LoRA adds to its kernels alone. The text tower also makes the class prompts, and does that
without LoRA: the words of clips go through the adapted tower, the class prompts through the tower
as its weights have it. So the features of the classes lie where CLIP has them and do not move
under the clips that learn to meet them; they change with the prompts, as ever. And the gradient is
the whole one: the loss depends on the adapters through the words of clips and in no other way,
where a tower that trains whole has to be cut off from its class prompts by hand (see
`affectjax.models.umbenet.UMBEnet`). Where no clip has words the text tower is frozen.

Source: SPEC section 1.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from affectjax import encoders, weights
from affectjax.data.batches.inputs import Inputs
from affectjax.data.batches.tokenizer import Tokenizer
from affectjax.encoders import DTYPES, adaptation, augmentation, clip
from affectjax.encoders.adaptation import Adaptation
from affectjax.errors import InputError
from affectjax.modalities import chosen
from affectjax.models.umbenet import UMBEnet
from affectjax.runtime import configs

Tree = Any
SECTION = "config.model"
# The text tower with what LoRA adds, where the tower without it makes the class prompts.
TEXT_READER = "text_reader"


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """What of `config.model` the program uses itself; all else is in the other parts.

    Attributes:
      modalities: those to use, () for all that the data has.
      frozen: names of towers with weights that do not train, as in "text_tower"; not by LoRA
        either.
      dtype: in which the towers compute: "float32" or "bfloat16"; parameters are float32.
      width: D, without `weights`.
      logit_scale: of the cosines; 0 for that of `weights`.
      pull: weight of the loss that draws chosen keys to their queries.
      l1: weight of the sum of |W1|.
      mirror: predict from the frames and from their mirror images, and take the mean of the logits.
    """

    modalities: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    dtype: str = "float32"
    width: int = 512
    logit_scale: float = 0.0
    pull: float = 0.1
    l1: float = 1e-4
    mirror: bool = False

    def __post_init__(self):
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype is {self.dtype!r}; allowed: {', '.join(DTYPES)}")


@dataclasses.dataclass(frozen=True)
class Temporal:
    """The transformer over frames, which stands behind towers over frames.

    Attributes:
      temporal_layers, temporal_heads: see `affectjax.models.umbenet.UMBEnet`.
    """

    temporal_layers: int = 12
    temporal_heads: int = 8


@dataclasses.dataclass(frozen=True)
class Rank(adaptation.Rank):
    """How much trains in encoders with weights.

    Attributes:
      lora_rank: of LoRA on their kernels; the rest of them is frozen. 0 for no LoRA: they train
        whole, but for those in `frozen`.
    """

    lora_rank: int = 0


# All other keys that go into the network as they are.
Network = configs.of_module(
    UMBEnet,
    *("modalities", "encoders", "towers", "text", "sos", "class_tokens", "mean", "std", "frames"),
    *("temporal_layers", "temporal_heads", "usage_penalty", "logit_scale", "skip_absent"),
    "axis_name",
)
# The encoders where the config names none.
ENCODERS = {"text": "clip", "audio": "conv", "vision": "clip"}
# The text tower of the prompts is CLIP's, whatever reads the text of clips.
Prompts = clip.TextConfig


def choose(section: Mapping[str, Any]) -> encoders.Choice:
    """Returns the encoders that `config.model` names, and its parts."""
    own = (ModelConfig, Network, Prompts)
    by_kind = {**augmentation.PARTS, "frames": (*augmentation.PARTS["frames"], Temporal)}
    return adaptation.extend(encoders.Choice(own, section, SECTION, ENCODERS, by_kind), Rank)


class Assembly:
    """A network that fits the config and the data.

    Attributes:
      parts: of `config.model`, by class.
      settings: what of it the program uses itself.
      modalities: those that it uses, in the order of MODALITIES.
      model: the network.
      frozen: the beginnings of the paths of all parameters that do not train.
      adapted: by the name of each tower that LoRA adapts, the name under which the network reads it
        with what is added: its own, or TEXT_READER.
      pretrained: the parameters of its towers that came from a folder with weights.
    """

    def __init__(self, section: Mapping[str, Any], inputs: Inputs, axis_name: str | None):
        """Chooses the encoders, reads the weights and builds the network.

        Args:
          section: `config.model`.
          inputs: what the batches hold.
          axis_name: the mapped axis over which a batch is split, None where it is whole.

        Raises:
          InputError: a key that nobody reads, an encoder that cannot read what the data has, or no
            such weights.
        """
        choice = choose(section)
        self.parts = choice.read()
        self.settings: ModelConfig = self.parts[ModelConfig]
        self.network, self.prompts = self.parts[Network], self.parts[Prompts]
        # By modality, the name of its encoder, and its keys.
        self.names = choice.names
        self.encoders = {m: self.parts[config] for m, config in choice.configs.items()}
        self.inputs, self.axis_name = inputs, axis_name
        self.load = functools.cache(lambda read, folder: read(folder))
        self.modalities = self._chosen()
        self._check_towers()
        self.adaptation: Adaptation | None = self.parts.get(Adaptation)
        self.adapted = self._adapted()
        # The query gets no gradient: top-k passes none, and the pull loss moves keys to queries.
        still = dict.fromkeys((*self.settings.frozen, *self.adapted))
        self.frozen = (*(f"{name}/" for name in still), "pool/query")
        if not self._shares_text_tower():
            self.frozen = (*self.frozen, "text_tower/")
        self.pretrained: Tree = {}
        self.model = self._model()

    # What is chosen.

    def kind(self, m: str) -> str:
        """Returns what the data has of a modality: features, frames, waveform or text."""
        return self.inputs.kinds[m].kind

    def _chosen(self) -> tuple[str, ...]:
        """Returns the modalities to use, each with an encoder that reads what the data has."""
        wanted = self.settings.modalities
        found = chosen(wanted, self.inputs.modalities, f"{SECTION}.modalities")
        for m in found:
            encoder, kind = self.names[m], self.kind(m)
            made_by = self._made_by(m)
            # What stands behind a tower also takes what that tower made.
            before = ("text", "frames") if kind == "features" else ()
            before = (*before, "waveform") if made_by else before
            encoders.check_kind(encoder, m, kind, (kind, *before), SECTION)
            if made_by and encoder not in (made_by, "features"):
                raise InputError(
                    f'"{SECTION}.{m}" is {encoder!r}, but the data has features that {made_by} '
                    f"made; allowed: {made_by}, features"
                )
        seen = "vision" in found and not self._made_by("vision") and self.kind("vision") == "frames"
        if self.settings.mirror and not seen:
            raise InputError(
                f'"{SECTION}.mirror" is True, but no frames are seen that could be mirrored; '
                "allowed: False"
            )
        for m, part in augmentation.OF.items():
            changes = self.parts.get(part)
            for key, value in vars(changes).items() if changes else ():
                if value and m in found and self._made_by(m):
                    raise InputError(
                        f'"{SECTION}.{key}" is {value}, but {m} of the data is encoded and cannot '
                        "be changed; allowed: 0"
                    )
        return found

    def _made_by(self, m: str) -> str:
        """Returns the frozen tower that made the features of a modality, "" where none did."""
        return getattr(self.inputs.kinds[m], "encoder", "")

    def _shares_text_tower(self) -> bool:
        """Returns whether the tower of the prompts also reads the text of clips."""
        return self._runs("text") and isinstance(self.encoders["text"], Prompts)

    def _runs(self, m: str) -> bool:
        """Returns whether an encoder runs on a modality, which may come encoded."""
        return m in self.modalities and self.encoders[m].reads == self.kind(m)

    def _name(self, m: str) -> str:
        """Returns the name of an encoder's parameters."""
        last, reads = self.names[m].rpartition(".")[2], self.encoders[m].reads
        if isinstance(self.encoders[m], Prompts):
            return "text_tower"
        return {"text": f"{last}_tower", "frames": "image_tower"}.get(reads, f"{m}_{last}")

    def _check_towers(self) -> None:
        """Raises InputError where what is frozen, or the scale of the cosines, needs weights."""
        s = self.settings
        named = {self._name(m): own for m, own in self.encoders.items() if own.weights_key}
        owners = {"text_tower": self.prompts} | named
        for name in s.frozen:
            if name not in owners:
                raise InputError(
                    f'"{SECTION}": frozen has {name!r}; allowed: {", ".join(owners)}, of the '
                    "encoders that are chosen"
                )
            key = owners[name].weights_key
            if not getattr(owners[name], key):
                raise InputError(
                    f'"{SECTION}": frozen has {name}, but {key} is empty; give a folder with '
                    "weights, or freeze nothing and train small towers from scratch"
                )
        if not self.prompts.weights and not s.logit_scale:
            raise InputError(
                f'"{SECTION}": logit_scale is 0, that of weights, but weights is empty'
            )

    def _adapted(self) -> dict[str, str]:
        """Returns `adapted`; raises InputError where LoRA is asked for and lacks a tower."""
        if self.adaptation is None:
            return {}
        found = {}
        for m in self.modalities:
            own, name = self.encoders[m], self._name(m)
            if not self._runs(m) or name in self.settings.frozen:
                continue
            if own.weights_key and not getattr(own, own.weights_key):
                raise InputError(
                    f'"{SECTION}.lora_rank" is {self.adaptation.lora_rank}, but '
                    f'"{SECTION}.{own.weights_key}" is empty; allowed: a folder with weights, or '
                    f'"{SECTION}.{m}" an encoder that has none'
                )
            if own.weights_key:
                found[name] = TEXT_READER if name == "text_tower" else name
        if not found:
            raise InputError(
                f'"{SECTION}.lora_rank" is {self.adaptation.lora_rank}, but no tower with weights '
                "reads clips, or all that do are in frozen; allowed: 0"
            )
        return found

    # What it does to parameters.

    def add_lora(self, params: Tree, key: jax.Array) -> Tree:
        """Returns new parameters of the network as they are trained and kept: with LoRA's."""
        if self.adaptation is None:
            return params
        kept = {name: own for name, own in params.items() if name != TEXT_READER}
        added = self.adaptation.init(key, {name: kept[name] for name in self.adapted})
        return kept | {Adaptation.name: added}

    def adapt(self, params: Tree, key: jax.Array | None = None) -> Tree:
        """Returns the parameters that the network reads.

        Args:
          params: as `add_lora` returns them.
          key: of a training step, the same on every device; None in evaluation.
        """
        if self.adaptation is None:
            return params
        kept = {name: own for name, own in params.items() if name != Adaptation.name}
        towers = {name: kept[name] for name in self.adapted}
        made = self.adaptation.adapt(towers, params[Adaptation.name], key)
        return kept | {self.adapted[name]: tower for name, tower in made.items()}

    # What is made.

    def _model(self) -> UMBEnet:
        dtype = jnp.dtype(self.settings.dtype)
        tokenizer = self._tokenizer()
        text, params = self.prompts.tower(
            self.load, tokenizer.vocab, self._length(tokenizer), self.settings.width
        )
        if params is not None:
            self.pretrained["text_tower"] = params
        self._check_features(text["projection"])
        made, towers, pixels = {}, {}, {}
        scale = self.settings.logit_scale
        if self.prompts.weights:
            found = self.prompts.pretrained(self.load)
            pixels = {"mean": found.mean, "std": found.std}
            scale = scale or found.logit_scale
        if not scale:
            raise InputError(
                f'{self.prompts.weights} has no logit_scale; "{SECTION}.logit_scale" must be a '
                "number then"
            )
        for m in self.modalities:
            make, own = self._encoder(m, text["projection"], dtype)
            pixels |= own
            has_head = self.encoders[m].reads in ("text", "frames")
            (towers if has_head else made)[m] = make
        try:
            return UMBEnet(
                modalities=self.modalities,
                encoders=made,
                towers=towers,
                text={**text, "dtype": dtype},
                sos=tokenizer.sos,
                class_tokens=class_tokens(tokenizer, self.inputs.spec.classes),
                logit_scale=scale,
                frames=self.inputs.kinds["vision"].shape[0] if "vision" in self.modalities else 0,
                axis_name=self.axis_name,
                **pixels,
                **vars(self.network),
                **vars(self.parts.get(Temporal, Temporal())),
            )
        except ValueError as error:
            raise InputError(f'"{SECTION}": {error}') from error

    def _encoder(
        self, m: str, width: int, dtype: Any
    ) -> tuple[Callable[[], nn.Module] | None, Mapping[str, Any]]:
        """Returns what makes the encoder of a modality, None where none runs, and its pixels."""
        context = encoders.Context(
            modality=m,
            kind=self.inputs.kinds[m],
            tokenizer=self.inputs.tokenizer,
            width=width,
            heads=self.network.heads,
            dropout=self.network.dropout,
            dtype=dtype,
            axis_name=self.axis_name,
            section=SECTION,
            data="config.data",
            load=self.load,
        )
        adapted = self.adapted.get(self._name(m))
        if m == "text" and self._shares_text_tower() and not adapted:
            if self.prompts.weights:
                context.check_words(self.prompts.weights)
            return None, {}
        if not self._runs(m):
            return None, {}
        built, name = self.encoders[m].build(context), self._name(m)
        if built.params is not None:
            self.pretrained[name] = built.params
        return functools.partial(built.make, name=adapted or name), built.pixels

    def _tokenizer(self) -> Tokenizer:
        """Returns what reads the class names: the data's own tokenizer, or that of the weights."""
        if self.prompts.weights:
            self.prompts.pretrained(self.load)  # whether they can be read, before their words
            return Tokenizer.load(self.prompts.weights)
        if self._shares_text_tower():
            return self.inputs.tokenizer
        return Tokenizer.train(self.inputs.spec.classes)

    def _length(self, tokenizer: Tokenizer) -> int:
        """Returns the most tokens that a text tower from scratch has to read."""
        names = max(map(len, class_tokens(tokenizer, self.inputs.spec.classes)))
        prompts = 1 + self.network.prompt_tokens + self.network.inherent_tokens + names
        return max(prompts, getattr(self.inputs.kinds.get("text"), "tokens", 0))

    def _check_features(self, width: int) -> None:
        """Raises InputError where a tower's features are not those of the config's towers.

        Args:
          width: D.
        """
        for m in self.modalities:
            own = {"clip": self.prompts}.get(self._made_by(m), self.encoders[m])
            folder = own.weights_key and getattr(own, own.weights_key)
            if not self._made_by(m) or not folder:
                continue
            if self.inputs.kinds[m].checksum != weights.checksum(own.pretrained(self.load)):
                raise InputError(
                    f'"{SECTION}.{own.weights_key}" is {folder}, but other weights made the '
                    "features of the data; allowed: those that affectjax.prepare was given"
                )
        if "vision" not in self.modalities or self.kind("vision") != "features":
            return
        found = self.inputs.kinds["vision"].width
        if self.encoders["vision"].reads != "features" and found != width:
            raise InputError(
                f'"{SECTION}.vision" is {self.names["vision"]!r}, but the data has features of '
                f"width {found}, and the model's is {width}; allowed: features, or what that tower "
                "made"
            )


def class_tokens(tokenizer: Tokenizer, classes: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    """Returns by class the tokens after the prompts: its name, a full stop, the end."""
    rows = (tokenizer.words(f"{name.replace('_', ' ')}.") for name in classes)
    return tuple((*row, tokenizer.eos) for row in rows)
