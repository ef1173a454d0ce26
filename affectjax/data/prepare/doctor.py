"""Looks at a data set before anybody trains on it, and says what is wrong with it."""

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from affectjax.data.labels import LabelSpec
from affectjax.data.prepare.examples import Seen
from affectjax.data.prepare.feature_report import FeatureReport
from affectjax.data.prepare.media_report import MediaReport
from affectjax.modalities import MODALITIES

_TRAIN = "train"
_FEW = 5
Reasons = Mapping[tuple[str, str], str]


@dataclasses.dataclass(frozen=True)
class Group:
    """The examples of a split, or of a split of a fold.

    Attributes:
      count: how many.
      labels: how many by class, by range of scores, or by yes of a task.
      has: by modality, how many have it.
      words: least, median and greatest number of words of their texts; None without texts.
      features: by modality that is features, what these look like.
      faults: id, and what is wrong with its label.
      same: the label of all examples, where there are several and they have one; else None.
    """

    count: int
    labels: dict[str, int]
    has: dict[str, int]
    words: tuple[int, float, int] | None
    features: Mapping[str, FeatureReport]
    faults: tuple[tuple[str, str], ...]
    same: Any


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What `examine` found.

    Attributes:
      splits: by split.
      folds: by fold, then by split.
      skipped: by (split, id), why an example cannot be used: a missing or unreadable file, a wrong
        label, an id that stands twice, no modality.
      checksums: sha256 by file name.
      problems: what would spoil a training.
      warnings: what a preparation mends or what one should know.
      media: of clips, what a sample of them looks like; None where there are no media.
    """

    splits: dict[str, Group]
    folds: dict[str, dict[str, Group]]
    skipped: dict[tuple[str, str], str]
    checksums: dict[str, str]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    media: MediaReport | None = None


def examine(
    splits: Mapping[str, Iterable[Seen]],
    spec: LabelSpec,
    *,
    reports: Mapping[str, Mapping[str, FeatureReport]] | None = None,
    checksums: Mapping[str, str] | None = None,
    skipped: Reasons | None = None,
    test_only: bool = False,
    gaps: int | None = None,
    media: MediaReport | None = None,
) -> Diagnosis:
    """Returns what a data set holds and what is wrong with it.

    Args:
      splits: the examples of each.
      spec: what the labels should be.
      reports: by split and modality, of features.
      checksums: sha256 by name of the files that it came from.
      skipped: by (split, id), what cannot be used, complete once `splits` were looked at.
      test_only: whether the set has nothing to train on, and need not have.
      gaps: how many examples may be skipped before it is a problem; None for any number.
      media: of clips, what a sample of them looks like.
    """
    reports = reports or {}
    seen = {split: list(examples) for split, examples in splits.items()}
    skipped = dict(skipped or {})
    groups = {split: _group(those, spec, reports.get(split, {})) for split, those in seen.items()}
    folds = _folds(seen, spec)
    trained = {f"fold {fold}: ": parts for fold, parts in folds.items()} or {"": groups}
    facts = ()
    if test_only:
        trained, facts = {}, ("every example is for the test of what another set trained",)
    lost, too_many = _lost(skipped), gaps is not None and len(skipped) > gaps
    return Diagnosis(
        splits=groups,
        folds=folds,
        skipped=skipped,
        checksums=dict(checksums or {}),
        problems=(*(lost if too_many else ()), *_problems(seen, groups, trained, spec, skipped)),
        warnings=(
            *facts,
            *(() if too_many else lost),
            *_warnings(groups, folds),
            *(media.warnings() if media else ()),
            *_unnamed(trained),
        ),
        media=media,
    )


def format(diagnosis: Diagnosis) -> str:
    """Returns a diagnosis as text for a terminal.

    Args:
      diagnosis: from `examine`.
    """
    lines = [f"{name}  sha256 {digest}" for name, digest in diagnosis.checksums.items()]
    for split, group in diagnosis.splits.items():
        lines += _lines(split, group)
    for fold, parts in diagnosis.folds.items():
        for split, group in parts.items():
            lines += _lines(f"fold {fold}, {split}", group)
    if diagnosis.media:
        lines += ["", *diagnosis.media.lines()]
    lists = {"Skipped": [f"{s}: {i}: {why}" for (s, i), why in diagnosis.skipped.items()]}
    lists |= {"Warnings": diagnosis.warnings, "Problems": diagnosis.problems}
    for title, entries in lists.items():
        lines += ["", f"{title}: {len(entries) or 'none'}", *(f"  {entry}" for entry in entries)]
    return "\n".join(lines).lstrip("\n")


def _lines(title: str, group: Group) -> list[str]:
    lines = ["", f"{title}: {group.count} examples"]
    for m in MODALITIES:
        line = f"in {group.has[m]}"
        if m == "text" and group.words:
            low, median, high = group.words
            line += f", words {low} to {high} (median {median:g})"
        if group.features:
            line = str(group.features.get(m, ""))
        lines += [f"  {m:7s} {line}"] if line else []
    shares = ", ".join(f"{name}: {n}" for name, n in group.labels.items())
    return [*lines, f"  label   {shares}"]


def _group(
    examples: Sequence[Seen], spec: LabelSpec, features: Mapping[str, FeatureReport] | None = None
) -> Group:
    has = collections.Counter(m for example in examples for m in example.has)
    words = [example.words for example in examples if example.words]
    labels = np.array([example.label for example in examples])
    faults = spec.faults(labels) if examples else {}
    right = np.delete(labels, list(faults), axis=0)
    return Group(
        count=len(examples),
        labels=_histogram(labels, spec) if examples else {},
        has={m: has[m] for m in MODALITIES},
        words=(min(words), float(np.median(words)), max(words)) if words else None,
        features=features or {},
        faults=tuple((examples[row].id, reason) for row, reason in faults.items()),
        same=right[0].tolist() if len(right) > 1 and (right == right[0]).all() else None,
    )


def _folds(seen: Mapping[str, Sequence[Seen]], spec: LabelSpec) -> dict[str, dict[str, Group]]:
    parts: dict[str, dict[str, list[Seen]]] = {}
    for example in (example for examples in seen.values() for example in examples):
        for fold, split in example.folds.items():
            parts.setdefault(fold, {}).setdefault(split, []).append(example)
    return {
        fold: {split: _group(examples, spec) for split, examples in sorted(splits.items())}
        for fold, splits in sorted(parts.items())
    }


def _histogram(label: np.ndarray, spec: LabelSpec) -> dict[str, int]:
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


def _problems(
    seen: Mapping[str, Sequence[Seen]],
    groups: Mapping[str, Group],
    trained: Mapping[str, Mapping[str, Group]],
    spec: LabelSpec,
    skipped: Reasons,
) -> Iterator[str]:
    """Yields one sentence for each thing that would spoil a training of `trained`, by place."""
    for where, splits in trained.items():
        if _TRAIN not in splits:
            there = ", ".join(splits) or "none"
            yield f"{where}there is no split named {_TRAIN}; there are {there}"
        elif splits[_TRAIN].same is not None:
            value = splits[_TRAIN].same if spec.kind == "score" else "the same"
            yield f"{where}{_TRAIN}: every label is {value}"
    for split, group in groups.items():
        if not group.count:
            unusable = any(name == split for name, _ in skipped)
            why = "has no example that can be used" if unusable else "the split is empty"
            yield f"{split}: {why}"
        for name, fault in group.faults[:1]:
            # The reader saw the label as it was written; here an unreadable one is only a mark.
            reason = skipped.get((split, name), fault)
            yield f"{split}: {len(group.faults)} labels are wrong, first that of {name}: {reason}"
    yield from _repeated(seen)
    for m, report in groups[_TRAIN].features.items() if _TRAIN in groups else ():
        if not report.lengths[2]:
            yield f"{_TRAIN}: {m} has no valid step"
        elif len(report.dead) == report.shape[2]:
            yield f"{_TRAIN}: {m} has no finite value at all"
        elif report.dead:
            yield f"{_TRAIN}: {m} has no finite value in dimensions {_few(report.dead)}"


def _repeated(seen: Mapping[str, Sequence[Seen]]) -> Iterator[str]:
    """Yields a sentence for ids that stand in two splits, and for those twice in one."""
    counted = [collections.Counter(example.id for example in those) for those in seen.values()]
    places = collections.Counter(name for counter in counted for name in counter)
    shared = sorted(name for name, count in places.items() if count > 1)
    twice = sorted({name for counter in counted for name, n in counter.items() if n > 1})
    for names, where in ((shared, "in two splits"), (twice, "twice in a split")):
        if names:
            yield f"{len(names)} ids stand {where}, such as {_few(names)}"


def _unnamed(trained: Mapping[str, Mapping[str, Group]]) -> Iterator[str]:
    """Yields a sentence where a config must name the splits, for they have other names."""
    for where, splits in trained.items():
        lacking = [name for name in ("valid", "test") if name not in splits]
        if _TRAIN in splits and lacking:
            yield (
                f"{where}there is no split named {' or '.join(lacking)}; there are "
                f"{', '.join(splits)}: config.data.valid and config.data.test name those to use, "
                'and valid="holdout" holds a part of train out'
            )
            return  # what is true of one fold is true of all


def _lost(skipped: Reasons) -> tuple[str, ...]:
    """Returns a sentence about what cannot be used, where there is any."""
    if not skipped:
        return ()
    (split, name), reason = next(iter(skipped.items()))
    count = "1 example" if len(skipped) == 1 else f"{len(skipped)} examples"
    return (f"{count} cannot be used and would be skipped, first {name} of {split}: {reason}",)


def _warnings(
    groups: Mapping[str, Group], folds: Mapping[str, Mapping[str, Group]]
) -> Iterator[str]:
    """Yields one sentence for each thing that does not stop a training."""
    for where, parts in {"": groups, **{f"fold {f}, ": s for f, s in folds.items()}}.items():
        for split, group in parts.items():
            if group.features:
                yield from _feature_warnings(split, group.features)
                continue
            for m, count in group.has.items():
                if 0 < count < group.count:
                    yield f"{where}{split}: {group.count - count} examples have no {m}"
            none = [name for name, count in group.labels.items() if not count]
            if none and group.count:
                yield f"{where}{split}: has no example of {', '.join(none)}"


def _feature_warnings(split: str, features: Mapping[str, FeatureReport]) -> Iterator[str]:
    for m, report in features.items():
        if report.nan or report.inf:
            yield (
                f"{split}: {m} has {report.nan} NaN and {report.inf} infinite values; preparing"
                " sets them to 0"
            )
        if split == _TRAIN and report.constant:
            yield f"{split}: {m} is constant in dimensions {_few(report.constant)}"


def _few(values: Sequence) -> str:
    more = f" and {len(values) - _FEW} more" if len(values) > _FEW else ""
    return ", ".join(str(v) for v in values[:_FEW]) + more
