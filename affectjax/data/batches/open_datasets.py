"""The data sets of a run: the one that `config.data` describes, and its unpaired sources."""

from collections.abc import Mapping, Sequence

from affectjax.data.batches.config import DataConfig
from affectjax.data.batches.dataset import Dataset
from affectjax.data.batches.inputs import Inputs
from affectjax.errors import InputError


def open_all(
    data: Mapping[str, DataConfig],
    inputs: Mapping[str, Inputs] | None = None,
    roles: Sequence[str] = ("train", "valid", "test"),
) -> dict[str, Dataset]:
    """Returns the data sets of a run by name.

    Args:
      data: by name, see `affectjax.data.batches.config.read`.
      inputs: those of an earlier run by name, None to look at the data.
      roles: the parts that each must have.

    Raises:
      InputError: see `Dataset`.
    """
    opened = {}
    for name, own in data.items():
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


def _check_size(dataset: Dataset, known: Inputs) -> None:
    """Raises InputError for frames of another size than a run was trained on."""
    sizes = [getattr(i.kinds.get("vision"), "size", None) for i in (dataset.inputs, known)]
    if None not in sizes and sizes[0] != sizes[1]:
        raise InputError(
            f"{dataset.prepared.path} has frames of {sizes[0]} pixels, but the run was trained on "
            f'{sizes[1]}; "config.data.image_size" says how raw files are prepared'
        )
