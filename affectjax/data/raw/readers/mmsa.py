"""MMSA's pickles, aligned and unaligned, as used by MMSA, Self-MM and many others.

A dictionary of splits, each with `id`, `raw_text`, `regression_labels`, `classification_labels`,
`annotations`, and any of `text`, `audio`, `vision` `[N, T, D]`. True lengths stand in
`<modality>_lengths`; those of text otherwise in `text_bert[:, 1]` (`[N, 3, T]`: token ids,
attention mask, segment ids). Where a file gives none, zero rows at the ends are padding. A length
of 0 says that the example lacks the modality.

Source: the feature files of Mao et al. 2022, "M-SENA: An Integrated Platform for Multimodal
Sentiment Analysis".
"""

import mmap
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from affectjax.data.labels import LabelSpec, parse
from affectjax.data.limits import Limits
from affectjax.data.raw import readers
from affectjax.data.raw.unpickle import load_splits
from affectjax.data.sequences import FeatureSet, Sequences, Split
from affectjax.data.skipped import SkippedRecords
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES

_LABEL_KEYS = {"score": ("regression_labels",), "class": ("annotations", "classification_labels")}


def matches(path: Path) -> bool:
    """Returns whether this is a pickle that names one of MMSA's label keys; it is not loaded."""
    if not path.is_file() or path.suffix not in (".pkl", ".pickle") or not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return any(content.find(key) >= 0 for key in (b"regression_labels", b"annotations"))


def read(
    path: Path,
    spec: LabelSpec,
    *,
    aligned: bool,
    max_length: Mapping[str, int] | None,
    skipped: SkippedRecords,
    limits: Limits,
) -> FeatureSet:
    """Returns the feature set in one of MMSA's pickles.

    Args:
      path: the pickle.
      spec: what the labels are. Scores come from `regression_labels`; classes from `annotations`
        where the file has them, else from `classification_labels`.
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
    where = f"{path}: {name}"
    said = [readers.text(i, f"{where}: id") for i in _column(part, "id", None, where)]
    ids = tuple(text or f"{name}_{row}" for row, text in enumerate(said))
    count = len(ids)

    def refuse(row: int, reason: str) -> None:
        skipped.skip(str(path), name, ids[row], reason)

    for row, text in enumerate(said):
        if not text:
            refuse(row, "has no id")
    keys = _LABEL_KEYS.get(spec.kind, ())
    key = next((k for k in keys if part.get(k) is not None), None)
    if key is None:
        raise InputError(
            f"{where}: has no labels of kind {spec.kind}; they would stand in"
            f" {' or '.join(keys) or 'no key of this layout'}"
        )
    values = _column(part, key, count, where)
    values = [readers.text(v, where) if isinstance(v, bytes) else v for v in values]
    label = parse(values, spec, refuse)
    transcripts = None
    if part.get("raw_text") is not None:
        said = _column(part, "raw_text", count, where)
        transcripts = tuple(readers.text(t, f"{where}: raw_text") for t in said)
    modalities = {}
    for modality in MODALITIES:
        sequences = _modality(part, modality, count, where)
        if sequences is not None:
            modalities[modality] = sequences
    return Split(ids, label, modalities, transcripts)


def _modality(part: dict, modality: str, count: int, where: str) -> Sequences | None:
    """Returns one modality, or None where the split has no such key."""
    bert = part.get("text_bert") if modality == "text" else None
    if part.get(modality) is None:
        if bert is not None:
            raise InputError(
                f"{where}: has text_bert, which holds token ids, but no text; features"
                " [N, T, D] under the key text are needed"
            )
        return None
    x = readers.sequence_array(part[modality], f"{where}: {modality}")
    if len(x) != count:
        raise InputError(f"{where}: {modality} has {len(x)} examples where id has {count}")
    if part.get(f"{modality}_lengths") is not None:
        key = f"{modality}_lengths"
        return Sequences(x, readers.length_mask(part[key], x, f"{where}: {key}"))
    if bert is not None:
        bert = readers.sequence_array(bert, f"{where}: text_bert")
        if bert.shape != (count, 3, x.shape[1]):
            raise InputError(
                f"{where}: text_bert is {list(bert.shape)}, expected"
                f" {[count, 3, x.shape[1]]} to go with text"
            )
        return Sequences(x, bert[:, 1] > 0)
    return Sequences(x, readers.padding_mask(x))


def _column(part: dict, key: str, count: int | None, where: str) -> list:
    """Returns the values of a key, one an example.

    Args:
      part: the split.
      key: the key, which must be there.
      count: how many are expected, None for any number.
      where: file and split, for the message.
    """
    if part.get(key) is None:
        raise InputError(f"{where}: has no key {key!r}; it has {', '.join(sorted(map(str, part)))}")
    value = part[key]
    if not isinstance(value, np.ndarray | list | tuple):
        raise InputError(f"{where}: {key} is a {type(value).__name__}; expected one an example")
    column = value.reshape(-1).tolist() if isinstance(value, np.ndarray) else list(value)
    if count is not None and len(column) != count:
        raise InputError(f"{where}: {key} has {len(column)} examples where id has {count}")
    return column
