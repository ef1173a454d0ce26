"""Decides a preparation of clips before anything is written: which clips, and how to store them."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from affectjax.data.clip import Clip
from affectjax.data.prepare import doctor, planning
from affectjax.data.prepare.planning import Plan
from affectjax.data.raw import sets
from affectjax.data.raw.dataset import CLIPS
from affectjax.data.skipped import SkippedRecords
from affectjax.errors import InputError

ENCODINGS = ("auto", "png", "jpeg")


@dataclasses.dataclass(frozen=True)
class Storage:
    """How clips are stored. A set made by code keeps its own image size, and has no detector.

    Attributes:
      image_size: height and width of the stored frames, pixels.
      keep_frames: the most frames of a clip, evenly spaced.
      detector: of faces, see `affectjax.data.media.faces.detector`.
      image_encoding: "png", which is exact, "jpeg" of quality 95, or "auto": png for a set made by
        code, else jpeg.
      allow_outside: whether the files of one's own set may lie outside its folder.
    """

    image_size: int = 224
    keep_frames: int = 64
    detector: str = "cascade"
    image_encoding: str = "auto"
    allow_outside: bool = False

    def __post_init__(self):
        for key in ("image_size", "keep_frames"):
            if getattr(self, key) < 1:
                raise InputError(f"{key} is {getattr(self, key)}; allowed: 1 or more")
        if self.image_encoding not in ENCODINGS:
            raise InputError(
                f"image_encoding is {self.image_encoding!r}; allowed: {', '.join(ENCODINGS)}"
            )


@dataclasses.dataclass(frozen=True)
class ClipPlan(Plan):
    """A preparation of clips.

    Attributes:
      storage: how to store them.
      listed: the clips as the data set lists them, None for a data set that is made by code.
      skipped: what was wrong with the listing.
    """

    storage: Storage
    listed: tuple[Clip, ...] | None
    skipped: SkippedRecords

    def read(self) -> tuple[dict[str, Iterable[Clip]], SkippedRecords]:
        """Returns the clips by split, and those that cannot be used.

        A set made by code makes its clips one split at a time, when they are asked for.
        """
        if self.listed is None:
            return self.dataset.generate(CLIPS, self.options["seed"]), self.skipped
        names = dict.fromkeys(clip.split for clip in self.listed)
        splits = {name: [clip for clip in self.listed if clip.split == name] for name in names}
        return splits, self.skipped


def make(name: str, raw: str | Path | None, seed: int, storage: Storage, strict: bool) -> ClipPlan:
    """Returns the plan of a preparation of clips: lists them, opens none.

    Args:
      name: the data set.
      raw: its raw folder or file, or None.
      seed: of a data set that is made by code.
      storage: how to store them.
      strict: whether a record that cannot be used is an error.

    Raises:
      InputError: when the data set or its files are not found.
    """
    dataset = sets.get(name)
    skipped = SkippedRecords(strict=strict)
    if dataset.generate is not None:
        source, listed, spec = None, None, dataset.label_spec(CLIPS)
        encoding = "png" if storage.image_encoding == "auto" else storage.image_encoding
        storage = Storage(image_encoding=encoding, detector="none")
        how, whole = {"image_encoding": encoding}, planning.code_hash(dataset)
    else:
        if raw is None:
            raise InputError(f"data set {name} is read from raw files; say where they are")
        source, seed = Path(raw), None
        if not source.exists():
            raise InputError(f"{source}: no such file or folder")
        spec = dataset.label_spec(CLIPS, source)
        options = {"allow_outside": storage.allow_outside} if dataset.takes_outside else {}
        if storage.allow_outside and not options:
            raise InputError(f"data set {name} has no option allow_outside")
        listed = tuple(dataset.clips(source, skipped, **options))
        if storage.image_encoding == "auto":
            storage = dataclasses.replace(storage, image_encoding="jpeg")
        # The content of a detector's file is in the sum; where it lies is nobody's concern.
        how = dataclasses.asdict(storage) | {"detector": Path(storage.detector).name}
        whole = planning.total([*_detector_sum(storage.detector), *map(_stamp, listed)])
    options = {
        "name": name,
        "view": CLIPS,
        "seed": seed,
        "strict": strict,
        "version": planning.VERSION,
        "checksum": whole,
        **how,
    }
    return ClipPlan(dataset, spec, source, {}, options, storage, listed, skipped)


def _detector_sum(detector: str) -> list[str]:
    path = Path(detector)
    return [doctor.checksum(path)] if path.is_file() else []


def _stamp(clip: Clip) -> str:
    """Returns all that decides what becomes of a clip, its media by size and time of change.

    Reading thousands of videos to sum them up would take as long as preparing them.
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
