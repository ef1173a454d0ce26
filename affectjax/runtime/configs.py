"""Configs checked key by key: a key that nobody reads is an error, and so is a misspelt one.

Every section of a config is read into the dataclass that uses it, so the fields of that dataclass
are the keys of the section, and nothing can be set that nothing reads.
"""

import dataclasses
import difflib
import json
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from flax import linen as nn
from ml_collections import config_dict

from affectjax.errors import InputError

T = TypeVar("T")

TOP_LEVEL = ("task", "seed", "seeds", "data", "model", "optim", "stages", "train", "parallel")


def section(cls: type, *without: str, **values: Any) -> config_dict.ConfigDict:
    """Returns a config section: the fields of `cls` with their defaults, and other values.

    Args:
      cls: a dataclass or a Flax module; its fields are the keys.
      *without: fields that the program fills, not the config.
      **values: in place of the defaults, and for fields that have none.

    Raises:
      InputError: a value for no field.
    """
    given = ("parent", "name", *without) if issubclass(cls, nn.Module) else without
    fields = {f.name: f for f in dataclasses.fields(cls) if f.name not in given}
    check_keys(values, fields, cls.__name__)
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


def read(cls: type[T], section: Mapping[str, Any], where: str) -> T:
    """Returns dataclass `cls` with the values of a config section.

    Args:
      cls: a dataclass; its fields are the allowed keys.
      section: the keys and values.
      where: the section's name, as in `config.data`, for the errors.

    Raises:
      InputError: a key is no field, a value is refused, or a field without default is missing.
    """
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    check_keys(section, fields, where)
    for name, field in fields.items():
        required = field.default is field.default_factory is dataclasses.MISSING
        if required and name not in section:
            raise InputError(f'config key "{where}.{name}" is missing')
    try:
        return cls(**{key: plain(value) for key, value in section.items()})
    except (TypeError, ValueError) as error:
        raise InputError(f'"{where}": {error}') from error


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
      InputError: a seed stands twice, or is no integer from 0 to 2**31 - 1.
    """
    chosen = tuple(config["seeds"]) or (config["seed"],)
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
    """Returns a line `key: a here, b there` for each leaf that differs between two configs."""
    a, b = flatten(ours), flatten(theirs)
    missing = "nothing"
    return [
        f"{key}: {a.get(key, missing)!r} here, {b.get(key, missing)!r} there"
        for key in sorted(a.keys() | b.keys())
        if a.get(key, missing) != b.get(key, missing)
    ]
