"""MulT's pickles: `<name>_data.pkl` (aligned) and `<name>_data_noalign.pkl`.

A dictionary of splits, each with `text`, `audio`, `vision` `[N, T, D]`, `labels` and maybe `id`.
Padding is rows of zeros, in front or at the end. Labels are `[N, 1, 1]` scores, or for IEMOCAP
`[N, 4, 2]`, one-hot of (no, yes) for each emotion. `id` is `[N]`, or `[N, 3]`: video, start, end.

Source: the pickles published with Tsai et al. 2019, "Multimodal Transformer for Unaligned
Multimodal Language Sequences".
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from affectjax.data.labels import LabelSpec, parse
from affectjax.data.limits import Limits
from affectjax.data.raw import readers
from affectjax.data.raw.unpickle import load_splits
from affectjax.data.sequences import FeatureSet, Sequences, Split
from affectjax.data.skipped import SkippedRecords
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES


def matches(path: Path) -> bool:
    """Returns whether the file's name is one of MulT's; the content is not opened."""
    return path.is_file() and path.name.endswith(("_data.pkl", "_data_noalign.pkl"))


def read(
    path: Path,
    spec: LabelSpec,
    *,
    aligned: bool,
    max_length: Mapping[str, int] | None,
    skipped: SkippedRecords,
    limits: Limits,
) -> FeatureSet:
    """Returns the feature set in one of MulT's pickles.

    Args:
      path: the pickle.
      spec: what the labels are.
      aligned: unused here; the file is one or the other.
      max_length: unused here; the arrays are padded already.
      skipped: takes records with a wrong label.
      limits: how much memory the arrays may take.

    Raises:
      InputError: names the split and key that are not as above.
    """
    del aligned, max_length
    splits = load_splits(path, limits.largest_mib)
    return FeatureSet({n: _split(part, n, path, spec, skipped) for n, part in splits.items()})


def _split(part: dict, name: str, path: Path, spec: LabelSpec, skipped: SkippedRecords) -> Split:
    if "labels" not in part:
        raise InputError(f"{path}: {name}: has no key 'labels'; it has {', '.join(map(str, part))}")
    modalities = {}
    for modality in MODALITIES:
        if part.get(modality) is not None:
            x = readers.sequence_array(part[modality], f"{path}: {name}: {modality}")
            modalities[modality] = Sequences(x, readers.padding_mask(x))
    labels = part["labels"]
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "fiub" or not labels.ndim:
        raise InputError(f"{path}: {name}: labels: expected an array of numbers")
    said = _ids(part.get("id"), name, len(labels), path)
    ids = tuple(text or f"{name}_{row}" for row, text in enumerate(said))

    def refuse(row: int, reason: str) -> None:
        skipped.skip(str(path), name, ids[row] if row < len(ids) else str(row), reason)

    for row, text in enumerate(said):
        if not text:
            refuse(row, "has no id")
    return Split(ids, _labels(labels, spec, refuse, f"{path}: {name}: labels"), modalities)


def _labels(labels: np.ndarray, spec: LabelSpec, refuse: Any, where: str) -> np.ndarray:
    """Returns the label array from `[N, 1, 1]` numbers or `[N, K, 2]` one-hot pairs."""
    count = len(labels)
    if spec.kind == "binary":
        expected = (count, len(spec.classes), 2)
        if labels.shape != expected:
            raise InputError(f"{where}: expected {list(expected)}, got {list(labels.shape)}")
        paired = np.isfinite(labels).all(axis=-1) & (labels.sum(axis=-1) == 1)
        return parse(np.where(paired, labels.argmax(axis=-1), -1), spec, refuse)
    if labels.size != count:
        raise InputError(
            f"{where}: expected one number an example [{count}, 1, 1], got {list(labels.shape)}"
        )
    return parse(labels.reshape(count), spec, refuse)


def _ids(value: Any, name: str, count: int, path: Path) -> tuple[str, ...]:
    """Returns N names: `video[start-end]`, the id itself, or `split_row` without ids.

    A name is empty where the file has none for its example.
    """
    if value is None:
        return tuple(f"{name}_{row}" for row in range(count))
    ids, where = [], f"{path}: {name}: id"
    for entry in np.asarray(value, object).tolist():
        parts = (
            [readers.text(p, where) for p in entry]
            if isinstance(entry, list | tuple)
            else [readers.text(entry, where)]
        )
        if len(parts) not in (1, 3):
            raise InputError(
                f"{path}: {name}: id has {len(parts)} parts, expected one or video, start, end"
            )
        ids.append(
            parts[0] if len(parts) == 1 or not parts[0] else f"{parts[0]}[{parts[1]}-{parts[2]}]"
        )
    return tuple(ids)
