"""A short film of the embedded set: one person who acts several emotions, one after the other."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from affectjax.data.synth import views
from affectjax.data.synth.sentences import CLASSES
from affectjax.modalities import SAMPLE_RATE

# So many clips of the test split are made to find the person in.
_CLIPS = 64


def acted(emotions: Sequence[str], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns frames `[T, H, W, 3]` uint8 and sound `[S]` float32 of one person of the test split.

    The first person of whom there is a clip of each emotion, and the first such clips.

    Args:
      emotions: names of classes, in order.
      seed: of the data set.
    """
    made, first = views.clips("test", seed, _CLIPS), {}
    for row, (speaker, label) in enumerate(zip(made.speakers, made.labels, strict=True)):
        first.setdefault((speaker, CLASSES[label]), row)
    for speaker in dict.fromkeys(made.speakers):
        rows = [first.get((speaker, emotion)) for emotion in emotions]
        if None not in rows:
            return np.concatenate(made.frames[rows]), np.concatenate(made.waveform[rows])
    raise LookupError(f"no person of the first {_CLIPS} clips acts {', '.join(emotions)}")


def write(path: Path, frames: np.ndarray, sound: np.ndarray) -> None:
    """Writes an mp4 whose pictures last as long as its sound.

    Args:
      path: of the file.
      frames: `[T, H, W, 3]` uint8.
      sound: `[S]` float32 at SAMPLE_RATE.
    """
    with av.open(str(path), "w") as container:
        rate = Fraction(len(frames) * SAMPLE_RATE, len(sound)).limit_denominator(1000)
        video = container.add_stream("libx264", rate=rate, options={"crf": "12"})
        video.height, video.width = frames.shape[1:3]
        video.pix_fmt = "yuv420p"
        voice = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for picture in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
        spoken = av.AudioFrame.from_ndarray(sound[None].astype(np.float32), "fltp", "mono")
        spoken.sample_rate = SAMPLE_RATE
        container.mux(voice.encode(spoken))
        container.mux(voice.encode(None))
