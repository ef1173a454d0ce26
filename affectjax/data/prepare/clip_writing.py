"""Turns clips into a prepared folder: decodes, crops and encodes them, one after the other.

No more than a few clips are in memory at once, however many there are.

Letters: T frames, H height, W width, S samples.
"""

import collections
import concurrent.futures
import dataclasses
import functools
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from affectjax.data.clip import Clip
from affectjax.data.labels import parse
from affectjax.data.media import codec, decoding, faces
from affectjax.data.prepare import writing
from affectjax.data.prepare.builders import clips as builder
from affectjax.data.prepare.clip_planning import ClipPlan, Storage
from affectjax.data.prepare.records import packed, stored
from affectjax.data.raw.dataset import CLIPS
from affectjax.data.skipped import SkippedRecords
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES, SAMPLE_RATE

_MINUTE = 60
KINDS = {"text": "text", "audio": "waveform", "vision": "frames"}


@dataclasses.dataclass(frozen=True)
class Decoded:
    """What a clip holds.

    Attributes:
      frames: the images, encoded; empty where there is none.
      sound: `[S]` int16; empty where there is none.
      faces: frames in which a face was found; None where none was looked for.
    """

    frames: tuple[bytes, ...]
    sound: np.ndarray
    faces: int | None


def decode(clip: Clip, storage: Storage, detector: Any, made: bool) -> Decoded:
    """Returns the frames and the sound of a clip as they are stored.

    Args:
      clip: which one.
      storage: how to store it.
      detector: of faces, see `affectjax.data.media.faces`.
      made: whether it was made by code; then its frames are stored as they are.

    Raises:
      InputError: when a file of it cannot be read.
    """
    frames, found = np.zeros((0, 1, 1, 3), np.uint8), None
    if clip.frames is not None:
        frames = clip.frames[codec.choose(len(clip.frames), storage.keep_frames)]
    elif clip.video is not None:
        frames = decoding.frames(clip.video, storage.keep_frames)
    if len(frames) and not made:
        frames, crop = faces.crop(frames, detector, storage.image_size)
        found = None if detector is None else crop.faces
    images = tuple(codec.encode(frame, storage.image_encoding) for frame in frames)
    return Decoded(images, _sound(clip), found)


def write(
    plan: ClipPlan, splits: dict[str, Iterable[Clip]], skipped: SkippedRecords, place: Path
) -> Path:
    """Returns the finished folder of clips, written in a place of its own.

    Args:
      plan: what to prepare.
      splits: the clips.
      skipped: takes those that cannot be used.
      place: an empty folder.

    Raises:
      InputError: a split has no example that can be used, or when strict any clip cannot be used.
    """
    name = plan.options["name"]
    tally = _Tally(plan, skipped)
    folder = builder.write(
        place / "records",
        kinds=KINDS,
        widths={},
        dtypes={},
        label=plan.spec.blank(),
        splits={stored(s): functools.partial(tally.examples, s, c) for s, c in splits.items()},
    )
    for split, rows in tally.rows.items():
        if not rows.columns["id"]:
            raise InputError(f"{name}: {split}: has no example that can be used")
    writing.write_json(folder / writing.CARD, tally.card())
    # One line: with ten thousand clips nobody reads it, and it is read at every start.
    content = {split: rows.columns for split, rows in tally.rows.items()}
    (folder / writing.EXAMPLES).write_text(json.dumps(content) + "\n", encoding="utf-8")
    if tally.folds:
        writing.write_json(folder / writing.FOLDS, tally.folds)
    tally.report()
    return folder


class _Tally:
    """Makes the examples, and counts what is met on the way.

    Attributes:
      rows: by split, of examples.json.
      folds: ids by fold and split.
      longest: by modality, the most frames or samples of an example.
      size: of the frames, pixels; 0 as long as there is none.
      faceless: clips with frames but no face.
    """

    def __init__(self, plan: ClipPlan, skipped: SkippedRecords):
        self.plan, self.skipped = plan, skipped
        self.rows: dict[str, writing.Rows] = {}
        self.folds: dict[str, dict[str, list[str]]] = {}
        self.longest = dict.fromkeys(MODALITIES, 0)
        self.size = self.faceless = 0

    def examples(self, split: str, clips: Iterable[Clip]) -> Iterator[dict[str, Any]]:
        """Yields the examples of a split as the builder wants them."""
        self.rows[split] = writing.Rows()
        made = self.plan.listed is None
        detector = functools.partial(faces.detector, self.plan.storage.detector)
        work = functools.partial(_decode_safely, storage=self.plan.storage, made=made)
        for clip, label, found in _in_order(self._usable(split, clips), work, detector):
            if isinstance(found, str):
                self._skip(split, clip, found)
            elif not (found.frames or len(found.sound) or (clip.text or "").strip()):
                self._skip(split, clip, "has no modality: no frame, no sound and no text")
            else:
                yield self._example(split, clip, label, found)
                done = len(self.rows[split].columns["id"])
                logging.log_every_n_seconds(logging.INFO, "%s: %d clips", _MINUTE, split, done)

    def _usable(self, split: str, clips: Iterable[Clip]) -> Iterator[tuple[Clip, np.ndarray]]:
        """Yields the clips with a right label and an id of their own, and the label."""
        seen: set[str] = set()
        for clip in clips:
            wrong: list[str] = []
            label = parse([clip.label], self.plan.spec, lambda row, why, to=wrong: to.append(why))
            wrong += self.plan.spec.faults(label).values()
            if clip.id in seen:
                wrong = ["stands twice in the split; the first is kept"]
            seen.add(clip.id)
            if wrong:
                self._skip(split, clip, wrong[0])
            else:
                yield clip, label[0]

    def _skip(self, split: str, clip: Clip, reason: str) -> None:
        self.skipped.skip(self.plan.options["name"], split, clip.id, reason)

    def _example(self, split: str, clip: Clip, label: np.ndarray, found: Decoded) -> dict[str, Any]:
        text = (clip.text or "").strip()
        self.longest["vision"] = max(self.longest["vision"], len(found.frames))
        self.longest["audio"] = max(self.longest["audio"], len(found.sound))
        self.longest["text"] = max(self.longest["text"], len(text))
        self.faceless += found.faces == 0
        if found.frames and not self.size:
            self.size = len(codec.decode(found.frames[0]))
        for fold, part in clip.folds.items():
            self.folds.setdefault(fold, {}).setdefault(part, []).append(clip.id)
        example = {
            "id": clip.id,
            "label": label,
            "transcript": text,
            "has_transcript": bool(text),
            **packed("vision", found.frames),
            "audio": found.sound,
        }
        there = {"text": text, "audio": len(found.sound), "vision": found.frames}
        self.rows[split].add(example, {m for m, value in there.items() if value})
        return example

    def card(self) -> dict[str, Any]:
        """Returns what affectjax.json says."""
        storage = self.plan.storage
        facts = {
            "text": {},
            "audio": {"longest": self.longest["audio"], "rate": SAMPLE_RATE},
            "vision": {
                "longest": self.longest["vision"],
                "size": self.size,
                "encoding": storage.image_encoding,
            },
        }
        here = [m for m in MODALITIES if self.longest[m]]
        return {
            "name": self.plan.options["name"],
            "view": CLIPS,
            "aligned": False,
            "labels": dataclasses.asdict(self.plan.spec),
            "inputs": {m: {"kind": KINDS[m], **facts[m]} for m in here},
            "lengths": {},
            "dims": {},
            "transcripts": "text" in here,
            "splits": {split: len(rows.columns["id"]) for split, rows in self.rows.items()},
            "folds": list(self.folds),
            "has": {split: self._has(split) for split in self.rows},
            "without_face": self.faceless,
            "cleaned": {},
            "skipped": writing.listed(self.skipped),
            "options": self.plan.options,
            "key": self.plan.key,
        }

    def _has(self, split: str) -> dict[str, int]:
        """Returns by modality how many examples have it."""
        counts = collections.Counter(
            m for present in self.rows[split].columns["present"] for m in present
        )
        return {m: counts[m] for m in MODALITIES if self.longest[m]}

    def report(self) -> None:
        """Logs what was left out, or may be wrong."""
        name = self.plan.options["name"]
        if self.faceless:
            logging.warning("%s: no face was found in %d clips", name, self.faceless)
        if self.skipped.reasons:
            left, card = len(self.skipped.reasons), writing.CARD
            logging.warning("%s: %d clips skipped, listed in %s", name, left, card)


def _decode_safely(clip: Clip, detector: Any, storage: Storage, made: bool) -> Decoded | str:
    """Returns what a clip holds, or why it cannot be used."""
    try:
        return decode(clip, storage, detector, made)
    except (InputError, OSError) as error:
        return str(error)


def _in_order(
    clips: Iterable[tuple[Clip, np.ndarray]],
    work: Callable[..., Decoded | str],
    detector: Callable[[], Any],
) -> Iterator[tuple[Clip, np.ndarray, Decoded | str]]:
    """Yields clips in their order with what became of them, a few of them decoded ahead."""
    workers = os.cpu_count() or 1
    # A detector keeps state: each thread has one of its own.
    own = threading.local()

    def run(clip: Clip) -> Decoded | str:
        if not hasattr(own, "detector"):
            own.detector = detector()
        return work(clip, own.detector)

    ahead: collections.deque = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        try:
            for clip, label in clips:
                ahead.append((clip, label, pool.submit(run, clip)))
                if len(ahead) > 2 * workers:
                    yield _finished(*ahead.popleft())
            while ahead:
                yield _finished(*ahead.popleft())
        finally:
            pool.shutdown(cancel_futures=True)


def _finished(
    clip: Clip, label: np.ndarray, found: concurrent.futures.Future
) -> tuple[Clip, np.ndarray, Decoded | str]:
    return clip, label, found.result()


def sound_file(clip: Clip) -> Path | None:
    """Returns the file in which the sound of a clip is: its own, else its video if it is one."""
    if clip.audio is not None or clip.video is None or clip.video.is_dir():
        return clip.audio
    return None if clip.video.suffix.lower() in decoding.IMAGES else clip.video


def _sound(clip: Clip) -> np.ndarray:
    """Returns the sound of a clip `[S]` int16, S 0 where it has none."""
    sound, file = clip.waveform, sound_file(clip)
    if sound is None and file is not None:
        sound = decoding.audio(file)
    return codec.quantize(np.zeros(0) if sound is None else sound)
