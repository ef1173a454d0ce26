"""Which examples of a prepared data set serve as what, and what each of them shows.

Letters: N examples, C classes of the data, K binary tasks, M modalities.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from absl import logging

from affectjax import emotions
from affectjax.data.batches import missing
from affectjax.data.batches.config import HOLDOUT, DataConfig
from affectjax.data.labels import LabelSpec
from affectjax.data.prepare.prepared import Index, Prepared
from affectjax.data.raw import sets
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES, chosen

# The split in which the examples of all folds stand together.
_FOLDED = "all"
# Schemes that the sign of a score belongs to; 0 is neutral, or in none of them.
_SIGNS = ("three", "two")


@dataclasses.dataclass(frozen=True)
class Part:
    """What serves as the train, valid or test split.

    Attributes:
      source: the split's name in the prepared data.
      rows: `[N]`, which of its examples.
    """

    source: str
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def only(self, kept: np.ndarray) -> "Part":
        """Returns the part with the rows where `kept` `[N]` is true alone."""
        return Part(self.source, self.rows[kept])


class Parts:
    """The parts of a prepared data set, as the config chooses them.

    Attributes:
      spec: what the labels mean, after `threshold` and `class_map`.
      modalities: those to use, in the order of MODALITIES.
    """

    def __init__(self, config: DataConfig, prepared: Prepared, spec: LabelSpec | None = None):
        """Works out the labels, the folds and what is held out.

        Args:
          config: see there.
          prepared: the data.
          spec: what the labels meant to a trained run, whose numbers the classes get; None for what
            the data and the config say.

        Raises:
          InputError: the config does not fit the data, or the data not the spec.
        """
        self.config, self.prepared = config, prepared
        self._names = self._name_classes()
        self.spec, self.modalities = self._spec(spec), self._modalities()
        self._warned = spec is not None
        if config.missing_pattern:
            missing.check(config.missing_pattern, self.modalities)
        self._indices: dict[str, Index] = {}
        self._kept: dict[str, np.ndarray] = {}
        self._folded, self._folds = _FOLDED, prepared.folds
        if config.kfold:
            self._folded, self._folds = config.train, self._make_folds()

    def find(self, role: str) -> Part:
        """Returns what serves as "train", "valid" or "test".

        Args:
          role: one of the three.

        Raises:
          InputError: the data has no such split, or it is empty.
        """
        name = getattr(self.config, role)
        split = self.config.train if name == HOLDOUT else name
        if self.config.kfold and role == "train":
            split = role  # of the fold; the key names the split on disk that was split into folds
        source, rows = self._split(role, split)
        if split == self.config.train and self._held_out is not None:
            rows = rows[self._held_out == (name == HOLDOUT)]
        if not len(rows):
            left = ' that "config.data.class_map" keeps' if self.config.class_map else ""
            raise InputError(f'"config.data.{role}": split {name!r} has no example{left}')
        if role == "train" and self.config.class_map and not self._warned:
            self._warned = True
            counts = np.bincount(self.index(source).label[rows], minlength=len(self.spec.classes))
            for row in np.flatnonzero(counts == 0):
                logging.warning("class %s has no example in train", self.spec.classes[row])
        return Part(source, rows)

    def _split(self, role: str, name: str) -> tuple[str, np.ndarray]:
        """Returns the split on disk in which a split stands, and the rows of it that are kept."""
        source, rows = self._stored(role, name)
        if self.config.class_map:
            rows = rows[self.index(source).label[rows] >= 0]
        return source, rows

    def _stored(self, role: str, name: str) -> tuple[str, np.ndarray]:
        """Returns the split on disk in which a split stands, and all the rows of it."""
        fold, folds = self.config.fold, self._folds
        if fold:
            if fold not in folds:
                there = f"folds {', '.join(folds)}" if folds else "no folds"
                raise InputError(f'"config.data.fold" is {fold!r}, but the data has {there}')
            if name in folds[fold]:
                ids, wanted = self.index(self._folded).ids, set(folds[fold][name])
                return self._folded, np.flatnonzero([i in wanted for i in ids])
            have = list(folds[fold])
        elif name in self.prepared.splits:
            return name, np.arange(self.prepared.splits[name])
        else:
            have = list(self.prepared.splits)
        hint = f'; it has folds, name one in "config.data.fold": {", ".join(folds)}'
        raise InputError(
            f'"config.data.{role}" is {getattr(self.config, role)!r}, but the data has the splits '
            f"{', '.join(have)}{hint if folds and not fold else ''}"
        )

    def index(self, source: str) -> Index:
        """Returns ids and labels of a split on disk, the labels as `spec` has them.

        Those that `class_map` leaves out are -1; no part has them.

        Args:
          source: its name.
        """
        if source not in self._indices:
            index = self.prepared.index(source)
            if self._names is not None:
                places = {name: place for place, name in enumerate(self.spec.classes)}
                numbers = np.array([places.get(name, -1) for name in self._names], np.int32)
                label = numbers[self._categories(index.label)]
                index = dataclasses.replace(index, label=label)
            self._indices[source] = index
        return self._indices[source]

    def kept(self, source: str) -> np.ndarray:
        """Returns `[N, 3]` bool: what each example of a split on disk shows, by MODALITIES.

        Those modalities that it has, less those that the config does not use or takes away.

        Args:
          source: the split's name.
        """
        if source not in self._kept:
            used = np.array([m in self.modalities for m in MODALITIES])
            present = self.index(source).present & used
            if self.config.missing_pattern:
                pattern, rate = self.config.missing_pattern, self.config.missing_rate
                present = missing.draw(present, pattern, rate, self.config.missing_seed)
            self._kept[source] = present
        return self._kept[source]

    @functools.cached_property
    def _held_out(self) -> np.ndarray | None:
        """Returns `[N]` bool over the training split: whole groups, drawn until enough are out."""
        if self.config.valid != HOLDOUT:
            return None
        group_of = sets.get(self.config.name).group_of
        source, rows = self._split("train", self.config.train)
        ids = self.index(source).ids
        groups = np.array([group_of(ids[row]) for row in rows])
        names, counts = np.unique(groups, return_counts=True)
        order = np.random.Generator(np.random.Philox(self.config.seed)).permutation(len(names))
        before = np.cumsum(counts[order]) - counts[order]
        out = names[order][before < self.config.holdout * len(groups)]
        return np.isin(groups, out)

    def _make_folds(self) -> dict[str, dict[str, list[str]]]:
        """Returns ids by split of the one fold that the config names, as `Prepared.folds` has them.

        All examples of the training split get a fold, whatever `class_map` keeps: the folds of
        another map are the same.
        """
        config, there = self.config, ", ".join(self.prepared.folds)
        said = f'"config.data.kfold" is {config.kfold}, but'
        if there:
            raise InputError(
                f"{said} {config.name} comes in folds; allowed: 0, and folds {there} as they are"
            )
        if not config.fold:
            raise InputError(f'{said} "config.data.fold" is empty; allowed: 1 to {config.kfold}')
        ids = self.index(config.train).ids
        groups = [sets.get(config.name).group_of(name) for name in ids]
        if len(set(groups)) < config.kfold:
            raise InputError(
                f"{said} split {config.train!r} of {config.name} has {len(set(groups))} videos or "
                "speakers; allowed: no more folds than those"
            )
        tested = int(config.fold) - 1
        roles = {tested: "test"}
        if "valid" in (config.valid, config.test):  # else nothing is left out for it
            roles[(tested + 1) % config.kfold] = "valid"
        splits: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
        numbers = assign_folds(groups, config.kfold, config.seed).tolist()
        for name, part in zip(ids, numbers, strict=True):
            splits[roles.get(part, "train")].append(name)
        return {config.fold: splits}

    def _name_classes(self) -> tuple[str, ...] | None:
        """Returns what becomes of each of `_categories`, "" of those that are left out.

        None where the labels stay as they are: scores and binary tasks.
        """
        spec, said = self.prepared.spec, self.config.class_map
        if self.config.cut is not None:
            if spec.kind != "score":
                raise InputError(
                    f'"config.data.threshold" makes classes of scores, but the labels of '
                    f"{self.config.name} are of kind {spec.kind!r}"
                )
            return self.config.classes
        if not said:
            return spec.classes if spec.kind == "class" else None
        if spec.kind == "class":
            found = emotions.table(said, spec.classes)
            return tuple(found.get(name, "") for name in spec.classes)
        if spec.kind == "score" and said in _SIGNS:
            return tuple(n if n in emotions.SCHEMES[said] else "" for n in emotions.THREE)
        allowed = f"; allowed: {', '.join(_SIGNS)}" if spec.kind == "score" else ""
        raise InputError(
            f'"config.data.class_map" is {said!r}, but the labels of {self.config.name} are of '
            f"kind {spec.kind!r}{allowed}"
        )

    def _categories(self, label: np.ndarray) -> np.ndarray:
        """Returns `[N]`, the place in `_name_classes` of the labels `[N]` of the data.

        Of scores: below the threshold or from there up; without one below, at or above 0.
        """
        if self.prepared.spec.kind == "class":
            return label
        if self.config.cut is not None:
            return (label >= self.config.cut).astype(np.int32)
        return np.sign(label).astype(np.int32) + 1

    def _spec(self, run: LabelSpec | None) -> LabelSpec:
        """Returns what the labels mean: to a trained run, if there is one, else in this data."""
        spec = self.prepared.spec
        if self._names is not None:
            kept = tuple(name for name in self._names if name)
            classes = emotions.classes_of(dict(enumerate(kept))) if self.config.class_map else kept
            spec = LabelSpec("class", classes)
        if run is not None:
            spec = self._of_run(spec, run)
        unknown = [name for name in self.config.without if name not in spec.classes]
        if unknown:
            raise InputError(
                f'"config.data.without" has {unknown[0]!r}; the classes are: '
                f"{', '.join(spec.classes) or 'none, the labels are scores'}"
            )
        return spec

    def _of_run(self, spec: LabelSpec, run: LabelSpec) -> LabelSpec:
        """Returns the labels of a trained run, where those of this data are the same ones.

        By `class_map` they need only be among them.
        """
        have = spec.classes
        if self.config.class_map:
            have = tuple(dict.fromkeys(name for name in self._names if name))
            fits = set(have) <= set(run.classes)
        elif spec.kind == "class":
            fits = set(have) == set(run.classes)
        else:
            fits = have == run.classes
        if fits and spec.kind == run.kind:
            return run
        mine, its = ", ".join(have) or spec.kind, ", ".join(run.classes) or run.kind
        raise InputError(
            f"{self.config.name} has the classes {mine}, but the run was trained on {its}; "
            '"config.data.class_map" says which of the one are which of the other'
        )

    def _modalities(self) -> tuple[str, ...]:
        have = tuple(m for m in MODALITIES if m in self.prepared.inputs)
        return chosen(self.config.modalities, have, "config.data.modalities")


def assign_folds(groups: Sequence[str], count: int, seed: int) -> np.ndarray:
    """Returns `[N]` int, the part of each example, from 0: whole groups, parts of about one size.

    Large groups come before small ones, each to the part that has the fewest examples so far:
    two parts never differ by more than the largest group. Chance orders each `count` groups that
    follow one another in size, and groups of one size.

    Args:
      groups: N names, the group of each example.
      count: of parts, no more than there are groups.
      seed: of the draw.
    """
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    rng = np.random.Generator(np.random.Philox(seed))
    order = rng.permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    part, filled = np.empty(len(sizes), int), np.zeros(count, int)
    for start in range(0, len(order), count):
        for own in rng.permutation(order[start : start + count]):
            part[own] = filled.argmin()
            filled[part[own]] += sizes[own]
    return part[group]


def share(label: np.ndarray, part: float, seed: int) -> np.ndarray:
    """Returns `[N]` bool: so large a part of each class, at least one example of it.

    Args:
      label: `[N]` int; of other labels all examples are one class.
      part: above 0 to 1.
      seed: of the draw.
    """
    label = label if label.dtype.kind == "i" and label.ndim == 1 else np.zeros(len(label), int)
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(label))
    chosen = np.zeros(len(label), bool)
    for value in np.unique(label):
        own = order[label[order] == value]
        chosen[own[: max(1, round(part * len(own)))]] = True
    return chosen
