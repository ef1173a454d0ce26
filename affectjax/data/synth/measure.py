"""Measures feature sequences: words to vectors, sound to bands and pitch, faces to geometry.

Letters: N examples, T steps, D features, W words, S samples.
"""

import numpy as np

from affectjax.data.sequences import Sequences
from affectjax.data.synth import face, sentences
from affectjax.data.synth.script import Script, bell, stream
from affectjax.data.synth.voice import FORMANTS, RATE, vowel

TEXT_WIDTH, AUDIO_WIDTH, VISION_WIDTH = 32, 20, 16
HOP, WINDOW, PADDED = 500, 1000, 1024
AUDIO_STEPS, VISION_STEPS = 48, 24
AUDIO_HZ, VISION_HZ = RATE / HOP, 16.0
BANDS = 16

PITCH_LAGS = slice(RATE // 480, RATE // 60)


def embeddings(later: bool) -> dict[str, np.ndarray]:
    """Returns the vector `[32]` of every word: the same for any seed.

    Words of one emotion share a direction, as they do in embeddings learned from text, and so do
    words with one vowel. The rest is the word's own. The vectors are contextual: those of a second
    clause differ from those of a first one.

    Args:
      later: whether the words stand in a second clause.
    """
    clause = "second" if later else "first"
    meaning = {
        name: bell(stream(0, "meaning", name), (TEXT_WIDTH,))
        + bell(stream(0, "meaning", name, clause), (TEXT_WIDTH,))
        for name in sentences.CLASSES
    }
    sound = {letter: bell(stream(0, "sound", letter), (TEXT_WIDTH,)) for letter in FORMANTS}
    context = bell(stream(0, "clause", clause), (TEXT_WIDTH,))
    affect = sentences.affect_words()
    table = {}
    for word in sentences.vocabulary():
        own = bell(stream(0, "word", word), (TEXT_WIDTH,))
        table[word] = 0.4 * own + 0.25 * sound[vowel(word)] + 0.3 * context
        if word in affect:
            table[word] = table[word] + 0.9 * meaning[affect[word]]
    return table


def text(script: Script) -> Sequences:
    """Returns `[N, 12, 32]` one vector a word, slightly noisy."""
    tables = embeddings(later=False), embeddings(later=True)
    x = np.zeros((len(script), sentences.MAX_WORDS, TEXT_WIDTH), np.float32)
    mask = np.zeros(x.shape[:2], bool)
    for row, sentence in enumerate(script.sentences):
        words = [tables[k >= sentence.joint][w] for k, w in enumerate(sentence.words)]
        noise = bell(stream(script.seed, script.ids[row], "text noise"), (len(words), TEXT_WIDTH))
        x[row, : len(words)] = np.stack(words) + 0.15 * noise
        mask[row, : len(words)] = True
    return Sequences(x, mask)


def audio(script: Script, waveform: np.ndarray) -> Sequences:
    """Measures the sound 32 times a second, from the start of the clip to the end of the speech.

    Args:
      script: of N examples.
      waveform: `[N, 24000]`.

    Returns:
      `[N, 48, 20]`: loudness, pitch (octaves about 180 Hz, 0 where unvoiced), voicing,
      brightness, then the level of 16 bands; all about in [-2, 2].
    """
    x = np.empty((len(script), AUDIO_STEPS, AUDIO_WIDTH), np.float32)
    for start in range(0, len(script), 32):
        x[start : start + 32] = _analyse(waveform[start : start + 32])
    steps = np.minimum(np.ceil(script.voice_end * AUDIO_HZ).astype(int) + 2, AUDIO_STEPS)
    mask = np.arange(AUDIO_STEPS) < steps[:, None]
    return Sequences(x * mask[..., None], mask)


def _analyse(waveform: np.ndarray) -> np.ndarray:
    """Returns `[N, 48, 20]` the features of `audio` for waveforms `[N, 24000]`."""
    edge = (WINDOW - HOP) // 2
    padded = np.pad(waveform, ((0, 0), (edge, edge)))
    pieces = np.lib.stride_tricks.sliding_window_view(padded, WINDOW, 1)[:, ::HOP]
    pieces = pieces * np.hanning(WINDOW).astype(np.float32)
    spectrum = np.fft.rfft(pieces, PADDED)
    power = spectrum.real**2 + spectrum.imag**2
    loud = np.log10(power.mean(-1) + 1e-6)
    bands = np.log10(power @ _filters() + 1e-6)
    centre = (power @ _frequencies()) / (power.sum(-1) + 1e-9)
    # The taper leaves so little at the ends that the circular echo serves for the lags of a voice.
    echo = np.fft.irfft(power, PADDED)
    echo = echo[..., PITCH_LAGS] / (echo[..., :1] + np.float32(1e-9))
    # Twice the period is as good as the period, so longer lags are handicapped a little.
    lags = np.arange(PITCH_LAGS.start, PITCH_LAGS.stop, dtype=np.float32)
    lag = lags[np.argmax(echo * (1 - np.float32(0.0006) * lags), -1)]
    voicing = echo.max(-1)
    pitch = np.where((voicing > 0.4) & (loud > -2.0), np.log2(RATE / lag / 180), 0.0)
    head = np.stack([loud / 1.5, 2 * pitch, 2 * voicing - 1, np.log2(centre / 800 + 1e-3)], -1)
    return np.concatenate([head, bands / 1.5], -1).astype(np.float32)


def _frequencies() -> np.ndarray:
    """Returns `[513]` float32 the frequencies of the spectrum, Hz."""
    return np.arange(PADDED // 2 + 1, dtype=np.float32) * np.float32(RATE / PADDED)


def _filters() -> np.ndarray:
    """Returns `[513, 16]` float32 triangles of equal area, spaced equally on the mel scale."""
    edges = 700 * (10 ** (np.linspace(0.06, 1.09, BANDS + 2)) - 1)
    frequency = _frequencies()[:, None]
    rise = (frequency - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - frequency) / (edges[2:] - edges[1:-1])
    triangles = np.clip(np.minimum(rise, fall), 0, None)
    return (triangles / triangles.sum(0)).astype(np.float32)


def vision(script: Script) -> Sequences:
    """Measures the face 16 times a second, with the errors of a face tracker.

    The errors are of two kinds: an offset of the whole clip (another person's face at rest is
    another face), and jitter from step to step.

    Args:
      script: of N examples.

    Returns:
      `[N, 24, 16]`: the pose of `face.POSE`, then the aspect of the eyes and of the mouth.
    """
    times = np.broadcast_to((np.arange(VISION_STEPS) + 0.5) / VISION_HZ, (len(script), 24))
    pose = face.pose(script, times)
    lid, gape, width = pose[..., 2], pose[..., 6], pose[..., 5]
    extra = np.stack([1 + lid - 0.5 * pose[..., 3], gape / (1 + width)], -1)
    shape = (VISION_STEPS + 1, VISION_WIDTH)
    noise = np.stack([bell(stream(script.seed, n, "vision noise"), shape) for n in script.ids])
    size = np.array([2, 2, 0.3, 0.3, 0.5, 0.2, 0.4, 0.4, 0.4, 0.4, 0.5, 0.5, 1, 1, 0.4, 0.4])
    x = np.concatenate([pose, extra], -1) / size
    x = x + 0.15 * noise[:, 1:] + 0.15 * noise[:, :1]
    last = np.maximum(script.flash + 0.15, 1.0 + 0.5 * _camera_end(script))
    steps = np.minimum(np.ceil(last * VISION_HZ).astype(int), VISION_STEPS)
    mask = np.arange(VISION_STEPS) < steps[:, None]
    return Sequences((x * mask[..., None]).astype(np.float32), mask)


def _camera_end(script: Script) -> np.ndarray:
    """Returns `[N]` in [0, 1) when each camera stops."""
    return np.array([stream(script.seed, name, "camera").random() for name in script.ids])
