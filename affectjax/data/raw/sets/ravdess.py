"""RAVDESS speech: 24 actors say two sentences in eight emotions (Livingstone & Russo 2018).

    Actor_01 ... Actor_24, in each 03-01-06-01-02-01-12.wav and the like

The actors' folders stand in the raw folder, or one below it as the set's archives are unpacked
(`Audio_Speech_Actors_01-24/Actor_01`).

The seven fields of a name are modality (01 pictures with sound, 02 pictures, 03 sound), channel (01
speech, 02 song), emotion, intensity, statement, repetition and actor, as the set's page on Zenodo
describes them. The three modalities are exports of the same recording: 02 is left out, and 03 where
01 is there. `.flac` may stand for `.wav`. Songs are `ravdess_song`; `ravdess_all` has both.

Actors 21 and 22 are for validation; 23 and 24 are for the test, as in the supramodal paper. The
group is the actor. `config.data.class_map=seven` leaves calm out, as that paper's counts do; to
take it for neutral give pairs, with `calm:neutral` among them.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from affectjax.data.clip import Clip
from affectjax.data.labels import LabelSpec
from affectjax.data.raw import file_lists
from affectjax.data.raw.dataset import RawDataset
from affectjax.data.skipped import SkippedRecords
from affectjax.errors import InputError

CLASSES = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
STATEMENTS = {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"}
VALID = ("21", "22")
TEST = ("23", "24")
# By channel: its name, and the last emotion that it has.
CHANNELS = {"01": ("speech", len(CLASSES)), "02": ("song", CLASSES.index("fearful") + 1)}

_NAME = re.compile(r"(0[123])-(0[12])-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)")
_FOLDERS = "Actor_[0-9][0-9]"


def clips(raw: Path, skipped: SkippedRecords) -> list[Clip]:
    """Returns what is spoken; see `recordings`."""
    return recordings(raw, skipped, "ravdess", ("01",))


def recordings(
    raw: Path, skipped: SkippedRecords, name: str, channels: tuple[str, ...]
) -> list[Clip]:
    """Returns the clips of some channels, by folder and name.

    Args:
      raw: the folder of the actors' folders, or one above it.
      skipped: takes files whose name is not as above, and recordings that are there twice.
      name: the data set, for messages.
      channels: those to take, of CHANNELS.

    Raises:
      InputError: when the folder has no actor, or the actors nothing of these channels.
    """
    raw = Path(raw)
    found: dict[str, Clip] = {}
    recorded = set()
    for file, split in _files(raw, name):
        where, stem = str(file.parent), file.stem
        match = _NAME.fullmatch(stem)
        if match is None:
            skipped.skip(where, split, file.name, "its name is not seven fields of two digits")
            continue
        modality, channel, emotion, _, statement, _, actor = match.groups()
        if channel not in channels or modality == "02":
            continue
        kind, last = CHANNELS[channel]
        if not 1 <= int(emotion) <= last:
            skipped.skip(
                where, split, stem, f"emotion {emotion} of {kind} is none of 01 to {last:02d}"
            )
        elif statement not in STATEMENTS:
            skipped.skip(where, split, stem, f"statement {statement} is neither 01 nor 02")
        elif actor != file.parent.name[-2:]:
            skipped.skip(where, split, stem, f"is of actor {actor}, in {file.parent.name}")
        elif stem in found:
            skipped.skip(where, split, file.name, "the same recording is there in another file")
        else:
            seen = modality == "01" and file.suffix.lower() == ".mp4"
            if seen:
                recorded.add(stem[3:])
            found[stem] = Clip(
                id=stem,
                label=CLASSES[int(emotion) - 1],
                split=split,
                text=STATEMENTS[statement],
                **{"video" if seen else "audio": file},
            )
    if not found:
        kinds = " and no ".join(CHANNELS[channel][0] for channel in channels)
        begins = " or ".join(f"{m}-{channel}" for channel in channels for m in ("01", "03"))
        raise InputError(f"{raw}: no {kinds} in {_FOLDERS}; names of those begin {begins}")
    return [c for c in found.values() if c.video is not None or c.id[3:] not in recorded]


def _files(raw: Path, name: str) -> Iterator[tuple[Path, str]]:
    """Yields the sounds and videos of all actors, each with its split."""
    found = (*raw.glob(_FOLDERS), *raw.glob(f"*/{_FOLDERS}"))
    folders = sorted(path for path in found if path.is_dir())
    if not folders:
        raise file_lists.not_found(raw, name, (f"{_FOLDERS}/*.wav", "*.flac", "*.mp4"))
    for folder in folders:
        actor = folder.name[-2:]
        split = "valid" if actor in VALID else "test" if actor in TEST else "train"
        for file in sorted(folder.iterdir()):
            if file.suffix.lower() in (".wav", ".flac", ".mp4") and not file.name.startswith("."):
                yield file, split


DATASET = RawDataset(
    labels=LabelSpec("class", CLASSES),
    group=r"^(?:\d\d-){6}(\d\d)$",
    clips=clips,
)
