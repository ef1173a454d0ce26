"""Looks at the clips of a data set before anybody prepares them, and says what is wrong.

Files are opened, but not decoded.
"""

import collections
import concurrent.futures
import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from affectjax.data.clip import Clip
from affectjax.data.labels import LabelSpec, parse
from affectjax.data.media import decoding
from affectjax.data.prepare import clip_writing, doctor
from affectjax.data.prepare.clip_planning import ClipPlan
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES

_TRAIN = "train"
_FEW = 5
_MOMENT = 0.05  # seconds of sound that prove that there is some


@dataclasses.dataclass(frozen=True)
class Group:
    """The examples of a split, or of a split of a fold.

    Attributes:
      count: how many.
      labels: how many by class, by range of scores, or by yes of a task.
      has: by modality, how many have it.
      words: least, median and greatest number of words of their texts; None without texts.
    """

    count: int
    labels: dict[str, int]
    has: dict[str, int]
    words: tuple[int, float, int] | None


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What `examine` found.

    Attributes:
      splits: by split, only examples that can be used.
      folds: by fold, then by split.
      skipped: by (split, id), why an example cannot be used: a missing or unreadable file, a wrong
        label, an id that stands twice, no modality.
      problems: what would spoil a training.
      warnings: what one should know.
    """

    splits: dict[str, Group]
    folds: dict[str, dict[str, Group]]
    skipped: dict[tuple[str, str], str]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Seen:
    """A clip that can be used, without its media: id, label, folds, modalities, words."""

    id: str
    label: np.ndarray
    folds: Mapping[str, str]
    has: frozenset[str]
    words: int


def examine(plan: ClipPlan) -> Diagnosis:
    """Returns what the clips of a plan hold and what is wrong with them.

    Args:
      plan: of a preparation that is not strict.
    """
    splits, skipped = plan.read()
    seen = {split: _look(split, clips, plan.spec, skipped) for split, clips in splits.items()}
    for split, _ in skipped.reasons:
        seen.setdefault(split, [])
    groups = {split: _group(examples, plan.spec) for split, examples in seen.items()}
    folds = _folds(seen, plan.spec)
    trained = {f"fold {fold}: ": parts for fold, parts in folds.items()} or {"": groups}
    facts = ()
    if plan.dataset.test_only:
        trained, facts = {}, ("every example is for the test of what another set trained",)
    return Diagnosis(
        splits=groups,
        folds=folds,
        skipped=dict(skipped.reasons),
        problems=tuple(_problems(seen, groups, trained)),
        warnings=(*facts, *_warnings(groups, folds, skipped.reasons)),
    )


def format(diagnosis: Diagnosis) -> str:
    """Returns a diagnosis as text for a terminal.

    Args:
      diagnosis: from `examine`.
    """
    lines = []
    for split, group in diagnosis.splits.items():
        lines += _lines(split, group)
    for fold, parts in diagnosis.folds.items():
        for split, group in parts.items():
            lines += _lines(f"fold {fold}, {split}", group)
    lists = {"Skipped": [f"{s}: {i}: {why}" for (s, i), why in diagnosis.skipped.items()]}
    lists |= {"Warnings": diagnosis.warnings, "Problems": diagnosis.problems}
    for title, entries in lists.items():
        lines += ["", f"{title}: {len(entries) or 'none'}", *(f"  {entry}" for entry in entries)]
    return "\n".join(lines).lstrip("\n")


def _lines(title: str, group: Group) -> list[str]:
    lines = ["", f"{title}: {group.count} examples"]
    for m, count in group.has.items():
        line = f"  {m:7s} in {count}"
        if m == "text" and group.words:
            low, median, high = group.words
            line += f", words {low} to {high} (median {median:g})"
        lines.append(line)
    shares = ", ".join(f"{name}: {n}" for name, n in group.labels.items())
    return [*lines, f"  label   {shares}"]


def _look(split: str, clips: Iterable[Clip], spec: LabelSpec, skipped: Any) -> list[_Seen]:
    """Returns the clips of a split that can be used; the others are skipped."""
    usable, ids = [], set()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for clip, has in pool.map(_probe, clips):
            wrong: list[str] = []
            label = parse([clip.label], spec, lambda row, why, to=wrong: to.append(why))
            wrong += spec.faults(label).values()
            if clip.id in ids:
                wrong.append("stands twice in the split; the first is kept")
            if isinstance(has, str):
                wrong.append(has)
            elif not has:
                wrong.append("has no modality: no frame, no sound and no text")
            ids.add(clip.id)
            if wrong:
                skipped.skip("", split, clip.id, wrong[0])
            else:
                words = len((clip.text or "").split())
                usable.append(_Seen(clip.id, label[0], clip.folds, has, words))
    return usable


def _probe(clip: Clip) -> tuple[Clip, frozenset[str] | str]:
    """Returns a clip without its arrays, and the modalities that it has, or what cannot be read."""
    there = {
        "text": bool((clip.text or "").strip()),
        "audio": clip.waveform is not None,
        "vision": clip.frames is not None,
    }
    bare = dataclasses.replace(clip, frames=None, waveform=None)
    try:
        there["vision"] |= clip.video is not None and _has_frames(clip.video)
        sound = clip_writing.sound_file(clip)
        there["audio"] |= sound is not None and decoding.audio(sound, _MOMENT) is not None
    except (InputError, OSError) as error:
        return bare, str(error)
    return bare, frozenset(m for m, here in there.items() if here)


def _has_frames(path: Path) -> bool:
    """Returns whether there is a picture; of a video only the head is read."""
    if path.is_dir() or path.suffix.lower() in decoding.IMAGES:
        return len(decoding.frames(path, 1)) > 0
    return decoding.has_video(path)


def _group(examples: list[_Seen], spec: LabelSpec) -> Group:
    has = collections.Counter(m for example in examples for m in example.has)
    words = [example.words for example in examples if example.words]
    labels = np.array([example.label for example in examples])
    return Group(
        count=len(examples),
        labels=doctor.histogram(labels, spec) if examples else {},
        has={m: has[m] for m in MODALITIES},
        words=(min(words), float(np.median(words)), max(words)) if words else None,
    )


def _folds(seen: dict[str, list[_Seen]], spec: LabelSpec) -> dict[str, dict[str, Group]]:
    parts: dict[str, dict[str, list[_Seen]]] = {}
    for examples in seen.values():
        for example in examples:
            for fold, split in example.folds.items():
                parts.setdefault(fold, {}).setdefault(split, []).append(example)
    return {
        fold: {split: _group(examples, spec) for split, examples in sorted(splits.items())}
        for fold, splits in sorted(parts.items())
    }


def _problems(
    seen: dict[str, list[_Seen]], groups: dict[str, Group], trained: dict[str, dict[str, Group]]
) -> Iterable[str]:
    """Yields one sentence for each thing that would spoil a training of `trained`, by place."""
    for where, splits in trained.items():
        if _TRAIN not in splits:
            there = ", ".join(splits) or "none"
            yield f"{where}there is no split named {_TRAIN}; there are {there}"
        elif splits[_TRAIN].count > 1 and max(splits[_TRAIN].labels.values(), default=0) == (
            splits[_TRAIN].count
        ):
            yield f"{where}{_TRAIN}: every label is the same"
    for split, group in groups.items():
        if not group.count:
            yield f"{split}: has no example that can be used"
    places = collections.Counter(example.id for examples in seen.values() for example in examples)
    shared = sorted(name for name, count in places.items() if count > 1)
    if shared:
        more = f" and {len(shared) - _FEW} more" if len(shared) > _FEW else ""
        few = ", ".join(shared[:_FEW])
        yield f"{len(shared)} ids stand in two splits, such as {few}{more}"


def _warnings(
    groups: dict[str, Group],
    folds: dict[str, dict[str, Group]],
    skipped: Mapping[tuple[str, str], str],
) -> Iterable[str]:
    """Yields one sentence for each thing that does not stop a training."""
    if skipped:
        (split, name), reason = next(iter(skipped.items()))
        yield (
            f"{len(skipped)} examples cannot be used and would be skipped, first {name} of {split}:"
            f" {reason}"
        )
    for where, parts in {"": groups, **{f"fold {f}, ": s for f, s in folds.items()}}.items():
        for split, group in parts.items():
            for m, count in group.has.items():
                if 0 < count < group.count:
                    yield f"{where}{split}: {group.count - count} examples have no {m}"
            none = [name for name, count in group.labels.items() if not count]
            if none and group.count:
                yield f"{where}{split}: has no example of {', '.join(none)}"
