"""Configs checked key by key: a key that the run does not read is an error, as is a misspelt one.

Every section of a config is read into the dataclasses that use it, its parts. The fields of the
parts are the keys of the section; which parts it has may depend on other keys (a data set of clips
has other keys than one of feature sequences). A config need not name every key: those that it
leaves out have the defaults of their parts. `resolve` fills them in, and refuses all others.
"""

import dataclasses
import difflib
import functools
import json
import math
import typing
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from flax import linen as nn
from ml_collections import config_dict

from affectjax.errors import InputError

T = TypeVar("T")

TOP_LEVEL = ("task", "seed", "seeds", "data", "model", "optim", "stages", "train", "parallel")


def section(cls: type | tuple[type, ...], *without: str, **values: Any) -> config_dict.ConfigDict:
    """Returns a config section: the fields of `cls` with their defaults, and other values.

    Args:
      cls: a dataclass or a Flax module, or several; their fields are the keys.
      *without: fields that the program fills, not the config.
      **values: in place of the defaults, and for fields that have none.

    Raises:
      InputError: a value for no field.
    """
    fields = {}
    for part in cls if isinstance(cls, tuple) else (cls,):
        given = ("parent", "name", *without) if issubclass(part, nn.Module) else without
        fields |= {f.name: f for f in dataclasses.fields(part) if f.name not in given}
    check_keys(values, fields, part.__name__)
    for name, field in fields.items():
        if name not in values and field.default is not dataclasses.MISSING:
            values[name] = field.default
    return config_dict.ConfigDict({name: values[name] for name in fields if name in values})


def check_keys(found: Collection[str], known: Collection[str], where: str) -> None:
    """Raises InputError for the first key of `found` that is not in `known`, with the nearest."""
    for key in found:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            known_here = f'; the keys of "{where}" are {", ".join(sorted(known))}'
            hint = f'; did you mean "{where}.{near[0]}"?' if near else known_here
            raise InputError(f'unknown config key "{where}.{key}"{hint}')


def fields(*parts: type) -> dict[str, dataclasses.Field]:
    """Returns by key the fields of the parts of a section, those that a config may set."""
    return {f.name: f for part in parts for f in dataclasses.fields(part) if f.init}


@functools.cache
def of_module(cls: type[nn.Module], *without: str) -> type:
    """Returns a part with the fields of a Flax module, for the keys that go into it as they are.

    Args:
      cls: the module.
      *without: its fields that the program fills.
    """
    types = typing.get_type_hints(cls)
    made = []
    for field in dataclasses.fields(cls):
        if field.name in ("parent", "name", *without):
            continue
        default = {} if field.default is dataclasses.MISSING else {"default": field.default}
        made.append((field.name, types[field.name], dataclasses.field(**default)))
    part = dataclasses.make_dataclass(cls.__name__, made, frozen=True)
    part.__doc__ = cls.__doc__
    return part


def read(
    parts: type[T] | tuple[type, ...],
    section: Mapping[str, Any],
    where: str,
    others: Collection[type] = (),
) -> T | tuple[Any, ...]:
    """Returns the parts of a section with its values: one instance, or a tuple of several.

    Args:
      parts: a dataclass, or several whose fields are together the keys of the section.
      section: the keys and values; those that it leaves out have their defaults.
      where: the section's name, as in `config.data`, for the errors.
      others: parts that the section would have with other values, such as those of another encoder:
        the message about a key of theirs says whose it is.

    Raises:
      InputError: a key that is no field, a value of another type, one that is refused, or a field
        without default that is missing.
    """
    several = parts if isinstance(parts, tuple) else (parts,)
    known, section = fields(*several), plain(section)
    for part in others:
        for key in (key for key in fields(part) if key in section and key not in known):
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.7)
            hint = f'; did you mean "{where}.{near[0]}"?' if near else ""
            raise InputError(
                f'"{where}.{key}" is {section[key]!r}, but this run does not read it: it belongs '
                f'to "{_title(part)}"{hint}'
            )
    check_keys(section, known, where)
    for name, field in known.items():
        required = field.default is field.default_factory is dataclasses.MISSING
        if required and name not in section:
            raise InputError(f'config key "{where}.{name}" is missing')
    made = []
    for part in several:
        own, types = fields(part), typing.get_type_hints(part)
        values = {k: _typed(section[k], types[k], f"{where}.{k}") for k in own if k in section}
        try:
            made.append(part(**values))
        except InputError as error:
            raise InputError(f'"{where}": {error}') from error
        except (TypeError, ValueError) as error:
            raise InputError(f'"{where}": {error}') from error
    return tuple(made) if isinstance(parts, tuple) else made[0]


def at_least(part: Any, **least: float) -> None:
    """Raises ValueError for a field of a part that is smaller than it may be.

    Args:
      part: a dataclass.
      **least: by field.
    """
    for key, value in least.items():
        if getattr(part, key) < value:
            raise ValueError(f"{key} is {getattr(part, key)}; allowed: {value} or more")


def _title(part: type) -> str:
    """Returns the first sentence of what a part says about itself."""
    said = (part.__doc__ or part.__name__).partition("\n")[0].rstrip(".")
    return said.replace('"', "").replace("`", "")


def _typed(value: Any, kind: Any, key: str) -> Any:
    """Returns a value as its field declares it; the command line gives 1 for 1.0 and for "1"."""
    kind = typing.get_origin(kind) or kind
    if kind is float and type(value) is int:
        return float(value)
    if kind is str and type(value) in (int, float):
        return str(value)
    wrong = kind in _SAID and not (
        isinstance(value, kind) and (kind is bool) == (type(value) is bool)
    )
    if wrong or (kind is float and not math.isfinite(value)):
        raise InputError(f'"{key}" is {value!r}; allowed: {_SAID[kind]}')
    _check_range(value, key)
    return value


def _check_range(value: Any, key: str) -> None:
    """Raises InputError for a number that no model and no data set has, whatever it is of."""
    section, last = key.split(".")[1:2], key.rpartition(".")[2]
    if last.endswith("dropout") and type(value) in (int, float) and not 0 <= value < 1:
        raise InputError(f'"{key}" is {value}; allowed: from 0 to below 1')
    most = MOST.get("".join(section))
    if most is None or last.endswith("seed"):
        return
    positive = last.endswith(POSITIVE) and not last.startswith("sequence")
    least = 1 if positive else 0 if last.endswith(SIZES) else -most
    several = value.values() if isinstance(value, Mapping) else value
    for number in several if isinstance(value, tuple | Mapping) else (value,):
        wrong = last.endswith("channels") and type(number) is not int
        if wrong or (type(number) is int and not least <= number <= most):
            raise InputError(f'"{key}" is {value}; allowed: whole numbers from {least} to {most}')


# The largest whole number in a section, but for seeds: sizes, counts, numbers of layers.
MOST = {"model": 1_000_000, "data": 10_000_000}
# How the names of sizes and counts end: those that cannot be 0, and those that cannot be negative.
# The heads of sequences are as many as the model around has where they are 0.
POSITIVE = ("width", "heads", "channels", "kernel", "kernels", "hidden", "feature")
SIZES = (
    *("layers", "tokens", "frames", "size", "top_k", "rank", "samples", "steps", "moments"),
    *("holes", "sequence_heads"),
)
_SAID = {
    bool: "True or False",
    int: "a whole number",
    float: "a finite number",
    str: "text",
    tuple: 'a tuple, as in "(1, 2)"',
}


def resolve(
    config: Mapping[str, Any],
    sections: Mapping[str, tuple[Collection[type], Collection[type]]],
) -> dict[str, Any]:
    """Returns the whole config: every key that the run reads, those left out with their defaults.

    Args:
      config: as a config file and the command line made it.
      sections: by dotted name, as in "stages.train", the parts of each section and the `others` of
        `read`. A name of several levels is read where its section is there.

    Raises:
      InputError: a section or a key that the run does not read, or see `read`.
    """
    whole = plain(config)
    check_top_level(whole)
    for name, (parts, others) in sections.items():
        holder, last = _holder(whole, name)
        if last not in holder:
            continue
        made = read(tuple(parts), holder[last], f"config.{name}", others)
        holder[last] = {
            key: plain(getattr(part, key))
            for kind, part in zip(parts, made, strict=True)
            for key in fields(kind)
        }
    return whole


def leave_out(
    config: Mapping[str, Any],
    sections: Mapping[str, tuple[Collection[type], Collection[type]]],
    given: Collection[str],
) -> dict[str, Any]:
    """Returns a config without the keys that its file set for what was then not chosen.

    The command line can choose another model, encoder or data set than the file, but it cannot take
    the keys away that the file set for its own. A given key stays: `resolve` refuses it where
    nothing reads it.

    Args:
      config: as a config file and the command line made it.
      sections: see `resolve`.
      given: the dotted names of the keys that the command line gave.
    """
    kept = plain(config)
    for name, (parts, others) in sections.items():
        holder, last = _holder(kept, name)
        unread = fields(*others).keys() - fields(*parts).keys()
        unread -= {
            key.removeprefix(f"{name}.").partition(".")[0]
            for key in given
            if key.startswith(f"{name}.")
        }
        if last in holder:
            holder[last] = {k: v for k, v in holder[last].items() if k not in unread}
    return kept


def _holder(config: dict[str, Any], name: str) -> tuple[dict[str, Any], str]:
    """Returns what a dotted section name lies in, {} where that is not there, and its last part."""
    *above, last = name.split(".")
    for level in above:
        config = config.get(level, {})
    return config, last


def plain(value: Any) -> Any:
    """Returns `value` with config dicts as dicts and lists as tuples, all the way down."""
    if isinstance(value, config_dict.ConfigDict):
        value = value.to_dict()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(plain(item) for item in value)
    return value


def check_top_level(config: Mapping[str, Any]) -> None:
    """Raises InputError for a key outside the sections that every config has, or a missing one."""
    check_keys(config, TOP_LEVEL, "config")
    for key in TOP_LEVEL:
        if key not in config:
            raise InputError(f'config key "config.{key}" is missing')


def seeds(config: Mapping[str, Any]) -> tuple[int, ...]:
    """Returns the seeds to train with: `config.seeds`, or `(config.seed,)` where that is empty.

    Raises:
      InputError: both are given, a seed stands twice, or is no integer from 0 to 2**31 - 1.
    """
    if not isinstance(config["seeds"], tuple | list):
        raise InputError(f'"config.seeds" is {config["seeds"]!r}; allowed: {_SAID[tuple]}')
    chosen = tuple(config["seeds"]) or (config["seed"],)
    if config["seeds"] and config["seed"]:
        raise InputError(
            f'"config.seed" is {config["seed"]} and "config.seeds" is {config["seeds"]}; allowed: '
            "one of them, the other at its default"
        )
    for seed in chosen:
        if not isinstance(seed, int) or not 0 <= seed < 2**31:
            key = "seeds" if config["seeds"] else "seed"
            raise InputError(f'"config.{key}" has {seed!r}; allowed: integers 0 to 2**31 - 1')
    if len(set(chosen)) < len(chosen):
        raise InputError(f'"config.seeds" has a seed twice: {chosen}')
    return chosen


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the leaves of a nested config by dotted name, in JSON's own types."""
    leaves = {}
    for key, value in plain(config).items():
        if isinstance(value, Mapping) and value:
            leaves |= flatten(value, f"{prefix}{key}.")
        else:
            leaves[prefix + key] = json.loads(json.dumps(plain(value)))
    return leaves


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Returns a line for each leaf that differs between two configs: what it is, and what it was.

    Args:
      ours: the config of now.
      theirs: the config of a run that is there already.
    """
    a, b = flatten(ours), flatten(theirs)
    missing = "not set"
    return [
        f"{key}: now {a.get(key, missing)!r}, there {b.get(key, missing)!r}"
        for key in sorted(a.keys() | b.keys())
        if a.get(key, missing) != b.get(key, missing)
    ]
