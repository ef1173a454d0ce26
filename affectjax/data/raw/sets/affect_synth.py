"""affect_synth: the embedded set, made by code; nothing is read or downloaded."""

from collections.abc import Iterator
from typing import Any

from affectjax.data.clip import Clip
from affectjax.data.labels import LabelSpec
from affectjax.data.raw.dataset import RawDataset
from affectjax.data.synth import views
from affectjax.data.synth.sentences import CLASSES
from affectjax.errors import InputError


def generate(view: str, seed: int, count: int | None = None) -> Any:
    """Makes the data set.

    Args:
      view: `sequences`, feature sequences at three rates, or `clips`, raw clips. The unpaired
        streams are neither: `affectjax.data.synth.views` makes them.
      seed: of the data set.
      count: of clips, how many of each split, from the first on; all by default.

    Returns:
      Splits `train` (1024 examples), `valid` (256) and `test` (256): a `FeatureSet`, or by split an
      iterator over `Clip`s, which makes the split when it starts.

    Raises:
      InputError: for another view.
    """
    if view not in DATASET.views:
        raise InputError(f"view {view!r} of affect_synth: must be one of {DATASET.views}.")
    if view == "sequences":
        return views.sequences(seed)
    return {split: _clips(split, seed, count) for split in views.SPLITS}


def _clips(split: str, seed: int, count: int | None) -> Iterator[Clip]:
    made = views.clips(split, seed, count)
    for row, name in enumerate(made.ids):
        yield Clip(
            id=name,
            label=int(made.labels[row]),
            split=split,
            text=made.sentences[row],
            frames=made.frames[row],
            waveform=made.waveform[row],
        )


DATASET = RawDataset(
    labels=LabelSpec(kind="class", classes=CLASSES),
    # Ids look like `train_s03_0007`; the speaker is the group that no split may share.
    group=r"^[a-z]+_(s\d+)_",
    generate=generate,
    views=("sequences", "clips"),
)
