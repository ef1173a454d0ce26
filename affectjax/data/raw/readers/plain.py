"""A folder of one's own: NumPy archives and a table of labels. The way to bring any features.

    labels.csv       columns id, split, label and maybe text; one row an example, in array order
    text.npz         or audio.npz, vision.npz, or all of them in features.npz
    labels.json      for the data set `own`, may say what the labels are (see `sets/own.py`)

Each archive holds `<modality>` `[N, T, D]` numbers, N the rows of labels.csv, and maybe
`<modality>_lengths` `[N]` (the first so many steps are valid) or `<modality>_mask` `[N, T]`. With
neither, the zero rows at both ends of a sequence are padding. A length of 0 says that the example
lacks the modality. Write them with `numpy.savez`; archives of Python objects are not opened.

Labels are numbers, names of classes, or for binary tasks zeros and ones with blanks between.
"""

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from affectjax.data import archives
from affectjax.data.labels import LabelSpec, parse
from affectjax.data.limits import Limits, check_inside
from affectjax.data.raw import readers
from affectjax.data.sequences import FeatureSet, Sequences, Split
from affectjax.data.skipped import SkippedRecords
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES


def matches(path: Path) -> bool:
    """Returns whether this is a folder with a labels.csv."""
    return path.is_dir() and (path / "labels.csv").is_file()


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
    table = read_table(path / "labels.csv")
    modalities = _modalities(path, len(table["id"]), limits)
    if not modalities:
        raise InputError(
            f"{path}: has no array of {', '.join(MODALITIES)}; they stand in <modality>.npz or"
            " features.npz"
        )
    splits = {}
    for name in dict.fromkeys(table["split"]):
        rows = np.flatnonzero([s == name for s in table["split"]])
        splits[name] = _split(name, rows, table, modalities, spec, skipped, path / "labels.csv")
    return FeatureSet(splits)


def read_table(path: Path) -> dict[str, list[str]]:
    """Returns the columns of a labels.csv by name.

    Args:
      path: the table.

    Raises:
      InputError: when a column or a value is missing.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns, rows = tuple(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: is not a readable UTF-8 table ({error})") from error
    needed = ("id", "split", "label")
    missing = [c for c in needed if c not in columns]
    if missing:
        raise InputError(
            f"{path}: has no column {', '.join(missing)}; expected id, split, label and maybe text"
        )
    if not rows:
        raise InputError(f"{path}: has no row")
    for line, row in enumerate(rows, start=2):
        empty = [c for c in ("id", "split") if not (row[c] or "").strip()]
        if empty or row["label"] is None:
            raise InputError(f"{path}: line {line} has no {', '.join(empty) or 'label'}")
    kept = needed + (("text",) if "text" in columns else ())
    return {c: [(row[c] or "").strip() for row in rows] for c in kept}


def _split(
    name: str,
    rows: np.ndarray,
    table: dict[str, list[str]],
    modalities: dict[str, Sequences],
    spec: LabelSpec,
    skipped: SkippedRecords,
    where: Path,
) -> Split:
    """Returns the examples of one split, in the order of the table."""
    ids = tuple(table["id"][i] for i in rows)

    def refuse(row: int, reason: str) -> None:
        skipped.skip(str(where), name, ids[row], reason)

    label = parse([table["label"][i] for i in rows], spec, refuse)
    parts = {m: Sequences(s.x[rows], s.mask[rows]) for m, s in modalities.items()}
    texts = tuple(table["text"][i] for i in rows) if "text" in table else None
    return Split(ids, label, parts, texts)


def _modalities(folder: Path, count: int, limits: Limits) -> dict[str, Sequences]:
    """Returns every modality that the folder has, all splits together."""

    def arrays_of(name: str) -> dict[str, np.ndarray]:
        file = folder / name
        if not file.is_file():
            return {}
        check_inside(file, folder, str(file), limits.allow_outside)
        return archives.read(file, limits.largest_mib)

    common = arrays_of("features.npz")
    found = {}
    for modality in MODALITIES:
        own = arrays_of(f"{modality}.npz")
        if modality in own and modality in common:
            raise InputError(f"{folder}: {modality} stands in {modality}.npz and in features.npz")
        arrays = own if own else common
        file = folder / (f"{modality}.npz" if own else "features.npz")
        if modality in arrays:
            found[modality] = _sequences(arrays, modality, count, str(file))
        elif own:
            raise InputError(f"{file}: has no array {modality!r}; it has {', '.join(own)}")
    return found


def _sequences(arrays: dict, modality: str, count: int, where: str) -> Sequences:
    x = readers.sequence_array(arrays[modality], f"{where}: {modality}")
    if len(x) != count:
        raise InputError(
            f"{where}: {modality} has {len(x)} examples where labels.csv has {count} rows"
        )
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
