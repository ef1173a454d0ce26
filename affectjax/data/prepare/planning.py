"""Decides a preparation before anything is written: which files, which labels, which options."""

import ast
import dataclasses
import functools
import hashlib
import inspect
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from affectjax.data import synth
from affectjax.data.labels import LabelSpec
from affectjax.data.prepare import doctor
from affectjax.data.raw import readers, sets
from affectjax.data.raw.dataset import CLIPS, SEQUENCES, RawDataset
from affectjax.data.sequences import FeatureSet
from affectjax.data.skipped import SkippedRecords
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES

VERSION = "1.0.0"


@dataclasses.dataclass(frozen=True)
class Plan:
    """A preparation that is decided and not yet done.

    Attributes:
      dataset: what the data set says of itself.
      spec: what its labels are.
      source: the file or folder to read, None for a data set that is made by code.
      checksums: sha256 by name of the files to read.
      options: all that decides the result.
    """

    dataset: RawDataset
    spec: LabelSpec
    source: Path | None
    checksums: dict[str, str]
    options: dict[str, Any]

    @property
    def folder(self) -> Path:
        """Returns where the result stands below the folder of prepared data sets."""
        name = folder(self.options.get("view", SEQUENCES), self.options.get("aligned", False))
        return Path(self.options["name"], name, VERSION)

    @functools.cached_property
    def key(self) -> str:
        """Returns the sum of all that decides the result."""
        return hashlib.sha256(json.dumps(self.options, sort_keys=True).encode()).hexdigest()

    def read(self) -> tuple[FeatureSet, SkippedRecords]:
        """Returns the feature set and the records in it that cannot be used."""
        skipped = SkippedRecords(strict=self.options["strict"])
        if self.source is None:
            features = self.dataset.generate(SEQUENCES, self.options["seed"])
            readers.validate(features, self.options["name"])
            if self.options["aligned"]:
                features = readers.share_steps(features, self.options["name"])
            for name, split in features.splits.items():
                self.spec.check(split.label, split.ids, f"{self.options['name']}: {name}")
        else:
            features = readers.read(
                self.source,
                self.spec,
                self.options["aligned"],
                self.options["format"],
                max_length=self.options["max_length"],
                skipped=skipped,
            )
        return features, skipped


def check_view(name: str, wanted: str | None) -> str:
    """Returns the view to prepare: the one that is wanted, or the data set's own choice.

    Args:
      name: the data set.
      wanted: a view, or None.

    Raises:
      InputError: when the data set does not have it.
    """
    have = sets.get(name).views
    if wanted is None:
        return have[0]
    if wanted not in have:
        raise InputError(f"data set {name} has no view {wanted!r}; it has {', '.join(have)}")
    return wanted


def make(
    name: str,
    raw: str | Path | None,
    aligned: bool,
    seed: int,
    max_length: Mapping[str, int] | None,
    format: str,
    strict: bool,
) -> Plan:
    """Returns the plan of a preparation: finds the files and sums them up.

    Args:
      name: the data set.
      raw: a raw file, a folder to look in, or None.
      aligned: whether the modalities share their steps.
      seed: of a data set that is made by code.
      max_length: by modality, the greatest number of steps.
      format: the reader's name, or `auto`.
      strict: whether a record that cannot be used is an error.

    Raises:
      InputError: when the data set or its files are not found.
    """
    dataset = sets.get(name)
    if dataset.generate is not None:
        source, spec = None, dataset.label_spec(SEQUENCES)
        sums, whole = {}, code_hash(dataset)
    else:
        source, seed = locate(name, raw, aligned, format), None
        spec = dataset.label_spec(SEQUENCES, source)
        sums = {file.name: doctor.checksum(file) for file in _content(source)}
        whole = total([f"{file} {digest}" for file, digest in sums.items()])
    options = {
        "name": name,
        "aligned": aligned,
        "seed": seed,
        "max_length": limits(max_length, aligned),
        "format": format,
        "strict": strict,
        "version": VERSION,
        "checksum": whole,
    }
    return Plan(dataset, spec, source, sums, options)


def locate(name: str, raw: str | Path | None, aligned: bool, format: str) -> Path:
    """Returns the file or folder of a data set that a raw folder holds.

    Args:
      name: the data set.
      raw: a file, which is returned, or a folder to look in.
      aligned: which of the set's files to look for.
      format: a reader's name; then the folder itself is not asked what it is.

    Raises:
      InputError: lists what was looked for.
    """
    patterns = sets.get(name).sequence_files[aligned]
    if raw is None:
        raise InputError(f"data set {name} is read from raw files; say where they are")
    raw = Path(raw)
    if raw.is_file():
        return raw
    if not raw.is_dir():
        raise InputError(f"{raw}: no such file or folder")
    for pattern in patterns:
        if pattern == ".":
            if readers.is_folder_of(raw, format):
                return raw
            continue
        found = sorted(raw.glob(pattern))
        if len(found) > 1:
            raise InputError(f"{raw}: {len(found)} files are named {pattern}; name one of them")
        if found:
            return found[0]
    files = ", ".join(p for p in patterns if p != ".")
    raise InputError(
        f"{raw}: nothing of {name} ({folder(SEQUENCES, aligned)}) here; looked for {files}, *.csd"
        " with folds.json, and labels.csv with *.npz"
    )


def has_files(name: str, raw: Path, view: str, aligned: bool) -> bool:
    """Returns whether a folder holds raw files of a data set.

    Args:
      name: the data set.
      raw: the folder.
      view: "sequences" or "clips".
      aligned: which of its files to look for, of sequences.
    """
    dataset = sets.get(name)
    if dataset.generate is not None:
        return False
    try:
        if view == CLIPS:
            dataset.clips(raw, SkippedRecords(strict=False))
        else:
            locate(name, raw, aligned, "auto")
    except (InputError, OSError):
        return False
    return True


def folder(view: str, aligned: bool) -> str:
    """Returns the name of the folder of a view.

    Args:
      view: "sequences" or "clips".
      aligned: of sequences, whether the modalities share their steps.
    """
    if view == CLIPS:
        return CLIPS
    return "aligned" if aligned else "unaligned"


def limits(max_length: Mapping[str, int] | None, aligned: bool) -> dict[str, int]:
    """Returns the greatest lengths, checked; aligned modalities have one, the least.

    Args:
      max_length: by modality, None for no limit.
      aligned: whether the modalities share their steps.

    Raises:
      InputError: when one is no modality or no length.
    """
    found = dict(max_length or {})
    for modality, length in found.items():
        if modality not in MODALITIES or not isinstance(length, int) or length < 1:
            raise InputError(
                f"max_length: {modality}={length} is not a modality ({', '.join(MODALITIES)}) with"
                " a whole number from 1 up"
            )
    return dict.fromkeys(MODALITIES, min(found.values())) if aligned and found else found


def _content(source: Path) -> list[Path]:
    """Returns the files whose content decides what is read from a file or folder."""
    if source.is_file():
        return [source]
    kinds = (".csd", ".npz", ".json", ".csv")
    return sorted(file for file in source.iterdir() if file.suffix in kinds)


def code_hash(dataset: RawDataset) -> str:
    """Returns a hash of the code that makes data: that of the data set and of `data.synth`.

    Comments, docstrings and layout do not count.

    Args:
      dataset: one that is made by code.
    """
    own = inspect.getsourcefile(dataset.generate)
    files = [*sorted(Path(synth.__file__).parent.glob("*.py")), Path(own)]
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in files]
    for node in (node for tree in trees for node in ast.walk(tree)):
        holds_docstring = isinstance(
            node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        )
        if holds_docstring and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return total(ast.dump(tree) for tree in trees)


def total(parts: Iterable[str]) -> str:
    """Returns the sum of some texts, in their order."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
