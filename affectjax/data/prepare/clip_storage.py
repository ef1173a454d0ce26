"""How a clip is stored: which of its frames, of what size, cut out and encoded how; and its sound.

Letters: T frames, H height, W width, S samples.
"""

import dataclasses
from pathlib import Path

import numpy as np

from affectjax.data import limits
from affectjax.data.clip import Clip
from affectjax.data.media import codec, containers, decoding, faces
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
      largest_mib: the most MiB of memory that a raw file may take: of clips one picture of it, of
        feature sequences its arrays. 0 is 512 for the former and 16384 for the latter.
    """

    image_size: int = 224
    keep_frames: int = 64
    detector: str = "cascade"
    image_encoding: str = "auto"
    allow_outside: bool = False
    largest_mib: float = 0.0

    def __post_init__(self):
        if not self.largest_mib >= 0:
            raise InputError(f"largest_mib is {self.largest_mib}; allowed: 0 or more")
        for key in ("image_size", "keep_frames"):
            if getattr(self, key) < 1:
                raise InputError(f"{key} is {getattr(self, key)}; allowed: 1 or more")
        if self.image_encoding not in ENCODINGS:
            raise InputError(
                f"image_encoding is {self.image_encoding!r}; allowed: {', '.join(ENCODINGS)}"
            )

    @property
    def picture_mib(self) -> float:
        """Returns the most MiB of one picture."""
        return self.largest_mib or limits.LARGEST_PICTURE_MIB

    @property
    def limits(self) -> limits.Limits:
        """Returns what a file of feature sequences may do."""
        return limits.Limits(self.largest_mib or limits.LARGEST_MIB, self.allow_outside)

    def resolved(self, generated: bool) -> "Storage":
        """Returns the storage with "auto" replaced, and without a detector for generated clips.

        Args:
          generated: whether the clips are made by code.
        """
        encoding = self.image_encoding
        if encoding == "auto":
            encoding = "png" if generated else "jpeg"
        detector = "none" if generated else self.detector
        return dataclasses.replace(self, image_encoding=encoding, detector=detector)


@dataclasses.dataclass(frozen=True)
class Decoded:
    """What a clip holds.

    Attributes:
      frames: the images, encoded; empty where there is none.
      sound: `[S]` int16; empty where there is none.
      faces: frames in which a face was found; None where none was looked for.
      notes: what of its files was not used, or is damaged.
    """

    frames: tuple[bytes, ...]
    sound: np.ndarray
    faces: int | None
    notes: tuple[str, ...] = ()


def decode(
    clip: Clip, storage: Storage, detector: faces.Detector | None, generated: bool
) -> Decoded:
    """Returns the frames and the sound of a clip as they are stored.

    Args:
      clip: which one.
      storage: how to store it; its encoding is not "auto".
      detector: of faces, see `affectjax.data.media.faces`.
      generated: whether it was made by code; then its frames are stored as they are.

    Raises:
      InputError: when a file of it cannot be read.
    """
    frames, found = np.zeros((0, 1, 1, 3), np.uint8), None
    with containers.noting() as notes:
        for file in played(clip):
            containers.note_cut(file)
        if clip.frames is not None:
            frames = clip.frames[codec.choose(len(clip.frames), storage.keep_frames)]
        elif clip.video is not None:
            frames = decoding.frames(clip.video, storage.keep_frames, storage.picture_mib)
        sound = _sound(clip, storage.picture_mib)
    if len(frames) and not generated:
        frames, crop = faces.crop(frames, detector, storage.image_size)
        found = None if detector is None else crop.faces
    images = tuple(codec.encode(frame, storage.image_encoding) for frame in frames)
    return Decoded(images, sound, found, tuple(notes))


def played(clip: Clip) -> list[Path]:
    """Returns the files of a clip that have a time: no image, and no folder of frames."""
    files = dict.fromkeys(f for f in (clip.video, sound_file(clip)) if f is not None)
    return [f for f in files if f.is_file() and f.suffix.lower() not in decoding.IMAGES]


def sound_file(clip: Clip) -> Path | None:
    """Returns the file in which the sound of a clip is: its own, else its video if it is one."""
    if clip.audio is not None or clip.video is None or clip.video.is_dir():
        return clip.audio
    return None if clip.video.suffix.lower() in decoding.IMAGES else clip.video


def _sound(clip: Clip, largest_mib: float) -> np.ndarray:
    """Returns the sound of a clip `[S]` int16, S 0 where it has none."""
    sound, file = clip.waveform, sound_file(clip)
    if sound is None and file is not None:
        sound = decoding.audio(file, largest_mib=largest_mib)
    return codec.quantize(np.zeros(0) if sound is None else sound)
