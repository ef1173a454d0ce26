"""Prepared data sets: raw files to TFDS ArrayRecord once, and back for every training.

    DATA/<name>/<aligned, unaligned or clips>/1.0.0/
        dataset_info.json, features.json, *.array_record-*    as `tfds.builder_from_directory` reads
        affectjax.json                                         what TFDS does not know
        examples.json                                          ids, labels, what is there, texts
        folds.json                                             ids by fold and split, if any

`prepare` and `cached` write (through `planning` and `writing`), `open_prepared` reads.

Letters: N examples, T steps, D features, K binary tasks.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from affectjax.data.labels import LabelSpec
from affectjax.data.prepare import (
    clip_doctor,
    clip_planning,
    clip_writing,
    doctor,
    planning,
    writing,
)
from affectjax.data.prepare.clip_planning import ClipPlan, Storage
from affectjax.data.prepare.records import Source
from affectjax.data.raw.dataset import CLIPS, SEQUENCES
from affectjax.data.sequences import Sequences, Split
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES

_CARD = writing.CARD


def prepare(
    name: str,
    raw: str | Path | None,
    data_dir: str | Path,
    *,
    aligned: bool,
    seed: int = 0,
    max_length: Mapping[str, int] | None = None,
    format: str = "auto",
    strict: bool = False,
    view: str | None = SEQUENCES,
    storage: Storage | None = None,
) -> Path:
    """Writes a data set as ArrayRecord under `data_dir/<name>` and returns its folder.

    NaN and infinite values become 0 and are counted. A record that cannot be used is skipped,
    counted and listed. Nothing half written ever stands at the returned place. When the same
    preparation of the same files is there already, it is returned as it is.

    Args:
      name: a data set of `affectjax.data.raw.sets`.
      raw: a raw file; a folder to look in; or a prepared folder, which is returned. None for a
        data set that is made by code.
      data_dir: where prepared data sets live.
      aligned: whether the modalities share their steps.
      seed: of a data set that is made by code.
      max_length: by modality, the greatest number of steps; longer examples are cut and counted.
      format: the reader's name, or `auto`.
      strict: whether a record that cannot be used, or anything else that would spoil a training,
        is an error.
      view: "sequences" or "clips", None for the data set's own choice. `aligned`, `max_length` and
        `format` are of sequences.
      storage: how clips are stored.

    Raises:
      InputError: for anything wrong with the files or the arguments.
    """
    view = planning.check_view(name, view)
    ready = _already_prepared(raw, name, view, aligned, max_length)
    if ready is not None:
        return ready
    plan = _plan(name, raw, view, aligned, seed, max_length, format, strict, storage)
    return _carry_out(plan, Path(data_dir))


def cached(
    name: str,
    raw: str | Path | None,
    cache_dir: str | Path,
    *,
    aligned: bool,
    seed: int = 0,
    max_length: Mapping[str, int] | None = None,
    format: str = "auto",
    strict: bool = False,
    view: str | None = SEQUENCES,
    storage: Storage | None = None,
) -> Path:
    """Returns a prepared folder, written on first use in a cache keyed by content and options.

    Two processes may ask at once: each writes a copy of its own and the first to finish wins.

    Args:
      name: as for `prepare`.
      raw: as for `prepare`.
      cache_dir: where the cache lives.
      aligned: as for `prepare`.
      seed: as for `prepare`.
      max_length: as for `prepare`.
      format: as for `prepare`.
      strict: as for `prepare`.
      view: as for `prepare`.
      storage: as for `prepare`.

    Raises:
      InputError: as `prepare`.
    """
    view = planning.check_view(name, view)
    ready = _already_prepared(raw, name, view, aligned, max_length)
    if ready is not None:
        return ready
    plan = _plan(name, raw, view, aligned, seed, max_length, format, strict, storage)
    return _carry_out(plan, Path(cache_dir) / plan.key[:16])


def diagnose(
    name: str,
    raw: str | Path | None,
    *,
    aligned: bool,
    seed: int = 0,
    max_length: Mapping[str, int] | None = None,
    format: str = "auto",
    view: str | None = SEQUENCES,
    storage: Storage | None = None,
) -> doctor.Diagnosis | clip_doctor.Diagnosis:
    """Returns what the doctor says of raw files; writes nothing.

    Args:
      name: as for `prepare`.
      raw: a raw file, or a folder to look in.
      aligned: as for `prepare`.
      seed: as for `prepare`.
      max_length: as for `prepare`.
      format: as for `prepare`.
      view: as for `prepare`.
      storage: as for `prepare`.

    Raises:
      InputError: when the files cannot be read at all.
    """
    view = planning.check_view(name, view)
    plan = _plan(name, raw, view, aligned, seed, max_length, format, False, storage)
    if isinstance(plan, ClipPlan):
        return clip_doctor.examine(plan)
    features, skipped = plan.read()
    return doctor.examine(features, plan.spec, checksums=plan.checksums, skipped=skipped.reasons)


def open_prepared(path: str | Path) -> "Prepared":
    """Returns a prepared data set, ready to read.

    Args:
      path: the folder that `prepare` returned, or one above it with no other in it.

    Raises:
      InputError: when there is none, several, or one that this program did not write.
    """
    path = Path(path)
    found = [path] if (path / _CARD).is_file() else _below(path)
    if len(found) != 1:
        several = ", ".join(str(f.relative_to(path)) for f in found)
        raise InputError(
            f"{path}: expected one prepared data set (a folder with {_CARD}), found"
            f" {several or 'none'}"
        )
    return Prepared(found[0], writing.read_card(found[0]))


@dataclasses.dataclass(frozen=True)
class Index:
    """What is known of the examples of a split without reading their records.

    Attributes:
      ids: N names.
      label: `[N]` or `[N, K]`, as `Split.label`.
      present: `[N, 3]` bool, which modalities an example has, in house order.
      transcripts: N sentences, None where an example has none.
    """

    ids: tuple[str, ...]
    label: np.ndarray
    present: np.ndarray
    transcripts: tuple[str | None, ...]

    def __len__(self) -> int:
        return len(self.ids)


class Prepared:
    """A prepared data set.

    Attributes:
      path: its folder.
      card: the whole of affectjax.json.
      name: the data set's name.
      view: "sequences" or "clips".
      aligned: whether the modalities share their steps.
      spec: what the labels are.
      inputs: by modality its `kind` ("features", "frames", "waveform" or "text") and its shape:
        `length` and `width` of features, `longest` and `size` of frames, `longest` of a waveform.
      lengths: T by modality that is features, the longest example of any split.
      dims: D by modality that is features.
      splits: examples by split.
      folds: ids by fold and split; they stand in the split "all". Empty without folds.
    """

    def __init__(self, path: Path, card: Mapping[str, Any]):
        self.path, self.card = path, card
        self.name, self.aligned = card["name"], card["aligned"]
        self.spec = LabelSpec(**{**card["labels"], "classes": tuple(card["labels"]["classes"])})
        self.lengths, self.dims, self.splits = card["lengths"], card["dims"], card["splits"]
        self.view = card.get("view", SEQUENCES)  # cards of version 0.1 have neither of the two
        self.inputs = card.get("inputs") or writing.features_of(self.lengths, self.dims)

    @functools.cached_property
    def folds(self) -> dict[str, dict[str, list[str]]]:
        """Reads folds.json."""
        return _read_json(self.path / writing.FOLDS) if self.card.get("folds") else {}

    @functools.cached_property
    def _examples(self) -> dict[str, Any]:
        return _read_json(self.path / writing.EXAMPLES)

    def index(self, split: str) -> Index:
        """Returns ids, labels and the like of a split, without its media.

        Args:
          split: its name.
        """
        source = self.source(split)
        file = self.path / writing.EXAMPLES
        if file.is_file():
            rows = self._examples[split]
        elif self.view == CLIPS:
            raise InputError(f"{file}: is not there; prepare the data set again")
        else:  # version 0.1 wrote no such file
            passing = writing.Rows()
            for example in (source[row] for row in range(len(source))):
                passing.add(example, {m for m in self.dims if len(example[m])})
            rows = passing.columns
        dtype = np.float32 if self.spec.kind == "score" else np.int32
        present = np.array([[m in have for m in MODALITIES] for have in rows["present"]])
        label = np.asarray(rows["label"], dtype)
        return Index(tuple(rows["id"]), label, present, tuple(rows["transcript"]))

    def source(self, split: str) -> Source:
        """Returns the examples of a split by number.

        Args:
          split: its name.
        """
        if split not in self.splits:
            raise InputError(
                f"{self.path}: has no split {split!r}; it has {', '.join(self.splits)}"
            )
        return Source(self.path, split, {m: said["kind"] for m, said in self.inputs.items()})

    def load(self, split: str) -> Split:
        """Returns a whole split of features in memory, float32, padded at the end to `lengths`.

        Args:
          split: its name.
        """
        source = self.source(split)
        ids, labels, transcripts = [], [], []
        shapes = {m: (len(source), self.lengths[m], self.dims[m]) for m in self.dims}
        x = {m: np.zeros(shape, np.float32) for m, shape in shapes.items()}
        counts = {m: np.zeros(len(source), np.int64) for m in shapes}
        for row in range(len(source)):
            example = source[row]
            ids.append(example["id"])
            labels.append(example["label"])
            transcripts.append(example["transcript"])
            for m, array in x.items():
                counts[m][row] = len(example[m])
                array[row, : len(example[m])] = example[m]
        modalities = {
            m: Sequences(x[m], np.arange(self.lengths[m]) < counts[m][:, None]) for m in x
        }
        said = tuple(transcripts) if self.card["transcripts"] else None
        return Split(tuple(ids), np.stack(labels), modalities, said)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: is not readable ({error})") from error


def _plan(
    name: str,
    raw: str | Path | None,
    view: str,
    aligned: bool,
    seed: int,
    max_length: Mapping[str, int] | None,
    format: str,
    strict: bool,
    storage: Storage | None,
) -> planning.Plan:
    if view == SEQUENCES:
        return planning.make(name, raw, aligned, seed, max_length, format, strict)
    if aligned or max_length or format != "auto":
        raise InputError(f"{name}: aligned, max_length and format are of sequences, not of clips")
    return clip_planning.make(name, raw, seed, storage or Storage(), strict)


def _below(path: Path) -> list[Path]:
    """Returns the prepared folders in a folder of prepared data sets."""
    patterns = ("*/", "*/*/", "*/*/*/")
    cards = [card for p in patterns for card in path.glob(p + _CARD)]
    return sorted(
        card.parent
        for card in cards
        if not any(part.startswith(writing.UNFINISHED) for part in card.parts)
    )


def _carry_out(plan: planning.Plan, data_dir: Path) -> Path:
    write = clip_writing.write if isinstance(plan, ClipPlan) else writing.write
    return writing.carry_out(plan, data_dir, write)


def _already_prepared(
    raw: str | Path | None,
    name: str,
    view: str,
    aligned: bool,
    max_length: Mapping[str, int] | None,
) -> Path | None:
    """Returns the prepared folder that `raw` is or, without raw files, holds; or None."""
    if raw is None:
        return None
    raw = Path(raw)
    wanted = planning.folder(view, aligned)
    folder = raw
    if not (raw / _CARD).is_file():
        folder = raw / name / wanted / planning.VERSION
        if not (folder / _CARD).is_file() or planning.has_files(name, raw, view, aligned):
            return None
    card = writing.read_card(folder)
    have = planning.folder(card.get("view", SEQUENCES), card["aligned"])
    if (card["name"], have) != (name, wanted):
        raise InputError(
            f"{folder}: holds the prepared data set {card['name']} ({have}), not {name} ({wanted})"
        )
    if view == CLIPS:
        return folder
    limits = planning.limits(max_length, aligned)
    if limits and limits != card["options"]["max_length"]:
        raise InputError(
            f"{folder}: was prepared with max_length {card['options']['max_length']}, not {limits}"
        )
    return folder
