"""RAVDESS song: 23 actors sing two sentences in six emotions (Livingstone & Russo 2018).

Files, splits and groups are those of `ravdess`, the channel 02 in place of 01. Nobody sings disgust
or surprise, and actor 18 does not sing.
"""

from pathlib import Path

from affectjax.data.clip import Clip
from affectjax.data.labels import LabelSpec
from affectjax.data.raw.dataset import RawDataset
from affectjax.data.raw.sets import ravdess
from affectjax.data.skipped import SkippedRecords

CLASSES = ravdess.CLASSES[: ravdess.CHANNELS["02"][1]]


def clips(raw: Path, skipped: SkippedRecords) -> list[Clip]:
    """Returns what is sung; see `ravdess.recordings`."""
    return ravdess.recordings(raw, skipped, "ravdess_song", ("02",))


DATASET = RawDataset(
    labels=LabelSpec("class", CLASSES),
    group=ravdess.DATASET.group,
    clips=clips,
)
