"""Prepared data sets: raw features to TFDS ArrayRecord once, and back for every training.

    DATA/<name>/<aligned or unaligned>/1.0.0/
        dataset_info.json, features.json, *.array_record-*    as `tfds.builder_from_directory` reads
        affectjax.json                                         what TFDS does not know

`prepare` and `cached` write (through `planning` and `writing`), `open_prepared` reads.

Letters: N examples, T steps, D features, K binary tasks.
"""

import functools
import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from affectjax.data import doctor, planning, writing
from affectjax.data.features import Sequences, Split
from affectjax.data.labels import LabelSpec
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
) -> Path:
    """Writes a data set as ArrayRecord under `data_dir/<name>` and returns its folder.

    NaN and infinite values become 0 and are counted. A record that cannot be used is skipped,
    counted and listed. Nothing half written ever stands at the returned place. When the same
    preparation of the same files is there already, it is returned as it is.

    Args:
      name: a data set of `affectjax.data.sets`.
      raw: a raw file; a folder to look in; or a prepared folder, which is returned. None for a
        data set that is made by code.
      data_dir: where prepared data sets live.
      aligned: whether the modalities share their steps.
      seed: of a data set that is made by code.
      max_length: by modality, the greatest number of steps; longer examples are cut and counted.
      format: the reader's name, or `auto`.
      strict: whether a record that cannot be used, or anything else that would spoil a training,
        is an error.

    Raises:
      InputError: for anything wrong with the files or the arguments.
    """
    ready = _already_prepared(raw, name, aligned, max_length)
    if ready is not None:
        return ready
    plan = planning.make(name, raw, aligned, seed, max_length, format, strict)
    return writing.carry_out(plan, Path(data_dir))


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

    Raises:
      InputError: as `prepare`.
    """
    ready = _already_prepared(raw, name, aligned, max_length)
    if ready is not None:
        return ready
    plan = planning.make(name, raw, aligned, seed, max_length, format, strict)
    return writing.carry_out(plan, Path(cache_dir) / plan.key[:16])


def diagnose(
    name: str,
    raw: str | Path | None,
    *,
    aligned: bool,
    seed: int = 0,
    max_length: Mapping[str, int] | None = None,
    format: str = "auto",
) -> doctor.Diagnosis:
    """Returns what the doctor says of raw files; writes nothing.

    Args:
      name: as for `prepare`.
      raw: a raw file, or a folder to look in.
      aligned: as for `prepare`.
      seed: as for `prepare`.
      max_length: as for `prepare`.
      format: as for `prepare`.

    Raises:
      InputError: when the files cannot be read at all.
    """
    plan = planning.make(name, raw, aligned, seed, max_length, format, strict=False)
    features, ledger = plan.read()
    return doctor.examine(features, plan.spec, checksums=plan.checksums, skipped=ledger.skipped)


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


class Prepared:
    """A prepared data set.

    Attributes:
      path: its folder.
      card: the whole of affectjax.json.
      name: the data set's name.
      aligned: whether the modalities share their steps.
      spec: what the labels are.
      lengths: T by modality, the longest example of any split.
      dims: D by modality.
      splits: examples by split.
    """

    def __init__(self, path: Path, card: Mapping[str, Any]):
        self.path, self.card = path, card
        self.name, self.aligned = card["name"], card["aligned"]
        self.spec = LabelSpec(**{**card["labels"], "classes": tuple(card["labels"]["classes"])})
        self.lengths, self.dims, self.splits = card["lengths"], card["dims"], card["splits"]

    def source(self, split: str) -> "Source":
        """Returns the examples of a split by number.

        Args:
          split: its name.
        """
        if split not in self.splits:
            raise InputError(
                f"{self.path}: has no split {split!r}; it has {', '.join(self.splits)}"
            )
        return Source(self.path, split)

    def load(self, split: str) -> Split:
        """Returns a whole split in memory, float32, padded at the end to `lengths`.

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


class Source:
    """The examples of one split by number; opens its files on first use and after a pickling.

    `source[i]` is a dictionary of `id` (text), `label` (NumPy scalar or `[K]`), `transcript` (text,
    empty where there is none) and, for each modality of the data set, a read-only `[t, D]` array in
    the stored precision; t is 0 where the example does not have it.
    """

    def __init__(self, path: Path, split: str):
        self._path, self._split = path, split

    def __getstate__(self) -> dict[str, Any]:
        return {"_path": self._path, "_split": self._split}

    @functools.cached_property
    def _records(self) -> Sequence[dict[str, Any]]:
        return tfds.builder_from_directory(self._path).as_data_source(self._split)

    @functools.cached_property
    def _label_dtype(self) -> np.dtype:
        return self._records.dataset_info.features["label"].np_dtype

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns one example.

        Args:
          index: from 0 to the length of the split.
        """
        index = operator.index(index)
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        record = self._records[index]
        example = {
            "id": record["id"].decode(),
            "label": np.asarray(record["label"], self._label_dtype)[()],
            "transcript": record["transcript"].decode(),
        }
        return example | {m: record[m] for m in MODALITIES if m in record}


def _below(path: Path) -> list[Path]:
    """Returns the prepared folders in a folder of prepared data sets."""
    patterns = ("*/", "*/*/", "*/*/*/")
    cards = [card for p in patterns for card in path.glob(p + _CARD)]
    return sorted(
        card.parent
        for card in cards
        if not any(part.startswith(writing.UNFINISHED) for part in card.parts)
    )


def _already_prepared(
    raw: str | Path | None, name: str, aligned: bool, max_length: Mapping[str, int] | None
) -> Path | None:
    """Returns the prepared folder that `raw` is or, without raw files, holds; or None."""
    if raw is None:
        return None
    raw = Path(raw)
    folder = raw
    if not (raw / _CARD).is_file():
        folder = raw / name / planning.view(aligned) / planning.VERSION
        if not (folder / _CARD).is_file() or planning.has_files(name, raw, aligned):
            return None
    card = writing.read_card(folder)
    if (card["name"], card["aligned"]) != (name, aligned):
        raise InputError(
            f"{folder}: holds the prepared data set {card['name']}"
            f" ({planning.view(card['aligned'])}), not {name} ({planning.view(aligned)})"
        )
    limits = planning.limits(max_length, aligned)
    if limits and limits != card["options"]["max_length"]:
        raise InputError(
            f"{folder}: was prepared with max_length {card['options']['max_length']}, not {limits}"
        )
    return folder
