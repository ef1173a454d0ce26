"""FED-RO: 400 faces that something hides in part, seven emotions (Li et al. 2018). All are test.

    FED-RO_crop/happy/... .jpg

Folders by class, as public loaders read the set; its own folder of the neutral ones is `neural`.
The raw folder holds those of the classes, or one that does.

The faces are of people met once: each is a group of its own.
"""

from pathlib import Path

from affectjax.data.clip import Clip
from affectjax.data.labels import LabelSpec
from affectjax.data.raw import class_folders
from affectjax.data.raw.dataset import RawDataset
from affectjax.data.skipped import SkippedRecords

CLASSES = ("anger", "disgust", "fear", "happy", "neutral", "sad", "surprise")
WORDS = {name: name for name in CLASSES} | {
    "angry": "anger",
    "happiness": "happy",
    "neural": "neutral",
    "sadness": "sad",
    "surprised": "surprise",
}


def clips(raw: Path, skipped: SkippedRecords) -> list[Clip]:
    """Returns the faces, each as a clip of one image; see `class_folders.clips_below`."""
    return class_folders.clips_below(raw, "fedro", WORDS, "test", skipped)


DATASET = RawDataset(
    labels=LabelSpec("class", CLASSES),
    clip_modalities=("vision",),
    clips=clips,
    test_only=True,
)
