"""affect_synth: the embedded set, made by code; nothing is read or downloaded."""

from affectjax.data.features import FeatureSet
from affectjax.data.labels import LabelSpec
from affectjax.data.synth import views
from affectjax.data.synth.sentences import CLASSES
from affectjax.errors import InputError

LABELS = LabelSpec(kind="class", classes=CLASSES)

# Ids look like `train_s03_0007`; the speaker is the group that no split may share.
GROUP = r"^[a-z]+_(s\d+)_"

VIEWS = ("sequences",)


def generate(view: str, seed: int) -> FeatureSet:
    """Makes the data set.

    Args:
      view: `sequences`, feature sequences at three rates. The raw clips and the unpaired streams
        are no feature sets: `affectjax.data.synth.views` makes them.
      seed: of the data set.

    Returns:
      Splits `train` (1024 examples), `valid` (256) and `test` (256).

    Raises:
      InputError: for another view.
    """
    if view not in VIEWS:
        raise InputError(f"view {view!r} of affect_synth: must be one of {VIEWS}.")
    return views.sequences(seed)
