"""Random changes of what encoders read, on the device, where a config asks for them.

Letters: B examples on this device, T frames or tokens, H height, W width, S samples.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from affectjax.ops import augment

View = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class FrameAugmentation:
    """Config keys of what reads frames.

    Attributes:
      flip, shift, contrast, brightness, rotate, zoom, erase: see
        `affectjax.ops.augment.flip_and_shift`.
    """

    flip: float = 0.0
    shift: float = 0.0
    contrast: float = 0.0
    brightness: float = 0.0
    rotate: float = 0.0
    zoom: float = 0.0
    erase: float = 0.0

    def __post_init__(self):
        for key, value in vars(self).items():
            most = {"rotate": 180, "zoom": 0.9}.get(key, 1)
            if not 0 <= value <= most:
                raise ValueError(f"{key} is {value}; allowed: from 0 to {most}")

    def __call__(self, view: View, key: jax.Array, axis_name: str | None) -> View:
        """Returns `x` and `mask` of a modality, `x` changed.

        Args:
          view: `x` is `[B, T, H, W, 3]`; anything else is no frames, and stays as it is.
          key: a JAX random key, the same on every device, another one for each modality.
          axis_name: the mapped axis over which the batch is split, None where it is whole.
        """
        if view["x"].ndim != 5 or not any(vars(self).values()):
            return view
        return {**view, "x": augment.flip_and_shift(view["x"], key, axis_name, **vars(self))}


@dataclasses.dataclass(frozen=True)
class SoundAugmentation:
    """Config keys of what reads waveforms.

    Attributes:
      gain_db, delay, noise: see `affectjax.ops.augment.jitter_waveform`.
    """

    gain_db: float = 0.0
    delay: float = 0.0
    noise: float = 0.0

    def __post_init__(self):
        for key, most in (("gain_db", None), ("delay", 1), ("noise", 1)):
            value = getattr(self, key)
            if value < 0 or (most and value > most):
                allowed = f"from 0 to {most}" if most else "from 0 up"
                raise ValueError(f"{key} is {value}; allowed: {allowed}")

    def __call__(self, view: View, key: jax.Array, axis_name: str | None) -> View:
        """Returns what `FrameAugmentation` does, of a waveform `x` `[B, S]`."""
        changes = {"gain_db": self.gain_db, "delay": self.delay, "noise": self.noise}
        if view["x"].ndim != 2 or not any(changes.values()):
            return view
        x = augment.jitter_waveform(view["x"], view["mask"], key, axis_name, **changes)
        return {**view, "x": x}


@dataclasses.dataclass(frozen=True)
class TextAugmentation:
    """Config keys of what reads tokens.

    Attributes:
      token_drop: the probability that a token is hidden, but for those that begin and end a text.
    """

    token_drop: float = 0.0

    def __post_init__(self):
        if not 0 <= self.token_drop < 1:
            raise ValueError(f"token_drop is {self.token_drop}; allowed: from 0 to below 1")

    def __call__(self, view: View, key: jax.Array, axis_name: str | None) -> View:
        """Returns what `FrameAugmentation` does, of tokens `x` `[B, T]`, their mask changed."""
        if view["x"].ndim != 2 or not self.token_drop:
            return view
        return {**view, "mask": augment.hide_tokens(view["mask"], key, axis_name, self.token_drop)}


# By the kind of input that an encoder reads, the parts of a config section that change it.
PARTS = {
    "text": (TextAugmentation,),
    "frames": (FrameAugmentation,),
    "waveform": (SoundAugmentation,),
}
# By modality, the part that changes it.
OF = {"text": TextAugmentation, "vision": FrameAugmentation, "audio": SoundAugmentation}


def apply(
    parts: Mapping[type, Any], m: str, view: View, key: jax.Array, axis_name: str | None
) -> View:
    """Returns `x` and `mask` of a modality, changed as the parts of a config section say.

    Args:
      parts: instances by class; where those for the modality are not there, nothing changes.
      m: the modality.
      view: see `FrameAugmentation`, as `key` and `axis_name`.
      key: see there.
      axis_name: see there.
    """
    change = parts.get(OF.get(m))
    return view if change is None else change(view, key, axis_name)
