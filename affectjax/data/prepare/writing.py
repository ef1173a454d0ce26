"""How raw files become a prepared folder, all of it or nothing.

Letters: T steps, D features.
"""

import contextlib
import dataclasses
import functools
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from affectjax.data.prepare import doctor
from affectjax.data.prepare.builders import feature_sequences
from affectjax.data.prepare.planning import Plan
from affectjax.data.prepare.records import stored
from affectjax.data.raw.dataset import SEQUENCES
from affectjax.data.sequences import FeatureSet, Split
from affectjax.data.skipped import SkippedRecords
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES

CARD, EXAMPLES, FOLDS = "affectjax.json", "examples.json", "folds.json"
UNFINISHED = ".unfinished-"
# Returns the finished folder, written in a place of its own: (plan, content, skipped, place).
Write = Callable[[Any, Any, SkippedRecords, Path], Path]


def carry_out(plan: Plan, data_dir: Path, write: Write) -> Path:
    """Returns the prepared folder of a plan under a folder; writes it when it is not there.

    Args:
      plan: what to prepare.
      data_dir: where to put it.
      write: writes what the plan reads.

    Raises:
      InputError: when the files cannot be used, another preparation stands there, or the folder
        cannot be written in.
    """
    target = data_dir / plan.folder
    with _writing_in(data_dir):
        if _is_done(plan, target):
            logging.info("%s is prepared already", target)
            return target
        data_dir.mkdir(parents=True, exist_ok=True)
    content, skipped = plan.read()
    with _writing_in(data_dir), _workplace(data_dir) as place:
        folder = write(plan, content, skipped, place)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            folder.rename(target)
        except OSError:
            # Another process that prepared the same finished first; its result is the same.
            if not _is_done(plan, target):
                raise
    return target


def read_card(folder: Path) -> dict[str, Any]:
    """Returns the content of a prepared folder's affectjax.json.

    Args:
      folder: the prepared folder.

    Raises:
      InputError: when it is damaged.
    """
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        needed = (
            *("name", "aligned", "labels", "lengths", "dims", "splits", "transcripts"),
            *("options", "key"),
        )
        missing = [key for key in needed if key not in card]
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{folder / CARD}: is not readable ({error})") from error
    if missing:
        raise InputError(f"{folder / CARD}: has no {', '.join(missing)}")
    return card


class Rows:
    """Collects what examples.json says of the examples of a split, as they go by.

    Attributes:
      columns: `id`, `label`, `present` (modalities) and `transcript`, a list of N each.
    """

    def __init__(self):
        self.columns: dict[str, list] = {k: [] for k in ("id", "label", "present", "transcript")}

    def add(self, example: Mapping[str, Any], present: Collection[str]) -> None:
        """Adds an example of a builder, and which modalities it has."""
        self.columns["id"].append(example["id"])
        self.columns["label"].append(np.asarray(example["label"]).tolist())
        self.columns["present"].append([m for m in MODALITIES if m in present])
        self.columns["transcript"].append(example["transcript"] or None)


def write_json(path: Path, content: Any) -> None:
    """Writes JSON that people can read."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def features_of(lengths: Mapping[str, int], dims: Mapping[str, int]) -> dict[str, Any]:
    """Returns what a card says of the shape of modalities that are features."""
    return {m: {"kind": "features", "length": lengths[m], "width": dims[m]} for m in dims}


class _Tally:
    """What is counted while the examples go by.

    Attributes:
      cleaned: by modality, the NaN and infinite values that became 0.
      cut: by modality, the examples that were too long.
      lengths: by modality, the longest example.
    """

    def __init__(self, modalities: tuple[str, ...], cut: Mapping[str, int]):
        self.cleaned = {m: {"nan": 0, "inf": 0} for m in modalities}
        self.cut = {m: cut.get(m, 0) for m in modalities}
        self.lengths = dict.fromkeys(modalities, 0)

    def take(self, modality: str, x: np.ndarray, limit: int | None, dtype: np.dtype) -> np.ndarray:
        """Returns one example's `[t, D]`, cut, in its precision and finite.

        Args:
          modality: its name.
          x: the valid steps.
          limit: greatest number of steps, None for any.
          dtype: the precision to store.
        """
        if limit is not None and len(x) > limit:
            x = x[:limit]
            self.cut[modality] += 1
        with np.errstate(over="ignore"):
            x = x.astype(dtype)
        self.lengths[modality] = max(self.lengths[modality], len(x))
        finite = np.isfinite(x)
        if finite.all():
            return x
        nan = int(np.isnan(x).sum())
        self.cleaned[modality]["nan"] += nan
        self.cleaned[modality]["inf"] += int((~finite).sum()) - nan
        return np.where(finite, x, dtype.type(0))


def write(plan: Plan, features: FeatureSet, skipped: SkippedRecords, place: Path) -> Path:
    """Returns the finished folder of feature sequences, written in a place of its own.

    Args:
      plan: what to prepare.
      features: what it read.
      skipped: what cannot be used of it.
      place: an empty folder.
    """
    name = plan.options["name"]
    rows = {split: _usable(part, split, skipped, name) for split, part in features.splits.items()}
    found = doctor.examine(features, plan.spec, skipped=skipped.reasons)
    for problem in found.problems:
        if plan.options["strict"]:
            raise InputError(f"{name}: {problem}")
        logging.warning("%s: %s", name, problem)
    widths, dtypes = _columns(features)
    tally = _Tally(tuple(widths), skipped.cut)
    limits = plan.options["max_length"]
    written = {split: Rows() for split in rows}

    def examples(split: str) -> Iterator[dict[str, Any]]:
        part = features.splits[split]
        for row in rows[split]:
            example = _example(part, row, widths, dtypes, limits, tally)
            written[split].add(example, {m for m in widths if len(example[m])})
            yield example

    folder = feature_sequences.write(
        place / "records",
        widths=widths,
        dtypes=dtypes,
        label=next(iter(features.splits.values())).label[0],
        splits={stored(split): functools.partial(examples, split) for split in features.splits},
    )
    if plan.options["aligned"]:
        tally.lengths = dict.fromkeys(widths, max(tally.lengths.values()))
    card = _card(plan, features, skipped, tally) | {
        "dims": widths,
        "inputs": features_of(tally.lengths, widths),
        "dtypes": {m: dtype.name for m, dtype in dtypes.items()},
        "splits": {split: len(kept) for split, kept in rows.items()},
        "problems": list(found.problems),
    }
    write_json(folder / CARD, card)
    write_json(folder / EXAMPLES, {split: r.columns for split, r in written.items()})
    _report(plan.options["name"], skipped, tally)
    return folder


def _card(
    plan: Plan, features: FeatureSet, skipped: SkippedRecords, tally: _Tally
) -> dict[str, Any]:
    """Returns what affectjax.json says of the plan and of what was met on the way."""
    return {
        "name": plan.options["name"],
        "view": SEQUENCES,
        "aligned": plan.options["aligned"],
        "labels": dataclasses.asdict(plan.spec),
        "lengths": tally.lengths,
        "transcripts": any(part.transcripts is not None for part in features.splits.values()),
        "cleaned": tally.cleaned,
        "cut": tally.cut,
        "skipped": listed(skipped),
        "files": plan.checksums,
        "options": plan.options,
        "key": plan.key,
    }


def listed(skipped: SkippedRecords) -> list[dict[str, str]]:
    """Returns what a card says of the records that were left out."""
    return [
        {"split": split, "id": name, "reason": reason}
        for (split, name), reason in skipped.reasons.items()
    ]


def _report(name: str, skipped: SkippedRecords, tally: _Tally) -> None:
    """Logs what was changed or left out."""
    for modality, count in tally.cleaned.items():
        if any(count.values()):
            logging.info(
                "%s: %s: %d NaN and %d infinite values set to 0", name, modality, *count.values()
            )
    for modality, count in tally.cut.items():
        if count:
            logging.info("%s: %s: %d examples cut to the greatest length", name, modality, count)
    if skipped.reasons:
        logging.warning("%s: %d records skipped, listed in %s", name, len(skipped.reasons), CARD)


def _example(
    part: Split,
    row: int,
    widths: Mapping[str, int],
    dtypes: Mapping[str, np.dtype],
    limits: Mapping[str, int],
    tally: _Tally,
) -> dict[str, Any]:
    """Returns one example as the builder wants it."""
    example = {
        "id": part.ids[row],
        "label": part.label[row],
        "transcript": part.transcripts[row] if part.transcripts is not None else "",
    }
    for m, width in widths.items():
        x = np.zeros((0, width))
        if m in part.modalities:
            x = part.modalities[m].x[row][part.modalities[m].mask[row]]
        example[m] = tally.take(m, x, limits.get(m), dtypes[m])
    return example


def _usable(part: Split, split: str, skipped: SkippedRecords, where: str) -> list[int]:
    """Returns the rows of a split that can be used."""
    seen: set[str] = set()
    rows = []
    for row, name in enumerate(part.ids):
        if name in seen:
            skipped.skip(where, split, name, "stands twice in the split; the first is kept")
        elif (split, name) not in skipped.reasons:
            rows.append(row)
        seen.add(name)
    if not rows:
        raise InputError(f"{where}: {split}: has no example that can be used")
    return rows


def _columns(features: FeatureSet) -> tuple[dict[str, int], dict[str, np.dtype]]:
    """Returns width and stored precision by modality: float16 stays, any other becomes float32."""
    widths, dtypes = {}, {}
    for m in MODALITIES:
        arrays = [s.modalities[m].x for s in features.splits.values() if m in s.modalities]
        if arrays:
            widths[m] = arrays[0].shape[2]
            half = all(x.dtype == np.float16 for x in arrays)
            dtypes[m] = np.dtype(np.float16 if half else np.float32)
    return widths, dtypes


def _is_done(plan: Plan, target: Path) -> bool:
    """Returns whether the plan's result stands there; refuses when another one does."""
    if not target.exists():
        return False
    if read_card(target)["key"] != plan.key:
        raise InputError(
            f"{target}: holds a preparation of other files or with other options; remove it or"
            " choose another folder"
        )
    return True


@contextlib.contextmanager
def _writing_in(data_dir: Path) -> Iterator[None]:
    """Turns what the operating system refuses into an InputError about the folder."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{data_dir}: cannot be written in ({error.strerror or error})") from error


@contextlib.contextmanager
def _workplace(data_dir: Path) -> Iterator[Path]:
    """Yields a temporary folder on the same disk; what killed processes left there goes too."""
    mark = f"{UNFINISHED}{socket.gethostname()}-"
    for left in data_dir.glob(mark + "*"):
        process = left.name.removeprefix(mark).partition("-")[0]
        if process.isdigit() and not _is_running(int(process)):
            shutil.rmtree(left, ignore_errors=True)
    place = Path(tempfile.mkdtemp(prefix=f"{mark}{os.getpid()}-", dir=data_dir))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
