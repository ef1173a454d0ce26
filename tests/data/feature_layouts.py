"""Miniature raw files in each layout, for the tests of this folder."""

import csv
import json
import pickle
import struct
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np

REALDATA = Path(__file__).parents[2].parent / "shared" / "realdata"


def dump(path, content, protocol=4):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


class Python2Pickler(pickle._Pickler):
    """Writes text and bytes as Python 2 wrote its `str`, and NumPy under its old module name."""

    dispatch: ClassVar[dict] = dict(pickle._Pickler.dispatch)

    def save_old(self, value):
        raw = value if isinstance(value, bytes) else value.encode("latin1")
        head = b"U" + bytes([len(raw)]) if len(raw) < 256 else b"T" + struct.pack("<i", len(raw))
        self.write(head + raw)
        self.memoize(value)

    dispatch[bytes] = save_old
    dispatch[str] = save_old

    def reducer_override(self, value):
        if isinstance(value, np.ndarray):
            reconstruct, args, state = value.__reduce__()
            return reconstruct, args, (*state[:4], value.tobytes())
        return NotImplemented


def dump_python2(path, content):
    with path.open("wb") as file:
        Python2Pickler(file, protocol=2).dump(content)
    path.write_bytes(path.read_bytes().replace(b"numpy._core.", b"numpy.core."))
    return path


def steps(lengths, total, width, front=False, start=1.0):
    """Returns [N, T, D] that counts up from `start` in valid rows and is zero elsewhere."""
    x = np.zeros((len(lengths), total, width), np.float32)
    value = start
    for row, length in enumerate(lengths):
        first = total - length if front else 0
        for step in range(first, first + length):
            for column in range(width):
                x[row, step, column] = value
                value += 1
    return x


def mult_split(scores=(-1.0, 2.5, 0.0)):
    """Text padded in front, audio at the end, vision absent in the last example."""
    n = len(scores)
    return {
        "text": steps([2, 3, 1][:n], 4, 2, front=True),
        "audio": steps([5, 1, 2][:n], 5, 3),
        "vision": steps([1, 2, 0][:n], 2, 1),
        "labels": np.asarray(scores, np.float32).reshape(n, 1, 1),
    }


def mmsa_split(scores=(-1.0, 2.5, 0.0), name="a"):
    n = len(scores)
    bert = np.zeros((n, 3, 4), np.float32)
    for row, length in enumerate([4, 2, 3][:n]):
        bert[row, 1, :length] = 1
    rng = np.random.default_rng(len(name))
    return {
        "raw_text": [f"sentence {i}" for i in range(n)],
        "text": rng.normal(size=(n, 4, 6)).astype(np.float16),
        "text_bert": bert,
        "audio": rng.normal(size=(n, 5, 3)).astype(np.float32),
        "audio_lengths": [5, 1, 0][:n],
        "vision": rng.normal(size=(n, 7, 2)),
        "vision_lengths": [2, 7, 3][:n],
        "id": [f"{name}{i}$_${i}" for i in range(n)],
        "annotations": ["Negative", "Positive", "Neutral"][:n],
        "classification_labels": np.asarray([0, 2, 1][:n], np.float32),
        "regression_labels": np.asarray(scores, np.float32),
    }


def mmsa(path, **changes):
    """Writes train and valid; `changes` are keys of the train split, None to leave one out."""
    train = {k: v for k, v in (mmsa_split() | changes).items() if v is not None}
    return dump(path, {"train": train, "valid": mmsa_split((1.0, -3.0), name="bb")})


def csd_file(path, root, entries):
    with h5py.File(path, "w") as file:
        file.create_group(f"{root}/metadata")
        for video, (features, intervals) in entries.items():
            group = file.create_group(f"{root}/data/{video}")
            group["features"] = np.asarray(features)
            group["intervals"] = np.asarray(intervals, np.float64)


def csd(folder, folds=None):
    """Two videos. v1 has two segments, [0, 2) and [2, 4); v2 has one and no audio."""
    folder.mkdir(parents=True, exist_ok=True)
    csd_file(
        folder / "labels.csd",
        "Labels",
        {"v1": ([[1.0], [-2.0]], [[0, 2], [2, 4]]), "v2": ([[3.0]], [[0, 1]])},
    )
    csd_file(
        folder / "glove.csd",
        "glove",
        {
            "v1": ([[1, 10], [2, 20], [3, 30]], [[0, 1], [1, 1.8], [2.5, 3.5]]),
            "v2": ([[4.0, 40.0]], [[0, 1]]),
        },
    )
    # Middles at 0.25, 0.75, 1.25, 1.75, 2.25, 2.75: the fourth step starts in the second word
    # [1, 1.8) and has its middle in it, the fifth is in no word, the sixth is in the third.
    csd_file(
        folder / "covarep.csd",
        "covarep",
        {"v1": ([[1], [3], [5], [-np.inf], [9], [11]], [[i / 2, i / 2 + 0.5] for i in range(6)])},
    )
    said = {"v1": ([[b"so"], [b"sp"], [b"good"]], [[0, 1], [1, 1.8], [2.5, 3.5]])}
    csd_file(folder / "timestamped_words.csd", "words", said)
    (folder / "folds.json").write_text(json.dumps(folds or {"train": ["v1"], "valid": ["v2"]}))
    return folder


def plain(folder, rows, text_column=None, **arrays):
    """Writes labels.csv from (id, split, label) rows, and features.npz."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "split", "label"] + (["text"] if text_column else []))
        for number, row in enumerate(rows):
            table.writerow([*row, text_column[number]] if text_column else row)
    np.savez(folder / "features.npz", **arrays)
    return folder
