"""affect_unpaired: the three streams of affect_synth that have nothing to do with each other.

Faces (the frame of strongest expression), voices and sentences, each with speakers and examples of
its own; an example has one modality. Made by code; nothing is read or downloaded.
"""

from collections.abc import Iterator

from affectjax.data.clip import Clip
from affectjax.data.labels import LabelSpec
from affectjax.data.raw.dataset import RawDataset
from affectjax.data.synth import views
from affectjax.data.synth.sentences import CLASSES
from affectjax.errors import InputError

# Where a clip has what a stream holds.
SHOWN = {"image": "frames", "audio": "waveform", "text": "text"}


def generate(view: str, seed: int) -> dict[str, Iterator[Clip]]:
    """Makes the data set.

    Args:
      view: `clips`.
      seed: of the data set.

    Returns:
      By split an iterator over its clips, those of each modality 1024 in `train`, 256 in `valid`
      and in `test`; it makes the split when it starts.

    Raises:
      InputError: for another view.
    """
    if view not in DATASET.views:
        raise InputError(f"view {view!r} of affect_unpaired: must be one of {DATASET.views}.")
    return {split: _clips(split, seed) for split in views.SPLITS}


def _clips(split: str, seed: int) -> Iterator[Clip]:
    for modality in views.UNPAIRED:
        made = views.unpaired(modality, seed, split)
        for name, label, x in zip(made.ids, made.labels.tolist(), made.x, strict=True):
            shown = {SHOWN[modality]: x[None] if modality == "image" else x}
            yield Clip(id=name, label=label, split=split, **shown)


DATASET = RawDataset(
    labels=LabelSpec(kind="class", classes=CLASSES),
    # Ids look like `image_train_s03_0007`: no speaker is in two streams or splits.
    group=r"^([a-z]+_[a-z]+_s\d+)_",
    generate=generate,
    views=("clips",),
)
