"""Feature sequences in memory: what every reader returns and what `prepare` writes.

Letters: N examples, T steps, D features, K label columns.
"""

import dataclasses

import numpy as np

from affectjax.modalities import MODALITIES


@dataclasses.dataclass(frozen=True)
class Sequences:
    """One modality of one split.

    Attributes:
      x: `[N, T, D]` floating; the reader's own precision; NaN and inf still in place.
      mask: `[N, T]` bool, true at steps that are not padding. A row without one true step is an
        example that does not have this modality.
    """

    x: np.ndarray
    mask: np.ndarray


@dataclasses.dataclass(frozen=True)
class Split:
    """The examples of one split.

    Attributes:
      ids: N names, each once.
      label: `[N]` float32 scores, `[N]` int32 classes, or `[N, K]` int32 binary tasks.
      modalities: by name, only those that the source has.
      transcripts: N sentences, or None where the source has none.
    """

    ids: tuple[str, ...]
    label: np.ndarray
    modalities: dict[str, Sequences]
    transcripts: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def ordered(self) -> list[tuple[str, Sequences]]:
        """Returns the modalities that are here, in the order of MODALITIES."""
        return [(name, self.modalities[name]) for name in MODALITIES if name in self.modalities]


@dataclasses.dataclass(frozen=True)
class FeatureSet:
    """A whole source: its splits by name (`train`, `valid`, `test`, as the source calls them)."""

    splits: dict[str, Split]
