"""Decides a preparation before anything is written: which files, which labels, which options."""

import ast
import dataclasses
import functools
import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from affectjax.data import synth
from affectjax.data.clip import Clip
from affectjax.data.labels import LabelSpec
from affectjax.data.prepare import doctor, sequence_examples
from affectjax.data.prepare.clip_examples import ClipExamples
from affectjax.data.prepare.clip_storage import Storage
from affectjax.data.prepare.examples import Examples
from affectjax.data.prepare.sequence_examples import SequenceExamples
from affectjax.data.raw import readers, sets
from affectjax.data.raw.dataset import CLIPS, SEQUENCES, RawDataset
from affectjax.data.sequences import FeatureSet
from affectjax.data.skipped import SkippedRecords
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES

VERSION = "1.0.0"


@dataclasses.dataclass(frozen=True)
class Request:
    """What somebody wants prepared.

    Attributes:
      name: a data set, see `affectjax.data.raw.sets`.
      raw: a raw file; a folder to look in; or a prepared folder. None for a set made by code.
      aligned: of sequences, whether the modalities share their steps.
      seed: of a data set that is made by code.
      max_length: of sequences, by modality, the greatest number of steps; longer examples are cut
        and counted.
      format: of sequences, the reader's name, or "auto".
      strict: whether a record that cannot be used, or anything else that would spoil a training,
        is an error.
      view: "sequences" or "clips"; None becomes the data set's own choice.
      storage: how clips are stored.
    """

    name: str
    raw: str | Path | None
    aligned: bool = False
    seed: int = 0
    max_length: Mapping[str, int] | None = None
    format: str = "auto"
    strict: bool = False
    view: str | None = SEQUENCES
    storage: Storage | None = None

    def __post_init__(self):
        have = sets.get(self.name).views
        if self.view is None:
            object.__setattr__(self, "view", have[0])
        if self.view not in have:
            raise InputError(
                f"data set {self.name} has no view {self.view!r}; it has {', '.join(have)}"
            )
        if self.view == CLIPS and (self.aligned or self.max_length or self.format != "auto"):
            raise InputError(
                f"{self.name}: aligned, max_length and format are of sequences, not of clips"
            )

    @functools.cached_property
    def dataset(self) -> RawDataset:
        """Returns what the data set says of itself."""
        return sets.get(self.name)

    @property
    def path(self) -> Path:
        """Returns the raw file or folder; raises InputError where there is none."""
        if self.raw is None:
            raise InputError(f"data set {self.name} is read from raw files; say where they are")
        if not Path(self.raw).exists():
            raise InputError(f"{self.raw}: no such file or folder")
        return Path(self.raw)

    @property
    def folder(self) -> Path:
        """Returns where the result stands below the folder of prepared data sets."""
        return Path(self.name, folder(self.view, self.aligned), VERSION)

    @property
    def limits(self) -> dict[str, int]:
        """Returns the greatest lengths, checked; aligned modalities have one, the least."""
        found = dict(self.max_length or {})
        for modality, length in found.items():
            if modality not in MODALITIES or not isinstance(length, int) or length < 1:
                raise InputError(
                    f"max_length: {modality}={length} is not a modality ({', '.join(MODALITIES)})"
                    " with a whole number from 1 up"
                )
        shared = self.aligned and found
        return dict.fromkeys(MODALITIES, min(found.values())) if shared else found


@dataclasses.dataclass(frozen=True)
class Plan:
    """A preparation that is decided and not yet done.

    Attributes:
      folder: where the result stands below the folder of prepared data sets.
      spec: what its labels are.
      options: all that decides the result.
      read: returns the examples; what cannot be used goes to `skipped`.
      examine: returns what the doctor says of them; None where there is nothing to say.
      skipped: what cannot be used, more and more of it as the examples go by.
      checksums: sha256 by name of the files to read.
    """

    folder: Path
    spec: LabelSpec
    options: dict[str, Any]
    read: Callable[[], Examples]
    skipped: SkippedRecords
    examine: Callable[[], doctor.Diagnosis] | None = None
    checksums: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def key(self) -> str:
        """Returns the hash of all that decides the result."""
        return hashlib.sha256(json.dumps(self.options, sort_keys=True).encode()).hexdigest()


def make(wanted: Request) -> Plan:
    """Returns the plan of a preparation: finds the files, and hashes or lists them.

    Args:
      wanted: what is to be prepared.

    Raises:
      InputError: when the files are not found, or cannot be listed.
    """
    return {SEQUENCES: _of_sequences, CLIPS: _of_clips}[wanted.view](wanted)


def _of_sequences(wanted: Request) -> Plan:
    dataset, generated = wanted.dataset, wanted.dataset.generate is not None
    source = None if generated else locate(wanted)
    spec = dataset.label_spec(SEQUENCES, source)
    checksums = {} if generated else {f.name: checksum(f) for f in _content(source)}
    files = (f"{file} {digest}" for file, digest in checksums.items())
    skipped = SkippedRecords(wanted.strict)
    options = {
        "name": wanted.name,
        "aligned": wanted.aligned,
        "seed": wanted.seed if generated else None,
        "max_length": wanted.limits,
        "format": wanted.format,
        "strict": wanted.strict,
        "version": VERSION,
        "checksum": code_hash(dataset) if generated else hash_of(files),
    }

    def features() -> FeatureSet:
        if generated:
            return _generated(wanted, spec)
        return readers.read(
            source,
            spec,
            wanted.aligned,
            wanted.format,
            max_length=wanted.limits,
            skipped=skipped,
        )

    def read() -> Examples:
        return SequenceExamples(wanted.name, features(), spec, skipped, wanted.limits)

    def examine() -> doctor.Diagnosis:
        return sequence_examples.examine(
            features(), spec, checksums=checksums, skipped=skipped.reasons
        )

    return Plan(wanted.folder, spec, options, read, skipped, examine, checksums)


def _generated(wanted: Request, spec: LabelSpec) -> FeatureSet:
    features = wanted.dataset.generate(SEQUENCES, wanted.seed)
    readers.validate(features, wanted.name)
    if wanted.aligned:
        features = readers.share_steps(features, wanted.name)
    for name, split in features.splits.items():
        spec.check(split.label, split.ids, f"{wanted.name}: {name}")
    return features


def _of_clips(wanted: Request) -> Plan:
    dataset, generated = wanted.dataset, wanted.dataset.generate is not None
    skipped = SkippedRecords(wanted.strict)
    source = None if generated else wanted.path
    spec = dataset.label_spec(CLIPS, source)
    storage = (wanted.storage or Storage()).resolved(generated)
    if generated:
        storage = Storage(image_encoding=storage.image_encoding, detector="none")
        listed, whole = (), code_hash(dataset)
        how = {"image_encoding": storage.image_encoding}
    else:
        listed = _listed(wanted, source, skipped)
        # The content of a detector's file is in the hash; where it lies is nobody's concern.
        detector = Path(storage.detector)
        own = [checksum(detector)] if detector.is_file() else []
        whole = hash_of([*own, *map(_stamp, listed)])
        how = dataclasses.asdict(storage) | {"detector": detector.name}
    options = {
        "name": wanted.name,
        "view": CLIPS,
        "seed": wanted.seed if generated else None,
        "strict": wanted.strict,
        "version": VERSION,
        "checksum": whole,
        **how,
    }

    def read() -> ClipExamples:
        splits = {split: [c for c in listed if c.split == split] for split in _splits(listed)}
        if generated:
            splits = dataset.generate(CLIPS, wanted.seed)
        return ClipExamples(wanted.name, splits, spec, skipped, storage, generated)

    def examine() -> doctor.Diagnosis:
        examples = read()
        splits = {split: list(examples.look(split)) for split in examples.splits}
        # A split of which nothing could even be listed is there as well.
        splits |= {split: [] for split, _ in skipped.reasons if split not in splits}
        return doctor.examine(splits, spec, skipped=skipped.reasons, test_only=dataset.test_only)

    return Plan(wanted.folder, spec, options, read, skipped, examine)


def _splits(listed: Iterable[Clip]) -> list[str]:
    return list(dict.fromkeys(clip.split for clip in listed))


def _listed(wanted: Request, source: Path, skipped: SkippedRecords) -> tuple[Clip, ...]:
    """Returns the clips that a raw folder holds."""
    outside = wanted.storage is not None and wanted.storage.allow_outside
    if outside and not wanted.dataset.takes_outside:
        raise InputError(f"data set {wanted.name} has no option allow_outside")
    options = {"allow_outside": outside} if wanted.dataset.takes_outside else {}
    return tuple(wanted.dataset.clips(source, skipped, **options))


def locate(wanted: Request) -> Path:
    """Returns the file or folder of feature sequences that the raw path is, or that it holds.

    Raises:
      InputError: lists what was looked for.
    """
    raw, patterns = wanted.path, wanted.dataset.sequence_files[wanted.aligned]
    if raw.is_file():
        return raw
    for pattern in patterns:
        if pattern == ".":
            if readers.is_folder_of(raw, wanted.format):
                return raw
            continue
        found = sorted(raw.glob(pattern))
        if len(found) > 1:
            raise InputError(f"{raw}: {len(found)} files are named {pattern}; name one of them")
        if found:
            return found[0]
    files = ", ".join(p for p in patterns if p != ".")
    raise InputError(
        f"{raw}: nothing of {wanted.name} ({folder(SEQUENCES, wanted.aligned)}) here; looked for"
        f" {files}, *.csd with folds.json, and labels.csv with *.npz"
    )


def has_files(wanted: Request) -> bool:
    """Returns whether the raw path is or holds raw files of the data set."""
    if wanted.dataset.generate is not None:
        return False
    try:
        if wanted.view == CLIPS:
            wanted.dataset.clips(wanted.path, SkippedRecords(strict=False))
        else:
            locate(dataclasses.replace(wanted, format="auto"))
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
    return hash_of(ast.dump(tree) for tree in trees)


def hash_of(parts: Iterable[str]) -> str:
    """Returns the sha256 of some texts, in their order."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def checksum(path: Path) -> str:
    """Returns the sha256 of a file.

    Args:
      path: the file.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _content(source: Path) -> list[Path]:
    """Returns the files whose content decides what is read from a file or folder."""
    if source.is_file():
        return [source]
    kinds = (".csd", ".npz", ".json", ".csv")
    return sorted(file for file in source.iterdir() if file.suffix in kinds)


def _stamp(clip: Clip) -> str:
    """Returns all that decides what becomes of a clip, its media by size and time of change.

    Reading thousands of videos to hash them would take as long as preparing them.
    """
    media = []
    for path in (clip.video, clip.audio):
        files = sorted(path.iterdir()) if path is not None and path.is_dir() else [path]
        for file in files:
            if file is not None:
                stat = file.stat()
                media.append((file.name, stat.st_size, stat.st_mtime_ns))
    arrays = [
        hashlib.sha256(np.ascontiguousarray(x)).hexdigest()
        for x in (clip.frames, clip.waveform)
        if x is not None
    ]
    said = (clip.id, str(clip.label), clip.split, sorted(clip.folds.items()), clip.text)
    return json.dumps([said, media, arrays])
