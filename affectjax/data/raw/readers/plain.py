"""A folder of one's own: NumPy archives and a table of labels. The way to bring any features.

    labels.csv       columns id, split, label and maybe text; one row an example, in array order
    text.npz         or audio.npz, vision.npz, or all of them in features.npz
    labels.json      for the data set `own`, may say what the labels are (see `sets/own.py`)

Each archive holds `<modality>` `[N, T, D]` numbers, N the rows of labels.csv, and maybe
`<modality>_lengths` `[N]` (the first so many steps are valid) or `<modality>_mask` `[N, T]`. With
neither, the zero rows at both ends of a sequence are padding. A length of 0 says that the example
lacks the modality. Write them with `numpy.savez`; archives of Python objects are not opened.

The table may be a `labels.tsv`, and be written as `tables.py` says. Other columns and other arrays
than these are refused.

Labels are numbers, names of classes, or for binary tasks zeros and ones with blanks between.
"""

import dataclasses
import difflib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from affectjax.data import archives
from affectjax.data.labels import LabelSpec, parse
from affectjax.data.limits import Limits, check_inside
from affectjax.data.raw import readers, tables
from affectjax.data.raw.tables import Row
from affectjax.data.sequences import FeatureSet, Sequences, Split
from affectjax.data.skipped import SkippedRecords
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES

_NEEDED = ("id", "split", "label")


def matches(path: Path) -> bool:
    """Returns whether this is a folder with a labels.csv or labels.tsv."""
    return path.is_dir() and table_of(path) is not None


def read(
    path: Path,
    spec: LabelSpec,
    *,
    aligned: bool,
    max_length: Mapping[str, int] | None,
    skipped: SkippedRecords,
    limits: Limits,
) -> FeatureSet:
    """Returns the feature set in a plain folder.

    Args:
      path: the folder.
      spec: what the labels are.
      aligned: unused here; the arrays are one or the other.
      max_length: unused here; the arrays are padded already.
      skipped: takes records with a wrong label.
      limits: how much memory an archive may take, and whether it may be a link out of the folder.

    Raises:
      InputError: names the file and the column or array that is not as above.
    """
    del aligned, max_length
    table = table_of(path)
    columns, rows = read_table(table)
    modalities = _modalities(path, len(rows), limits)
    if not modalities:
        raise InputError(
            f"{path}: has no array of {', '.join(MODALITIES)}; they stand in <modality>.npz or"
            " features.npz"
        )
    splits = {}
    for name in dict.fromkeys(row.values["split"] for row in rows):
        here = np.flatnonzero([row.values["split"] == name for row in rows])
        parts = {m: Sequences(s.x[here], s.mask[here]) for m, s in modalities.items()}
        splits[name] = _split(name, [rows[i] for i in here], parts, spec, skipped, table)
        if "text" not in columns:
            splits[name] = dataclasses.replace(splits[name], transcripts=None)
    return FeatureSet(splits)


def unlabelled(
    path: Path, limits: Limits
) -> tuple[list[str], list[str | None], dict[str, Sequences]]:
    """Returns ids, sentences and features of a folder whose examples need no label and no split.

    Args:
      path: the folder. Its labels.csv may lack, or have the columns `id` and `text` alone; without
        ids the examples are counted from 0.
      limits: see `read`.

    Raises:
      InputError: as `read`.
    """
    table = table_of(path)
    rows = [] if table is None else tables.read(table, ("id",), (*_NEEDED, "text"))[1]
    found = _modalities(path, len(rows) if table else None, limits)
    counts = {len(s.x) for s in found.values()}
    if len(counts) != 1 or counts == {0}:
        arrays = f"arrays of {sorted(counts)} examples" if counts else "no array of features"
        raise InputError(f"{path}: has {arrays}; expected {', '.join(MODALITIES)} in features.npz")
    ids = [row.values["id"] for row in rows] or [str(i) for i in range(*counts)]
    texts = [row.values.get("text") for row in rows] or [None] * len(ids)
    return ids, texts, found


def table_of(folder: Path) -> Path | None:
    """Returns the labels.csv or labels.tsv of a folder, None where there is none."""
    return tables.find(folder, "labels")


def read_table(path: Path) -> tuple[tuple[str, ...], list[Row]]:
    """Returns the columns of a labels.csv, and its rows.

    Args:
      path: the table.

    Raises:
      InputError: as `tables.read`, or a row has no id or no split.
    """
    columns, rows = tables.read(path, _NEEDED, (*_NEEDED, "text"))
    for row in rows:
        empty = [c for c in ("id", "split") if not row.values[c]]
        if empty:
            raise InputError(f"{path}: line {row.line} has no {', '.join(empty)}")
    return columns, rows


def _split(
    name: str,
    rows: list[Row],
    modalities: dict[str, Sequences],
    spec: LabelSpec,
    skipped: SkippedRecords,
    where: Path,
) -> Split:
    """Returns the examples of one split, in the order of the table."""

    def refuse(row: int, reason: str) -> None:
        values = rows[row].values
        skipped.skip(f"{where}: line {rows[row].line}", name, values["id"], reason)

    for number, row in enumerate(rows):
        if row.longer:
            refuse(number, tables.LONGER)
    label = parse([row.values["label"] for row in rows], spec, refuse)
    ids = tuple(row.values["id"] for row in rows)
    return Split(ids, label, modalities, tuple(row.values.get("text", "") for row in rows))


def _modalities(folder: Path, count: int | None, limits: Limits) -> dict[str, Sequences]:
    """Returns every modality that the folder has, all splits together; any count where None."""

    def arrays_of(name: str) -> dict[str, np.ndarray]:
        file = folder / name
        if not file.is_file():
            return {}
        check_inside(file, folder, str(file), limits.allow_outside)
        return archives.read(file, limits.largest_mib)

    common = arrays_of("features.npz")
    _check_archives(folder)
    found = {}
    tables.check_names(common, _keys(*MODALITIES), f"{folder / 'features.npz'}", "array")
    for modality in MODALITIES:
        own = arrays_of(f"{modality}.npz")
        tables.check_names(own, _keys(modality), f"{folder / modality}.npz", "array")
        if modality in own and modality in common:
            raise InputError(f"{folder}: {modality} stands in {modality}.npz and in features.npz")
        arrays = own if own else common
        file = folder / (f"{modality}.npz" if own else "features.npz")
        if modality in arrays:
            found[modality] = _sequences(arrays, modality, count, str(file))
        elif own:
            raise InputError(f"{file}: has no array {modality!r}; it has {', '.join(own)}")
    return found


def _keys(*modalities: str) -> tuple[str, ...]:
    """Returns the arrays that an archive of these modalities may have."""
    return tuple(f"{m}{kind}" for m in modalities for kind in ("", "_lengths", "_mask"))


def _check_archives(folder: Path) -> None:
    """Raises InputError for an archive whose name seems to be a slip of the pen."""
    known = ("features.npz", *(f"{m}.npz" for m in MODALITIES))
    for file in sorted(folder.glob("*.npz")):
        near = difflib.get_close_matches(file.name.lower(), known, n=1, cutoff=0.8)
        if file.name not in known and near:
            raise InputError(f"{file}: is not read; did you mean {near[0]}?")


def _sequences(arrays: dict, modality: str, count: int | None, where: str) -> Sequences:
    x = readers.sequence_array(arrays[modality], f"{where}: {modality}")
    if count is not None and len(x) != count:
        raise InputError(
            f"{where}: {modality} has {len(x)} examples where labels.csv has {count} rows"
        )
    if {f"{modality}_mask", f"{modality}_lengths"} <= {*arrays}:
        raise InputError(f"{where}: has {modality}_mask and {modality}_lengths; keep one of them")
    if f"{modality}_mask" in arrays:
        mask = arrays[f"{modality}_mask"]
        if mask.shape != x.shape[:2]:
            raise InputError(
                f"{where}: {modality}_mask is {list(mask.shape)}, expected {list(x.shape[:2])}"
            )
        return Sequences(x, mask.astype(bool))
    if f"{modality}_lengths" in arrays:
        key = f"{modality}_lengths"
        return Sequences(x, readers.length_mask(arrays[key], x, f"{where}: {key}"))
    return Sequences(x, readers.padding_mask(x))
