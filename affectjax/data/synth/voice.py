"""Synthesises the voice: harmonics of a pitch contour through the formants of the words' vowels.

An emotion moves pitch, melody, loudness, brightness, tremor and breath; the stressed word is
louder than the others, and higher or lower. Control values stand at block borders (96 blocks in a
clip) and are interpolated to samples.

Letters: N examples, F control points, S samples, K harmonics.
"""

import numpy as np

from affectjax.data.synth.script import Script, bell, speaking, stream
from affectjax.data.synth.sentences import CLASSES

RATE = 16000
SAMPLES = 24000
BLOCK = 250
HARMONICS = 18
CHUNK = 4

# fmt: off
MANNERS = {
    # pitch [octaves], melody (swing), slope [octaves a sentence], loudness [dB], brightness,
    # tremor, breath
    "neutral":  (0.00, 0.5, -0.10, 0.0, 0.0, 0.0, 0.0),
    "happy":    (0.42, 1.5, 0.05, 4.0, 0.4, 0.0, 0.0),
    "sad":      (-0.16, 0.3, -0.25, -5.0, -0.8, 0.1, 0.6),
    "angry":    (0.28, 0.9, -0.35, 7.0, 1.2, 0.0, 0.0),
    "fear":     (0.10, 0.4, 0.15, -4.0, -0.3, 1.0, 0.5),
    "disgust":  (-0.20, 1.0, -0.35, 0.5, 0.5, 0.3, 0.0),
    "surprise": (0.60, 1.2, 0.65, 3.0, 0.1, 0.0, 0.2),
}
# fmt: on
MANNER_NOISE = (0.07, 0.15, 0.10, 1.2, 0.2, 0.1, 0.08)

# The first three resonances of the vowels, Hz.
FORMANTS = {
    "a": (750, 1250, 2500),
    "e": (500, 1900, 2600),
    "i": (300, 2300, 3000),
    "o": (520, 900, 2400),
    "u": (320, 780, 2300),
}
# A stressed word is louder; the pitch rises on it in a first clause and falls in a second one, as
# accents do that are followed by more and that end a sentence.
STRESS_OCTAVES, STRESS_DB = 0.4, 7.0
REST_DB = -21.0


def vowel(word: str) -> str:
    """Returns the vowel that carries a word: its first one, `e` for a word without."""
    return next((letter for letter in word.replace("y", "i") if letter in FORMANTS), "e")


def waveform(script: Script) -> np.ndarray:
    """Synthesises the voices.

    Args:
      script: of N examples.

    Returns:
      `[N, 24000]` float32 in [-1, 1], 16 kHz, silent but for a faint hiss outside the sentence.
    """
    sound = np.empty((len(script), SAMPLES), np.float32)
    for start in range(0, len(script), CHUNK):
        part = script.part(slice(start, start + CHUNK))
        pitch, loudness, breath = contours(part)
        tone = _sing(pitch, _timbre(part, pitch))
        hiss = np.stack(
            [stream(part.seed, name, "hiss").random(SAMPLES + 1, "f4") for name in part.ids]
        )
        hiss = hiss[:, 1:] - hiss[:, :-1]
        gain = _samples((10 ** (loudness / 20)).astype(np.float32))
        share = _samples(breath.astype(np.float32))
        mixed = gain * (tone + share * hiss) + np.float32(0.002) * hiss
        sound[start : start + CHUNK] = np.clip(mixed, -1, 1)
    return sound


def contours(script: Script) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns how the voice moves.

    Args:
      script: of N examples.

    Returns:
      Three arrays `[N, 97]` at block borders: pitch in Hz, loudness in dB against full scale
      (about -80 in silence), and the share of breath.
    """
    times = np.broadcast_to(np.arange(0, SAMPLES + 1, BLOCK) / RATE, (len(script), 97))
    table = np.array([MANNERS[name] for name in CLASSES])
    noise = np.stack([bell(stream(script.seed, name, "manner"), (7,)) for name in script.ids])
    manner = table[script.voice] * script.voice_strength[:, None] + noise * np.array(MANNER_NOISE)
    octaves, melody, slope, decibel, _, tremor, breath = manner.T[..., None]
    start, end = script.voice_start[:, None], script.voice_end[:, None]
    way = np.clip((times - start) / (end - start), 0, 1)
    rows = np.arange(len(script))
    bounds = script.word_times[rows, script.stress], script.word_times[rows, script.stress + 1]
    stress = (times >= bounds[0][:, None]) & (times < bounds[1][:, None])
    late = [place >= s.joint for s, place in zip(script.sentences, script.stress, strict=True)]
    accent = np.where(late, -1, 1)[:, None] * stress
    arch = speaking(script, times)
    voices = _voices(script)
    phase = np.stack([stream(script.seed, name, "melody").random(2) for name in script.ids])
    swing = np.sin(2 * np.pi * (1.6 * way + phase[:, :1]))
    shake = np.sin(2 * np.pi * (9 * times + phase[:, 1:]))
    height = octaves + slope * (way - 0.5) + 0.11 * melody * swing
    height = height + 0.07 * np.clip(tremor, 0, 2) * shake + STRESS_OCTAVES * accent * arch
    pitch = np.clip(voices["pitch"][:, None] * 2**height, 60, 480)
    loudness = REST_DB + decibel + STRESS_DB * stress + 20 * np.log10(arch**0.6 + 1e-3)
    loudness = loudness + np.clip(tremor, 0, 2) * 2 * shake
    hush = np.clip(1 - 3 * arch, 0, 1)
    return pitch, loudness, 0.05 + 0.5 * np.clip(breath, 0, 1) + 0.6 * hush


def _voices(script: Script) -> dict[str, np.ndarray]:
    """Returns by name `[N]` what the speakers sound like."""
    people = {}
    for who in np.unique(script.speaker):
        a, b, c = stream(script.seed, "throat", int(who)).random(3)
        high = float(a < 0.5)
        people[who] = {
            "pitch": 105 + 45 * b + 70 * high,
            "size": 1.0 + 0.13 * high + 0.08 * (c - 0.5),
            "bright": 0.5 * (c - 0.5),
        }
    names = ("pitch", "size", "bright")
    return {name: np.array([people[who][name] for who in script.speaker]) for name in names}


def _timbre(script: Script, pitch: np.ndarray) -> np.ndarray:
    """Returns `[N, F, K]` float32 the amplitude of each harmonic; their squares sum to 1."""
    voices = _voices(script)
    times = np.arange(0, SAMPLES + 1, BLOCK) / RATE
    table = np.array([FORMANTS[letter] for letter in FORMANTS], np.float32)
    letters = tuple(FORMANTS)
    centres = np.empty((len(script), len(times), 3), np.float32)
    for row, sentence in enumerate(script.sentences):
        word = np.searchsorted(script.word_times[row], times, "right") - 1
        sounds = np.array([letters.index(vowel(word)) for word in sentence.words])
        centres[row] = table[sounds[np.clip(word, 0, len(sounds) - 1)]]
    centres = centres * voices["size"][:, None, None].astype(np.float32)
    harmonic = np.arange(1, HARMONICS + 1, dtype=np.float32)
    tone = pitch.astype(np.float32)[..., None] * harmonic  # [N, F, K] Hz
    width = np.array([90, 130, 200], np.float32)
    height = np.array([1.0, 0.6, 0.35], np.float32)
    off = (tone[..., None] - centres[:, :, None]) / width
    shape = (height / (1 + off * off)).sum(-1) + 0.02
    manner = np.array([MANNERS[name][4] for name in CLASSES])[script.voice] * script.voice_strength
    fall = (-0.9 + 0.45 * manner + voices["bright"]).astype(np.float32)[:, None, None]
    shape = shape * (tone / 200) ** fall
    return shape / np.sqrt((shape * shape).sum(-1, keepdims=True))


def _samples(control: np.ndarray) -> np.ndarray:
    """Returns `[N, S]` the straight lines between control points `[N, F]`."""
    ramp = np.arange(BLOCK, dtype=np.float32) / BLOCK
    lines = control[:, :-1, None] + np.diff(control)[..., None] * ramp
    return lines.reshape(len(control), -1)


def _sing(pitch: np.ndarray, timbre: np.ndarray) -> np.ndarray:
    """Returns `[N, S]` float32 the sum of the harmonics.

    Args:
      pitch: `[N, F]` Hz.
      timbre: `[N, F, K]` amplitudes.
    """
    turns = np.cumsum(_samples(pitch) / RATE, 1) % 1
    angle = (2 * np.pi * turns).astype(np.float32)
    twice = 2 * np.cos(angle)
    before, now = np.zeros_like(angle), np.sin(angle)
    total = np.zeros_like(angle)
    for k in range(HARMONICS):
        total += _samples(timbre[..., k]) * now
        # sin((k+1)a) = 2 cos(a) sin(ka) - sin((k-1)a): one sine serves all harmonics.
        before, now = now, twice * now - before
    return total
