"""Readers: one module a layout on disk, found by its name; each returns a `FeatureSet`.

What several of them need stands here: padding, and the check of what they return.

Letters: N examples, T steps, D features.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from affectjax.data.labels import LabelSpec
from affectjax.data.limits import Limits
from affectjax.data.sequences import FeatureSet, Sequences, Split
from affectjax.data.skipped import SkippedRecords
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES
from affectjax.runtime import lookup


class Reader(Protocol):
    """What the module of a layout on disk has."""

    def matches(self, path: Path) -> bool:
        """Returns whether a file or folder has this layout, by its name or by its head."""

    def read(
        self,
        path: Path,
        spec: LabelSpec,
        *,
        aligned: bool,
        max_length: Mapping[str, int] | None,
        skipped: SkippedRecords,
        limits: Limits,
    ) -> FeatureSet:
        """Returns the feature set in a file or folder; see `readers.read`."""


def names() -> tuple[str, ...]:
    """Returns the names of the formats that can be read."""
    return lookup.names(__name__)


def get(format: str) -> Reader:
    """Returns the reader of a format.

    Args:
      format: the name of a module in this folder, or the dotted name of another.

    Raises:
      InputError: there is none.
    """
    return lookup.find(__name__, format, "format")


def detect(path: Path) -> str | None:
    """Returns the name of the first reader that knows this file or folder, or None."""
    return next((name for name in names() if get(name).matches(path)), None)


def is_folder_of(path: Path, format: str) -> bool:
    """Returns whether a folder itself is what a reader reads.

    Args:
      path: the folder.
      format: the reader's name, or `auto` for any.
    """
    if format == "auto":
        return detect(path) is not None
    return get(format).matches(path)


def read(
    path: str | Path,
    spec: LabelSpec,
    aligned: bool,
    format: str = "auto",
    *,
    max_length: Mapping[str, int] | None = None,
    skipped: SkippedRecords | None = None,
    limits: Limits | None = None,
) -> FeatureSet:
    """Returns the feature set in a file or folder, checked.

    Args:
      path: what to read.
      spec: what the labels are.
      aligned: whether the modalities are to share their steps, one a word. Then an example's step
        is valid in all the modalities that it has when it is valid in one of them.
      format: the reader's name, or `auto` to find it.
      max_length: by modality, how many steps a reader keeps when it pads by itself.
      skipped: takes wrong records; without one the first is an error.
      limits: how much memory it may take, and whether it may name files outside its folder.

    Raises:
      InputError: when no reader knows the path, or the content breaks the contract.
    """
    path = Path(path)
    skipped = SkippedRecords() if skipped is None else skipped
    limits = Limits() if limits is None else limits
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if format == "auto":
        found = detect(path)
        if found is None:
            raise InputError(
                f"{path}: no reader knows this layout by itself; say the format, one of"
                f" {', '.join(names())}"
            )
        format = found
    how = {"aligned": aligned, "max_length": max_length, "skipped": skipped, "limits": limits}
    features = get(format).read(path, spec, **how)
    validate(features, str(path))
    if aligned:
        features = share_steps(features, str(path))
    _look_over(features, spec, skipped, str(path))
    return features


def validate(features: FeatureSet, where: str) -> None:
    """Checks that a feature set keeps the contract of `affectjax.data.sequences`.

    Args:
      features: what a reader returned.
      where: the file, for the message.

    Raises:
      InputError: names the split, the key and what is expected.
    """
    if not features.splits:
        raise InputError(f"{where}: has no split; expected train, valid or test")
    dims: dict[str, tuple[str, int]] = {}
    for name, split in features.splits.items():
        count = len(split.ids)
        lengths = {"label": len(split.label)}
        if split.transcripts is not None:
            lengths["transcripts"] = len(split.transcripts)
        for modality, sequences in split.modalities.items():
            _validate_sequences(sequences, f"{where}: {name}: {modality}")
            if modality not in MODALITIES:
                raise InputError(
                    f"{where}: {name}: modality {modality!r} is none of {', '.join(MODALITIES)}"
                )
            lengths[modality] = len(sequences.x)
            first, width = dims.setdefault(modality, (name, sequences.x.shape[2]))
            if width != sequences.x.shape[2]:
                raise InputError(
                    f"{where}: {modality} has {width} features in {first} and"
                    f" {sequences.x.shape[2]} in {name}; they must be the same"
                )
        for key, length in lengths.items():
            if length != count:
                raise InputError(
                    f"{where}: {name}: {key} has {length} examples where id has {count};"
                    " all keys of a split must have the same number"
                )
    if not dims:
        raise InputError(f"{where}: has none of the modalities {', '.join(MODALITIES)}")


def share_steps(features: FeatureSet, where: str) -> FeatureSet:
    """Returns the set with one mask an example: a step is valid where any modality has it.

    Args:
      features: aligned sequences.
      where: the file, for the message.

    Raises:
      InputError: when the modalities of a split differ in their number of steps.
    """
    splits = {}
    for name, split in features.splits.items():
        steps = {modality: s.x.shape[1] for modality, s in split.ordered()}
        if len(set(steps.values())) > 1:
            raise InputError(
                f"{where}: {name}: aligned modalities must have the same number of steps, got "
                + ", ".join(f"{modality} {count}" for modality, count in steps.items())
            )
        shared = np.any([s.mask for _, s in split.ordered()], axis=0)
        modalities = {
            modality: Sequences(s.x, shared & s.mask.any(axis=1, keepdims=True))
            for modality, s in split.ordered()
        }
        splits[name] = dataclasses.replace(split, modalities=modalities)
    return FeatureSet(splits)


def padding_mask(x: np.ndarray) -> np.ndarray:
    """Returns `[N, T]` bool, false on the runs of all-zero rows that lead or trail a sequence.

    An all-zero row between two others is a step like any other. NaN counts as not zero.

    Args:
      x: `[N, T, D]`.
    """
    filled = np.stack([(example != 0).any(axis=-1) for example in x]) if len(x) else x.any(axis=-1)
    seen = np.maximum.accumulate(filled, axis=1)
    ahead = np.maximum.accumulate(filled[:, ::-1], axis=1)[:, ::-1]
    return seen & ahead


def length_mask(lengths: Sequence[int], x: np.ndarray, where: str) -> np.ndarray:
    """Returns `[N, T]` bool, true on the first `lengths[i]` steps of example i.

    Args:
      lengths: N whole numbers from 0 to T; 0 says that the example lacks the modality.
      x: `[N, T, D]`.
      where: file, split and key of the lengths, for the message.

    Raises:
      InputError: when there are not N of them or one is no length of this array.
    """
    try:
        array = np.asarray(lengths, np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: is not a list of whole numbers") from error
    count, steps = x.shape[:2]
    if len(array) != count:
        raise InputError(f"{where}: has {len(array)} lengths for {count} examples")
    wrong = np.flatnonzero(~((array >= 0) & (array <= steps) & (array == np.floor(array))))
    if len(wrong):
        row = wrong[0]
        raise InputError(
            f"{where}: length {array[row]:g} of example {row} is not a whole number from 0 to the"
            f" {steps} steps of the array"
        )
    return np.arange(steps) < array[:, None]


def sequence_array(value: object, where: str) -> np.ndarray:
    """Returns `[N, T, D]` floating from what a file holds for a modality.

    Args:
      value: the array; whole numbers become float32.
      where: file, split and key, for the message.

    Raises:
      InputError: when it is not a three-dimensional array of numbers.
    """
    try:
        array = np.asarray(value if isinstance(value, np.ndarray | list) else None)
    except ValueError as error:
        raise InputError(
            f"{where}: is a list of arrays of several shapes; expected one array of numbers"
            " [examples, steps, features], padded"
        ) from error
    if array.ndim != 3 or array.dtype.kind not in "fiub":
        raise InputError(
            f"{where}: expected an array of numbers [examples, steps, features], got"
            f" {array.dtype} {list(array.shape)}"
        )
    return array if array.dtype.kind == "f" else array.astype(np.float32)


def text(value: object, where: str) -> str:
    """Returns what a file holds for a word: text, the bytes of one in UTF-8, or a number.

    None and NaN, which programs write for a text that is not there, are empty.

    Args:
      value: one word or sentence.
      where: file, split and key, for the message.

    Raises:
      InputError: when it is a container.
    """
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    if isinstance(value, list | tuple | dict | set | frozenset | np.ndarray):
        raise InputError(f"{where}: holds a {type(value).__name__}; expected a text an example")
    return str(value)


def _validate_sequences(sequences: Sequences, where: str) -> None:
    x, mask = sequences.x, sequences.mask
    if x.ndim != 3 or x.dtype.kind != "f":
        raise InputError(f"{where}: expected floats [N, T, D], got {x.dtype} {list(x.shape)}")
    if mask.dtype != bool or mask.shape != x.shape[:2]:
        raise InputError(
            f"{where}: mask is {mask.dtype} {list(mask.shape)}, expected bool {list(x.shape[:2])}"
        )


def _look_over(features: FeatureSet, spec: LabelSpec, skipped: SkippedRecords, where: str) -> None:
    """Skips the records that nothing can be learned from."""
    for name, split in features.splits.items():
        for row, reason in spec.faults(split.label).items():
            skipped.skip(where, name, split.ids[row], reason)
        for row in np.flatnonzero(~_has_any(split)):
            skipped.skip(where, name, split.ids[row], "has no step in any modality")


def _has_any(split: Split) -> np.ndarray:
    """Returns `[N]` bool, whether an example has a modality at all."""
    found = np.zeros(len(split), bool)
    for _, sequences in split.ordered():
        found |= sequences.mask.any(axis=1)
    return found
