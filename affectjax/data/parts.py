"""Which examples of a prepared data set serve as what, and what each of them shows.

Letters: N examples, K binary tasks, M modalities.
"""

import dataclasses

import numpy as np

from affectjax.data import missing, sets
from affectjax.data.config import HOLDOUT, DataConfig
from affectjax.data.labels import LabelSpec
from affectjax.data.prepared import Index, Prepared
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES, chosen

# The split in which the examples of all folds stand together.
_FOLDED = "all"


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


class Parts:
    """The parts of a prepared data set, as the config chooses them.

    Attributes:
      spec: what the labels mean, after `threshold`.
      modalities: those to use, in house order.
    """

    def __init__(self, config: DataConfig, prepared: Prepared):
        self.config, self.prepared = config, prepared
        self.spec, self.modalities = self._spec(), self._modalities()
        if config.missing_pattern:
            missing.check(config.missing_pattern, self.modalities)
        self._indices: dict[str, Index] = {}
        self._kept: dict[str, np.ndarray] = {}
        self._held_out = self._hold_out()

    def find(self, role: str) -> Part:
        """Returns what serves as "train", "valid" or "test".

        Args:
          role: one of the three.

        Raises:
          InputError: the data has no such split, or it is empty.
        """
        name = getattr(self.config, role)
        split = self.config.train if name == HOLDOUT else name
        source, rows = self._split(role, split)
        if self._held_out is not None and split == self.config.train:
            rows = rows[self._held_out == (name == HOLDOUT)]
        if not len(rows):
            raise InputError(f'"config.data.{role}": split {name!r} has no example')
        return Part(source, rows)

    def _split(self, role: str, name: str) -> tuple[str, np.ndarray]:
        """Returns the split on disk in which a split stands, and the rows of it."""
        fold, folds = self.config.fold, self.prepared.folds
        if fold:
            if fold not in folds:
                there = f"folds {', '.join(folds)}" if folds else "no folds"
                raise InputError(f'"config.data.fold" is {fold!r}, but the data has {there}')
            if name in folds[fold]:
                ids, wanted = self.index(_FOLDED).ids, set(folds[fold][name])
                return _FOLDED, np.flatnonzero([i in wanted for i in ids])
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
        """Returns ids and labels of a split on disk, the labels after `threshold`.

        Args:
          source: its name.
        """
        if source not in self._indices:
            index = self.prepared.index(source)
            if self.config.cut is not None:
                label = (index.label >= self.config.cut).astype(np.int32)
                index = dataclasses.replace(index, label=label)
            self._indices[source] = index
        return self._indices[source]

    def kept(self, source: str) -> np.ndarray:
        """Returns `[N, 3]` bool: what each example of a split on disk shows, in house order.

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

    def _hold_out(self) -> np.ndarray | None:
        """Returns `[N]` bool over the training split: whole groups, drawn until enough are out."""
        if self.config.valid != HOLDOUT:
            return None
        module = sets.get(self.config.name)
        source, rows = self._split("train", self.config.train)
        ids = self.index(source).ids
        groups = np.array([sets.group(module, ids[row]) for row in rows])
        names, counts = np.unique(groups, return_counts=True)
        order = np.random.Generator(np.random.Philox(self.config.seed)).permutation(len(names))
        before = np.cumsum(counts[order]) - counts[order]
        out = names[order][before < self.config.holdout * len(groups)]
        return np.isin(groups, out)

    def _spec(self) -> LabelSpec:
        spec = self.prepared.spec
        if self.config.cut is not None:
            if spec.kind != "score":
                raise InputError(
                    f'"config.data.threshold" makes classes of scores, but the labels of '
                    f"{self.config.name} are of kind {spec.kind!r}"
                )
            spec = LabelSpec("class", self.config.classes)
        unknown = [name for name in self.config.without if name not in spec.classes]
        if unknown:
            raise InputError(
                f'"config.data.without" has {unknown[0]!r}; the classes are: '
                f"{', '.join(spec.classes) or 'none, the labels are scores'}"
            )
        return spec

    def _modalities(self) -> tuple[str, ...]:
        have = tuple(m for m in MODALITIES if m in self.prepared.inputs)
        return chosen(self.config.modalities, have, "config.data.modalities")
