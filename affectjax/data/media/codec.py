"""The forms in which frames and sound are stored: encoded images, and whole numbers of 16 bits.

Letters: T frames, H height, W width, S samples.
"""

import cv2
import numpy as np

from affectjax.errors import InputError
from affectjax.modalities import SAMPLE_RATE

# The greatest int16, so that what is stored of [-1, 1] comes back in [-1, 1].
FULL_SCALE = 32767


def encode(image: np.ndarray, encoding: str, quality: int = 95) -> bytes:
    """Returns an image as a PNG or JPEG file.

    Args:
      image: `[H, W, 3]` uint8 RGB.
      encoding: "png", which is exact, or "jpeg".
      quality: of JPEG, from 0 to 100.
    """
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality] if encoding == "jpeg" else []
    done, data = cv2.imencode(f".{encoding}", image[..., ::-1], flags)
    if not done:
        raise ValueError(f"cannot encode an image of {image.shape} as {encoding}")
    return data.tobytes()


def decode(image: bytes) -> np.ndarray:
    """Returns `[H, W, 3]` uint8 RGB of an encoded image.

    Raises:
      InputError: when it is damaged.
    """
    pixels = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise InputError("a frame is no readable image")
    return pixels[..., ::-1]


def choose(have: int, count: int, draw: np.ndarray | None = None) -> np.ndarray:
    """Returns which frames of a clip to take: one from each of `count` equal stretches.

    Args:
      have: frames of the clip; when there are no more than `count`, all are taken.
      count: T, how many are wanted.
      draw: `[T]` in [0, 1), the place within each stretch; None for the middle.

    Returns:
      Their numbers, ascending, at most T.
    """
    if have <= count:
        return np.arange(have)
    place = np.arange(count) + (0.5 if draw is None else draw)
    return np.minimum((place * (have / count)).astype(np.int64), have - 1)


def quantize(sound: np.ndarray) -> np.ndarray:
    """Returns int16 `[s]` of a sound in [-1, 1]; what is louder is clipped."""
    return np.round(np.clip(sound, -1, 1) * FULL_SCALE).astype(np.int16)


def samples(seconds: float) -> int:
    """Returns how many samples of a waveform last so long."""
    return max(1, round(seconds * SAMPLE_RATE))
