"""Feature sequences as examples: cut to the greatest length, finite, in the stored precision.

Letters: N examples, T steps, D features.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from absl import logging

from affectjax.data.labels import LabelSpec
from affectjax.data.prepare import doctor
from affectjax.data.prepare.examples import Example, Examples, Seen, usable
from affectjax.data.prepare.feature_report import report
from affectjax.data.sequences import FeatureSet, Split
from affectjax.data.skipped import SkippedRecords
from affectjax.modalities import MODALITIES


@dataclasses.dataclass(frozen=True)
class _Row:
    """One row of a split."""

    number: int
    id: str
    label: np.ndarray


class SequenceExamples(Examples):
    """The examples of a feature set in memory."""

    def __init__(
        self,
        name: str,
        features: FeatureSet,
        spec: LabelSpec,
        skipped: SkippedRecords,
        max_length: Mapping[str, int],
    ):
        """Decides the stored precision: float16 stays, any other becomes float32.

        Args:
          name: the data set, for messages.
          features: as a reader returned it.
          spec: what the labels should be.
          skipped: what the reader could not use.
          max_length: by modality, the greatest number of steps.
        """
        self._name, self._features, self._spec = name, features, spec
        self._skipped, self._limits = skipped, max_length
        self._unread = frozenset(skipped.reasons)
        self.splits = tuple(features.splits)
        self.widths, self.dtypes = {}, {}
        for m in MODALITIES:
            parts = features.splits.values()
            arrays = [part.modalities[m].x for part in parts if m in part.modalities]
            if arrays:
                self.widths[m] = arrays[0].shape[2]
                half = all(x.dtype == np.float16 for x in arrays)
                self.dtypes[m] = np.dtype(np.float16 if half else np.float32)
        self.kinds = dict.fromkeys(self.widths, "features")
        self._cleaned = {m: {"nan": 0, "inf": 0} for m in self.widths}
        self._cut = {m: skipped.cut.get(m, 0) for m in self.widths}

    def read(self, split: str) -> Iterator[Example]:
        """Yields the examples of a split that can be used, and skips the others."""
        part = self._features.splits[split]
        rows = map(_Row, range(len(part)), part.ids, part.label)
        read = (row for row in rows if (split, row.id) not in self._unread)
        for row, label in usable(read, split, self._spec, self._skipped, self._name):
            text = part.transcripts[row.number] if part.transcripts is not None else ""
            media = {m: self._stored(m, part, row.number) for m in self.widths}
            yield Example(row.id, label, text, media)

    def problems(self) -> tuple[str, ...]:
        """Returns what the doctor finds that would spoil a training."""
        return examine(self._features, self._spec, skipped=self._skipped.reasons).problems

    def card(self) -> dict[str, Any]:
        """Returns what was changed, and logs it."""
        for m, count in self._cleaned.items():
            if any(count.values()):
                logging.info(
                    "%s: %s: %d NaN and %d infinite values set to 0", self._name, m, *count.values()
                )
        for m, count in self._cut.items():
            if count:
                logging.info("%s: %s: %d examples cut to the greatest length", self._name, m, count)
        dtypes = {m: dtype.name for m, dtype in self.dtypes.items()}
        return {"cleaned": self._cleaned, "cut": self._cut, "dtypes": dtypes}

    def _stored(self, modality: str, part: Split, row: int) -> np.ndarray:
        """Returns the valid steps `[T, D]` of one example, cut, in its precision and finite."""
        dtype, limit = self.dtypes[modality], self._limits.get(modality)
        if modality not in part.modalities:
            return np.zeros((0, self.widths[modality]), dtype)
        sequences = part.modalities[modality]
        x = sequences.x[row][sequences.mask[row]]
        if limit is not None and len(x) > limit:
            x = x[:limit]
            self._cut[modality] += 1
        with np.errstate(over="ignore"):
            x = x.astype(dtype)
        finite = np.isfinite(x)
        if finite.all():
            return x
        nan = int(np.isnan(x).sum())
        self._cleaned[modality]["nan"] += nan
        self._cleaned[modality]["inf"] += int((~finite).sum()) - nan
        return np.where(finite, x, dtype.type(0))


def examine(
    features: FeatureSet,
    spec: LabelSpec,
    *,
    checksums: Mapping[str, str] | None = None,
    skipped: Mapping[tuple[str, str], str] | None = None,
    gaps: int | None = None,
) -> doctor.Diagnosis:
    """Returns what a feature set holds and what is wrong with it; all of its records are looked at.

    Args:
      features: as a reader returned it.
      spec: what the labels should be.
      checksums: sha256 by name of the files that it came from.
      skipped: by (split, id), what the reader already found wrong.
      gaps: how many of these are no problem, None for any number.
    """
    return doctor.examine(
        {name: _seen(part) for name, part in features.splits.items()},
        spec,
        reports={
            name: {m: report(sequences) for m, sequences in part.ordered()}
            for name, part in features.splits.items()
        },
        checksums=checksums,
        skipped=skipped,
        gaps=gaps,
    )


def _seen(part: Split) -> Iterator[Seen]:
    for row, (name, label) in enumerate(zip(part.ids, part.label, strict=True)):
        has = [m for m, sequences in part.ordered() if sequences.mask[row].any()]
        words = len(part.transcripts[row].split()) if part.transcripts is not None else 0
        yield Seen(name, label, has, words)
