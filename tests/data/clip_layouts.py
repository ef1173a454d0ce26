"""Miniature folders of clips in the layout of each data set, for the tests of this folder.

The files of media are empty: listing a data set opens none of them.
"""

import csv
from pathlib import Path

import numpy as np

from affectjax.data.raw import sets
from affectjax.data.skipped import SkippedRecords

DFEW = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")
MAFW = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise", "contempt")
FOLDS = ("1", "2", "3", "4", "5")


def listed(name, raw, **options):
    """Returns the clips by id, and what was skipped."""
    skipped = SkippedRecords(strict=False)
    found = sets.get(name).clips(raw, skipped, **options)
    assert len({(clip.split, clip.id) for clip in found}) == len(found)
    return {clip.id: clip for clip in found}, skipped.reasons


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def frames(folder, names=("1.jpg", "2.jpg")):
    touch(*(folder / name for name in names))
    return folder


def table(path, rows, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file).writerows(rows)
    return path


def own(folder, rows, header=("id", "split", "label", "video", "audio", "text"), name="clips.csv"):
    """Writes the table of one's own clips, and the media a.mp4, a.wav and the frames in f."""
    touch(folder / "a.mp4", folder / "a.wav")
    frames(folder / "f")
    return table(folder / name, [header, *rows])


def tested_in(number):
    """Returns the fold whose test split has the clip: every fifth."""
    return FOLDS[number % 5]


def split_in(number, fold):
    return "test" if tested_in(number) == fold else "train"


def dfew(raw, numbers=range(1, 11), lists="EmoLabel_DataSplit/{}(single-labeled)/set_{}.csv"):
    """Writes the lists: clip n has label n, counted from 1 again after 7."""
    for fold in FOLDS:
        for split in ("train", "test"):
            here = [n for n in numbers if split_in(n, fold) == split]
            rows = [("video_name", "label"), *((n, (n - 1) % 7 + 1) for n in here)]
            table(raw / lists.format(split, fold), rows)
    return raw


def mafw(raw, numbers=range(1, 11), kind="no_caption", encoding="utf-8"):
    """Writes the lists: clip n has the class n, counted from 0 again after 7; 5 is neutral."""
    for fold in FOLDS:
        for split in ("train", "test"):
            lines = []
            for number in numbers:
                label = MAFW[(number - 1) % 8]
                if split_in(number, fold) != split or (label, kind) == ("neutral", "with_caption"):
                    continue
                line = f"{number:05d}.mp4 {label}"
                if kind == "with_caption":
                    line = f"{number:05d}.mp4\t{label}\t一个男人皱眉。\tMan {number} “frowns”."
                lines.append(line + "\r\n")
            path = raw / "Train & Test Set" / "single" / kind / f"set_{fold}" / f"{split}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes("".join(lines).encode(encoding))
    return raw


def ferv39k(raw, train, test):
    """Writes the lists from their lines."""
    folder = raw / "4_setups" / "All_scenes"
    folder.mkdir(parents=True)
    (folder / "train_All.csv").write_text("\n".join(train) + "\n")
    (folder / "test_All.csv").write_text("\n".join(test) + "\n")
    return raw


def faces(count=4, seed=0):
    """Returns [N, 48, 48] uint8."""
    return np.random.default_rng(seed).integers(0, 256, (count, 48, 48), dtype=np.uint8)


def fer2013_npz(raw, image, label, usage):
    np.savez(raw / "fer2013.npz", image=image, label=np.array(label), usage=np.array(usage))


def fer2013_csv(raw, image, label, usage):
    pixels = [" ".join(map(str, face.ravel().tolist())) for face in image]
    rows = zip(label, pixels, usage, strict=True)
    table(Path(raw) / "fer2013.csv", [("emotion", "pixels", "Usage"), *rows])
