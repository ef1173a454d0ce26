"""Prepared data sets: raw files to TFDS ArrayRecord once, and back for every training.

    DATA/<name>/<aligned, unaligned or clips>/1.0.0/       see `write` for the files in it

`prepare` and `cached` write (through `plan` and `write`), `open_prepared` reads.

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
from affectjax.data.prepare import doctor, plan, request, write
from affectjax.data.prepare.records import Source
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES
from affectjax.runtime import manifest

_CARD = write.CARD


def prepare(name: str, raw: str | Path | None, data_dir: str | Path, **how: Any) -> Path:
    """Writes a data set as ArrayRecord under `data_dir/<name>` and returns its folder.

    NaN and infinite values become 0 and are counted. A record that cannot be used is skipped,
    counted and listed. Nothing half written ever stands at the returned place. When the same
    preparation of the same files is there already, it is returned as it is; so is `raw` where it is
    a prepared folder.

    Args:
      name: a data set, see `affectjax.data.raw.sets`.
      raw: where its files are; None for a data set that is made by code.
      data_dir: where prepared data sets live.
      **how: see `request.Request`.

    Raises:
      InputError: for anything wrong with the files or the arguments.
    """
    wanted = request.Request(name, raw, **how)
    ready = _already_prepared(wanted)
    return ready or write.carry_out(plan.make(wanted), Path(data_dir))


def cached(name: str, raw: str | Path | None, cache_dir: str | Path, **how: Any) -> Path:
    """Returns a prepared folder, written on first use in a cache keyed by content and options.

    Two processes may ask at once: each writes a copy of its own and the first to finish wins.

    Args:
      name: as for `prepare`.
      raw: as for `prepare`.
      cache_dir: where the cache lives.
      **how: see `request.Request`.

    Raises:
      InputError: as `prepare`.
    """
    wanted = request.Request(name, raw, **how)
    ready = _already_prepared(wanted)
    if ready is not None:
        return ready
    made = plan.make(wanted)
    return write.carry_out(made, Path(cache_dir) / made.key[:16])


def diagnose(name: str, raw: str | Path | None, **how: Any) -> doctor.Diagnosis:
    """Returns what the doctor says of raw files; writes nothing.

    Args:
      name: as for `prepare`.
      raw: a raw file, or a folder to look in.
      **how: see `request.Request`.

    Raises:
      InputError: when the files cannot be read at all.
    """
    return plan.make(request.Request(name, raw, **how)).examine()


def open_prepared(path: str | Path) -> "Prepared":
    """Returns a prepared data set, ready to read.

    Args:
      path: the folder that `prepare` returned, or one above it with no other in it.

    Raises:
      InputError: when there is none, several, or one that is damaged or not of this program.
    """
    path = Path(path)
    found = [path] if (path / _CARD).is_file() else _below(path)
    if len(found) != 1:
        several = ", ".join(str(f.relative_to(path)) for f in found)
        raise InputError(
            f"{path}: expected one prepared data set (a folder with {_CARD}), found"
            f" {several or 'none'}"
        )
    damage = manifest.damage(found[0])
    if damage:
        raise InputError(f"{damage}; remove {found[0]} and prepare the data set again")
    return Prepared(found[0], write.read_card(found[0]))


@dataclasses.dataclass(frozen=True)
class Index:
    """What is known of the examples of a split without reading their records.

    Attributes:
      ids: N names.
      label: `[N]` or `[N, K]`, as `Split.label`.
      present: `[N, 3]` bool, which modalities an example has, in the order of MODALITIES.
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
        try:
            self.spec = LabelSpec(**{**card["labels"], "classes": tuple(card["labels"]["classes"])})
        except (TypeError, KeyError) as error:
            raise InputError(f"{path / _CARD}: labels is {card['labels']!r}") from error
        self.lengths, self.dims, self.splits = card["lengths"], card["dims"], card["splits"]
        self.view, self.inputs = card["view"], card["inputs"]

    @functools.cached_property
    def folds(self) -> dict[str, dict[str, list[str]]]:
        """Reads folds.json."""
        return _read_json(self.path / write.FOLDS) if self.card.get("folds") else {}

    @functools.cached_property
    def _examples(self) -> dict[str, Any]:
        file = self.path / write.EXAMPLES
        if not file.is_file():
            raise InputError(f"{file}: is not there; prepare the data set again")
        return _read_json(file)

    def index(self, split: str) -> Index:
        """Returns ids, labels and the like of a split, without its media.

        Args:
          split: its name.
        """
        self._check(split)
        dtype = np.float32 if self.spec.kind == "score" else np.int32
        try:
            rows = self._examples[split]
            present = np.array([[m in have for m in MODALITIES] for have in rows["present"]])
            label = np.asarray(rows["label"], dtype)
            return Index(tuple(rows["id"]), label, present, tuple(rows["transcript"]))
        except (TypeError, ValueError, KeyError, IndexError, OverflowError) as error:
            raise InputError(
                f"{self.path / write.EXAMPLES}: is damaged ({error}); prepare the data set again"
            ) from error

    def source(self, split: str) -> Source:
        """Returns the examples of a split by number.

        Args:
          split: its name.
        """
        self._check(split)
        return Source(self.path, split, {m: said["kind"] for m, said in self.inputs.items()})

    def _check(self, split: str) -> None:
        if split not in self.splits:
            raise InputError(
                f"{self.path}: has no split {split!r}; it has {', '.join(self.splits)}"
            )


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not readable ({error})") from error


def _below(path: Path) -> list[Path]:
    """Returns the prepared folders in a folder of prepared data sets."""
    patterns = ("*/", "*/*/", "*/*/*/")
    cards = [card for p in patterns for card in path.glob(p + _CARD)]
    return sorted(
        card.parent
        for card in cards
        if not any(part.startswith(write.UNFINISHED) for part in card.parts)
    )


def _already_prepared(wanted: request.Request) -> Path | None:
    """Returns the prepared folder that the raw path is or, without raw files, holds; or None."""
    if wanted.raw is None:
        return None
    folder = Path(wanted.raw)
    if not (folder / _CARD).is_file():
        folder /= wanted.folder
        if not (folder / _CARD).is_file() or request.has_files(wanted):
            return None
    card = write.read_card(folder)
    asked = request.folder(wanted.view, wanted.aligned)
    have = request.folder(card["view"], card["aligned"])
    if (card["name"], have) != (wanted.name, asked):
        raise InputError(
            f"{folder}: holds the prepared data set {card['name']} ({have}), not {wanted.name}"
            f" ({asked})"
        )
    limits = wanted.limits
    if limits and limits != card["options"]["max_length"]:
        raise InputError(
            f"{folder}: was prepared with max_length {card['options']['max_length']}, not {limits}"
        )
    return folder
