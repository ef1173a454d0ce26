"""IEMOCAP: ten actors in five sessions of two (Busso et al. 2008). Two views.

Sequences are four yes-or-no tasks, in the form of Tsai et al. 2019. The pickle does not name its
label columns. The order neutral, happy, sad, angry is the one in which MulT's published evaluation
(`eval_iemocap`) prints them. To check a file: in its test split about 41 % of the examples are
neutral, 14 % happy, 21 % sad and 24 % angry (the complement of what answering "no" to everything
scores in a published reproduction).

Clips are the utterances, sound and text, each of one class:

    Session1/dialog/EmoEvaluation/Ses01F_impro01.txt     [6.2901 - 8.2357] TAB Ses01F_impro01_F000
                                                         TAB neu TAB [2.5000, 2.5000, 2.5000]
    Session1/dialog/transcriptions/Ses01F_impro01.txt    Ses01F_impro01_F000 [006.29-008.23]: Hi.
    Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav

The classes are those of CODES. Utterances on which the raters did not agree (xxx) or agreed on
"other" (oth) are left out and counted. `config.data.class_map=seven` leaves excited and frustrated
out, as the supramodal paper's counts do; to take excited for happiness give pairs, with
`excited:happiness` among them. Session 4 is the test, as those counts show; session 5 is for
validation.

The group is the session (`Ses01`): both speakers of a dialogue are in it, and they are in no other.
The pickle has no ids, so its examples are named by split and row, and each is a group of its own.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from absl import logging

from affectjax.data.clip import Clip
from affectjax.data.labels import LabelSpec
from affectjax.data.raw import file_lists
from affectjax.data.raw.dataset import SEQUENCES, RawDataset
from affectjax.data.skipped import SkippedRecords
from affectjax.errors import InputError

CODES = {
    "neu": "neutral",
    "hap": "happy",
    "ang": "angry",
    "sad": "sad",
    "exc": "excited",
    "fru": "frustrated",
    "fea": "fear",
    "sur": "surprise",
    "dis": "disgust",
}
LEFT_OUT = ("xxx", "oth")
SPLITS = {"4": "test", "5": "valid"}
EVALUATIONS = "Session[1-5]/dialog/EmoEvaluation/Ses*.txt"

_EVALUATION = re.compile(r"\[[\d.]+ *- *[\d.]+\]\t(\S+)\t(\S+)\t\[")
_SENTENCE = re.compile(r"(\S+) \[[\d.]+ *- *[\d.]+\]: *(.*)")


def labels(view: str, raw: Path) -> LabelSpec:
    """Returns what the labels of a view are: the four tasks, or the classes of CODES."""
    del raw
    if view == SEQUENCES:
        return LabelSpec("binary", ("neutral", "happy", "sad", "angry"))
    return LabelSpec("class", tuple(CODES.values()))


def clips(raw: Path, skipped: SkippedRecords) -> list[Clip]:
    """Returns the utterances, by session, dialogue and time.

    Args:
      raw: the folder of the sessions, or one above it.
      skipped: takes utterances of another class, without a sound, or that stand twice.

    Raises:
      InputError: when the folder has no evaluation, or they have no utterance.
    """
    raw = Path(raw)
    files = sorted(raw.glob(EVALUATIONS)) or sorted(raw.glob(f"*/{EVALUATIONS}"))
    if not files:
        raise file_lists.not_found(raw, "iemocap", (EVALUATIONS,))
    found: dict[str, Clip] = {}
    left_out = 0
    for file in files:
        session = file.parents[2]
        split = SPLITS.get(session.name[-1], "train")
        said = _sentences(session / "dialog" / "transcriptions" / file.name)
        for name, code in _evaluations(file):
            sound = session / "sentences" / "wav" / file.stem / f"{name}.wav"
            if code in LEFT_OUT:
                left_out += 1
            elif code not in CODES:
                allowed = ", ".join((*CODES, *LEFT_OUT))
                skipped.skip(str(file), split, name, f"emotion {code!r} is none of {allowed}")
            elif name in found:
                skipped.skip(str(file), split, name, "stands twice; the first is kept")
            elif not sound.is_file():
                skipped.skip(str(file), split, name, f"{sound} is not there")
            else:
                found[name] = Clip(name, CODES[code], split, audio=sound, text=said.get(name))
    if left_out:
        logging.info("iemocap: %d utterances of no or another emotion left out", left_out)
    if not found and not skipped.reasons:
        raise InputError(f"{raw}: no utterance in {EVALUATIONS}")
    return list(found.values())


def _evaluations(file: Path) -> Iterator[tuple[str, str]]:
    """Yields the utterances of a dialogue and their emotions, not what each rater said."""
    for line in _lines(file):
        match = _EVALUATION.match(line)
        if match is not None:
            yield match.group(1), match.group(2)


def _sentences(file: Path) -> dict[str, str]:
    """Returns by utterance what is said; nothing where there is no transcript."""
    matches = map(_SENTENCE.match, _lines(file)) if file.is_file() else ()
    return {match.group(1): match.group(2).strip() for match in matches if match is not None}


def _lines(file: Path) -> list[str]:
    try:
        # Latin-1 reads any bytes: the files are ASCII but for a stray character.
        return file.read_text(encoding="latin-1").splitlines()
    except OSError as error:
        raise InputError(f"{file}: is not readable ({error})") from error


DATASET = RawDataset(
    labels=labels,
    group=r"^(Ses\d\d|.+)",
    sequence_files={
        True: ("iemocap_data.pkl", "."),
        False: ("iemocap_data_noalign.pkl", "."),
    },
    clips=clips,
    clip_modalities=("text", "audio"),
    gaps=None,  # of a folder of .csd: videos in no fold, or without a label
)
