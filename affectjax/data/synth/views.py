"""The three views of affect_synth: raw clips, feature sequences, unpaired streams.

Letters: N examples, T steps, D features.
"""

import dataclasses

import numpy as np

from affectjax.data.sequences import FeatureSet, Sequences, Split
from affectjax.data.synth import face, measure, voice
from affectjax.data.synth.script import SIZES, Script, write
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES

SPLITS = tuple(SIZES)
UNPAIRED = ("image", "audio", "text")


@dataclasses.dataclass(frozen=True)
class Clips:
    """Raw clips of one split.

    Attributes:
      frames: `[N, 16, 64, 64, 3]` uint8, RGB, over 1.5 s.
      waveform: `[N, 24000]` float32 in [-1, 1], 16 kHz.
      sentences: N sentences, lower case.
      labels: `[N]` int32 numbers of the classes.
      ids: N names such as `train_s03_0007`.
      speakers: N names such as `s03`.
    """

    frames: np.ndarray
    waveform: np.ndarray
    sentences: tuple[str, ...]
    labels: np.ndarray
    ids: tuple[str, ...]
    speakers: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)


@dataclasses.dataclass(frozen=True)
class Unpaired:
    """One modality alone.

    Attributes:
      x: `[N, 64, 64, 3]` uint8 images, `[N, 24000]` float32 sounds, or a tuple of N sentences.
      labels: `[N]` int32 numbers of the classes.
      ids: N names.
    """

    x: np.ndarray | tuple[str, ...]
    labels: np.ndarray
    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)


def clips(split: str, seed: int, count: int | None = None) -> Clips:
    """Makes the raw view: frames, sound and sentence of every example.

    Args:
      split: `train`, `valid` or `test`.
      seed: of the data set; every view of one seed shows the same examples.
      count: how many, from the first on; all of the split by default.

    Returns:
      The clips; all three modalities are there in every one.

    Raises:
      InputError: for an unknown split.
    """
    script = _script(split, seed, count)
    return Clips(
        frames=face.frames(script),
        waveform=voice.waveform(script),
        sentences=_spoken(script),
        labels=script.emotion,
        ids=script.ids,
        speakers=tuple(f"s{who:02d}" for who in script.speaker),
    )


def sequences(seed: int) -> FeatureSet:
    """Makes the view of asynchronous feature sequences.

    Text has one step a word, audio 32 steps a second, vision 16. The voice starts up to 0.28 s
    after the clip, and the face runs from 0.08 s before to 0.12 s after the voice. About one
    example in thirty lacks one modality.

    Args:
      seed: of the data set.

    Returns:
      Splits `train`, `valid` and `test`: text `[N, 12, 32]`, audio `[N, 48, 20]`, vision
      `[N, 24, 16]`, float32, zeros where the mask is false.
    """
    return FeatureSet({split: sequence_split(split, seed) for split in SPLITS})


def sequence_split(split: str, seed: int, count: int | None = None) -> Split:
    """Makes one split of the view of feature sequences.

    Args:
      split: `train`, `valid` or `test`.
      seed: of the data set.
      count: how many examples, from the first on; all of the split by default.

    Returns:
      The split.

    Raises:
      InputError: for an unknown split.
    """
    script = _script(split, seed, count)
    whole = {
        "text": measure.text(script),
        "audio": measure.audio(script, voice.waveform(script)),
        "vision": measure.vision(script),
    }
    kept = {name: script.missing != number for number, name in enumerate(MODALITIES)}
    return Split(
        ids=script.ids,
        label=script.emotion,
        modalities={name: _keep(whole[name], kept[name]) for name in MODALITIES},
        transcripts=_spoken(script),
    )


def unpaired(modality: str, seed: int, split: str = "train") -> Unpaired:
    """Makes the view of one modality alone.

    Each modality has a script of its own, so no example is in two of them, and there is no pair to
    be put together.

    Args:
      modality: `image` (the frame of strongest expression), `audio` or `text`.
      seed: of the data set.
      split: `train`, `valid` or `test`.

    Returns:
      As many examples as the other views have; ids are unique over the three modalities.

    Raises:
      InputError: for an unknown modality or split.
    """
    if modality not in UNPAIRED:
        raise InputError(f"modality {modality!r} of affect_synth: must be one of {UNPAIRED}.")
    own = np.random.SeedSequence((seed, 1 + UNPAIRED.index(modality))).generate_state(1)[0]
    script = _script(split, int(own), None)
    if modality == "image":
        x = face.draw(face.pose(script, script.flash[:, None]), face.looks(script))[:, 0]
    else:
        x = voice.waveform(script) if modality == "audio" else _spoken(script)
    return Unpaired(x, script.emotion, tuple(f"{modality}_{name}" for name in script.ids))


def _script(split: str, seed: int, count: int | None) -> Script:
    """Returns the script of a split, or says which splits there are."""
    if split not in SPLITS:
        raise InputError(f"split {split!r} of affect_synth: must be one of {SPLITS}.")
    return write(split, seed, count)


def _spoken(script: Script) -> tuple[str, ...]:
    """Returns the N sentences as text."""
    return tuple(" ".join(sentence.words) for sentence in script.sentences)


def _keep(whole: Sequences, kept: np.ndarray) -> Sequences:
    """Returns sequences with only the examples `kept` `[N]`; the others are all padding."""
    return Sequences(whole.x * kept[:, None, None], whole.mask & kept[:, None])
