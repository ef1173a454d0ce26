"""Looks at a feature set before anybody trains on it, and says what is wrong with it.

Letters: N examples, T steps, D features.
"""

import collections
import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from affectjax.data.labels import LabelSpec
from affectjax.data.sequences import FeatureSet, Sequences, Split

_CHUNK = 256
_WORST = 5
_TRAIN = "train"


@dataclasses.dataclass(frozen=True)
class ModalityReport:
    """One modality of one split.

    Attributes:
      shape: `[N, T, D]` as it lies in the file.
      dtype: its precision there.
      lengths: least, median and greatest number of valid steps, of the examples that have it.
      absent: how many examples do not have it.
      nan: NaN values in valid steps.
      inf: infinite values in valid steps.
      worst: the dimensions with most non-finite values, and how many.
      dead: dimensions without one finite value.
      constant: dimensions with one finite value throughout.
    """

    shape: tuple[int, int, int]
    dtype: str
    lengths: tuple[int, float, int]
    absent: int
    nan: int
    inf: int
    worst: tuple[tuple[int, int], ...]
    dead: tuple[int, ...]
    constant: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What `examine` found.

    Attributes:
      counts: examples by split.
      modalities: by split, then by modality.
      labels: by split, how many examples by class, by range of scores, or by yes of a task.
      twice: ids that stand twice in one split.
      shared: ids that stand in two splits.
      checksums: sha256 by file name.
      problems: what would spoil a training.
      warnings: what a preparation mends or what one should know.
    """

    counts: dict[str, int]
    modalities: dict[str, dict[str, ModalityReport]]
    labels: dict[str, dict[str, int]]
    twice: tuple[str, ...]
    shared: tuple[str, ...]
    checksums: dict[str, str]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


def examine(
    features: FeatureSet,
    spec: LabelSpec,
    *,
    checksums: Mapping[str, str] | None = None,
    skipped: Mapping[tuple[str, str], str] | None = None,
) -> Diagnosis:
    """Returns what a feature set holds and what is wrong with it.

    Args:
      features: as a reader returned it.
      spec: what the labels should be.
      checksums: sha256 by name of the files that it came from.
      skipped: by (split, id), what the reader already found wrong (`SkippedRecords.reasons`).
    """
    modalities = {
        name: {modality: _look(sequences) for modality, sequences in split.ordered()}
        for name, split in features.splits.items()
    }
    twice, shared = _repeated(features)
    skipped = skipped or {}
    return Diagnosis(
        counts={name: len(split) for name, split in features.splits.items()},
        modalities=modalities,
        labels={n: histogram(split.label, spec) for n, split in features.splits.items()},
        twice=twice,
        shared=shared,
        checksums=dict(checksums or {}),
        problems=tuple(_problems(features, spec, modalities, twice, shared, skipped)),
        warnings=tuple(_warnings(modalities, skipped)),
    )


def checksum(path: Path) -> str:
    """Returns the sha256 of a file.

    Args:
      path: the file.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def format(diagnosis: Diagnosis) -> str:
    """Returns a diagnosis as text for a terminal.

    Args:
      diagnosis: from `examine`.
    """
    lines = [f"{name}  sha256 {digest}" for name, digest in diagnosis.checksums.items()]
    for split, count in diagnosis.counts.items():
        lines += ["", f"{split}: {count} examples"]
        for modality, report in diagnosis.modalities[split].items():
            lines.append("  " + _line(modality, report))
        shares = ", ".join(f"{key}: {n}" for key, n in diagnosis.labels[split].items())
        lines.append(f"  label   {shares}")
    for title, entries in (("Warnings", diagnosis.warnings), ("Problems", diagnosis.problems)):
        lines += ["", f"{title}: {len(entries) or 'none'}", *(f"  {entry}" for entry in entries)]
    return "\n".join(lines)


def _line(modality: str, report: ModalityReport) -> str:
    low, median, high = report.lengths
    line = (
        f"{modality:7s} {list(report.shape)} {report.dtype}, steps {low} to {high}"
        f" (median {median:g}), absent in {report.absent}, NaN {report.nan}, inf {report.inf}"
    )
    if report.worst:
        line += ", worst dimensions " + ", ".join(f"{d} ({n})" for d, n in report.worst)
    return line


def _look(sequences: Sequences) -> ModalityReport:
    """Returns the report of one modality, a few hundred examples at a time to spare memory."""
    x, mask = sequences.x, sequences.mask
    width = x.shape[2]
    nan, inf = np.zeros(width, np.int64), np.zeros(width, np.int64)
    low, high = np.full(width, np.inf), np.full(width, -np.inf)
    for start in range(0, len(x), _CHUNK):
        steps = x[start : start + _CHUNK][mask[start : start + _CHUNK]]
        finite = np.isfinite(steps)
        nan += np.isnan(steps).sum(axis=0)
        inf += np.isinf(steps).sum(axis=0)
        low = np.minimum(low, np.where(finite, steps, np.inf).min(axis=0, initial=np.inf))
        high = np.maximum(high, np.where(finite, steps, -np.inf).max(axis=0, initial=-np.inf))
    lengths = mask.sum(axis=1)
    here = lengths[lengths > 0]
    spread = (int(here.min()), float(np.median(here)), int(here.max())) if len(here) else (0, 0, 0)
    bad = nan + inf
    order = [int(d) for d in np.argsort(-bad, kind="stable")[:_WORST] if bad[d]]
    return ModalityReport(
        shape=x.shape,
        dtype=str(x.dtype),
        lengths=spread,
        absent=int((lengths == 0).sum()),
        nan=int(nan.sum()),
        inf=int(inf.sum()),
        worst=tuple((d, int(bad[d])) for d in order),
        dead=tuple(np.flatnonzero(low > high).tolist()) if len(here) else (),
        constant=tuple(np.flatnonzero(low == high).tolist()),
    )


def histogram(label: np.ndarray, spec: LabelSpec) -> dict[str, int]:
    """Returns how often each class, task or range of scores occurs."""
    if spec.kind == "binary":
        return {n: int((label[:, k] == 1).sum()) for k, n in enumerate(spec.classes)}
    if spec.kind == "class":
        return {n: int((label == k).sum()) for k, n in enumerate(spec.classes)}
    scores = label[np.isfinite(label)]
    if not len(scores):
        return {}
    low = float(scores.min()) if spec.low is None else spec.low
    high = float(scores.max()) if spec.high is None else spec.high
    counts, edges = np.histogram(scores, bins=7, range=(low, high))
    return {
        f"{a:.3g}..{b:.3g}": int(n) for a, b, n in zip(edges[:-1], edges[1:], counts, strict=True)
    }


def _repeated(features: FeatureSet) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the ids that stand twice in a split, and those in two splits."""
    counted = [collections.Counter(split.ids) for split in features.splits.values()]
    twice = {name for counter in counted for name, n in counter.items() if n > 1}
    places = collections.Counter(name for counter in counted for name in counter)
    return tuple(sorted(twice)), tuple(sorted(name for name, n in places.items() if n > 1))


def _problems(
    features: FeatureSet,
    spec: LabelSpec,
    modalities: Mapping[str, Mapping[str, ModalityReport]],
    twice: Sequence[str],
    shared: Sequence[str],
    skipped: Mapping[tuple[str, str], str],
) -> Iterable[str]:
    """Yields one sentence for each thing that would spoil a training."""
    if _TRAIN not in features.splits:
        yield f"there is no split named {_TRAIN}; there are {', '.join(features.splits)}"
    for name, split in features.splits.items():
        if not len(split):
            yield f"{name}: the split is empty"
        yield from _label_problems(name, split, spec, skipped)
    if shared:
        yield f"{len(shared)} ids stand in two splits, such as {_few(shared)}"
    if twice:
        yield f"{len(twice)} ids stand twice in a split, such as {_few(twice)}"
    for modality, report in modalities.get(_TRAIN, {}).items():
        if not report.lengths[2]:
            yield f"{_TRAIN}: {modality} has no valid step"
        elif len(report.dead) == report.shape[2]:
            yield f"{_TRAIN}: {modality} has no finite value at all"
        elif report.dead:
            yield f"{_TRAIN}: {modality} has no finite value in dimensions {_few(report.dead)}"


def _label_problems(
    name: str, split: Split, spec: LabelSpec, skipped: Mapping[tuple[str, str], str]
) -> Iterable[str]:
    faults = spec.faults(split.label)
    if faults:
        row = next(iter(faults))
        # The reader saw the label as it was written; here an unreadable one is only a mark.
        reason = skipped.get((name, split.ids[row]), faults[row])
        yield f"{name}: {len(faults)} labels are wrong, first that of {split.ids[row]}: {reason}"
    right = np.delete(split.label, list(faults), axis=0)
    if name == _TRAIN and len(right) > 1 and (right == right[0]).all():
        yield f"{name}: every label is {right[0].tolist()}"


def _warnings(
    modalities: Mapping[str, Mapping[str, ModalityReport]],
    skipped: Mapping[tuple[str, str], str],
) -> Iterable[str]:
    """Yields one sentence for each thing that does not stop a training."""
    for split, reports in modalities.items():
        for modality, report in reports.items():
            if report.nan or report.inf:
                yield (
                    f"{split}: {modality} has {report.nan} NaN and {report.inf} infinite values;"
                    " preparing sets them to 0"
                )
    for modality, report in modalities.get(_TRAIN, {}).items():
        if report.constant:
            yield f"{_TRAIN}: {modality} is constant in dimensions {_few(report.constant)}"
    if skipped:
        (split, name), reason = next(iter(skipped.items()))
        yield (
            f"{len(skipped)} records cannot be used and would be skipped, first {name} of {split}:"
            f" {reason}"
        )


def _few(values: Sequence) -> str:
    more = f" and {len(values) - _WORST} more" if len(values) > _WORST else ""
    return ", ".join(str(v) for v in values[:_WORST]) + more
