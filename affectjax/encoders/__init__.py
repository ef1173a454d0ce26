"""Encoders: one file for each, whose name is the value in the config, reads one modality.

    --config.model.vision=clip                    clip.py in this folder
    --config.model.vision=mypackage.myencoder     a module anywhere on the Python path

The module of an encoder has `CONFIGS`: for each modality that it can read its config keys, a frozen
dataclass that also makes the encoder, as the protocol `Config` says. Nothing else lists encoders.

Letters: B examples, N images, T steps, L layers, H height, W width, D features.
"""

import dataclasses
import functools
import importlib
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar, Protocol

import flax.linen as nn
import jax.numpy as jnp

from affectjax.data.batches.inputs import Kind
from affectjax.data.batches.tokenizer import Tokenizer
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES
from affectjax.runtime import configs, lookup

Tree = Any
DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Encoder:
    """A made encoder.

    Attributes:
      make: returns its Flax module, and takes a `name`. Of frames the module maps images
        `[N, H, W, 3]`, normalised by `pixels`, to `[N, D]`; of all else `(x, mask, train=...)`, as
        they stand in a batch, to `[B, D]`, or to `[B, L, D]`, a feature a layer, of which the model
        learns a sum. Only pretrained ones may give another width than asked.
      params: pretrained parameters of the module, None where it starts from new ones.
      pixels: `mean` and `std` of the pixels from 0 to 1, {} where it does not matter which.
    """

    make: Callable[..., nn.Module]
    params: Tree | None = None
    pixels: Mapping[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Context:
    """What an encoder is made for.

    Attributes:
      modality: the one that it reads.
      kind: what the data has of it.
      tokenizer: of the data, None where that has no text.
      width: D of the feature.
      heads: of attention, for encoders that have no number of their own.
      dropout: rate.
      dtype: in which transformers compute; parameters are float32.
      axis_name: the mapped axis over which a batch is split, None where it is whole.
      section: where the encoder's keys stand, as in "config.model".
      data: where those of the data stand, as in "config.data".
      load: `(read, folder) -> read(folder)`; a folder is read once, whoever asks.
    """

    modality: str
    kind: Kind
    tokenizer: Tokenizer | None
    width: int
    heads: int
    dropout: float
    dtype: jnp.dtype
    axis_name: str | None
    section: str
    data: str
    load: Callable[[Callable[[str], Any], str], Any]

    def check_words(self, folder: str) -> None:
        """Raises InputError where the data's tokens are not those that the weights know."""
        check_words(self.tokenizer, folder, self.data)


class Config(Protocol):
    """The config keys of an encoder of one modality: a frozen dataclass.

    Attributes:
      reads: the kind of input: "text", "frames", "waveform" or "features".
      weights_key: the key that names a folder with pretrained weights, "" where there is none.
    """

    reads: ClassVar[str]
    weights_key: ClassVar[str]

    def build(self, context: Context) -> Encoder:
        """Returns the encoder; an InputError where the data or the weights do not fit."""

    def pretrained(self, load: Callable[[Callable[[str], Any], str], Any]) -> Any:
        """Returns what the folder with weights holds; only asked where `weights_key` is set."""


def names(m: str, kinds: Collection[str] = ()) -> tuple[str, ...]:
    """Returns the names of this folder's encoders of a modality.

    Args:
      m: the modality.
      kinds: of input that they read, () for any.
    """
    found = ((name, _configs(name).get(m)) for name in lookup.names(__name__))
    return tuple(n for n, config in found if config and (not kinds or config.reads in kinds))


def find(name: str, m: str, section: str) -> type[Config]:
    """Returns the config keys of an encoder.

    Args:
      name: of a file in this folder, or the dotted name of a module outside of it.
      m: the modality that it is to read.
      section: of the config, in which `m` has that name, for the message.

    Raises:
      InputError: there is no such encoder, or it reads other modalities.
    """
    if "." not in name and name not in names(m):
        raise InputError(
            f'"{section}.{m}" is {name!r}, but no encoder of {m} has that name; allowed: '
            f"{', '.join(names(m))}, or the dotted name of a module of your own"
        )
    try:
        module = lookup.find(__name__, name, "encoder")
    except InputError as error:
        raise InputError(f'"{section}.{m}": {error}') from error
    found = getattr(module, "CONFIGS", {})
    if m not in found:
        raise InputError(
            f'"{section}.{m}" is {name!r}, but CONFIGS of that module has no {m}; it has: '
            f"{', '.join(found) or 'nothing'}"
        )
    return found[m]


@functools.cache
def choice(m: str, default: str) -> type:
    """Returns the part of a section whose one key names the encoder of a modality."""
    return dataclasses.make_dataclass(f"Encoder of {m}", [(m, str, default)], frozen=True)


class Choice:
    """The encoders that a section of the config names.

    Attributes:
      names: by modality.
      configs: by modality, the config keys of the encoder.
      parts: of the section, each once: what it has whatever is chosen, the names and the keys of
        the encoders, and what it has for what they read.
      others: parts that it would have with other encoders, or with other modalities.
    """

    def __init__(
        self,
        own: Collection[type],
        section: Mapping[str, Any],
        where: str,
        defaults: Mapping[str, str],
        by_kind: Mapping[str, tuple[type, ...]],
        modalities: Collection[str] = MODALITIES,
    ):
        """Finds the encoders.

        Args:
          own: the parts that the section has whatever is chosen.
          section: its keys and values.
          where: its name, as in "config.model".
          defaults: by modality, the encoder where the section names none.
          by_kind: by kind of input, the parts that the section has where an encoder reads it.
          modalities: those that are read at all.

        Raises:
          InputError: see `find`.
        """
        self.section, self.where = section, where
        self.names = {m: str(section.get(m, defaults[m])) for m in MODALITIES if m in modalities}
        self.configs = {m: find(name, m, where) for m, name in self.names.items()}
        named = [choice(m, defaults[m]) for m in self.names]
        read = {config.reads for config in self.configs.values()}
        more = [part for kind, parts in by_kind.items() if kind in read for part in parts]
        self.parts = tuple(dict.fromkeys((*own, *named, *self.configs.values(), *more)))
        every = [c for name in lookup.names(__name__) for c in _configs(name).values()]
        every += [part for parts in by_kind.values() for part in parts]
        every += [choice(m, defaults[m]) for m in MODALITIES]
        self.others = tuple(dict.fromkeys(part for part in every if part not in self.parts))

    def read(self) -> dict[type, Any]:
        """Returns the parts with the values of the section; see `runtime.configs.read`."""
        made = configs.read(self.parts, self.section, self.where, self.others)
        return dict(zip(self.parts, made, strict=True))


def check_words(tokenizer: Tokenizer, folder: str, data: str) -> None:
    """Raises InputError where the data's tokens are not those that the weights know.

    Args:
      tokenizer: of the data.
      folder: of the weights.
      data: where the keys of the data stand, as in "config.data".
    """
    own, have = Tokenizer.load(folder).vocab, tokenizer.vocab
    if own != have:
        raise InputError(
            f'"{data}.tokenizer" has {have} words and {folder} {own}; allowed: the same '
            "folder for both"
        )


def check_kind(name: str, m: str, has: str, allowed: Collection[str], section: str) -> None:
    """Raises InputError where an encoder cannot read what the data has of a modality.

    Args:
      name: of the encoder.
      m: the modality.
      has: the kind of input that the data has.
      allowed: kinds of input whose encoders can be used on it, most often that one alone.
      section: of the config, for the message.
    """
    if find(name, m, section).reads not in allowed:
        raise InputError(
            f'"{section}.{m}" is {name!r}, but the data has {has}; allowed: '
            f"{', '.join(names(m, allowed))}"
        )


def _configs(name: str) -> Mapping[str, type[Config]]:
    """Returns `CONFIGS` of a module in this folder, {} where it is no encoder."""
    return getattr(importlib.import_module(f"{__name__}.{name}"), "CONFIGS", {})
