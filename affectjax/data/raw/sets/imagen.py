"""IMAGEN's 295 cartoon faces: angry, neutral or happy (Schumann et al. 2010). All are test.

    angry/... .bmp   neutral/... .png   happy/... .jpg

The set has no published layout; this asks for a folder a class. What was learned from people's
faces is tried on them as it is.

Each face is a group of its own.
"""

from pathlib import Path

from affectjax.data.clip import Clip
from affectjax.data.labels import LabelSpec
from affectjax.data.raw import class_folders, file_lists
from affectjax.data.raw.dataset import RawDataset
from affectjax.data.skipped import SkippedRecords

CLASSES = ("angry", "neutral", "happy")
WORDS = {name: name for name in CLASSES} | {"anger": "angry", "happiness": "happy"}


def clips(raw: Path, skipped: SkippedRecords) -> list[Clip]:
    """Returns the faces, each as a clip of one image, by class and name.

    Args:
      raw: the folder of the classes' folders, or one no more than two above it.
      skipped: takes folders that are no class and files that are no image.

    Raises:
      InputError: when there is no folder of a class.
    """
    raw = Path(raw)
    place = class_folders.find(raw, WORDS)
    if place is None:
        raise file_lists.not_found(raw, "imagen", tuple(WORDS))
    return class_folders.clips(place, WORDS, "test", skipped)


DATASET = RawDataset(
    labels=LabelSpec("class", CLASSES),
    clip_modalities=("vision",),
    clips=clips,
    test_only=True,
)
