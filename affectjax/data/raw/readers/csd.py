"""A folder of CMU-MultimodalSDK computational sequences (HDF5 files, `.csd`).

    *.csd            one a modality, one of labels, maybe one of words
    folds.json       {"train": [video ids], "valid": [...], "test": [...]}
    modalities.json  optional: {"text": "glove.csd", "audio": ..., "vision": ..., "label": ...,
                     "words": ...}; without it the file names decide (see `_NAMES`)

Each file has one root group, in it `data/<video id>/features` `[T, D]` and
`data/<video id>/intervals` `[T, 2]`, start and end of each step in seconds. In the label file the
steps are the segments to learn from: the features are the label, whose first column is the score
or the class. Segment k of a video gets the id `video[k]`.

Cutting: a step belongs to the segment in which the middle of its interval lies, start included and
end not. Aligned: audio and vision are averaged over the steps whose middle lies in the interval of
each text step; non-finite values do not count, a word without any step is a row of zeros.

Letters: T steps, D features.

Source: Zadeh et al. 2018, "Multi-attention Recurrent Network for Human Communication
Comprehension", and the CMU-MultimodalSDK's file format.
"""

import contextlib
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from affectjax.data.labels import LabelSpec, parse
from affectjax.data.sequences import FeatureSet, Sequences, Split
from affectjax.data.skipped import SkippedRecords
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES

_NAMES = {
    "label": ("label",),
    "audio": ("covarep", "audio", "opensmile"),
    "vision": ("facet", "openface", "visual", "vision"),
    "text": ("text", "glove", "bert", "word"),
}
_PAUSE = "sp"


@dataclasses.dataclass
class _Segment:
    """One segment: its id, its label row, its `[t, D]` arrays by modality, and its words."""

    name: str
    label: np.ndarray
    arrays: dict[str, np.ndarray]
    words: str


class _WrongEntry(ValueError):
    """One video's entry is not what the format says."""


def matches(path: Path) -> bool:
    """Returns whether this is a folder with computational sequences in it."""
    return path.is_dir() and any(path.glob("*.csd"))


def read(
    path: Path,
    spec: LabelSpec,
    *,
    aligned: bool,
    max_length: Mapping[str, int] | None,
    skipped: SkippedRecords,
) -> FeatureSet:
    """Returns the feature set cut from a folder of computational sequences.

    Args:
      path: the folder.
      spec: what the labels are.
      aligned: whether audio and vision are averaged over the words.
      max_length: by modality, how many steps are kept, the first ones. Without it the longest
        segment decides, which for a whole corpus at audio rate is more than memory holds.
      skipped: takes wrong videos and labels.

    Raises:
      InputError: names the file and what is missing in it.
    """
    limits = dict(max_length or {})
    if aligned and limits:
        limits = dict.fromkeys(MODALITIES, min(limits.values()))
    folds = _folds(path / "folds.json")
    with contextlib.ExitStack() as stack:
        tracks = {role: _open(file, stack) for role, file in _files(path).items()}
        if aligned and "text" not in tracks:
            raise InputError(f"{path}: to align needs a text .csd, whose intervals are the words")
        for video in tracks["label"]:
            if not any(video in videos for videos in folds.values()):
                skipped.skip(str(path), "no fold", video, "stands in no list of folds.json")
        splits = {}
        for name, videos in folds.items():
            segments = []
            for video in videos:
                try:
                    segments += _segments(tracks, video, aligned, limits, skipped)
                except _WrongEntry as error:
                    skipped.skip(str(path), name, video, str(error))
            splits[name] = _split(name, segments, tracks, spec, skipped, path, aligned)
    return FeatureSet(splits)


def _folds(path: Path) -> dict[str, list[str]]:
    folds = _json(path)
    if not all(isinstance(v, list) and all(isinstance(i, str) for i in v) for v in folds.values()):
        raise InputError(f'{path}: expected {{"train": [video ids], "valid": [...], ...}}')
    return folds


def _json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f'{path}: no such file; it says {{"train": [video ids], "valid": [...], "test": [...]}}'
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: is not readable JSON ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object")
    return content


def _files(folder: Path) -> dict[str, Path]:
    """Returns the file of each role: label, the modalities, and maybe words."""
    roles = (*_NAMES, "words")
    found: dict[str, Path] = {}
    if (folder / "modalities.json").is_file():
        for role, name in _json(folder / "modalities.json").items():
            if role not in roles or not (folder / str(name)).is_file():
                raise InputError(
                    f"{folder / 'modalities.json'}: {role}: {name} is no file of the folder for one"
                    f" of {', '.join(roles)}"
                )
            found[role] = folder / name
    else:
        for file in sorted(folder.glob("*.csd")):
            role = _role(file)
            if role in found:
                raise InputError(
                    f"{folder}: both {found[role].name} and {file.name} look like {role}; say which"
                    " in modalities.json"
                )
            found[role] = file
    if "label" not in found or not set(found) & set(MODALITIES):
        raise InputError(
            f"{folder}: needs a .csd of labels and one of a modality, found"
            f" {', '.join(sorted(found)) or 'none'}"
        )
    return found


def _role(file: Path) -> str:
    """Returns what a file is by its name; one that holds strings is the words."""
    name = file.name.lower()
    role = next((r for r, parts in _NAMES.items() if any(p in name for p in parts)), None)
    if role is None:
        raise InputError(f"{file}: its name does not say what it is; say so in modalities.json")
    if role == "text":
        with contextlib.ExitStack() as stack:
            track = _open(file, stack)
            for video in track:
                features = track[video].get("features")
                return "words" if features is not None and features.dtype.kind in "SO" else role
    return role


def _open(file: Path, stack: contextlib.ExitStack) -> h5py.Group:
    """Returns the `data` group of a computational sequence."""
    try:
        content = stack.enter_context(h5py.File(file, "r"))
    except OSError as error:
        raise InputError(f"{file}: is not a readable HDF5 file ({error})") from error
    roots = [group for group in content.values() if isinstance(group, h5py.Group)]
    if len(roots) != 1 or not isinstance(roots[0].get("data"), h5py.Group):
        raise InputError(f"{file}: expected one root group with a group `data` in it")
    return roots[0]["data"]


def _segments(
    tracks: dict[str, h5py.Group],
    video: str,
    aligned: bool,
    limits: Mapping[str, int],
    skipped: SkippedRecords,
) -> list[_Segment]:
    """Returns the segments of one video, cut from all its tracks."""
    if video not in tracks["label"]:
        raise _WrongEntry("has no label")
    labels, spans = _entry(tracks["label"], video)
    steps = {m: _entry(tracks[m], video) for m in MODALITIES if video in tracks.get(m, ())}
    words = _entry(tracks["words"], video, False) if video in tracks.get("words", ()) else None
    segments = []
    for k, (label, span) in enumerate(zip(labels, spans, strict=True)):
        cut = {m: _inside(*entry, span) for m, entry in steps.items()}
        arrays = {m: x for m, (x, _) in cut.items()}
        if aligned:
            arrays = _over_words(arrays, cut) if "text" in cut else {}
        for modality, x in arrays.items():
            if modality in limits and len(x) > limits[modality]:
                skipped.cut[modality] = skipped.cut.get(modality, 0) + 1
                arrays[modality] = x[: limits[modality]]
        said = _sentence(_inside(*words, span)[0]) if words is not None else ""
        segments.append(_Segment(f"{video}[{k}]", label, arrays, said))
    return segments


def _entry(track: h5py.Group, video: str, numbers: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Returns `[T, D]` features and `[T, 2]` intervals of a video, in order of time."""
    entry = track[video]
    name = Path(track.file.filename).name
    if "features" not in entry or "intervals" not in entry:
        raise _WrongEntry(f"has no features or no intervals in {name}")
    try:
        features, intervals = entry["features"][()], np.asarray(entry["intervals"][()], np.float64)
    except (OSError, ValueError) as error:
        raise _WrongEntry(f"cannot be read in {name} ({error})") from error
    if features.ndim == 1:
        features = features[:, None]
    if features.ndim != 2 or intervals.shape != (len(features), 2):
        raise _WrongEntry(
            f"has features {list(features.shape)} and intervals {list(intervals.shape)} in {name};"
            " expected [T, D] and [T, 2]"
        )
    if numbers:
        if features.dtype.kind not in "fiu":
            raise _WrongEntry(f"has features of {features.dtype} in {name}; expected numbers")
        features = features.astype(np.float32)
    order = np.argsort(intervals.mean(axis=1), kind="stable")
    return features[order], intervals[order]


def _inside(
    features: np.ndarray, intervals: np.ndarray, span: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the steps whose middle lies in a span, with their intervals."""
    middle = intervals.mean(axis=1)
    chosen = (middle >= span[0]) & (middle < span[1])
    return features[chosen], intervals[chosen]


def _over_words(
    arrays: dict[str, np.ndarray], cut: dict[str, tuple[np.ndarray, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Returns every modality with one row a word; one without any step in the segment stays empty.

    Args:
      arrays: `[t, D]` by modality.
      cut: the same with their intervals.
    """
    spans = cut["text"][1]
    result = {"text": arrays["text"]}
    for modality in arrays:
        if modality == "text" or not len(arrays[modality]):
            result.setdefault(modality, arrays[modality])
            continue
        rows = [_finite_mean(_inside(*cut[modality], span)[0]) for span in spans]
        result[modality] = np.asarray(rows, np.float32).reshape(len(spans), -1)
    return result


def _finite_mean(x: np.ndarray) -> np.ndarray:
    """Returns the mean `[D]` of the finite values of `[t, D]`; 0 for no step, NaN for none finite.

    Args:
      x: the steps in one word.
    """
    if not len(x):
        return np.zeros(x.shape[1], np.float32)
    finite = np.isfinite(x)
    total, count = np.where(finite, x, 0).sum(axis=0), finite.sum(axis=0)
    return np.where(count, total / np.maximum(count, 1), np.nan)


def _sentence(words: np.ndarray) -> str:
    said = [w.decode("utf-8", "replace") if isinstance(w, bytes) else str(w) for w in words.flat]
    return " ".join(word for word in said if word != _PAUSE)


def _split(
    name: str,
    segments: list[_Segment],
    tracks: dict[str, h5py.Group],
    spec: LabelSpec,
    skipped: SkippedRecords,
    path: Path,
    aligned: bool,
) -> Split:
    """Returns the padded split; aligned modalities are padded to one length."""
    ids = tuple(segment.name for segment in segments)

    def refuse(row: int, reason: str) -> None:
        skipped.skip(str(path), name, ids[row], reason)

    whole = spec.kind == "binary"
    label = parse([s.label if whole else s.label[0] for s in segments], spec, refuse)
    names = [m for m in MODALITIES if m in tracks]
    longest = {m: max((len(s.arrays.get(m, ())) for s in segments), default=0) for m in names}
    if aligned:
        longest = dict.fromkeys(names, longest["text"])
    modalities = {
        m: _pad([s.arrays.get(m) for s in segments], longest[m], _width(tracks[m], m))
        for m in names
    }
    words = tuple(s.words for s in segments) if "words" in tracks else None
    return Split(ids, label, modalities, words)


def _width(track: h5py.Group, modality: str) -> int:
    """Returns D of a track, from its first entry."""
    for entry in track.values():
        if "features" in entry:
            return entry["features"].shape[1] if entry["features"].ndim == 2 else 1
    raise InputError(f"{Path(track.file.filename).name}: has no features of {modality}")


def _pad(arrays: list[np.ndarray | None], steps: int, width: int) -> Sequences:
    """Returns sequences padded at the end; None is an absent modality.

    Args:
      arrays: N arrays `[t, D]` or None.
      steps: T.
      width: D.
    """
    lengths = np.asarray([0 if a is None else len(a) for a in arrays], np.int64)
    x = np.zeros((len(arrays), steps, width), np.float32)
    for row, array in enumerate(arrays):
        if array is not None and len(array):
            x[row, : len(array)] = array
    return Sequences(x, np.arange(steps) < lengths[:, None])
