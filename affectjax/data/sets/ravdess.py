"""RAVDESS speech: 24 actors say two sentences in eight emotions (Livingstone & Russo 2018).

    Actor_01 ... Actor_24, in each 03-01-06-01-02-01-12.wav and the like

The seven fields of a name are modality (01 pictures with sound, 02 pictures, 03 sound), channel (01
speech, 02 song), emotion, intensity, statement, repetition and actor, as the set's page on Zenodo
describes them. The three modalities are exports of the same recording: 02 is left out, and 03 where
01 is there. Songs are another set and are left out too. `.flac` may stand for `.wav`.

Actors 19 to 22 are for validation, 23 and 24 for the test. The group is the actor.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from affectjax.data import listing
from affectjax.data.clips import Clip
from affectjax.data.labels import LabelSpec
from affectjax.data.readers import Ledger
from affectjax.errors import InputError

CLASSES = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
LABELS = LabelSpec("class", CLASSES)
GROUP = r"^(?:\d\d-){6}(\d\d)$"
STATEMENTS = {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"}
VALID = ("19", "20", "21", "22")
TEST = ("23", "24")

_NAME = re.compile(r"(0[123])-(0[12])-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)")
_FOLDERS = "Actor_[0-9][0-9]"


def clips(raw: Path, ledger: Ledger) -> list[Clip]:
    """Returns the spoken clips, by actor and name.

    Args:
      raw: the folder of the actors' folders.
      ledger: takes files whose name is not as above, and sounds that are there twice.

    Raises:
      InputError: when the folder has no actor, or the actors no speech.
    """
    raw = Path(raw)
    found: dict[str, Clip] = {}
    recorded = set()
    for file, split in _files(raw):
        where, name = str(file.parent), file.stem
        match = _NAME.fullmatch(name)
        if match is None:
            ledger.skip(where, split, file.name, "its name is not seven fields of two digits")
            continue
        modality, channel, emotion, _, statement, _, actor = match.groups()
        if channel == "02" or modality == "02":
            continue
        if not 1 <= int(emotion) <= len(CLASSES):
            ledger.skip(where, split, name, f"emotion {emotion} is none of 01 to 08")
        elif statement not in STATEMENTS:
            ledger.skip(where, split, name, f"statement {statement} is neither 01 nor 02")
        elif actor != file.parent.name[-2:]:
            ledger.skip(where, split, name, f"is of actor {actor}, in {file.parent.name}")
        elif name in found:
            ledger.skip(where, split, file.name, "the same recording is there in another format")
        else:
            seen = modality == "01" and file.suffix.lower() == ".mp4"
            if seen:
                recorded.add(name[3:])
            found[name] = Clip(
                id=name,
                label=CLASSES[int(emotion) - 1],
                split=split,
                text=STATEMENTS[statement],
                **{"video" if seen else "audio": file},
            )
    if not found:
        raise InputError(f"{raw}: no speech in {_FOLDERS}; names of speech begin 01-01 or 03-01")
    return [c for c in found.values() if c.video is not None or c.id[3:] not in recorded]


def _files(raw: Path) -> Iterator[tuple[Path, str]]:
    """Yields the sounds and videos of all actors, each with its split."""
    folders = sorted(path for path in raw.glob(_FOLDERS) if path.is_dir())
    if not folders:
        raise listing.not_found(raw, "ravdess", (f"{_FOLDERS}/*.wav", "*.flac", "*.mp4"))
    for folder in folders:
        actor = folder.name[-2:]
        split = "valid" if actor in VALID else "test" if actor in TEST else "train"
        for file in sorted(folder.iterdir()):
            if file.suffix.lower() in (".wav", ".flac", ".mp4") and not file.name.startswith("."):
                yield file, split
