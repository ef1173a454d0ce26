"""The examples of a data set on their way to a prepared folder, or past the doctor.

Letters: T steps, frames or images, D features, S samples, K label columns.
"""

import abc
import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

import numpy as np

from affectjax.data.labels import LabelSpec, parse
from affectjax.data.skipped import SkippedRecords


@dataclasses.dataclass(frozen=True)
class Example:
    """One example as it is stored.

    Attributes:
      id: its name, unique in its split.
      label: a scalar or `[K]`, as `Split.label`.
      transcript: the sentence; empty where there is none.
      media: by modality that is no transcript: `[T, D]` features, T encoded images, or `[S]` int16;
        empty where the example does not have it.
      folds: by fold, the split that it belongs to there.
    """

    id: str
    label: np.ndarray
    transcript: str
    media: Mapping[str, Any]
    folds: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Seen:
    """What the doctor looks at in one example, without its media.

    Attributes:
      id: its name.
      label: as `Example.label`.
      has: the modalities that it has.
      words: of its text; 0 without one.
      folds: as `Example.folds`.
    """

    id: str
    label: np.ndarray
    has: Collection[str]
    words: int
    folds: Mapping[str, str] = dataclasses.field(default_factory=dict)


class Examples(abc.ABC):
    """The examples of a preparation, whatever they are made of; each is read when it is asked for.

    Attributes:
      splits: their names.
      kinds: by modality "features", "frames", "waveform" or "text": how it is stored.
      widths: D by modality that is features.
      dtypes: stored precision by modality that is features.
    """

    splits: tuple[str, ...]
    kinds: Mapping[str, str]
    widths: Mapping[str, int] = {}
    dtypes: Mapping[str, Any] = {}

    @abc.abstractmethod
    def read(self, split: str) -> Iterator[Example]:
        """Yields the examples of a split that can be used, and skips the others."""

    def problems(self) -> tuple[str, ...]:
        """Returns what is known to spoil a training before anything is written."""
        return ()

    @abc.abstractmethod
    def card(self) -> dict[str, Any]:
        """Returns what the card says besides, once all examples were read."""


class _Labelled(Protocol):
    id: str
    label: Any


T = TypeVar("T", bound=_Labelled)


def usable(
    examples: Iterable[T], split: str, spec: LabelSpec, skipped: SkippedRecords, where: str
) -> Iterator[tuple[T, np.ndarray]]:
    """Yields the examples with an id of their own and a right label, and that label.

    Args:
      examples: of one split.
      split: its name.
      spec: what the labels should be.
      skipped: takes the others.
      where: the data set, for messages.

    Raises:
      InputError: strict, and one cannot be used.
    """
    seen: set[str] = set()
    for example in examples:
        wrong: list[str] = []
        label = parse([example.label], spec, lambda row, why, to=wrong: to.append(why))
        wrong += spec.faults(label).values()
        if example.id in seen:
            wrong = ["stands twice in the split; the first is kept"]
        seen.add(example.id)
        if wrong:
            skipped.skip(where, split, example.id, wrong[0])
        else:
            yield example, label[0]
