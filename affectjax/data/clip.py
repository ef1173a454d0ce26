"""A clip: one example of a data set as its files, before anything is decoded.

Letters: T frames, H height, W width, S samples.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Clip:
    """One example, as a data set lists it; any modality may be missing.

    Attributes:
      id: its name, unique in its split.
      label: as the set writes it: a class name, its number, or a score.
      split: "train", "valid" or "test"; "all" where the set comes in folds.
      folds: by fold, as in "1", the split that it belongs to there; empty without folds.
      video: a video file, an image file, or a folder of frames as images, in the order of their
        names.
      audio: a sound file; None for the sound track of the video, if it has one.
      text: what is said or described.
      frames: `[T, H, W, 3]` uint8 RGB, in place of `video`.
      waveform: `[S]` float32 in [-1, 1], mono, 16 kHz, in place of `audio`.
    """

    id: str
    label: Any
    split: str
    folds: Mapping[str, str] = dataclasses.field(default_factory=dict)
    video: Path | None = None
    audio: Path | None = None
    text: str | None = None
    frames: np.ndarray | None = None
    waveform: np.ndarray | None = None
