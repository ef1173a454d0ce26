"""The config of a run: checked as a whole before anything is opened."""

import dataclasses
import json
from collections.abc import Collection, Mapping
from typing import Any

from affectjax.data.batches import config as data_config
from affectjax.data.batches.config import DataConfig
from affectjax.errors import InputError
from affectjax.runtime import configs, optim, parallel
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
      baselines: whether simple baselines are learned and measured when the run ends, see
        `affectjax.training.baselines`.
    """

    eval_batch_size: int = 64
    checkpoint_epochs: int = 1
    checkpoint_steps: int = 0
    progress: bool = True
    baselines: bool = True

    def __post_init__(self):
        configs.at_least(self, eval_batch_size=1, checkpoint_epochs=1, checkpoint_steps=0)


def resolve(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the whole config: every key that the run reads, those left out with their defaults.

    Args:
      config: as a config file and the command line made it, see `choose`.

    Raises:
      InputError: a section or a key that the run does not read, with the nearest one; a value that
        is not allowed; two keys that contradict each other.
    """
    configs.check_top_level(config)
    whole = configs.resolve(config, _sections(config))
    configs.seeds(whole)
    whole["data"] = data_config.resolve(config["data"], base.data_sets(config), _more(config))
    return whole


def join(config: Mapping[str, Any]) -> ParallelConfig:
    """Joins the processes of a run and makes its devices, see `parallel.initialize`.

    Args:
      config: the whole one.

    Returns:
      `config.parallel`.
    """
    found = configs.read(ParallelConfig, config["parallel"], "config.parallel")
    parallel.initialize(found, len(configs.seeds(config)))
    return found


def choose(config: Mapping[str, Any], given: Collection[str]) -> dict[str, Any]:
    """Returns a config without what its file set for a model, an encoder or data not chosen.

    Args:
      config: as a config file and the command line made it.
      given: the dotted names of the keys that the command line gave: of these, none is left out.

    Raises:
      InputError: no such data set, model or encoder.
    """
    configs.check_top_level(config)
    data = data_config.sections(config["data"], base.data_sets(config), _more(config))
    return configs.leave_out(config, {**_sections(config), **data}, given)


def _sections(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parts of all sections but `data`, see `affectjax.runtime.configs.resolve`."""
    return {
        "optim": optim.parts(config["optim"]),
        "train": ((TrainConfig,), ()),
        "parallel": ((ParallelConfig,), ()),
        **{name: own for name, own in base.sections(config).items() if name != "data"},
    }


def _more(config: Mapping[str, Any]) -> Collection[type]:
    """Returns the groups of `config.data` that the task reads besides what the data reads."""
    return base.sections(config).get("data", ((), ()))[0]


def data_sets(config: Mapping[str, Any]) -> dict[str, DataConfig]:
    """Returns the data sets of a run by name, see `affectjax.data.batches.config.read`.

    Args:
      config: the whole config.
    """
    return data_config.read(config["data"], base.data_sets(config), _more(config))


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
    return resolve(choose(changed, overrides))
