"""Clips as examples: decoded, cropped and encoded one after the other, or only looked at.

No more than a few clips are in memory at once, however many there are.

Letters: T frames, H height, W width, S samples.
"""

import collections
import concurrent.futures
import dataclasses
import functools
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from affectjax.data.clip import Clip
from affectjax.data.labels import LabelSpec
from affectjax.data.media import codec, decoding, faces
from affectjax.data.prepare.clip_storage import Decoded, Storage, decode, sound_file
from affectjax.data.prepare.examples import Example, Examples, Seen, usable
from affectjax.data.prepare.media_report import SAMPLE, MediaReport, report
from affectjax.data.skipped import SkippedRecords
from affectjax.errors import InputError
from affectjax.modalities import SAMPLE_RATE

KINDS = {"text": "text", "audio": "waveform", "vision": "frames"}
_NOTHING = "has no modality: no frame, no sound and no text"
_MOMENT = 0.05  # seconds of sound that prove that there is some


class ClipExamples(Examples):
    """The examples of a list of clips, or of clips that code makes split by split."""

    kinds = KINDS

    def __init__(
        self,
        name: str,
        clips: Mapping[str, Iterable[Clip]],
        spec: LabelSpec,
        skipped: SkippedRecords,
        storage: Storage,
        generated: bool,
    ):
        """Opens nothing yet.

        Args:
          name: the data set, for messages.
          clips: by split.
          spec: what the labels should be.
          skipped: what could not be listed; takes what cannot be decoded.
          storage: how to store them.
          generated: whether code makes them; then their frames are stored as they are.
        """
        self._name, self._clips, self._spec, self._skipped = name, clips, spec, skipped
        self._storage, self._generated = storage, generated
        self.splits = tuple(clips)
        self._size = self._faceless = 0
        self._noted: dict[str, str] = {}  # by clip, what of its files was not used

    def read(self, split: str) -> Iterator[Example]:
        """Yields the examples of a split that can be used, and skips the others."""
        detector = functools.partial(faces.detector, self._storage.detector)
        work = functools.partial(_decode_safely, storage=self._storage, generated=self._generated)
        listed = usable(self._clips[split], split, self._spec, self._skipped, self._name)
        for clip, label, found in _in_order(listed, work, detector):
            text = (clip.text or "").strip()
            if isinstance(found, str):
                self._skipped.skip(self._name, split, clip.id, found)
            elif not (found.frames or len(found.sound) or text):
                self._skipped.skip(self._name, split, clip.id, _NOTHING)
            else:
                self._faceless += found.faces == 0
                if found.notes:
                    self._noted[clip.id] = found.notes[0]
                if found.frames and not self._size:
                    self._size = len(codec.decode(found.frames[0]))
                media = {"audio": found.sound, "vision": found.frames}
                yield Example(clip.id, label, text, media, clip.folds)

    def card(self) -> dict[str, Any]:
        """Returns how frames and sound are stored, and in how many clips no face was found."""
        if self._faceless:
            logging.warning("%s: no face was found in %d clips", self._name, self._faceless)
        if self._noted:
            name, note = next(iter(self._noted.items()))
            logging.warning(
                "%s: %d clips were not read as a whole, first %s: %s",
                *(self._name, len(self._noted), name, note),
            )
        vision = {"size": self._size, "encoding": self._storage.image_encoding}
        return {
            "inputs": {"audio": {"rate": SAMPLE_RATE}, "vision": vision},
            "without_face": self._faceless,
            "not_whole": len(self._noted),
            "cleaned": {},
        }

    def sample(self) -> MediaReport | None:
        """Decodes a few clips, skips those that do not decode, and returns what was seen.

        None where there are no media to decode.
        """
        if self._generated:
            return None
        clips = [c for those in self._clips.values() for c in those if _has_media(c)]
        chosen = [(clips[i], None) for i in codec.choose(len(clips), SAMPLE)]
        detector = functools.partial(faces.detector, self._storage.detector)
        work = functools.partial(_decode_safely, storage=self._storage, generated=False)
        found = [(clip, what) for clip, _, what in _in_order(chosen, work, detector)]
        for clip, what in found:
            if isinstance(what, str):
                self._skipped.skip(self._name, clip.split, clip.id, what)
        return report(found, len(clips)) if found else None

    def look(self, split: str) -> Iterator[Seen]:
        """Yields what the doctor sees of a split; opens its files, but does not decode them."""
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            listed = usable(self._clips[split], split, self._spec, self._skipped, self._name)
            probe = functools.partial(_probe, largest_mib=self._storage.picture_mib)
            for clip, label, has in pool.map(probe, listed):
                if isinstance(has, str) or not has:
                    self._skipped.skip(self._name, split, clip.id, has or _NOTHING)
                else:
                    words = len((clip.text or "").split())
                    yield Seen(clip.id, label, has, words, clip.folds)


def _has_media(clip: Clip) -> bool:
    media = (clip.video, clip.audio, clip.frames, clip.waveform)
    return any(part is not None for part in media)


def _probe(
    listed: tuple[Clip, np.ndarray], largest_mib: float
) -> tuple[Clip, np.ndarray, frozenset[str] | str]:
    """Returns a clip without its arrays, and the modalities that it has, or what cannot be read."""
    clip, label = listed
    there = {
        "text": bool((clip.text or "").strip()),
        "audio": clip.waveform is not None,
        "vision": clip.frames is not None,
    }
    bare = dataclasses.replace(clip, frames=None, waveform=None)
    try:
        there["vision"] |= clip.video is not None and _has_frames(clip.video, largest_mib)
        sound = sound_file(clip)
        there["audio"] |= (
            sound is not None and decoding.audio(sound, _MOMENT, largest_mib) is not None
        )
    except (InputError, OSError) as error:
        return bare, label, str(error)
    return bare, label, frozenset(m for m, here in there.items() if here)


def _has_frames(path: Path, largest_mib: float) -> bool:
    """Returns whether there is a picture; of a video only the head is read."""
    if path.is_dir() or path.suffix.lower() in decoding.IMAGES:
        return len(decoding.frames(path, 1, largest_mib)) > 0
    return decoding.has_video(path)


def _decode_safely(
    clip: Clip, detector: faces.Detector | None, storage: Storage, generated: bool
) -> Decoded | str:
    """Returns what a clip holds, or why it cannot be used."""
    try:
        return decode(clip, storage, detector, generated)
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
