"""The data sets of a run: the one that `config.data` describes, and its unpaired sources."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from affectjax.data.batches.config import DataConfig
from affectjax.data.batches.dataset import Dataset
from affectjax.data.batches.inputs import Inputs
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
            own = dataclasses.replace(own, modalities=(name,), **_same_parts(own, config))
        before = {}
        if inputs is not None:
            known = inputs[name]
            before = {
                "statistics": known.statistics,
                "tokenizer": known.tokenizer,
                "spec": known.spec,
            }
        opened[name] = Dataset(own, **before, unpaired=bool(name))
        if inputs is not None:
            _check_size(opened[name], inputs[name])
        for role in roles:
            opened[name].part(role)
    return opened


def _same_parts(source: DataConfig, main: DataConfig) -> dict[str, Any]:
    """Returns what a source that is the main data set takes over from it.

    Both then train, validate and test on the same examples: nothing is learned from what the other
    is judged by.
    """
    if (source.name, source.path) != (main.name, main.path):
        return {}
    shared = ("fold", "folds", "kfold", "train", "valid", "test", "holdout", "seed")
    return {key: getattr(main, key) for key in shared}


def _check_size(dataset: Dataset, known: Inputs) -> None:
    """Raises InputError for frames of another size than a run was trained on."""
    sizes = [getattr(i.kinds.get("vision"), "size", None) for i in (dataset.inputs, known)]
    if None not in sizes and sizes[0] != sizes[1]:
        raise InputError(
            f"{dataset.prepared.path} has frames of {sizes[0]} pixels, but the run was trained on "
            f'{sizes[1]}; "config.data.image_size" says how raw files are prepared'
        )
