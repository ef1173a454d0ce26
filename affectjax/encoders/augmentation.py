"""Random changes of what encoders read, on the device, where a config asks for them.

Letters: B examples on this device, T frames, H height, W width, S samples.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from affectjax.ops import augment

View = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class FrameAugmentation:
    """Config keys of models that read frames.

    Attributes:
      flip, shift, contrast, brightness: see `affectjax.ops.augment.flip_and_shift`.
    """

    flip: float = 0.0
    shift: float = 0.0
    contrast: float = 0.0
    brightness: float = 0.0

    def __post_init__(self):
        for key, value in self.of_frames.items():
            if not 0 <= value <= 1:
                raise ValueError(f"{key} is {value}; allowed: from 0 to 1")

    @property
    def of_frames(self) -> dict[str, float]:
        """Returns by key what changes frames."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(FrameAugmentation)}

    def apply(self, m: str, view: View, key: jax.Array, axis_name: str | None) -> View:
        """Returns `x` and `mask` of a modality, `x` changed where it is raw and the keys say so.

        Args:
          m: the modality.
          view: `x` is `[B, T, H, W, 3]` of frames; anything else is none, and stays.
          key: a JAX random key, the same on every device, another for each modality.
          axis_name: the mapped axis over which the batch is split, None where it is whole.
        """
        if m != "vision" or view["x"].ndim != 5 or not any(self.of_frames.values()):
            return view
        return {**view, "x": augment.flip_and_shift(view["x"], key, axis_name, **self.of_frames)}


@dataclasses.dataclass(frozen=True)
class Augmentation(FrameAugmentation):
    """Config keys of models that read frames and waveforms.

    Attributes:
      gain_db: of waveforms, decibels up or down at most.
    """

    gain_db: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if self.gain_db < 0:
            raise ValueError(f"gain_db is {self.gain_db}; allowed: from 0 up")

    def apply(self, m: str, view: View, key: jax.Array, axis_name: str | None) -> View:
        """Returns what `FrameAugmentation.apply` does, also of waveforms `[B, S]`."""
        if m != "audio" or view["x"].ndim != 2 or not self.gain_db:
            return super().apply(m, view, key, axis_name)
        jitter = augment.jitter_waveform
        x = jitter(view["x"], view["mask"], key, axis_name, gain_db=self.gain_db)
        return {**view, "x": x}
