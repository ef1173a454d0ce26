"""Anybody's own clips: a table of files, one row an example. The way to bring raw data.

    id,split,label,video,audio,text
    mia_1,train,happy,mia/1.mp4,,What a day!
    mia_2,train,sad,,mia/2.wav,
    tom_1,valid,happy,tom/1,tom/1.wav,"Well, well."

The raw path is the table, or a folder that holds it as `clips.csv`, `clips.tsv`, or as its only csv
or tsv; `tables.py` says how it may be written. It has no columns but these. `split` is train, valid
or test. Of `video`, `audio` and `text` each row has at least one; the others stay blank. `video` is
a video file, an image, or a folder of frames; where `audio` is blank, the sound track of the video
is taken. Paths are relative to the table, written as on Linux or as on Windows, and stay in its
folder, links followed, unless `allow_outside`.

Labels are class names, whole numbers from 0 up (classes) or other numbers (scores). A `labels.json`
beside the table says so plainly, and fixes the order of the classes, which is otherwise that of the
alphabet: `{"kind": "class", "classes": ["sad", "happy"]}`.

The group is the id up to its last `_number` or `[...]`.
"""

from collections.abc import Sequence
from pathlib import Path, PureWindowsPath

from affectjax.data import labels as labels_lib
from affectjax.data import limits
from affectjax.data.clip import Clip
from affectjax.data.labels import LabelSpec
from affectjax.data.raw import file_lists, tables
from affectjax.data.raw.dataset import SEGMENT, RawDataset
from affectjax.data.raw.tables import Row
from affectjax.data.skipped import SkippedRecords
from affectjax.errors import InputError

NEEDED = ("id", "split", "label")
MODALITIES = ("video", "audio", "text")


def labels(view: str, raw: Path) -> LabelSpec:
    """Returns what the labels in a table are.

    Args:
      view: the only one, clips.
      raw: the table, or its folder.

    Raises:
      InputError: when the table cannot be read, or its labels are neither all numbers nor all
        names.
    """
    del view
    table = _table(Path(raw))
    return _labels(table, _rows(table))


def clips(raw: Path, skipped: SkippedRecords, allow_outside: bool = False) -> list[Clip]:
    """Returns the clips that a table lists, in its order.

    Args:
      raw: the table, or its folder.
      skipped: takes rows that cannot be used: a label that is none, a file that is missing or
        outside, an id that its split has already, nothing to see, hear or read.
      allow_outside: whether files may stand outside the table's folder.

    Raises:
      InputError: when there is no such table, or it lacks a column, an id or a split.
    """
    table = _table(Path(raw))
    rows = _rows(table)
    wrong = _wrong_labels(rows, _labels(table, rows))
    folder = table.parent.resolve()
    found, seen = [], set()
    for number, row in enumerate(rows):
        name, split = row.values["id"], row.values["split"]
        try:
            if (split, name) in seen:
                raise InputError("stands twice in the split; the first is kept")
            seen.add((split, name))
            if row.longer:
                raise InputError(tables.LONGER)
            if number in wrong:
                raise InputError(wrong[number])
            found.append(clip(row.values, folder, allow_outside))
        except InputError as error:
            skipped.skip(f"{table}: line {row.line}", split, name, str(error))
    return found


def _table(raw: Path) -> Path:
    """Returns the table that a path is or that a folder holds."""
    if raw.is_file():
        return raw
    named = tables.find(raw, "clips")
    if named is not None:
        return named
    found = sorted(path for suffix in tables.SUFFIXES for path in raw.glob(f"*{suffix}"))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise InputError(f"{raw}: has several tables ({names}); name one, or call it clips.csv")
    if not found:
        raise file_lists.not_found(raw, "clips", ("clips.csv", "clips.tsv", "*.csv", "*.tsv"))
    return found[0]


def _rows(table: Path) -> list[Row]:
    """Returns the rows of a table, each with an id and a split."""
    rows = read(table, NEEDED)
    for row in rows:
        split = row.values["split"]
        if not row.values["id"]:
            raise InputError(f"{table}: line {row.line} has no id")
        if split not in file_lists.SPLITS:
            raise InputError(
                f"{table}: line {row.line}: split {split!r} is none of "
                f"{', '.join(file_lists.SPLITS)}"
            )
    return rows


def read(table: Path, needed: Sequence[str]) -> list[Row]:
    """Returns the rows of a table of clips.

    Args:
      table: its file.
      needed: columns that it must have, beside one of MODALITIES.

    Raises:
      InputError: as `tables.read`, or it has no column of a modality.
    """
    columns, rows = tables.read(table, needed, (*NEEDED, *MODALITIES))
    if not set(MODALITIES) & set(columns):
        raise InputError(
            f"{table}: has none of the columns {', '.join(MODALITIES)}; found {', '.join(columns)}"
        )
    return rows


def _labels(table: Path, rows: list[Row]) -> LabelSpec:
    declared = labels_lib.declared(table.parent)
    if declared is not None:
        return declared
    values = [row.values["label"] for row in rows]
    if not any(values):
        raise InputError(
            f"{table}: column label is empty; it holds names or numbers, or a labels.json beside"
            " the table says what it holds"
        )
    return labels_lib.infer(values, str(table))


def _wrong_labels(rows: list[Row], spec: LabelSpec) -> dict[int, str]:
    """Returns, by row, what is wrong with its label."""
    wrong: dict[int, str] = {}
    values = [row.values["label"] for row in rows]
    parsed = labels_lib.parse(values, spec, wrong.__setitem__)
    return spec.faults(parsed) | wrong


def clip(values: dict[str, str], folder: Path, allow_outside: bool) -> Clip:
    """Returns the clip of a row; raises an InputError with the reason where it cannot be used."""
    files = {
        column: _file(folder, column, values[column], allow_outside)
        for column in ("video", "audio")
        if values.get(column)
    }
    text = values.get("text") or None
    if not files and text is None:
        raise InputError("has no video, no audio and no text")
    return Clip(values["id"], values["label"], values["split"], text=text, **files)


def _file(folder: Path, column: str, value: str, allow_outside: bool) -> Path:
    """Returns the file, or for a video the folder of frames, of a cell, with links followed."""
    try:
        path = (folder / value).resolve()
        if "\\" in value and not path.exists():
            path = (folder / PureWindowsPath(value).as_posix()).resolve()
        frames = column == "video" and path.is_dir()
        there = frames or path.is_file()
        # A link among the frames leads out as well as a path does.
        links = [p for p in path.iterdir() if p.is_symlink()] if frames else []
        for place in (path, *links):
            limits.check_inside(place, folder, f"{column} {value}", allow_outside)
    except InputError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{column} {value!r} cannot be looked at ({error})") from error
    if not there:
        raise InputError(f"{column} {value} is not there")
    return path


DATASET = RawDataset(
    labels=labels,
    group=SEGMENT,
    clips=clips,
    takes_outside=True,
)
