"""AffectNet: faces from the internet in eight emotions (Mollahosseini et al. 2017).

The first of these arrangements that is there is read:

    training.csv, validation.csv       columns subDirectory_filePath and expression, and others
    Manually_Annotated_Images/1/a.jpg  what they name; the tables may stand in a folder of their own
    train_set/images/0.jpg             with train_set/annotations/0_exp.npy; val_set likewise
    train/0/a.jpg                      folders by number or name of the class; val, test likewise

Expressions are 0 neutral, 1 happy, 2 sad, 3 surprise, 4 fear, 5 disgust, 6 anger, 7 contempt. Rows
with 8 none, 9 uncertain and 10 no face are left out and counted. The seven of other face sets are
these without contempt, which `config.data.class_map=seven` leaves out.

No test set was published. As in published comparisons, the validation set is the test set here,
and a part of train is held out for validation; where the folders have a test of their own, val is
valid. Who is seen is not published: each face is a group of its own.
"""

from collections.abc import Iterator
from pathlib import Path

from absl import logging

from affectjax.data import archives
from affectjax.data.clip import Clip
from affectjax.data.labels import LabelSpec
from affectjax.data.raw import class_folders, file_lists, tables
from affectjax.data.raw.dataset import RawDataset
from affectjax.data.skipped import SkippedRecords

CLASSES = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")
TABLES = {"train": "training.csv", "test": "validation.csv"}
PICTURES = (
    "Manually_Annotated_Images",
    "Manually_Annotated/Manually_Annotated_Images",
    "Manually_Annotated",
)
SETS = {"train": "train_set", "test": "val_set"}
FOLDERS = {
    "train": ("[Tt]rain", "[Tt]raining"),
    "valid": ("[Vv]al", "[Vv]alid", "[Vv]alidation"),
    "test": ("[Tt]est",),
}

# What the three expressions beyond CLASSES have in common: no emotion to learn.
_LEFT_OUT = ("8", "9", "10")
_NAMES = {str(number): name for number, name in enumerate(CLASSES)}
_WORDS = (
    _NAMES
    | {name: name for name in CLASSES}
    | {
        "angry": "anger",
        "happiness": "happy",
        "sadness": "sad",
    }
)

_LABEL_MIB = 1  # an annotation is one number


def clips(raw: Path, skipped: SkippedRecords) -> list[Clip]:
    """Returns the faces, each as a clip of one image, in the order of the tables or of the names.

    Args:
      raw: the folder of the set.
      skipped: takes rows whose expression is none of 0 to 10, faces that are listed twice or are
        not there, annotations that cannot be read.

    Raises:
      InputError: when the folder has none of the arrangements, or a table lacks a column.
    """
    raw = Path(raw)
    lists = {s: file_lists.find(raw, (n, f"*/{n}", f"*/*/{n}")) for s, n in TABLES.items()}
    sets = {s: file_lists.find(raw, (f"{n}/images", f"*/{n}/images")) for s, n in SETS.items()}
    if any(lists.values()):
        pictures = file_lists.find(raw, PICTURES) or raw
        rows = ((s, _table(path)) for s, path in lists.items() if path is not None)
    elif any(sets.values()):
        pictures = raw
        rows = ((s, _annotated(raw, folder)) for s, folder in sets.items() if folder is not None)
    else:
        return _by_class(raw, skipped)
    return _listed(rows, pictures, skipped)


def _listed(
    rows: Iterator[tuple[str, Iterator[tuple[str, str]]]], pictures: Path, skipped: SkippedRecords
) -> list[Clip]:
    """Returns the clips of (path below the pictures, expression) by split."""
    found: dict[tuple[str, str], Clip] = {}
    left_out = 0
    for split, pairs in rows:
        for name, expression in pairs:
            file = pictures / name
            if expression in _LEFT_OUT:
                left_out += 1
            elif expression not in _NAMES:
                reason = f"expression {expression!r} is none of 0 to 10"
                skipped.skip(str(pictures), split, name, reason)
            elif (split, name) in found:
                skipped.skip(str(pictures), split, name, "is listed twice; the first is kept")
            elif not file.is_file():
                skipped.skip(str(pictures), split, name, f"{file} is not there")
            else:
                found[split, name] = Clip(name, _NAMES[expression], split, video=file)
    if left_out:
        logging.info("affectnet: %d rows with no, uncertain or no face's emotion", left_out)
    return list(found.values())


def _table(path: Path) -> Iterator[tuple[str, str]]:
    """Yields the file and the expression of each row; the landmarks beside them are large."""
    needed = ("subDirectory_filePath", "expression")
    for row in tables.stream(path, needed):
        name, expression = (row.values[column] for column in needed)
        yield name, expression


def _annotated(raw: Path, images: Path) -> Iterator[tuple[str, str]]:
    """Yields the images of a folder, and what the annotation of each says."""
    labels = images.parent / "annotations"
    files = [file for file in images.iterdir() if not file.name.startswith(".")]
    for file in sorted(files, key=lambda f: (len(f.stem), f.name)):
        try:
            said = str(int(archives.array(labels / f"{file.stem}_exp.npy", _LABEL_MIB).item()))
        except (OSError, ValueError, OverflowError) as error:
            said = f"({error})"
        yield str(file.relative_to(raw)), said


def _by_class(raw: Path, skipped: SkippedRecords) -> list[Clip]:
    """Returns the clips of folders by class, in folders by split."""
    patterns = {s: [f"{above}{n}" for n in FOLDERS[s] for above in ("", "*/")] for s in FOLDERS}
    places = {split: _place(raw, names) for split, names in patterns.items()}
    if not any(places.values()):
        looked = (*TABLES.values(), *(f"{n}/images" for n in SETS.values()), "train/<class>")
        raise file_lists.not_found(raw, "affectnet", looked)
    if places["test"] is None:
        places["test"], places["valid"] = places["valid"], None
    found = []
    for split, place in places.items():
        if place is not None:
            found += class_folders.clips(place, _WORDS, split, skipped)
    return found


def _place(raw: Path, patterns: list[str]) -> Path | None:
    """Returns the folder of a split whose folders are classes."""
    folder = file_lists.find(raw, patterns)
    return None if folder is None else class_folders.find(folder, _WORDS)


DATASET = RawDataset(
    labels=LabelSpec("class", CLASSES),
    clip_modalities=("vision",),
    clips=clips,
)
