"""What the data sets of clips share: their folders found, their folds gathered.

Nothing here opens a sound, an image or a video.
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from affectjax.data.skipped import SkippedRecords
from affectjax.errors import InputError

SPLITS = ("train", "valid", "test")
FOLDS = ("1", "2", "3", "4", "5")
VIDEOS = (".mp4", ".avi", ".mkv", ".webm")


def find(raw: Path, patterns: Sequence[str]) -> Path | None:
    """Returns the first path under a folder that a pattern matches, None where none does.

    Args:
      raw: the folder.
      patterns: glob patterns, in order of preference.
    """
    return next((path for pattern in patterns for path in sorted(raw.glob(pattern))), None)


def not_found(raw: Path, name: str, patterns: Sequence[str]) -> InputError:
    """Returns the error of a folder that is not a data set's layout.

    Args:
      raw: the folder.
      name: the data set.
      patterns: what was looked for.
    """
    if not raw.exists():
        return InputError(f"{raw}: no such file or folder")
    return InputError(f"{raw}: nothing of {name} here; looked for {', '.join(patterns)}")


def pictures(raw: Path, patterns: Sequence[str]) -> tuple[Path, dict[int, Path]] | None:
    """Returns the first folder that holds clips, and those by number; None where none does.

    Args:
      raw: the data set's folder.
      patterns: glob patterns of folders, in order of preference.
    """
    for pattern in patterns:
        for folder in sorted(path for path in raw.glob(pattern) if path.is_dir()):
            found = numbered(folder) or numbered(folder, VIDEOS)
            if found:
                return folder, found
    return None


def numbered(folder: Path, suffixes: Sequence[str] = ()) -> dict[int, Path]:
    """Returns the clips of a folder, and of the folders of parts in it, by number.

    Args:
      folder: holds files such as `00012.mp4` or folders of frames such as `00012`, or folders with
        other names that hold those.
      suffixes: of the files to find; none to find folders.
    """
    found: dict[int, Path] = {}
    parts = [folder]
    for depth in (0, 1):
        inner: list[Path] = []
        for part in sorted(parts):
            with os.scandir(part) as entries:
                for entry in sorted(entries, key=lambda e: e.name):
                    stem, suffix = os.path.splitext(entry.name)
                    wanted = suffix.lower() in suffixes if suffixes else entry.is_dir()
                    if stem.isdecimal() and wanted:
                        found.setdefault(int(stem), Path(entry.path))
                    elif depth == 0 and entry.is_dir():
                        inner.append(Path(entry.path))
        parts = inner
    return found


def fold_lists(raw: Path, patterns: Sequence[str], name: str) -> dict[str, dict[str, Path]]:
    """Returns, by fold, the files that list its training and its test clips.

    Args:
      raw: the data set's folder.
      patterns: glob patterns with `{fold}` and `{split}`, in order of preference.
      name: the data set, for the message.

    Raises:
      InputError: when a fold has only one of the two.
    """
    found = {}
    for fold in FOLDS:
        looked = {s: [p.format(fold=fold, split=s) for p in patterns] for s in ("train", "test")}
        lists = {split: find(raw, names) for split, names in looked.items()}
        missing = [split for split, path in lists.items() if path is None]
        if len(missing) == 1:
            raise InputError(
                f"{raw}: fold {fold} of {name} has no {missing[0]} list; looked for"
                f" {', '.join(looked[missing[0]])}"
            )
        if not missing:
            found[fold] = lists
    return found


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of a list: a clip, its label as written there, and the fold and split it is in."""

    where: Path
    fold: str
    split: str
    id: str
    label: str


@dataclasses.dataclass(frozen=True)
class Member:
    """A clip of a set that comes in folds: its class, and its split by fold."""

    label: str
    folds: dict[str, str]


def members(
    entries: Iterable[Entry], classes: Mapping[str, str], skipped: SkippedRecords
) -> dict[str, Member]:
    """Returns, by id, what all the lists say of a clip; those that they disagree on are skipped.

    Args:
      entries: the lines of all lists.
      classes: by label as written, the name of its class.
      skipped: takes clips whose label is none of these, or not the same in all lists, and clips
        that are in both splits of a fold.
    """
    found: dict[str, Member] = {}
    refused = set()
    for entry in entries:
        name = classes.get(entry.label)
        member = found.setdefault(entry.id, Member(name or "", {}))
        before = member.folds.setdefault(entry.fold, entry.split)
        if name is None:
            reason = f"label {entry.label!r} is none of {', '.join(classes)}"
        elif name != member.label:
            reason = f"is {member.label} in one list and {name} in this"
        elif before != entry.split:
            reason = f"is in both train and test of fold {entry.fold}"
        else:
            continue
        skipped.skip(str(entry.where), "all", entry.id, reason)
        refused.add(entry.id)
    return {name: member for name, member in found.items() if name not in refused}
