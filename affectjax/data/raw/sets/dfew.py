"""DFEW: clips of films, seven emotions, five folds (Jiang et al. 2020); the single-labelled ones.

    EmoLabel_DataSplit/{train,test}(single-labeled)/set_{1..5}.csv    video_name,label (1 to 7)
    Clip/clip_224x224/00001/00001_00001.jpg                           faces, cut out and upright
    Clip/clip_224x224_16f/00001/1.jpg                                 the same, 16 frames a clip
    Clip/original/1.mp4                                               as filmed, with sound

So the set's README has it, and public loaders (DFER-CLIP, MAE-DFER) read it. The other arrangement,
that of DFEW's own code (`data/00001`, `label/single_trainset_1.csv`), is read too. Clips may stand
in folders of parts (`part_1`, `clip_224x224_part_1`), as they are unpacked.

The pictures are those of the first of PICTURES that holds clips, for all of them. The sound is that
of the original, where it is there. 362 single-labelled clips without a face are in no list.

From which film a clip is, is not published: each is a group of its own.
"""

from collections.abc import Iterator
from pathlib import Path

from affectjax.data.clip import Clip
from affectjax.data.labels import LabelSpec
from affectjax.data.raw import file_lists, tables
from affectjax.data.raw.dataset import RawDataset
from affectjax.data.skipped import SkippedRecords

CLASSES = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")
LISTS = ("EmoLabel_DataSplit/{split}*/set_{fold}.csv", "label/single_{split}set_{fold}.csv")
ORIGINAL = "Clip/original"
PICTURES = (
    "Clip/clip_224x224",
    "Clip/clip_224x*16f",
    "Clip/clip_224x224_avi",
    ORIGINAL,
    "data",
)

# The lists number the classes from 1.
_NAMES = {str(number): name for number, name in enumerate(CLASSES, start=1)}


def clips(raw: Path, skipped: SkippedRecords) -> list[Clip]:
    """Returns the clips of all folds, by number.

    Args:
      raw: the folder that holds `EmoLabel_DataSplit` and `Clip`.
      skipped: takes clips without pictures, and those that the lists disagree on.

    Raises:
      InputError: when the folder has no lists or no pictures.
    """
    raw = Path(raw)
    lists = file_lists.fold_lists(raw, LISTS, "dfew")
    source = file_lists.pictures(raw, PICTURES)
    if not lists or source is None:
        raise file_lists.not_found(raw, "dfew", PICTURES if lists else LISTS)
    folder, pictures = source
    original = raw / ORIGINAL
    sounds = file_lists.numbered(original, file_lists.VIDEOS) if original.is_dir() else {}
    found = []
    members = file_lists.members(_entries(lists, skipped), _NAMES, skipped)
    for name, member in sorted(members.items()):
        video = pictures.get(int(name))
        if video is None:
            skipped.skip(str(folder), "all", name, "has no pictures there")
            continue
        sound = sounds.get(int(name))
        audio = None if sound == video else sound
        found.append(Clip(name, member.label, "all", member.folds, video=video, audio=audio))
    return found


def _entries(
    lists: dict[str, dict[str, Path]], skipped: SkippedRecords
) -> Iterator[file_lists.Entry]:
    """Yields the lines of the lists; clips go by their number in five digits."""
    for fold, files in lists.items():
        for split, file in files.items():
            for row in tables.read(file, ("video_name", "label"))[1]:
                number, label = row.values["video_name"], row.values["label"]
                if number.isdecimal():
                    yield file_lists.Entry(file, fold, split, f"{int(number):05d}", label)
                else:
                    where = f"{file}: line {row.line}"
                    skipped.skip(where, "all", number, f"video_name {number!r} is no number")


DATASET = RawDataset(
    labels=LabelSpec("class", CLASSES),
    clip_modalities=("audio", "vision"),
    clips=clips,
)
