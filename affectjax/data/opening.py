"""The data sets of a run: the one that `config.data` describes, and its unpaired sources."""

import dataclasses
from collections.abc import Mapping, Sequence

from affectjax.data.config import DataConfig
from affectjax.data.inputs import Inputs
from affectjax.data.pipeline import Dataset
from affectjax.errors import InputError
from affectjax.runtime import configs


def open_all(
    config: DataConfig,
    names: Sequence[str],
    inputs: Mapping[str, Inputs] | None = None,
    roles: Sequence[str] = ("train", "valid", "test"),
) -> dict[str, Dataset]:
    """Returns the data sets of a run by name.

    Args:
      config: `config.data`.
      names: "" for the data set that it describes itself, or of its `sources`.
      inputs: those of an earlier run by name, None to look at the data.
      roles: the parts that each must have.

    Raises:
      InputError: see `Dataset`, or there is no source of that name.
    """
    opened = {}
    for name in names:
        own = config
        if name:
            if name not in config.sources:
                raise InputError(f'"config.data.sources" has no {name}: what is learned from?')
            section = f"config.data.sources.{name}"
            own = configs.read(DataConfig, config.sources[name], section)
            own = dataclasses.replace(own, modalities=(name,))
        before = {}
        if inputs is not None:
            known = inputs[name]
            before = {
                "statistics": known.statistics,
                "tokenizer": known.tokenizer,
                "spec": known.spec,
            }
        opened[name] = Dataset(own, **before, unpaired=bool(name))
        for role in roles:
            opened[name].part(role)
    return opened
