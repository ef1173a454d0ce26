"""How examples become a prepared folder, all of it or nothing.

    dataset_info.json, features.json, *.array_record-*    as `tfds.builder_from_directory` reads
    affectjax.json                                         the card: what TFDS does not know
    examples.json                                          ids, labels, what is there, texts
    folds.json                                             ids by fold and split, if any
    checksums.json                                         of all these, see `runtime/manifest.py`

Letters: T steps, D features.
"""

import collections
import contextlib
import dataclasses
import functools
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from affectjax.data.prepare.examples import Example, Examples
from affectjax.data.prepare.plan import Plan
from affectjax.data.prepare.records import packed, stored
from affectjax.data.raw.dataset import SEQUENCES
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES
from affectjax.runtime import disk, manifest

CARD, EXAMPLES, FOLDS = "affectjax.json", "examples.json", "folds.json"
UNFINISHED = ".unfinished-"
_MINUTE = 60


def carry_out(plan: Plan, data_dir: Path) -> Path:
    """Returns the prepared folder of a plan under a folder; writes it when it is not there.

    Args:
      plan: what to prepare.
      data_dir: where to put it.

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
    examples = plan.read()
    with _writing_in(data_dir), _workplace(data_dir) as place:
        folder = write(plan, examples, place)
        _put(plan, folder, target, place)
    return target


def write(plan: Plan, examples: Examples, place: Path) -> Path:
    """Returns the finished folder, written in a place of its own.

    Args:
      plan: what to prepare.
      examples: what it read.
      place: an empty folder.

    Raises:
      InputError: a split has no example that can be used; or strict, and any cannot be used or
        something would spoil a training.
    """
    name = plan.options["name"]
    problems = examples.problems()
    for problem in problems:
        if plan.skipped.strict:
            raise InputError(f"{name}: {problem}")
        logging.warning("%s: %s", name, problem)
    counts = {split: _Counts(split, examples) for split in examples.splits}
    records = {stored(s): functools.partial(c.records, examples) for s, c in counts.items()}
    from affectjax.data.prepare import builder  # TFDS is slow to import

    folder = builder.write(
        place / "records",
        kinds=examples.kinds,
        widths=examples.widths,
        dtypes=examples.dtypes,
        label=plan.spec.blank(),
        splits=records,
    )
    for split, count in counts.items():
        if not count.rows["id"]:
            raise InputError(f"{name}: {split}: has no example that can be used")
    folds = _folds(counts)
    _write_json(folder / CARD, _card(plan, examples, counts, folds) | {"problems": problems})
    # One line: with ten thousand clips nobody reads it, and it is read at every start.
    rows = json.dumps({split: count.rows for split, count in counts.items()})
    (folder / EXAMPLES).write_text(rows + "\n", encoding="utf-8")
    if folds:
        _write_json(folder / FOLDS, folds)
    if plan.skipped.reasons:
        logging.warning(
            "%s: %d examples skipped, listed in %s", name, len(plan.skipped.reasons), CARD
        )
    manifest.take(folder)
    return folder


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
            *("name", "view", "aligned", "labels", "inputs", "lengths", "dims", "splits"),
            *("transcripts", "options", "key"),
        )
        missing = [key for key in needed if key not in card]
        dicts = ("labels", "inputs", "lengths", "dims", "splits", "options")
        wrong = [key for key in dicts if not isinstance(card.get(key, {}), dict)]
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{folder / CARD}: is not readable ({error})") from error
    if missing or wrong:
        raise InputError(f"{folder / CARD}: has no {', '.join(missing or wrong)}")
    if not all(isinstance(said, dict) and "kind" in said for said in card["inputs"].values()):
        raise InputError(f"{folder / CARD}: inputs is {card['inputs']!r}")
    return card


class _Counts:
    """Turns the examples of a split into records, and notes what there is of them.

    Attributes:
      rows: of examples.json: `id`, `label`, `present` (modalities) and `transcript`, N each.
      folds: ids by fold and split.
      longest: by modality, the most steps, frames, samples or letters of an example.
    """

    def __init__(self, split: str, examples: Examples):
        self._split, self._kinds = split, examples.kinds
        self.rows: dict[str, list] = {k: [] for k in ("id", "label", "present", "transcript")}
        self.folds: dict[str, dict[str, list[str]]] = {}
        self.longest = dict.fromkeys(self._kinds, 0)

    def records(self, examples: Examples) -> Iterator[dict[str, Any]]:
        """Yields the records of the split as the builder wants them; logs once a minute."""
        said = time.monotonic()
        for example in examples.read(self._split):
            self._note(example)
            record = {
                "id": example.id,
                "label": example.label,
                "transcript": example.transcript,
                "has_transcript": bool(example.transcript),
            }
            for m, kind in self._kinds.items():
                if kind == "frames":
                    record |= packed(m, example.media[m])
                elif kind != "text":
                    record[m] = example.media[m]
            yield record
            if time.monotonic() - said > _MINUTE:
                said, done = time.monotonic(), len(self.rows["id"])
                logging.info("%s: %d examples so far", self._split, done)

    def _note(self, example: Example) -> None:
        lengths = {
            m: len(example.transcript if kind == "text" else example.media[m])
            for m, kind in self._kinds.items()
        }
        self.longest = {m: max(length, lengths[m]) for m, length in self.longest.items()}
        self.rows["id"].append(example.id)
        self.rows["label"].append(np.asarray(example.label).tolist())
        self.rows["present"].append([m for m in MODALITIES if lengths.get(m)])
        self.rows["transcript"].append(example.transcript or None)
        for fold, part in example.folds.items():
            self.folds.setdefault(fold, {}).setdefault(part, []).append(example.id)


def _folds(counts: Mapping[str, _Counts]) -> dict[str, dict[str, list[str]]]:
    """Returns ids by fold and split."""
    folds: dict[str, dict[str, list[str]]] = {}
    for count in counts.values():
        for fold, parts in count.folds.items():
            for part, ids in parts.items():
                folds.setdefault(fold, {}).setdefault(part, []).extend(ids)
    return folds


def _card(
    plan: Plan, examples: Examples, counts: Mapping[str, _Counts], folds: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns what affectjax.json says."""
    said = examples.card()
    longest = {m: max(c.longest[m] for c in counts.values()) for m in examples.kinds}
    if plan.options.get("aligned"):
        longest = dict.fromkeys(longest, max(longest.values()))
    inputs = {
        m: _shape(kind, longest[m], examples.widths.get(m)) | said.get("inputs", {}).get(m, {})
        for m, kind in examples.kinds.items()
        if kind == "features" or longest[m]
    }
    return said | {
        "name": plan.options["name"],
        "view": plan.options.get("view", SEQUENCES),
        "aligned": plan.options.get("aligned", False),
        "labels": dataclasses.asdict(plan.spec),
        "inputs": inputs,
        "lengths": {m: shape["length"] for m, shape in inputs.items() if "length" in shape},
        "dims": dict(examples.widths),
        "transcripts": any(any(c.rows["transcript"]) for c in counts.values()),
        "splits": {split: len(count.rows["id"]) for split, count in counts.items()},
        "folds": list(folds),
        "has": {split: _has(count, inputs) for split, count in counts.items()},
        "skipped": said.get("skipped", [])
        + [
            {"split": split, "id": name, "reason": reason}
            for (split, name), reason in plan.skipped.reasons.items()
        ],
        "files": dict(plan.checksums),
        "options": plan.options,
        "key": plan.key,
    }


def _shape(kind: str, longest: int, width: int | None) -> dict[str, Any]:
    """Returns what a card says of the shape of a modality."""
    shapes = {"features": {"length": longest, "width": width}, "text": {}}
    return {"kind": kind} | shapes.get(kind, {"longest": longest})


def _has(count: _Counts, modalities: Mapping[str, Any]) -> dict[str, int]:
    """Returns by modality how many examples of a split have it."""
    found = collections.Counter(m for present in count.rows["present"] for m in present)
    return {m: found[m] for m in modalities}


def _write_json(path: Path, content: Any) -> None:
    """Writes JSON that people can read."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _is_done(plan: Plan, target: Path) -> bool:
    """Returns whether the plan's result stands there, whole; refuses when another one does."""
    if not target.exists():
        return False
    damage = manifest.damage(target)
    try:
        other = read_card(target)["key"] != plan.key
    except InputError:
        if not damage:
            raise
        other = False
    if other:
        raise InputError(
            f"{target}: holds a preparation of other files or with other options; remove it or"
            " choose another folder"
        )
    if damage:
        logging.warning("%s; the data set is prepared anew", damage)
    return not damage


def _put(plan: Plan, folder: Path, target: Path, place: Path) -> None:
    """Moves a finished folder to its target, in place of a damaged one.

    Another process that prepared the same may have finished first; its result is the same.
    """
    if _is_done(plan, target):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if target.exists():
            target.rename(place / "damaged")
        folder.rename(target)
    except OSError:
        if not _is_done(plan, target):
            raise


@contextlib.contextmanager
def _writing_in(data_dir: Path) -> Iterator[None]:
    """Turns what the operating system refuses into an InputError about the folder.

    A full disk is a `RunStopped`.
    """
    try:
        with disk.full_stops_a_run(data_dir):
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
