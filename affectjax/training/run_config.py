"""The config of a run: checked as a whole before anything is opened."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

from affectjax.data.batches import config as data_config
from affectjax.data.batches.config import DataConfig
from affectjax.errors import InputError
from affectjax.runtime import configs, optim
from affectjax.runtime.parallel import ParallelConfig
from affectjax.tasks import base


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """`config.train`.

    Attributes:
      eval_batch_size: over all devices.
      checkpoint_epochs: epochs between two checkpoints.
      checkpoint_steps: of a streamed part, steps between two checkpoints within an epoch, 0 for
        none.
      progress: whether to show a progress bar.
    """

    eval_batch_size: int = 64
    checkpoint_epochs: int = 1
    checkpoint_steps: int = 0
    progress: bool = True


def resolve(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the whole config: every key that the run reads, those left out with their defaults.

    Args:
      config: as a config file and the command line made it.

    Raises:
      InputError: a section or a key that the run does not read, with the nearest one; a value that
        is not allowed; two keys that contradict each other.
    """
    configs.check_top_level(config)
    sections = {
        "optim": optim.parts(config["optim"]),
        "train": ((TrainConfig,), ()),
        "parallel": ((ParallelConfig,), ()),
        **base.sections(config),
    }
    more, _ = sections.pop("data", ((), ()))
    whole = configs.resolve(config, sections)
    whole["data"] = data_config.resolve(config["data"], base.data_sets(config), more)
    return whole


def data_sets(config: Mapping[str, Any]) -> dict[str, DataConfig]:
    """Returns the data sets of a run by name, see `affectjax.data.batches.config.read`.

    Args:
      config: the whole config.
    """
    more, _ = base.sections(config).get("data", ((), ()))
    return data_config.read(config["data"], base.data_sets(config), more)


def check_given(config: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Returns the whole config; an InputError for a given key that the run does not read.

    `resolve` lets such a key stand at its default, since a config file may name it; somebody who
    gives it meant something by it.

    Args:
      config: with the values of the keys.
      keys: dotted names.
    """
    whole = resolve(config)
    known = configs.flatten(whole)
    for key in keys:
        if not any(f"{name}.".startswith(f"{key}.") for name in known):
            configs.check_keys([key], known, "config")
    return whole


def override(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the config of a finished run with other values, as an evaluation may have them.

    Another data set has keys of its own: those of the run's that it does not read are left out.

    Args:
      config: of the run, as config.json has it.
      overrides: values by dotted name; only those of `data` and `parallel` may differ.

    Raises:
      InputError: a value that an evaluation cannot change, or a key that it does not read.
    """
    changed = configs.plain(config)
    for key, value in overrides.items():
        *sections, last = key.split(".")
        section = changed
        for name in sections:
            configs.check_keys([name], section, "config")
            section = section[name]
        if sections[:1] not in (["data"], ["parallel"]):
            configs.check_keys([last], section, ".".join(("config", *sections)))
            have = json.loads(json.dumps(section[last]))
            if have != json.loads(json.dumps(configs.plain(value))):
                raise InputError(
                    f'"config.{key}" is {have!r} in the run; an evaluation cannot change it, only '
                    "config.data and config.parallel"
                )
        section[last] = configs.plain(value)
    if {"data.name", "data.view"} & overrides.keys():
        more, _ = base.sections(changed).get("data", ((), ()))
        known = configs.fields(*data_config.parts(changed["data"], more=more))
        changed["data"] = {
            key: value
            for key, value in changed["data"].items()
            if key in known or key == "sources" or f"data.{key}" in overrides
        }
    return check_given(changed, overrides)
