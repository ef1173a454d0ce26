"""What somebody hands over to be recognised: a file, a folder of files, a table, or a sentence.

It is decoded as a training set is when it is prepared, so that a file of that set gives its record.

Letters: T frames, H height, W width, K boxes, S samples.
"""

import dataclasses
import functools
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from affectjax.data.batches.config import DataConfig
from affectjax.data.batches.inputs import Features, Frames, Inputs, Record
from affectjax.data.clip import Clip
from affectjax.data.limits import Limits
from affectjax.data.media import decoding, faces
from affectjax.data.prepare import clip_storage, request, write
from affectjax.data.prepare.clip_storage import Storage
from affectjax.data.raw import sets, tables
from affectjax.data.raw.dataset import CLIPS
from affectjax.data.raw.readers import plain
from affectjax.data.raw.sets import clips as own_clips
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES, SAMPLE_RATE

Failed = list[tuple[str, str]]
SENTENCE = "text"  # the id of a sentence that comes with no file


def listed(
    source: Path | None, text: str | None, allow_outside: bool = False
) -> tuple[list[Clip], Failed]:
    """Returns the clips that are handed over, in order, and what cannot be one with the reason.

    Args:
      source: a video, sound or image file, whose name is its id; a folder, each file in it a clip;
        a table with the columns of the data set `clips`, `split` and `label` not needed; or None.
      text: what is said in the one file, or alone; None for nothing.
      allow_outside: whether the files of a csv may lie outside its folder.

    Raises:
      InputError: there is nothing, the one file is no media, or a text comes with many clips.
    """
    if text is not None and not text.strip():
        raise InputError("--text is blank; leave it out where nothing is said")
    if text is not None and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise InputError("--text has bytes that are no UTF-8")
    if source is None:
        if text is None:
            raise InputError("--input and --text are both missing: what should be recognised?")
        return [Clip(SENTENCE, None, "", text=text)], []
    if not os.path.exists(source):
        raise InputError(f"{source}: no such file or folder")
    table = source.suffix.lower() in tables.SUFFIXES
    if not source.is_dir() and not table:
        return [_of_file(source, text)], []
    if text is not None:
        raise InputError(
            f"--text goes with one file or with none, and {source} may hold many; in a table the "
            "column text says what each clip says"
        )
    return _of_table(source, allow_outside) if table else _of_folder(source)


def holds_features(source: Path) -> bool:
    """Returns whether this is a folder of features: one with NumPy archives."""
    names = ("features.npz", *(f"{m}.npz" for m in MODALITIES))
    return source.is_dir() and any((source / name).is_file() for name in names)


def records(folder: Path, inputs: Inputs, allow_outside: bool = False) -> Iterator[Record]:
    """Yields the examples of a folder of features, labels or not.

    Args:
      folder: see `affectjax.data.raw.readers.plain`.
      inputs: of the model.
      allow_outside: whether its archives may be links out of it.

    Raises:
      InputError: the folder is not as that reader says.
    """
    ids, texts, arrays = plain.unlabelled(folder, Limits(allow_outside=allow_outside))
    for i, (name, text) in enumerate(zip(ids, texts, strict=True)):
        read = (m for m in arrays if isinstance(inputs.kinds.get(m), Features))
        own = {m: arrays[m].x[i][arrays[m].mask[i]] for m in read}
        yield {"id": name, "transcript": (text or "").strip(), **own}


def _of_file(path: Path, text: str | None = None) -> Clip:
    kind = "video" if decoding.has_video(path) else "audio"
    return Clip(path.name, None, "", text=text, **{kind: path})


def _of_folder(folder: Path) -> tuple[list[Clip], Failed]:
    paths = sorted(path for path in folder.iterdir() if path.name[0] != ".")
    if not paths:
        raise InputError(f"{folder}: the folder holds no file")
    clips, failed = [], []
    for path in paths:
        try:
            if path.is_dir():
                raise InputError(f"{path}: is a folder; a table can name it as a clip of frames")
            clips.append(_of_file(path))
        except (InputError, OSError) as error:
            failed.append((path.name, str(error)))
    return clips, failed


def _of_table(table: Path, allow_outside: bool) -> tuple[list[Clip], Failed]:
    clips: dict[str, Clip] = {}
    failed = []
    for row in own_clips.read(table, ("id",)):
        name = row.values["id"]
        try:
            if not name:
                raise InputError("has no id")
            if name in clips:
                raise InputError("stands twice; the first is kept")
            if row.longer:
                raise InputError(tables.LONGER)
            values = {"label": "", "split": ""} | row.values
            clips[name] = own_clips.clip(values, table.parent.resolve(), allow_outside)
        except InputError as error:
            failed.append((name or f"line {row.line}", f"{table}: line {row.line}: {error}"))
    return list(clips.values()), failed


def storage(data: DataConfig, inputs: Inputs) -> Storage:
    """Returns how the clips were stored that a model learned from.

    Args:
      data: of the run.
      inputs: of the run.
    """
    generated = sets.get(data.name).generate is not None
    known = generated or not data.dir  # else what is there says how it was stored
    how = (data.storage if known else _stored(data)).resolved(generated)
    vision = inputs.kinds.get("vision")
    size = vision.size if isinstance(vision, Frames) else how.image_size
    return dataclasses.replace(how, image_size=size)


def _stored(data: DataConfig) -> Storage:
    """Returns what a run's prepared folder says of itself, else what its config says."""
    root = Path(data.dir)
    below = root / data.name / request.folder(CLIPS, False) / request.VERSION
    folder = root if (root / write.CARD).is_file() else below
    if not root.exists():
        logging.warning(
            "config.data.dir is not there any more: %s; its clips are taken to be stored as "
            "config.data says",
            root,
        )
    raw = folder == below and request.has_files(request.Request(data.name, root, view=CLIPS))
    if raw or not (folder / write.CARD).is_file():
        return data.storage
    said = write.read_card(folder)["options"]
    keys = [field.name for field in dataclasses.fields(Storage) if field.name in said]
    how = dataclasses.replace(data.storage, **{key: said[key] for key in keys})
    # The card knows a detector's file by its name alone.
    own = data.storage.detector
    return dataclasses.replace(how, detector=own) if Path(own).name == how.detector else how


class Reader:
    """Decodes clips for one model.

    Attributes:
      readable: the modalities that raw files can give to it; features are not among them.
    """

    def __init__(self, data: DataConfig, inputs: Inputs, modalities: Sequence[str]):
        """Decides how to decode.

        Args:
          data: of the run.
          inputs: of the run.
          modalities: those that the model sees.
        """
        self.readable = tuple(m for m in modalities if not isinstance(inputs.kinds[m], Features))
        self._data, self._inputs = data, inputs

    @functools.cached_property
    def _storage(self) -> Storage:
        return storage(self._data, self._inputs)

    @functools.cached_property
    def _detector(self) -> faces.Detector | None:
        return faces.detector(self._storage.detector)

    def read(self, clip: Clip) -> tuple[Record, list[str]]:
        """Returns the record of a clip, and what one should know before believing in it.

        Args:
          clip: from `listed`.

        Raises:
          InputError: a file of it cannot be read.
        """
        needed = self._needed(clip)
        record, counts, notes = self._decode(needed)
        if counts and not max(counts):
            notes.append(f"no face was found in {len(counts)} frames: whole frames are seen")
        if counts and max(counts) > 1:
            notes.append(f"there are up to {max(counts)} faces in a frame: the largest is followed")
        return record, [*notes, *self._left_out(clip, record)]

    def stretches(
        self, clip: Clip, window: float, hop: float
    ) -> Iterator[tuple[float, float, Record]]:
        """Yields start, end and record of a window that slides over a clip, where it is longer.

        The text counts in every window; an image, or a folder of frames, which have no time, in
        none.

        Args:
          clip: from `listed`.
          window: seconds.
          hop: seconds from one start to the next.

        Raises:
          InputError: a file of it cannot be read.
        """
        clip = self._needed(clip)
        files = clip_storage.played(clip)
        sound = clip_storage.sound_file(clip)
        for start, end in windows(max(map(decoding.duration, files), default=0.0), window, hop):
            count, largest = self._storage.keep_frames, self._storage.picture_mib
            seen = {f: decoding.timeline(f, count, start, end, largest) for f in files}
            part = Clip(
                clip.id,
                None,
                "",
                text=clip.text,
                frames=seen[clip.video].frames if clip.video in seen else None,
                waveform=seen[sound].audio if sound in seen and clip.waveform is None else None,
            )
            yield start, end, self._decode(part)[0]

    def unheard(self, window: float) -> list[str]:
        """Returns a sentence about the sound of a window that is longer than the model hears."""
        heard = self._inputs.kinds["audio"].samples / SAMPLE_RATE
        if window <= heard:
            return []
        return [f"each window lasts {window:.1f} s: the first {heard:.1f} s of its sound are heard"]

    def _needed(self, clip: Clip) -> Clip:
        """Returns the clip without what the model does not read."""
        changes: dict[str, Any] = {}
        if "vision" not in self.readable:
            changes |= {"audio": clip_storage.sound_file(clip), "video": None}
        if "audio" not in self.readable:
            changes |= {"audio": None, "waveform": np.zeros(0, np.float32)}
        if "text" not in self.readable:
            changes |= {"text": None}
        return dataclasses.replace(clip, **changes)

    def _decode(self, clip: Clip) -> tuple[Record, list[int], list[str]]:
        """Returns the record of a clip, how many faces are in each frame looked at, and notes."""
        looks = clip.video is not None or clip.frames is not None
        detector = _Counted(self._detector) if looks and self._detector else None
        found = clip_storage.decode(clip, self._storage, detector, generated=False)
        text = (clip.text or "").strip()
        record = {"id": clip.id, "transcript": text}
        record |= {
            m: x
            for m, x in (("audio", found.sound), ("vision", found.frames))
            if m in self.readable
        }
        return record, detector.counts if detector else [], list(found.notes)

    def _left_out(self, clip: Clip, record: Record) -> Iterator[str]:
        """Yields a sentence for what is longer than the model reads, or of no use to it."""
        if "audio" in self.readable:
            have, most = len(record["audio"]), self._inputs.kinds["audio"].samples
            if have > most:
                seconds, first = have / SAMPLE_RATE, most / SAMPLE_RATE
                yield f"the sound lasts {seconds:.1f} s: its first {first:.1f} s are used"
        if clip.text and "text" not in self.readable:
            yield "the model reads no text: what is said does not count"
        if record["transcript"]:
            have = len(self._inputs.tokenizer.words(record["transcript"]))
            most = self._inputs.kinds["text"].tokens - 2  # start and end
            if have > most:
                yield f"the text has {have} tokens: its first {most} are read"


class _Counted:
    """A detector that remembers how many faces it found in each frame."""

    def __init__(self, detector: faces.Detector):
        self._detector, self.counts = detector, []

    def detect(self, image: np.ndarray) -> np.ndarray:
        """Returns `[K, 5]`, see `faces.Detector`."""
        found = self._detector.detect(image)
        self.counts.append(len(found))
        return found


def windows(duration: float, window: float, hop: float) -> list[tuple[float, float]]:
    """Returns start and end of a sliding window, the last one cut at the end of what it slides on.

    Args:
      duration: seconds; where it is no longer than a window, there is none.
      window: seconds.
      hop: seconds from one start to the next.
    """
    if duration <= window:
        return []
    count = math.ceil((duration - window) / hop - 1e-6) + 1
    return [(i * hop, min(i * hop + window, duration)) for i in range(count)]
