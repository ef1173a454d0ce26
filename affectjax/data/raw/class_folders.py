"""Images in folders that are called after their class, as several face data sets are handed out.

    happy/001.jpg   happy/002.png   sad/7.bmp   ...

Nothing here opens an image.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from affectjax.data.clip import Clip
from affectjax.data.media import decoding
from affectjax.data.raw import file_lists
from affectjax.data.skipped import SkippedRecords


def find(raw: Path, words: Mapping[str, str]) -> Path | None:
    """Returns the folder that holds folders of classes: this one, or one no more than two below.

    Args:
      raw: where to look.
      words: by name of a folder, in lower case, its class.
    """
    return next((p for p in _places(raw) if any(_word(f) in words for f in _folders(p))), None)


def clips_below(
    raw: Path, name: str, words: Mapping[str, str], split: str, skipped: SkippedRecords
) -> list[Clip]:
    """Returns the images of each class, see `clips`, wherever below a folder their folders are.

    Args:
      raw: the folder of the classes' folders, or one no more than two above it.
      name: the data set, for the message.
      words: by name of a folder, in lower case, its class.
      split: of all these images.
      skipped: takes folders that are no class and files that are no image.

    Raises:
      InputError: when there is no folder of a class.
    """
    place = find(raw, words)
    if place is None:
        raise file_lists.not_found(raw, name, tuple(words))
    return clips(place, words, split, skipped)


def clips(place: Path, words: Mapping[str, str], split: str, skipped: SkippedRecords) -> list[Clip]:
    """Returns the images of each class, by folder and name; an id is both, as in "happy/001.jpg".

    Hidden files and folders are passed over.

    Args:
      place: the folder that holds the folders of classes.
      words: by name of a folder, in lower case, its class.
      split: of all these images.
      skipped: takes folders that are no class, and files that are no image by their ending.
    """
    found = []
    for folder in _folders(place):
        label = words.get(_word(folder))
        if label is None:
            names = ", ".join(dict.fromkeys(words.values()))
            skipped.skip(str(place), split, folder.name, f"the folder is none of {names}")
            continue
        for file in sorted(folder.iterdir()):
            name = f"{folder.name}/{file.name}"
            if file.name.startswith("."):
                continue
            if file.suffix.lower() in decoding.IMAGES and file.is_file():
                found.append(Clip(name, label, split, video=file))
            else:
                skipped.skip(
                    str(folder), split, name, f"is no image; allowed: {', '.join(decoding.IMAGES)}"
                )
    return found


def _word(folder: Path) -> str:
    return folder.name.strip().lower()


def _places(raw: Path) -> Iterator[Path]:
    """Yields a folder, those in it and those in these, and looks no further than it is asked to."""
    yield raw
    yield from _folders(raw)
    for folder in _folders(raw):
        yield from _folders(folder)


def _folders(place: Path) -> Iterator[Path]:
    """Yields the folders in a folder, in order of their names."""
    if place.is_dir():
        yield from sorted(p for p in place.iterdir() if p.is_dir() and not p.name.startswith("."))
