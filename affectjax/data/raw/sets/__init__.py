"""Data sets: one module each, found by its name; its `DATASET` says all that there is to say.

A set of one's own is a module anywhere on the Python path: `--dataset=mypackage.myset` prepares it,
and `config.data.name="mypackage.myset"` trains on it.
"""

from affectjax.data.raw.dataset import RawDataset
from affectjax.errors import InputError
from affectjax.runtime import lookup


def names() -> tuple[str, ...]:
    """Returns the names of the data sets in this folder."""
    return lookup.names(__name__)


def get(name: str) -> RawDataset:
    """Returns a data set.

    Args:
      name: of a module in this folder, or the dotted name of another.

    Raises:
      InputError: there is none, with the nearest known name; it cannot be imported; or it has no
        `DATASET`.
    """
    dataset = getattr(lookup.find(__name__, name, "data set"), "DATASET", None)
    if not isinstance(dataset, RawDataset):
        raise InputError(
            f"data set {name!r}: its module has no DATASET, a RawDataset of"
            " affectjax.data.raw.dataset"
        )
    return dataset
