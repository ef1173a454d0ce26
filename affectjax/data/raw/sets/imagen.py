"""IMAGEN's 295 cartoon faces: angry, neutral or happy (Schumann et al. 2010). All are test.

    angry/... .bmp   neutral/... .png   happy/... .jpg

The set has no published layout; this asks for a folder a class. What was learned from people's
faces is tried on them as it is.

Each face is a group of its own.
"""

from pathlib import Path

from affectjax.data.clip import Clip
from affectjax.data.labels import LabelSpec
from affectjax.data.raw import class_folders
from affectjax.data.raw.dataset import RawDataset
from affectjax.data.skipped import SkippedRecords

CLASSES = ("angry", "neutral", "happy")
WORDS = {name: name for name in CLASSES} | {"anger": "angry", "happiness": "happy"}


def clips(raw: Path, skipped: SkippedRecords) -> list[Clip]:
    """Returns the faces, each as a clip of one image; see `class_folders.clips_below`."""
    return class_folders.clips_below(raw, "imagen", WORDS, "test", skipped)


DATASET = RawDataset(
    labels=LabelSpec("class", CLASSES),
    clip_modalities=("vision",),
    clips=clips,
    test_only=True,
)
