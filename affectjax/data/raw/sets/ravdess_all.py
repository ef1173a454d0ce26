"""RAVDESS, speech and song together: see `ravdess` and `ravdess_song`.

Both have the same actors in each split, so that no voice is in two of them.
"""

from pathlib import Path

from affectjax.data.clip import Clip
from affectjax.data.raw.dataset import RawDataset
from affectjax.data.raw.sets import ravdess
from affectjax.data.skipped import SkippedRecords


def clips(raw: Path, skipped: SkippedRecords) -> list[Clip]:
    """Returns what is spoken and sung; see `ravdess.recordings`."""
    return ravdess.recordings(raw, skipped, "ravdess_all", ("01", "02"))


DATASET = RawDataset(
    labels=ravdess.DATASET.labels,
    group=ravdess.DATASET.group,
    clips=clips,
)
