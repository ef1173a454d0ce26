"""FERV39k: clips of 22 kinds of scene, seven emotions (Wang et al. 2022).

    4_setups/All_scenes/{train_All,test_All}.csv      lines such as `Action/Happy/0015 Happy`
    2_ClipsforFaceCrop/Action/Happy/0015/00.jpg       faces, cut out
    0_7_LabelClips/Action/Happy/0015.mp4              as filmed, with sound

So public loaders (MAE-DFER, DFER-CLIP) read the unpacked archives; the set's own page describes no
files. Each archive may stand in a folder of its own name. The pictures are the faces where they are
there, else the clips as filmed; the sound is that of the clips as filmed, where they are there.

The set has no validation split and numbers no classes: they are in the order that those loaders
and DFEW have. From which video a clip is, is not published: each is a group of its own.
"""

import re
from pathlib import Path

from affectjax.data.clip import Clip
from affectjax.data.labels import LabelSpec
from affectjax.data.raw import file_lists, tables
from affectjax.data.raw.dataset import RawDataset
from affectjax.data.skipped import SkippedRecords

CLASSES = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")
LISTS = ("4_setups/All_scenes", "*/4_setups/All_scenes", "All_scenes")
FACES = ("2_ClipsforFaceCrop*/2_ClipsforFaceCrop", "*/2_ClipsforFaceCrop", "2_ClipsforFaceCrop")
FILMED = ("0_7_LabelClips*/0_7_LabelClips", "*/0_7_LabelClips", "0_7_LabelClips")

_LINE = re.compile(r"(\w+/\w+/\w+)\s+(\w+)")


def clips(raw: Path, skipped: SkippedRecords) -> list[Clip]:
    """Returns the clips of both splits, in the order of the lists.

    Args:
      raw: the folder that holds `4_setups` and `2_ClipsforFaceCrop` or `0_7_LabelClips`.
      skipped: takes lines that name no clip or no class, and clips without pictures or listed
        twice.

    Raises:
      InputError: when the folder has no lists or no pictures.
    """
    raw = Path(raw)
    lists = file_lists.find(raw, LISTS)
    faces, filmed = file_lists.find(raw, FACES), file_lists.find(raw, FILMED)
    if lists is None or (faces is None and filmed is None):
        raise file_lists.not_found(raw, "ferv39k", LISTS if lists is None else (*FACES, *FILMED))
    found, seen = [], set()
    for split in ("train", "test"):
        file = lists / f"{split}_All.csv"
        for number, line in enumerate(_lines(file), start=1):
            where = f"{file}: line {number}"
            match = _LINE.fullmatch(line)
            if match is None:
                skipped.skip(where, split, line, "is not scene/emotion/number and an emotion")
                continue
            name, label = match.group(1), match.group(2).lower()
            face = faces / name if faces else None
            sound = filmed / f"{name}.mp4" if filmed else None
            if label not in CLASSES:
                skipped.skip(where, split, name, f"label {label!r} is none of {', '.join(CLASSES)}")
            elif name in seen:
                skipped.skip(where, split, name, "is listed twice")
            elif not (face.is_dir() if face else sound.is_file()):
                skipped.skip(where, split, name, f"{face or sound} is not there")
            else:
                audio = sound if face and sound and sound.is_file() else None
                found.append(Clip(name, label, split, video=face or sound, audio=audio))
            seen.add(name)
    return found


def _lines(file: Path) -> list[str]:
    """Returns the lines of a list that are not blank."""
    return [line.strip() for line in tables.text(file).splitlines() if line.strip()]


DATASET = RawDataset(
    labels=LabelSpec("class", CLASSES),
    clip_modalities=("audio", "vision"),
    clips=clips,
)
