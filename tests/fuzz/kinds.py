"""The kinds of input: how a healthy one is made by code, and who reads it."""

import csv
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))  # as pytest does for its own tests

import clip_layouts
import feature_layouts
import media_files

from affectjax.data import archives
from affectjax.data.batches import prediction_input
from affectjax.data.clip import Clip
from affectjax.data.labels import LabelSpec
from affectjax.data.limits import Limits
from affectjax.data.media import decoding
from affectjax.data.prepare import prepared
from affectjax.data.prepare.clip_storage import Storage, decode
from affectjax.data.raw import readers, sets
from affectjax.data.skipped import SkippedRecords

LARGEST_MIB = 64
SCORE = LabelSpec("score", low=-3.0, high=3.0)
CLASSES = LabelSpec("class", ("sad", "happy"))
_STORAGE = Storage(
    image_size=16,
    keep_frames=4,
    detector="none",
    image_encoding="png",
    largest_mib=LARGEST_MIB,
)


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
      make: writes a healthy one into an empty folder.
      read: reads what is in the folder, with any exception for what is wrong.
      damage: the names of the files to damage, as a pattern.
    """

    make: Callable[[Path], None]
    read: Callable[[Path], object]
    damage: str = "*"


def _features(format, spec=SCORE):
    def read(folder: Path) -> None:
        paths = [folder] if format in ("plain", "csd") else sorted(folder.glob("*.pkl"))
        for aligned in (False, True) if format in ("plain", "csd") else (False,):
            skipped = SkippedRecords(strict=False)
            limits = Limits(largest_mib=LARGEST_MIB)
            readers.read(paths[0], spec, aligned, format, skipped=skipped, limits=limits)

    return read


def _own(folder: Path) -> None:
    spec = sets.get("own").label_spec("sequences", folder)
    _features("plain", spec)(folder)
    prepared.diagnose("own", folder, aligned=False, view="sequences")


def _plain(save):
    def make(folder: Path) -> None:
        rows = [("a_1", "train", "sad"), ("b_1", "valid", "happy"), ("a_2", "train", "sad")]
        x = feature_layouts.steps([1, 2, 2], 2, 2)
        feature_layouts.plain(folder, rows, ["x", 'y, "so"', "z"], text=x)
        save(folder / "features.npz", text=x, text_lengths=np.array([1, 0, 2]), audio=x)
        (folder / "labels.json").write_text('{"kind": "class", "classes": ["sad", "happy"]}')

    return make


def _csd(folder: Path) -> None:
    feature_layouts.csd(folder)
    roles = {"label": "labels.csd", "text": "glove.csd", "audio": "covarep.csd"}
    (folder / "modalities.json").write_text(json.dumps(roles))
    with h5py.File(folder / "covarep.csd", "a") as file:  # what the SDK writes is compressed
        entry = file["covarep/data/v1"]
        x = entry["features"][()]
        del entry["features"]
        entry.create_dataset("features", data=x, chunks=(2, 1), compression="gzip", shuffle=True)


def _clips(folder: Path) -> None:
    rows = [("a", "train", "sad", "a.mp4", "", "Well, so"), ("b", "valid", "happy", "f", "", "")]
    clip_layouts.own(folder, rows)
    (folder / "labels.json").write_text('{"kind": "class", "classes": ["sad", "happy"]}')


def _list_clips(name):
    def read(folder: Path) -> None:
        dataset = sets.get(name)
        dataset.label_spec("clips", folder)
        dataset.clips(folder, SkippedRecords(strict=False))
        if name == "clips":
            prediction_input.listed(folder / "clips.csv", None)

    return read


def _table(name, rows, delimiter=","):
    def make(folder: Path) -> None:
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, delimiter=delimiter).writerows(rows)

    return make


def _meld(folder: Path) -> None:
    head = ("Sr No.", "Utterance", "Emotion", "Dialogue_ID", "Utterance_ID")
    rows = [head, (1, "Well, \u2019so", "joy", 0, 0), (2, "No", "anger", 0, 1)]
    _table("train_sent_emo.csv", rows)(folder)


def _fer2013(folder: Path) -> None:
    clip_layouts.fer2013_csv(folder, clip_layouts.faces(2), [0, 3], ["Training", "PublicTest"])


def _fer2013_npz(folder: Path) -> None:
    usage = ["Training", "PublicTest"]
    image, label = clip_layouts.faces(2), np.array([0, 3])
    np.savez_compressed(folder / "fer2013.npz", image=image, label=label, usage=np.array(usage))


def _npy(folder: Path) -> None:
    np.save(folder / "a.npy", np.arange(12.0).reshape(3, 4))


def _image(ending):
    def make(folder: Path) -> None:
        cv2.imwrite(str(folder / f"a{ending}"), media_files.grey(9, 24, 32))

    return make


def _gif(folder: Path) -> None:
    from PIL import Image

    Image.fromarray(media_files.grey(9, 24, 32)).save(folder / "a.gif")


def _media(name, codec=None, sound=None, rate=16000, form="fltp", layout="mono"):
    def make(folder: Path) -> None:
        pictures = [media_files.grey(i) for i in range(12)] if codec else ()
        wave = np.tile(media_files.tone(1.0, rate), (2 if layout == "stereo" else 1, 1))
        media_files.write(
            folder / name,
            pictures,
            wave if sound else None,
            codec=codec or "",
            sound_codec=sound or "",
            sound_rate=rate,
            form=form,
            layout=layout,
        )

    return make


def _decode(folder: Path) -> None:
    (path,) = (p for p in folder.iterdir() if p.is_file())
    video = decoding.has_video(path)
    decode(Clip("a", None, "", **{"video" if video else "audio": path}), _STORAGE, None, False)
    if path.suffix not in decoding.IMAGES:
        decoding.timeline(path, 2, 0.25, 0.75, LARGEST_MIB)
        prediction_input.windows(decoding.duration(path), 0.5, 0.25)


def _prepared(folder: Path) -> None:
    raw = folder.parent / f"{folder.name}_raw"
    raw.mkdir()
    _plain(np.savez)(raw)
    made = prepared.prepare("own", raw, folder, aligned=False, view="sequences")
    for file in made.iterdir():
        file.rename(folder / file.name)


def _open_prepared(folder: Path) -> None:
    found = prepared.open_prepared(folder)
    for split in found.splits:
        found.index(split)
        source = found.source(split)
        for index in range(len(source)):
            source[index]


KINDS = {
    "clips table": Kind(_clips, _list_clips("clips"), "clips.csv"),
    "labels.json": Kind(_clips, _list_clips("clips"), "labels.json"),
    "labels table": Kind(_plain(np.savez), _own, "labels.csv"),
    "npz": Kind(_plain(np.savez), _own, "features.npz"),
    "compressed npz": Kind(_plain(np.savez_compressed), _own, "features.npz"),
    "npy": Kind(_npy, lambda folder: archives.array(folder / "a.npy", LARGEST_MIB)),
    "MMSA pickle": Kind(lambda f: feature_layouts.mmsa(f / "a.pkl"), _features("mmsa")),
    "MulT pickle": Kind(
        lambda f: feature_layouts.dump(f / "a_data.pkl", {"train": feature_layouts.mult_split()}),
        _features("mult"),
    ),
    "csd": Kind(_csd, _features("csd"), "*.csd"),
    "csd json": Kind(_csd, _features("csd"), "*.json"),
    "MELD": Kind(_meld, _list_clips("meld")),
    "FER2013 csv": Kind(_fer2013, _list_clips("fer2013")),
    "FER2013 npz": Kind(_fer2013_npz, _list_clips("fer2013")),
    "GoEmotions": Kind(
        _table("train.tsv", [("Well", "1,2", "a"), ("So", "3", "b")], "\t"),
        _list_clips("goemotions"),
    ),
    "AffectNet": Kind(
        _table("training.csv", [("subDirectory_filePath", "expression"), ("1/a.jpg", "1")]),
        _list_clips("affectnet"),
    ),
    **{
        ending: Kind(_image(ending), _decode)
        for ending in (".jpg", ".png", ".bmp", ".webp", ".tif")
    },
    ".gif": Kind(_gif, _decode),
    ".mp4": Kind(_media("a.mp4", "libx264", "aac"), _decode),
    ".mov": Kind(_media("a.mov", "mjpeg", "pcm_s16le", form="s16"), _decode),
    ".mkv": Kind(_media("a.mkv", "mpeg4", "flac", form="s16"), _decode),
    ".webm": Kind(_media("a.webm", "libvpx", "libopus", 48000, "s16"), _decode),
    ".avi": Kind(_media("a.avi", "mpeg4", "libmp3lame"), _decode),
    ".ts": Kind(_media("a.ts", "libx264", "aac"), _decode),
    ".flv": Kind(_media("a.flv", "flv", "aac"), _decode),
    ".wmv": Kind(_media("a.wmv", "wmv2", "libmp3lame"), _decode),
    ".wav": Kind(_media("a.wav", None, "pcm_s16le", form="s16", layout="stereo"), _decode),
    ".flac": Kind(_media("a.flac", None, "flac", form="s16"), _decode),
    ".mp3": Kind(_media("a.mp3", None, "libmp3lame"), _decode),
    ".ogg": Kind(_media("a.ogg", None, "libopus", 48000, "s16"), _decode),
    ".m4a": Kind(_media("a.m4a", None, "aac"), _decode),
    "prepared card": Kind(_prepared, _open_prepared, "*.json"),
    "prepared records": Kind(_prepared, _open_prepared, "*array_record*"),
}
