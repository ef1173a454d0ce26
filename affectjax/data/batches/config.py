"""`config.data`: which data, which part of it, and how it becomes batches."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from affectjax.data.prepare import planning
from affectjax.data.prepare.clip_planning import ENCODINGS, Storage
from affectjax.modalities import MODALITIES

HOLDOUT = "holdout"
SAMPLINGS = ("middle", "random")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """`config.data`.

    Attributes:
      name: a data set of `affectjax.data.raw.sets`.
      dir: raw files or a prepared folder; "" for a data set made by code.
      root: the folder in which a `dir` that is not absolute lies; "" for the working directory.
      view: "sequences" (features that somebody extracted) or "clips" (video, sound, text).
      aligned: of sequences, whether the modalities share their steps.
      format: of raw sequences, "auto" to find out.
      cache_dir: where raw files are prepared on first use; "" for the user's cache folder.
      seed: of data made by code, and of the choice of what is held out.
      max_length: of sequences, by modality, the greatest number of steps; () for no limit.
      modalities: those to use, () for all that the data has.
      train, valid, test: which split of the source serves as which; `valid="holdout"` holds a part
        of `train` out, whole videos or speakers at a time.
      holdout: that part, from 0 to 1.
      share: how much of the training part is trained on, from above 0 to 1: of each class the same
        share, at least one example; drawn by `seed`, after validation examples are held out.
      kfold: 0, or into how many parts the split on disk that `train` names is dealt, whole videos
        or speakers at a time, drawn by `seed`. In fold "1" the first part is "test", the second is
        "valid" and the others are "train"; in fold "2" the second is "test", and so on around. No
        other split on disk serves then.
      fold: of data that comes in folds, or is dealt into them, the one whose splits those are; ""
        where there are none.
      folds: the folds to run one after the other; () for `fold` alone, or without that for all
        that `kfold` deals.
      split: what `--mode=eval` evaluates: "train", "valid" or "test".
      standardize: features brought to mean 0 and deviation 1, one at a time, by the statistics of
        the training split; never those that a frozen tower made.
      words: of sequences, whether text is the sentences themselves and not their features.
      frames: of clips, frames an example: one from each of so many equal stretches. What has fewer
        is padded, and where no clip has so many, there are as many as the longest clip has. Clips
        that `affectjax.weights.stored_features` has read have the frames that it was told to take.
      sampling: which frame of a stretch: "middle", or "random", anew in every epoch of training.
        Evaluation always takes the middle.
      seconds: of sound an example at most, from its start.
      tokens: of text an example at most, start and end among them.
      tokenizer: a local folder in Hugging Face's layout; "" trains one on the training texts and
        the names of the classes.
      image_size, keep_frames, detector, image_encoding, allow_outside: of raw clips that are
        prepared on first use, see `affectjax.data.prepare.clip_planning.Storage`. Of a prepared
        folder, and of a set made by code, frames come in the size in which they are stored.
      threshold: () or a number: scores from there up are the second of `classes`, others the first.
      classes: names of the two classes that `threshold` makes.
      class_map: a scheme or pairs of `affectjax.emotions.table`, by which the classes of the data
        become others, or are left out; "" to leave them. Of scores, "three" is their sign and "two"
        the sign of those that are not 0.
      without: names of classes that a second table of results leaves out.
      missing_pattern: which modalities are taken away, see `affectjax.data.batches.missing`; ""
        for none.
      missing_rate: of how many examples, from 0 to 1.
      missing_seed: of the draw, made once for each split of the source.
      sources: by modality, the section of an unpaired data set that a run learns from besides this
        one or in its place; its keys are those of this section.
      resident_mib: a split that needs no more than this lives on the devices; a larger one streams.
      threads: that read, decode and collate.
    """

    name: str
    dir: str = ""
    root: str = ""
    view: str = planning.SEQUENCES
    aligned: bool = False
    format: str = "auto"
    cache_dir: str = ""
    seed: int = 0
    max_length: Mapping[str, int] | tuple = ()
    modalities: tuple[str, ...] = ()
    train: str = "train"
    valid: str = "valid"
    test: str = "test"
    holdout: float = 0.0
    share: float = 1.0
    kfold: int = 0
    fold: str = ""
    folds: tuple[str, ...] = ()
    split: str = "test"
    standardize: tuple[str, ...] = ("audio", "vision")
    words: bool = False
    frames: int = 16
    sampling: str = "middle"
    seconds: float = 5.0
    tokens: int = 77
    tokenizer: str = ""
    image_size: int = 224
    keep_frames: int = 64
    detector: str = "cascade"
    image_encoding: str = "auto"
    allow_outside: bool = False
    threshold: tuple | float = ()
    classes: tuple[str, ...] = ("negative", "positive")
    class_map: str = ""
    without: tuple[str, ...] = ()
    missing_pattern: str = ""
    missing_rate: float = 0.0
    missing_seed: int = 0
    sources: Mapping[str, Mapping] | tuple = ()
    resident_mib: float = 512.0
    threads: int = 2

    def __post_init__(self):
        if (self.valid == HOLDOUT) != (0 < self.holdout < 1):
            raise ValueError('holdout is between 0 and 1 just when valid is "holdout"')
        if self.view == planning.CLIPS and (self.aligned or self.max_length):
            raise ValueError("aligned and max_length are of sequences, but view is 'clips'")
        allowed = {
            "split": ("train", "valid", "test"),
            "view": planning.VIEWS,
            "sampling": SAMPLINGS,
            "image_encoding": ENCODINGS,
        }
        for key, values in allowed.items():
            if getattr(self, key) not in values:
                raise ValueError(f"{key} is {getattr(self, key)!r}; allowed: {', '.join(values)}")
        unknown = [
            m
            for m in (*self.standardize, *self.max_length, *self.modalities, *self.sources)
            if m not in MODALITIES
        ]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is no modality; allowed: {', '.join(MODALITIES)}")
        for key, kinds in {"folds": (str, int), "without": (str,), "classes": (str,)}.items():
            _check_names(key, getattr(self, key), kinds)
        self._check_kfold()
        if len(self.classes) != 2:
            raise ValueError(f"classes is {self.classes!r}; allowed: two names")
        if len(self._thresholds) > 1 or not all(
            isinstance(t, int | float) for t in self._thresholds
        ):
            raise ValueError(f"threshold is {self.threshold!r}; allowed: () or one number")
        if self.class_map and self._thresholds:
            raise ValueError("class_map and threshold both make classes; allowed: one of them")
        least = {"frames": 1, "tokens": 2, "image_size": 1, "keep_frames": 1, "threads": 1}
        for key, value in least.items():
            if getattr(self, key) < value:
                raise ValueError(f"{key} is {getattr(self, key)}; allowed: {value} or more")
        if not 0 < self.share <= 1:
            raise ValueError(f"share is {self.share}; allowed: above 0 to 1")
        if self.seconds <= 0:
            raise ValueError(f"seconds is {self.seconds}; allowed: more than 0")
        if not 0 <= self.missing_rate <= 1:
            raise ValueError(f"missing_rate is {self.missing_rate}; allowed: from 0 to 1")
        if bool(self.missing_pattern) != bool(self.missing_rate):
            raise ValueError("missing_pattern and missing_rate go together: both or none")

    def _check_kfold(self) -> None:
        """Raises ValueError for folds that cannot be dealt, or names of others."""
        if not self.kfold:
            return
        if self.kfold < 3:
            raise ValueError(
                f"kfold is {self.kfold}; allowed: 0, or 3 or more: to train, to validate, to test"
            )
        if self.valid == HOLDOUT:
            raise ValueError('valid is "holdout", but kfold deals a part for validation')
        if self.valid == self.test:
            raise ValueError(f"valid and test are both {self.test!r}, one of the parts of a fold")
        names = dealt(self.kfold)
        unknown = [f for f in map(str, (self.fold, *self.folds)) if f and f not in names]
        if unknown:
            raise ValueError(
                f"fold {unknown[0]!r} is none of those that kfold deals; allowed: 1 to {self.kfold}"
            )

    @property
    def _thresholds(self) -> tuple:
        """Returns the threshold in a tuple, as the command line hands it over; () for none."""
        return self.threshold if isinstance(self.threshold, tuple) else (self.threshold,)

    @property
    def cut(self) -> float | None:
        """Returns the threshold, None for none."""
        return self._thresholds[0] if self._thresholds else None

    @property
    def path(self) -> str:
        """Returns where the data lies: `dir`, in `root`."""
        return str(Path(self.root) / self.dir) if self.dir and self.root else self.dir

    @property
    def storage(self) -> Storage:
        """Returns how raw clips are stored when they are prepared."""
        keys = (field.name for field in dataclasses.fields(Storage))
        return Storage(**{key: getattr(self, key) for key in keys})


def dealt(kfold: int) -> tuple[str, ...]:
    """Returns the names of the folds that `kfold` deals."""
    return tuple(str(number) for number in range(1, kfold + 1))


def _check_names(key: str, names: tuple[str, ...], kinds: tuple[type, ...]) -> None:
    """Raises ValueError for names that are none, or not once; `folds=1,2` comes as numbers."""
    if not isinstance(names, tuple) or not all(name and isinstance(name, kinds) for name in names):
        raise ValueError(f"{key} is {names!r}; allowed: a tuple of names")
    if len(set(map(str, names))) < len(names):
        raise ValueError(f"{key} has a name twice: {names!r}")
