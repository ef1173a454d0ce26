"""FER2013: 48x48 grey faces in seven emotions (Goodfellow et al. 2013).

Read from `fer2013.npz` (image `[N, H, W]` uint8, label `[N]` 0 to 6, usage `[N]` text) or from the
`fer2013.csv` of the Kaggle contest (emotion, pixels, Usage). The usages Training, PublicTest and
PrivateTest are train, valid and test here.

The faces have no names: an id is the row in the file, and each is a group of its own. The original
has many a face twice, some of them in two splits.

Letters: N faces, H height, W width.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from affectjax.data import archives
from affectjax.data.clip import Clip
from affectjax.data.labels import LabelSpec
from affectjax.data.raw import file_lists, tables
from affectjax.data.raw.dataset import RawDataset
from affectjax.data.skipped import SkippedRecords
from affectjax.errors import InputError

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
SOURCES = ("fer2013.npz", "fer2013.csv")
SPLITS = {"Training": "train", "PublicTest": "valid", "PrivateTest": "test"}
SIZE = 48

# A face `[H, W]`, or None where its pixels cannot be read; its emotion; its usage.
_Row = tuple[np.ndarray | None, str, str]


def clips(raw: Path, skipped: SkippedRecords) -> list[Clip]:
    """Returns the faces, each as a clip of one frame, in the order of the file.

    Args:
      raw: one of SOURCES, or its folder.
      skipped: takes rows whose pixels, emotion or usage is wrong.

    Raises:
      InputError: when there is no such file, or it is not as above.
    """
    raw = Path(raw)
    path = raw if raw.is_file() else file_lists.find(raw, SOURCES)
    if path is None:
        raise file_lists.not_found(raw, "fer2013", SOURCES)
    rows = _archive(path) if path.suffix == ".npz" else _table(path)
    found = []
    for number, (face, emotion, usage) in enumerate(rows):
        name, split = f"{number:05d}", SPLITS.get(usage, usage)
        if usage not in SPLITS:
            skipped.skip(str(path), split, name, f"usage {usage!r} is none of {', '.join(SPLITS)}")
        elif not (emotion.isdecimal() and int(emotion) < len(CLASSES)):
            skipped.skip(str(path), split, name, f"emotion {emotion!r} is none of 0 to 6")
        elif face is None:
            skipped.skip(str(path), split, name, f"has not {SIZE * SIZE} pixels from 0 to 255")
        else:
            # A view: three channels and a step of time cost no memory.
            frames = np.broadcast_to(face[None, :, :, None], (1, SIZE, SIZE, 3))
            found.append(Clip(name, CLASSES[int(emotion)], split, frames=frames))
    return found


def _archive(path: Path) -> Iterator[_Row]:
    """Yields the rows of an npz."""
    found = archives.read(path)
    missing = [key for key in ("image", "label", "usage") if key not in found]
    if missing:
        raise InputError(f"{path}: has no array {missing[0]!r}; expected image, label and usage")
    image, label, usage = found["image"], found["label"], found["usage"]
    kinds = image.dtype.kind + label.dtype.kind.replace("u", "i") + usage.dtype.kind
    if kinds != "uiU" or image.shape != (label.size, SIZE, SIZE) or label.shape != usage.shape:
        raise InputError(
            f"{path}: image is {image.dtype} {list(image.shape)}, label {label.dtype}"
            f" {list(label.shape)}, usage {usage.dtype} {list(usage.shape)}; expected uint8"
            f" [N, {SIZE}, {SIZE}], whole numbers [N] and text [N]"
        )
    yield from zip(image, map(str, label.tolist()), map(str, usage.tolist()), strict=True)


def _table(path: Path) -> Iterator[_Row]:
    """Yields the rows of a csv."""
    needed = ("emotion", "pixels", "Usage")
    for row in tables.stream(path, needed):
        emotion, pixels, usage = (row.values[column] for column in needed)
        yield _face(pixels), emotion, usage


def _face(pixels: str) -> np.ndarray | None:
    """Returns `[H, W]` uint8 from numbers with blanks between."""
    try:
        values = bytes(map(int, pixels.split()))
    except ValueError:
        return None
    if len(values) != SIZE * SIZE:
        return None
    return np.frombuffer(values, np.uint8).reshape(SIZE, SIZE)


DATASET = RawDataset(
    labels=LabelSpec("class", CLASSES),
    clip_modalities=("vision",),
    clips=clips,
)
