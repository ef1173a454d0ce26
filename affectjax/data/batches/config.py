"""`config.data`: which data, which part of it, and how it becomes batches.

The keys are grouped by concern, a dataclass each. A run reads those groups that its data has: a
data set of clips has other keys than one of feature sequences, a set of faces none of sound or
text, a set made by code none of raw files. `parts` says which; a key of another group is an error.
`DataConfig` is all groups together, those that a run does not read at their defaults.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from affectjax.data.prepare import clip_storage
from affectjax.data.raw import sets
from affectjax.data.raw.dataset import CLIPS, SEQUENCES, VIEWS
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES
from affectjax.runtime import configs

HOLDOUT = "holdout"
SAMPLINGS = ("middle", "random")
MAIN = ""


class Group:
    """A group of keys that checks its own values, alone or as one of several bases."""

    def __post_init__(self):
        """Raises ValueError for a value that is not allowed."""

    def _one_of(self, **allowed: Sequence[str]) -> None:
        for key, values in allowed.items():
            if getattr(self, key) not in values:
                raise ValueError(f"{key} is {getattr(self, key)!r}; allowed: {', '.join(values)}")

    def _modalities(self, names: Sequence[str]) -> None:
        unknown = [m for m in names if m not in MODALITIES]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is no modality; allowed: {', '.join(MODALITIES)}")


@dataclasses.dataclass(frozen=True)
class Source(Group):
    """Where the data comes from.

    Attributes:
      name: a data set: a module of `affectjax.data.raw.sets`, or one of yours by its dotted name.
      dir: raw files or a prepared folder; "" for a data set made by code.
      root: the folder in which a `dir` that is not absolute lies; "" for the working directory. A
        source without a root of its own has that of `config.data`.
      view: "sequences" (features that somebody extracted) or "clips" (video, sound, text).
      cache_dir: where raw files are prepared on first use; "" for the user's cache folder.
      seed: of data made by code, and of the draws of `holdout`, `kfold` and `share`.
    """

    name: str
    dir: str = ""
    root: str = ""
    view: str = SEQUENCES
    cache_dir: str = ""
    seed: int = 0

    def __post_init__(self):
        super().__post_init__()
        self._one_of(view=VIEWS)
        configs.at_least(self, seed=0)

    @property
    def path(self) -> str:
        """Returns where the data lies: `dir`, in `root`."""
        return str(Path(self.root) / self.dir) if self.dir and self.root else self.dir


@dataclasses.dataclass(frozen=True)
class FeatureFiles(Group):
    """Raw files of feature sequences.

    Attributes:
      format: the reader, "auto" to find it.
    """

    format: str = "auto"


@dataclasses.dataclass(frozen=True)
class FeatureSequences(Group):
    """Feature sequences.

    Attributes:
      aligned: whether the modalities share their steps.
      max_length: by modality, the greatest number of steps; () for no limit.
      standardize: features brought to mean 0 and deviation 1, by the statistics of the training
        split; never those that a frozen tower made.
      words: whether text is the sentences themselves and not their features.
    """

    aligned: bool = False
    max_length: Mapping[str, int] | tuple = ()
    standardize: tuple[str, ...] = ("audio", "vision")
    words: bool = False

    def __post_init__(self):
        super().__post_init__()
        self._modalities((*self.standardize, *self.max_length))


@dataclasses.dataclass(frozen=True)
class Frames(Group):
    """Vision of clips.

    Attributes:
      frames: frames an example: one from each of so many equal stretches. What has fewer is padded,
        and where no clip has so many, there are as many as the longest clip has. Stored features of
        frames have as many as they were made of.
      sampling: which frame of a stretch: "middle", or "random", anew in every epoch of training.
        Evaluation always takes the middle.
    """

    frames: int = 16
    sampling: str = "middle"

    def __post_init__(self):
        super().__post_init__()
        configs.at_least(self, frames=1)
        self._one_of(sampling=SAMPLINGS)


@dataclasses.dataclass(frozen=True)
class Sound(Group):
    """Audio of clips.

    Attributes:
      seconds: of sound an example at most, from its start.
    """

    seconds: float = 5.0

    def __post_init__(self):
        super().__post_init__()
        if self.seconds <= 0:
            raise ValueError(f"seconds is {self.seconds}; allowed: more than 0")


@dataclasses.dataclass(frozen=True)
class Sentences(Group):
    """Text in words.

    Attributes:
      tokens: of text an example at most, start and end among them.
      tokenizer: a folder, or a name on the hub, in Hugging Face's layout; "" trains one on the
        training texts and the names of the classes.
    """

    tokens: int = 77
    tokenizer: str = ""

    def __post_init__(self):
        super().__post_init__()
        configs.at_least(self, tokens=2)


@dataclasses.dataclass(frozen=True)
class ImageEncoding(Group):
    """How frames are stored when clips are prepared on first use.

    Attributes:
      image_encoding: see `affectjax.data.prepare.clip_storage.Storage`.
    """

    image_encoding: str = "auto"

    def __post_init__(self):
        super().__post_init__()
        self._one_of(image_encoding=clip_storage.ENCODINGS)


@dataclasses.dataclass(frozen=True)
class ImageFiles(Group):
    """How frames are cropped of raw files when they are prepared on first use.

    A prepared folder keeps what it has.

    Attributes:
      image_size, keep_frames, detector: see `affectjax.data.prepare.clip_storage.Storage`.
    """

    image_size: int = 224
    keep_frames: int = 64
    detector: str = "cascade"

    def __post_init__(self):
        super().__post_init__()
        configs.at_least(self, image_size=1, keep_frames=1)


@dataclasses.dataclass(frozen=True)
class RawFiles(Group):
    """What raw files may ask for when they are prepared on first use.

    Attributes:
      largest_mib: see `affectjax.data.prepare.clip_storage.Storage`.
    """

    largest_mib: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        configs.at_least(self, largest_mib=0)


@dataclasses.dataclass(frozen=True)
class OutsideFiles(Group):
    """Files that another one names: a table of clips, a modalities.json, a link in a folder.

    Attributes:
      allow_outside: see `affectjax.data.prepare.clip_storage.Storage`.
    """

    allow_outside: bool = False


@dataclasses.dataclass(frozen=True)
class Splits(Group):
    """Which examples serve for training, validation and test.

    Attributes:
      train, valid, test: which split of the source serves as which; `valid="holdout"` holds a part
        of `train` out, whole videos or speakers at a time.
      holdout: that part, from 0 to 1.
      share: how much of the training part is trained on, from above 0 to 1: of each class the same
        share, at least one example; drawn by `seed`, after validation examples are held out.
      kfold: 0, or into how many folds the split on disk that `train` names is divided, whole videos
        or speakers at a time, drawn by `seed`. In fold "1" the first part is "test", the second is
        "valid" and the others are "train"; in fold "2" the second is "test", and so on around. With
        `valid="train"` all but the tested part are "train", and validated on too. No other split on
        disk serves then.
      fold: of data that comes in folds, or is divided into them, the one to use; "" for none.
    """

    train: str = "train"
    valid: str = "valid"
    test: str = "test"
    holdout: float = 0.0
    share: float = 1.0
    kfold: int = 0
    fold: str = ""

    def __post_init__(self):
        super().__post_init__()
        if not (0 < self.holdout < 1 if self.valid == HOLDOUT else self.holdout == 0):
            allowed = "above 0 and below 1" if self.valid == HOLDOUT else '0, or valid="holdout"'
            raise ValueError(
                f"holdout is {self.holdout} and valid is {self.valid!r}; allowed: holdout {allowed}"
            )
        if not 0 < self.share <= 1:
            raise ValueError(f"share is {self.share}; allowed: above 0 to 1")
        if not self.kfold:
            return
        if self.kfold < 3:
            raise ValueError(
                f"kfold is {self.kfold}; allowed: 0, or 3 or more: to train, to validate, to test"
            )
        if self.valid == HOLDOUT:
            raise ValueError('valid is "holdout", but kfold makes a part for validation')
        if self.valid == self.test:
            raise ValueError(f"valid and test are both {self.test!r}, one of the parts of a fold")
        self._check_folds((self.fold,))

    def _check_folds(self, folds: Sequence[str]) -> None:
        """Raises ValueError for a fold that `kfold` does not make."""
        unknown = [f for f in map(str, folds) if f and f not in fold_names(self.kfold)]
        if unknown:
            raise ValueError(
                f"fold {unknown[0]!r} is none of those that kfold makes; allowed: 1 to {self.kfold}"
            )


@dataclasses.dataclass(frozen=True)
class Runs(Group):
    """What a run does with the splits of its main data set.

    Attributes:
      folds: the folds to run one after the other; () for `fold` alone, or without that for all
        that `kfold` makes.
      split: what `--mode=eval` evaluates: "train", "valid" or "test".
    """

    folds: tuple[str, ...] = ()
    split: str = "test"

    def __post_init__(self):
        super().__post_init__()
        self._one_of(split=("train", "valid", "test"))
        _check_names("folds", self.folds, (str, int))


@dataclasses.dataclass(frozen=True)
class Labels(Group):
    """What the labels become.

    Attributes:
      class_map: a scheme or pairs of `affectjax.emotions.table`, by which the classes of the data
        become others, or are left out; "" to leave them. Of scores, "three" is their sign and "two"
        the sign of those that are not 0.
      threshold: () or a number: scores from there up are the second of `classes`, others the first.
      classes: names of the two classes that `threshold` makes.
    """

    class_map: str = ""
    threshold: tuple | float = ()
    classes: tuple[str, ...] = ("negative", "positive")

    def __post_init__(self):
        super().__post_init__()
        _check_names("classes", self.classes, (str,))
        if len(self.classes) != 2:
            raise ValueError(f"classes is {self.classes!r}; allowed: two names")
        cuts = self._thresholds
        if len(cuts) > 1 or not all(isinstance(t, int | float) for t in cuts):
            raise ValueError(f"threshold is {self.threshold!r}; allowed: () or one number")
        if self.class_map and cuts:
            raise ValueError("class_map and threshold both make classes; allowed: one of them")

    @property
    def _thresholds(self) -> tuple:
        """Returns the threshold in a tuple, as the command line hands it over; () for none."""
        return self.threshold if isinstance(self.threshold, tuple) else (self.threshold,)

    @property
    def cut(self) -> float | None:
        """Returns the threshold, None for none."""
        return self._thresholds[0] if self._thresholds else None


@dataclasses.dataclass(frozen=True)
class FewerClasses(Group):
    """A second table of results.

    Attributes:
      without: names of classes that it leaves out.
    """

    without: tuple[str, ...] = ()

    def __post_init__(self):
        super().__post_init__()
        _check_names("without", self.without, (str,))


@dataclasses.dataclass(frozen=True)
class Missing(Group):
    """Modalities that are taken away, see `affectjax.data.batches.missing`.

    Attributes:
      missing_pattern: which ones; "" for none.
      missing_rate: of how many examples, from 0 to 1.
      missing_seed: of the draw, made once for each split of the source.
    """

    missing_pattern: str = ""
    missing_rate: float = 0.0
    missing_seed: int = 0

    def __post_init__(self):
        super().__post_init__()
        configs.at_least(self, missing_seed=0)
        if not 0 <= self.missing_rate <= 1:
            raise ValueError(f"missing_rate is {self.missing_rate}; allowed: from 0 to 1")
        if bool(self.missing_pattern) != bool(self.missing_rate):
            raise ValueError("missing_pattern and missing_rate go together: both or none")


@dataclasses.dataclass(frozen=True)
class Modalities(Group):
    """Which modalities are used.

    Attributes:
      modalities: their names, () for all that the data has.
    """

    modalities: tuple[str, ...] = ()

    def __post_init__(self):
        super().__post_init__()
        self._modalities(self.modalities)


@dataclasses.dataclass(frozen=True)
class Loading(Group):
    """How examples come to the devices.

    Attributes:
      resident_mib: a split that needs no more than this lives on the devices; a larger one streams.
      threads: that read, decode and collate.
    """

    resident_mib: float = 512.0
    threads: int = 2

    def __post_init__(self):
        super().__post_init__()
        configs.at_least(self, threads=1, resident_mib=0)


@dataclasses.dataclass(frozen=True)
class DataConfig(
    *(Loading, Modalities, Missing, FewerClasses, Labels, Runs, Splits),
    *(OutsideFiles, RawFiles, ImageFiles, ImageEncoding, Sentences, Sound, Frames),
    *(FeatureSequences, FeatureFiles, Source),
):
    """All groups of keys of one data set; those that it does not read have their defaults."""

    def __post_init__(self):
        super().__post_init__()
        if self.view == CLIPS and (self.aligned or self.max_length):
            raise ValueError("aligned and max_length are of sequences, but view is 'clips'")
        if self.kfold:
            self._check_folds(self.folds)

    @property
    def storage(self) -> clip_storage.Storage:
        """Returns how raw clips are stored when they are prepared."""
        keys = (field.name for field in dataclasses.fields(clip_storage.Storage))
        return clip_storage.Storage(**{key: getattr(self, key) for key in keys})


GROUPS = tuple(base for base in DataConfig.__mro__[1:] if base not in (Group, object))


@dataclasses.dataclass(frozen=True)
class SourcesAlone(Runs):
    """`config.data` of a run that learns from its sources alone.

    Attributes:
      root: that of sources without one of their own.
    """

    root: str = ""


def parts(
    section: Mapping[str, Any], source: str = MAIN, more: Sequence[type[Group]] = ()
) -> tuple[type[Group], ...]:
    """Returns the groups of keys that a data set reads.

    Args:
      section: its keys and values; `name`, `view`, `modalities` and `words` decide.
      source: the modality of one of `config.data.sources`, "" for `config.data` itself.
      more: groups that the task reads of `config.data` besides.

    Raises:
      InputError: there is no name, or no such data set.
    """
    where = f"config.data.sources.{source}" if source else "config.data"
    if "name" not in section:
        raise InputError(f'config key "{where}.name" is missing')
    try:
        dataset = sets.get(section["name"])
    except InputError as error:
        raise InputError(f'"{where}.name": {error}') from error
    made_by_code = dataset.generate is not None
    found: list[type[Group]] = [Source]
    if section.get("view", SEQUENCES) == SEQUENCES:
        found += [] if made_by_code else [FeatureFiles, RawFiles, OutsideFiles]
        found += [FeatureSequences]
        found += [Sentences] if section.get("words") else []
    else:
        said = section.get("modalities", ())
        if not isinstance(said, tuple | list):
            raise InputError(f'"{where}.modalities" is {said!r}; allowed: a tuple of names')
        named = (source,) if source else tuple(said)
        used = [m for m in dataset.clip_modalities if not named or m in named]
        found += [Sentences] if "text" in used else []
        found += [Sound] if "audio" in used else []
        if "vision" in used:
            found += [Frames, ImageEncoding, *([] if made_by_code else [ImageFiles])]
        found += [] if made_by_code else [RawFiles]
        found += [OutsideFiles] if dataset.takes_outside else []
    found += [Splits, Labels, Loading]
    return tuple(found if source else [*found, Runs, Missing, Modalities, *more])


def read(
    data: Mapping[str, Any], names: Sequence[str], more: Sequence[type[Group]] = ()
) -> dict[str, DataConfig]:
    """Returns the data sets of a run by name, their keys checked.

    Args:
      data: the section `config.data`.
      names: of the data sets that the run reads: "" for the one that `config.data` describes
        itself, and those of its `sources`.
      more: see `parts`.

    Raises:
      InputError: a key that no data set of the run reads, a value that is not allowed, no source of
        that name, or a source that is the main data set with other splits.
    """
    return {
        name: DataConfig(**own, **({"modalities": (name,)} if name else {}))
        for name, own in _sections(data, names, more).items()
    }


def resolve(
    data: Mapping[str, Any], names: Sequence[str], more: Sequence[type[Group]] = ()
) -> dict[str, Any]:
    """Returns `config.data` with every key that the run reads.

    Args:
      data: the section.
      names: see `read`.
      more: see `parts`.

    Raises:
      InputError: see `read`.
    """
    found = _sections(data, names, more)
    main = found.pop(MAIN, None)
    if main is None:
        alone = _without_sources(data)
        main = dataclasses.asdict(configs.read(SourcesAlone, alone, "config.data"))
    return main | ({"sources": found} if found else {})


def sections(
    data: Mapping[str, Any], names: Sequence[str], more: Sequence[type[Group]] = ()
) -> dict[str, tuple[tuple[type[Group], ...], tuple[type[Group], ...]]]:
    """Returns by dotted name the groups that a section reads, and those that it does not.

    Args:
      data: the section `config.data`.
      names: see `read`.
      more: see `parts`.

    Raises:
      InputError: no source of a name, or no such data set.
    """
    sources, own = data.get("sources") or {}, _without_sources(data)
    found = {"data": parts(own, more=more) if MAIN in names else (SourcesAlone,)}
    for name in (n for n in names if n):
        if name not in sources:
            raise InputError(f'"config.data.sources" has no {name}; the run learns from it')
        found[f"data.sources.{name}"] = parts(sources[name], name)
    return {
        name: (read, tuple(group for group in GROUPS if group not in read))
        for name, read in found.items()
    }


def _sections(
    data: Mapping[str, Any], names: Sequence[str], more: Sequence[type[Group]]
) -> dict[str, dict[str, Any]]:
    """Returns by name the keys of each data set, those that were left out with their defaults."""
    data, own = configs.plain(data), _without_sources(data)
    sources = data.get("sources") or {}
    unread = [name for name in sources if name not in names]
    if unread:
        raise InputError(
            f'"config.data.sources.{unread[0]}" is not read by this run; it reads '
            f"{', '.join(n for n in names if n) or 'no sources'}"
        )
    read = sections(data, names, more)
    found = {}
    if MAIN in names:
        found[MAIN] = _filled(own, *read["data"], "config.data")
    else:
        configs.read(SourcesAlone, own, "config.data", read["data"][1])
    for name in (n for n in names if n):
        source = {"root": own.get("root", "")} | sources[name]
        source = _same_splits(name, source, found.get(MAIN))
        where = f"data.sources.{name}"
        found[name] = _filled(source, *read[where], f"config.{where}")
    return found


def _without_sources(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in configs.plain(data).items() if key != "sources"}


def _filled(
    section: Mapping[str, Any], groups: tuple[type, ...], others: tuple[type, ...], where: str
) -> dict[str, Any]:
    """Returns the keys of some groups; the checks that need several groups are made too."""
    made = configs.read(groups, section, where, others)
    values = {
        key: getattr(part, key)
        for group, part in zip(groups, made, strict=True)
        for key in configs.fields(group)
    }
    configs.read(DataConfig, values, where)
    return values


def _same_splits(
    name: str, source: Mapping[str, Any], main: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Returns a source with the splits of the main data set, where it is that data set.

    Both then train, validate and test on the same examples: nothing is learned from what the other
    is tested by. A source that asks for others is refused.
    """
    place = ("name", "dir", "root")
    blank = dict.fromkeys(place, "")
    if main is None or any((blank | source)[k] != (blank | main)[k] for k in place):
        return dict(source)
    source = dict(source)
    for key in (*configs.fields(Splits), "seed"):
        if key == "share":  # of the training part: it moves no example to another part
            continue
        if source.setdefault(key, main[key]) != main[key]:
            raise InputError(
                f'"config.data.sources.{name}.{key}" is {source[key]!r} and "config.data.{key}" is '
                f"{main[key]!r}, but both read {main['name']}; allowed: the same splits for both"
            )
    return source


def fold_names(kfold: int) -> tuple[str, ...]:
    """Returns the names of the folds that `kfold` makes."""
    return tuple(str(number) for number in range(1, kfold + 1))


def _check_names(key: str, names: tuple[str, ...], kinds: tuple[type, ...]) -> None:
    """Raises ValueError for names that are none, or not once; `folds=1,2` comes as numbers."""
    if not isinstance(names, tuple) or not all(name and isinstance(name, kinds) for name in names):
        raise ValueError(f"{key} is {names!r}; allowed: a tuple of names")
    if len(set(map(str, names))) < len(names):
        raise ValueError(f"{key} has a name twice: {names!r}")
