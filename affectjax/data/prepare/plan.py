"""Decides a preparation before anything is written: which files, which labels, which options."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from affectjax.data.clip import Clip
from affectjax.data.labels import LabelSpec
from affectjax.data.prepare import doctor, sequence_examples
from affectjax.data.prepare.clip_examples import ClipExamples
from affectjax.data.prepare.clip_storage import Storage
from affectjax.data.prepare.examples import Examples
from affectjax.data.prepare.hashes import checksum, clip_stamp, code_hash, hash_of
from affectjax.data.prepare.request import VERSION, Request, locate
from affectjax.data.prepare.sequence_examples import SequenceExamples
from affectjax.data.raw import readers, tables
from affectjax.data.raw.dataset import CLIPS, SEQUENCES
from affectjax.data.sequences import FeatureSet
from affectjax.data.skipped import SkippedRecords
from affectjax.errors import InputError


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
    checksums = {} if generated else {f.name: checksum(f) for f in _content(source, wanted.format)}
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
            limits=(wanted.storage or Storage()).limits,
        )

    def read() -> Examples:
        return SequenceExamples(wanted.name, features(), spec, skipped, wanted.limits)

    def examine() -> doctor.Diagnosis:
        return sequence_examples.examine(
            features(),
            spec,
            checksums=checksums,
            skipped=skipped.reasons,
            gaps=dataset.gaps,
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
        whole = hash_of([*own, *map(clip_stamp, listed)])
        how = dataclasses.asdict(storage) | {"detector": detector.name}
        if not storage.largest_mib:  # folders from before there was a limit stay what they are
            del how["largest_mib"]
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
        media = examples.sample()
        broken = media.broken if media else {}
        splits = {
            split: [seen for seen in examples.look(split) if (split, seen.id) not in broken]
            for split in examples.splits
        }
        # A split of which nothing could even be listed is there as well.
        splits |= {split: [] for split, _ in skipped.reasons if split not in splits}
        return doctor.examine(
            splits,
            spec,
            skipped=skipped.reasons,
            test_only=dataset.test_only,
            gaps=dataset.gaps,
            media=media,
        )

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


def _content(source: Path, format: str) -> list[Path]:
    """Returns the files whose content decides what is read from a file or folder."""
    if source.is_file():
        return [source]
    # Nobody knows here which files of a folder a reader from elsewhere opens.
    every, kinds = "." in format, (".csd", ".npz", ".json", *tables.SUFFIXES)
    files = (file for file in source.iterdir() if file.is_file())
    return sorted(file for file in files if every or file.suffix in kinds)
