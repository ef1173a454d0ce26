"""The latent script of every example: who feels what, and what each modality shows of it, when.

A modality rarely tells the emotion alone. The face mixes up fear with surprise and anger with
disgust, the voice mixes up emotions of like arousal, and the sentence often names two emotions or
says the opposite of what is meant. Whoever puts the three together knows more: which of the two
emotions in a sentence is meant is said by *where* in it the voice stresses and the face flashes.

Every latent has a stream of numbers of its own, drawn for the whole split at once; so an example is
the same whether ten of them are made or all, and a new latent does not change the old ones.

Letters: N examples, W words.
"""

import dataclasses
import zlib

import numpy as np

from affectjax.data.synth import sentences
from affectjax.data.synth.sentences import CLASSES, MAX_WORDS

SIZES = {"train": 1024, "valid": 256, "test": 256}
SPEAKERS = {"train": range(0, 32), "valid": range(32, 40), "test": range(40, 48)}

CLIP_SECONDS = 1.5

# What stands in for an emotion when a modality misleads. No two emotions are confused by both.
FACE_TWINS = {
    "neutral": ("sad",),
    "happy": ("neutral",),
    "sad": ("neutral",),
    "angry": ("disgust",),
    "fear": ("surprise",),
    "disgust": ("angry",),
    "surprise": ("fear",),
}
VOICE_TWINS = {
    "neutral": ("disgust",),
    "happy": ("angry", "surprise"),
    "sad": ("fear",),
    "angry": ("happy", "surprise"),
    "fear": ("sad",),
    "disgust": ("neutral",),
    "surprise": ("happy", "angry"),
}
FACE_SWAP = 0.36
VOICE_SWAP = 0.34
MIXED_SWAP = 0.33
STRAY = 0.05

# Shares of the kinds of sentence. The rest, a bit more than a half, names two emotions.
CLEAR, IRONIC, PLAIN = 0.24, 0.09, 0.09
IRONIC_CLASSES = ("sad", "angry", "disgust", "fear")

STRESS_TRUE = 0.97
FLASH_TRUE = 0.92
MISSING = 0.03


@dataclasses.dataclass(frozen=True)
class Script:
    """The latents of the examples of one split; times are seconds from the start of the clip.

    Attributes:
      split: `train`, `valid` or `test`.
      seed: of the whole data set.
      ids: N names such as `train_s03_0007`.
      emotion: `[N]` int32, the label.
      speaker: `[N]` the number of the speaker in the data set.
      face: `[N]` the emotion that the face shows.
      face_twin: `[N]` the emotion that it could be taken for.
      face_blend: `[N]` share of the twin in the face.
      face_strength: `[N]` intensity of the expression, 1 is full.
      voice: `[N]` the emotion that the voice shows.
      voice_strength: `[N]` intensity of it in the voice.
      sentences: N sentences.
      stress: `[N]` position of the word that the voice stresses.
      word_times: `[N, W + 1]` where each word starts, then where the last one ends; the padding
        repeats the end.
      onset: `[N]` when the expression begins to appear.
      flash: `[N]` when it is strongest, at a word but for the lag of the face.
      missing: `[N]` the modality that the sequence view leaves out, -1 for none.
    """

    split: str
    seed: int
    ids: tuple[str, ...]
    emotion: np.ndarray
    speaker: np.ndarray
    face: np.ndarray
    face_twin: np.ndarray
    face_blend: np.ndarray
    face_strength: np.ndarray
    voice: np.ndarray
    voice_strength: np.ndarray
    sentences: tuple[sentences.Sentence, ...]
    stress: np.ndarray
    word_times: np.ndarray
    onset: np.ndarray
    flash: np.ndarray
    missing: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def voice_start(self) -> np.ndarray:
        """`[N]` when the first word starts."""
        return self.word_times[:, 0]

    @property
    def voice_end(self) -> np.ndarray:
        """`[N]` when the last word ends."""
        return self.word_times[:, -1]

    def part(self, rows: slice | np.ndarray) -> "Script":
        """Returns the script of some of the examples."""
        values = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple):
                value = tuple(value[row] for row in np.arange(len(self))[rows])
            elif isinstance(value, np.ndarray):
                value = value[rows]
            values[field.name] = value
        return Script(**values)


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """Returns the stream of random numbers that a seed and some names stand for."""
    words = [zlib.crc32(str(name).encode()) for name in names]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *words])))


def bell(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Returns bell-shaped numbers of mean 0 and variance 1 within +-3.5.

    Made of four uniform numbers by exact arithmetic, so that no machine's `log` or `exp` can move
    a pixel; the tails do not matter here.
    """
    a, b, c, d = rng.random((4, *shape))
    return (a + b - c - d) * 1.7320508


def write(split: str, seed: int, count: int | None = None) -> Script:
    """Writes the script of a split.

    Args:
      split: `train`, `valid` or `test`.
      seed: of the whole data set.
      count: how many examples, from the first on; all of them by default.

    Returns:
      The script. The first examples do not depend on `count`.
    """
    size = SIZES[split]

    def draw(name: str) -> np.ndarray:
        return stream(seed, split, name).random(size)

    emotion = stream(seed, split, "emotion").permutation(np.arange(size) % len(CLASSES))
    voices = SPEAKERS[split]
    order = stream(seed, split, "speaker").permutation(np.arange(size) % len(voices))
    speaker = np.asarray(voices)[order]
    face_twin = _twins(FACE_TWINS, emotion, draw("face twin"))
    voice_twin = _twins(VOICE_TWINS, emotion, draw("voice twin"))
    rival = np.where(draw("rival") < 0.5, face_twin, voice_twin)
    said, meant = _say(seed, split, emotion, speaker, rival)
    stress = _aim(said, meant, draw("stress") < STRESS_TRUE)
    flash_word = _aim(said, meant, draw("flash") < FLASH_TRUE)
    # Of two emotions in a sentence, the one that is not meant shows in face and voice too.
    mixed = np.array([len(sentence.key) > 1 for sentence in said])
    face_rate, voice_rate = np.where(mixed, MIXED_SWAP, _swap_rates(emotion))
    face_other, voice_other = np.where(mixed, rival, (face_twin, voice_twin))
    face = _mislead(emotion, face_other, face_rate, draw("face swap"), draw("face stray"))
    voice = _mislead(emotion, voice_other, voice_rate, draw("voice swap"), draw("voice stray"))
    word_times = _time(said, stress, voice, draw("voice lag"), draw("tempo"))
    rows = np.arange(size)
    centre = (word_times[rows, flash_word] + word_times[rows, flash_word + 1]) / 2
    script = Script(
        split=split,
        seed=seed,
        ids=tuple(f"{split}_s{who:02d}_{row:04d}" for row, who in enumerate(speaker)),
        emotion=emotion.astype(np.int32),
        speaker=speaker,
        face=face,
        face_twin=_twins(FACE_TWINS, face, draw("face twin")),
        face_blend=0.35 * draw("face blend"),
        face_strength=0.7 + 0.4 * draw("face strength"),
        voice=voice,
        voice_strength=0.75 + 0.5 * draw("voice strength"),
        sentences=said,
        stress=stress,
        word_times=word_times,
        onset=0.05 + 0.3 * draw("onset"),
        flash=np.clip(centre - 0.08 + 0.2 * draw("face lag"), 0.1, CLIP_SECONDS - 0.1),
        missing=np.where(draw("missing") < MISSING, (draw("which missing") * 3).astype(int), -1),
    )
    return script if count is None else script.part(slice(count))


def speaking(script: Script, times: np.ndarray) -> np.ndarray:
    """Returns how loud speech is, which is also how far it opens the mouth.

    Args:
      script: of N examples.
      times: `[N, T]` seconds.

    Returns:
      `[N, T]` in [0, 1]: an arch over each word, 0 between the words and outside the sentence.
    """
    start, end = script.word_times[:, None, :-1], script.word_times[:, None, 1:]
    inside = (times[..., None] >= start) & (times[..., None] < end)
    way = (times[..., None] - start) / np.where(end > start, end - start, 1.0)
    return np.where(inside, 4 * way * (1 - way), 0.0).max(-1)


def _twins(twins: dict[str, tuple[str, ...]], emotion: np.ndarray, pick: np.ndarray) -> np.ndarray:
    """Returns `[N]` an emotion that each could be taken for; `pick` `[N]` in [0, 1) chooses."""
    names = [twins[CLASSES[number]] for number in emotion]
    return np.array([CLASSES.index(t[int(u * len(t))]) for t, u in zip(names, pick, strict=True)])


def _swap_rates(emotion: np.ndarray) -> np.ndarray:
    """Returns `[2, N]` how often face and voice mislead: a smile is hard to mistake."""
    face = np.where(emotion == CLASSES.index("happy"), FACE_SWAP / 2, FACE_SWAP)
    return np.stack([face, np.full(len(emotion), VOICE_SWAP)])


def _mislead(
    emotion: np.ndarray,
    twin: np.ndarray,
    rate: float | np.ndarray,
    swap: np.ndarray,
    stray: np.ndarray,
) -> np.ndarray:
    """Returns `[N]` what a modality shows: the emotion, its twin, or now and then anything."""
    shown = np.where(swap < rate, twin, emotion)
    return np.where(stray < STRAY, (stray / STRAY * len(CLASSES)).astype(int), shown)


def _say(
    seed: int, split: str, emotion: np.ndarray, speaker: np.ndarray, rival: np.ndarray
) -> tuple[tuple[sentences.Sentence, ...], np.ndarray]:
    """Returns what is said, and `[N]` which clause of it is meant."""
    liked = {s: sentences.favourites(stream(seed, "favourites", int(s))) for s in set(speaker)}
    size = len(emotion)
    kind = stream(seed, split, "kind").random(size)
    late = stream(seed, split, "order").random(size) < 0.5
    openers = stream(seed, split, "opener").random(size)
    choice = stream(seed, split, "clause").random((size, 4))
    said, meant = [], np.zeros(size, int)
    for row in range(size):
        own, other = int(emotion[row]), int(rival[row])
        opener = openers[row] < 0.15
        if kind[row] < CLEAR:
            spoken = (own,)
        elif kind[row] < CLEAR + IRONIC and CLASSES[own] in IRONIC_CLASSES:
            spoken, opener = (CLASSES.index("happy"),), openers[row] < 0.8
        elif kind[row] < CLEAR + IRONIC + PLAIN:
            spoken = (CLASSES.index("neutral"),)
        else:
            spoken = (other, own) if late[row] else (own, other)
            meant[row] = int(late[row])
        said.append(sentences.compose(spoken, choice[row], liked[speaker[row]], opener))
    return tuple(said), meant


def _aim(said: tuple[sentences.Sentence, ...], meant: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Returns `[N]` the word that is pointed at: in the clause that is meant, if `true`."""
    clause = np.where(true, meant, 1 - meant)
    return np.array([s.key[c % len(s.key)] for s, c in zip(said, clause, strict=True)])


TEMPO = {
    "neutral": 1.0,
    "happy": 1.1,
    "sad": 0.82,
    "angry": 1.12,
    "fear": 1.0,
    "disgust": 0.92,
    "surprise": 1.08,
}


def _time(
    said: tuple[sentences.Sentence, ...],
    stress: np.ndarray,
    voice: np.ndarray,
    lag: np.ndarray,
    tempo: np.ndarray,
) -> np.ndarray:
    """Returns `[N, W + 1]` when the words start and the last one ends, in seconds."""
    weight = np.zeros((len(said), MAX_WORDS))
    for row, sentence in enumerate(said):
        weight[row, : len(sentence.words)] = [0.7 + 0.1 * len(word) for word in sentence.words]
    weight[np.arange(len(said)), stress] *= 1.25
    words = np.array([len(sentence.words) for sentence in said])
    rate = np.array([TEMPO[CLASSES[number]] for number in voice]) * (0.93 + 0.14 * tempo)
    seconds = np.clip((0.45 + 0.075 * words) / rate, 0.55, 1.2)
    ends = np.cumsum(weight, 1)
    times = np.concatenate([np.zeros((len(said), 1)), ends / ends[:, -1:]], 1)
    return 0.02 + 0.26 * lag[:, None] + times * seconds[:, None]
