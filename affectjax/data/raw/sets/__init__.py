"""Data sets: one module each, found by its name.

A module has `LABELS` (a `LabelSpec`, or None with a function `labels(path) -> LabelSpec` that looks
into the raw files), `GROUP` (a regular expression whose first group, matched at the start of an
example's id, is its video or speaker), and what its views ask for:

    sequences   `FILES`: by aligned or not, the patterns to look for in the raw folder, in order of
                preference; `.` is the folder itself
    clips       `clips(raw, skipped) -> list[Clip]`: lists the clips and opens none. `OPTIONS` names
                what it takes besides, such as `allow_outside`; `CLIP_LABELS` is a `LabelSpec` of
                the clips, where it is not that of the sequences; `TEST_ONLY` is true of a set that
                has nothing to train on, which the doctor then says as a fact

A data set made by code has `generate(view, seed)` instead of both: a `FeatureSet` for "sequences",
by split an iterable of `Clip`s for "clips". `VIEWS` names the views that a module has, its own
choice first; without it they are those that FILES and `clips` speak of.
"""

import difflib
import importlib
import pkgutil
import re
from types import ModuleType

from affectjax.errors import InputError


def names() -> tuple[str, ...]:
    """Returns the names of the data sets."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def get(name: str) -> ModuleType:
    """Returns the module of a data set.

    Args:
      name: its module name.

    Raises:
      InputError: when there is none, with the nearest known name.
    """
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"data set {name!r} is unknown; known: {', '.join(names())}{hint}")
    return importlib.import_module(f"{__name__}.{name}")


def group(module: ModuleType, name: str) -> str:
    """Returns the video or speaker that an example belongs to.

    Args:
      module: the data set.
      name: the example's id.
    """
    match = re.match(module.GROUP, name)
    return match.group(1) if match else name
