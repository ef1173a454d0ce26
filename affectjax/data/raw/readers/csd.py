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

All that is read stands in the files themselves. HDF5 can refer to other files, by external links,
virtual data sets and external storage, and these are refused; files that modalities.json names, and
links in the folder, stay in it unless `allow_outside`.

Letters: T steps, D features.

Source: Zadeh et al. 2018, "Multi-attention Recurrent Network for Human Communication
Comprehension", and the CMU-MultimodalSDK's file format.
"""

import contextlib
import dataclasses
import functools
import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import h5py
import numpy as np

from affectjax.data.labels import LabelSpec, parse
from affectjax.data.limits import MIB, Limits, check, check_inside
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
_SEGMENT = 1024  # bytes that the objects of one segment take without their values


@dataclasses.dataclass
class _Segment:
    """One segment: its id, its label row, its `[t, D]` arrays by modality, and its words."""

    name: str
    label: np.ndarray
    arrays: dict[str, np.ndarray]
    words: str


@dataclasses.dataclass
class _Room:
    """The memory that the segments of one split take.

    Attributes:
      where: folder and split, for the message.
      largest_mib: MiB that are allowed.
      size: bytes that are taken.
    """

    where: str
    largest_mib: float
    size: int = 0

    def take(self, size: int) -> None:
        """Counts bytes; raises InputError where they are more than what is left."""
        self.size += size
        check(self.size, self.largest_mib, self.where)


class _WrongEntry(ValueError):
    """One video's entry is not what the format says."""


@contextlib.contextmanager
def _reading(what: Path | str, wrong: type[ValueError]) -> Iterator[None]:
    """Raises `wrong` for whatever HDF5 fails with; in a damaged file that is any exception."""
    try:
        yield
    except (wrong, InputError):
        raise
    except Exception as error:
        message = " ".join(str(error).split())
        if wrong is InputError:
            raise InputError(f"{what}: is not a readable HDF5 file ({message})") from error
        raise wrong(f"cannot be read in {what} ({message})") from error


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
    limits: Limits,
) -> FeatureSet:
    """Returns the feature set cut from a folder of computational sequences.

    Args:
      path: the folder.
      spec: what the labels are.
      aligned: whether audio and vision are averaged over the words.
      max_length: by modality, how many steps are kept, the first ones. Without it the longest
        segment decides, which for a whole corpus at audio rate is more than memory holds.
      skipped: takes wrong videos and labels.
      limits: how much memory each video, and a split, may take, and whether files may lie outside
        the folder.

    Raises:
      InputError: names the file and what is missing in it.
    """
    longest = dict(max_length or {})
    if aligned and longest:
        longest = dict.fromkeys(MODALITIES, min(longest.values()))
    folds = _folds(path / "folds.json")
    with contextlib.ExitStack() as stack:
        files = _files(path, limits)
        tracks = {role: _open(file, stack, limits.largest_mib) for role, file in files.items()}
        if aligned and "text" not in tracks:
            raise InputError(f"{path}: to align needs a text .csd, whose intervals are the words")
        for video in tracks["label"].videos:
            if not any(video in videos for videos in folds.values()):
                skipped.skip(str(path), "no fold", video, "stands in no list of folds.json")
        splits = {}
        for name, videos in folds.items():
            segments, room = [], _Room(f"{path}: {name}", limits.largest_mib)
            for video in videos:
                try:
                    segments += _segments(tracks, video, aligned, longest, skipped, room)
                except _WrongEntry as error:
                    skipped.skip(str(path), name, video, str(error))
            _check_padded(segments, limits.largest_mib, f"{path}: {name}")
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
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not readable JSON ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object")
    return content


def _files(folder: Path, limits: Limits) -> dict[str, Path]:
    """Returns the file of each role: label, the modalities, and maybe words."""
    roles = (*_NAMES, "words")
    found: dict[str, Path] = {}
    if (folder / "modalities.json").is_file():
        for role, name in _json(folder / "modalities.json").items():
            where = f"{folder / 'modalities.json'}: {role}: {name}"
            check_inside(folder / str(name), folder, where, limits.allow_outside)
            if role not in roles or not (folder / str(name)).is_file():
                raise InputError(
                    f"{folder / 'modalities.json'}: {role}: {name} is no file of the folder for one"
                    f" of {', '.join(roles)}"
                )
            found[role] = folder / str(name)
    else:
        for file in sorted(folder.glob("*.csd")):
            check_inside(file, folder, str(file), limits.allow_outside)
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
            with _reading(file.name, InputError):
                features = next(filter(_is_some, map(track.features, track.videos)), None)
                words = features is not None and features.dtype.kind in "SO"
            return "words" if words else role
    return role


@dataclasses.dataclass(frozen=True)
class _Track:
    """The `data` group of a computational sequence, and the videos that it names."""

    name: str
    group: h5py.Group
    videos: tuple[str, ...]
    largest_mib: float

    def __contains__(self, video: str) -> bool:
        return video in self.videos

    def dataset(self, video: str, key: str) -> h5py.Dataset | None:
        """Returns the features or the intervals of a video, None where it has none."""
        with _reading(self.name, _WrongEntry):
            entry = self.group.get(video)
            found = entry.get(key) if isinstance(entry, h5py.Group) else None
            return found if isinstance(found, h5py.Dataset) else None

    def features(self, video: str) -> h5py.Dataset | None:
        """Returns the features of a video, None where it has none."""
        return self.dataset(video, "features")

    def read(self, video: str, key: str) -> np.ndarray:
        """Returns the features or the intervals of a video as an array."""
        found = self.dataset(video, key)
        if found is None:
            raise _WrongEntry(f"has no features or no intervals in {self.name}")
        where = f"{self.name}: {video}: {key}"
        with _reading(self.name, _WrongEntry):
            check(found.size * found.dtype.itemsize, self.largest_mib, where)
            return self._texts(found, where) if found.dtype.hasobject else found[()]

    def _texts(self, found: h5py.Dataset, where: str) -> np.ndarray:
        """Returns texts of variable length, `[T]` or `[T, 1]`; all may refer to the same long one.

        Args:
          found: the data set.
          where: file, video and key, for the message.
        """
        text = h5py.check_string_dtype(found.dtype) is not None
        if not text or not found.shape or found.size != len(found):
            raise _WrongEntry(
                f"has {found.dtype} {list(found.shape)} in {self.name}; expected numbers, or a text"
                " a step"
            )
        longest, room = found.file.id.get_filesize(), self.largest_mib * MIB  # none is longer
        x, size, start = np.empty(found.shape, object), found.size * found.dtype.itemsize, 0
        while start < len(found):
            stop = start + max(1, int(min((room - size) // longest, len(found))))
            x[start:stop] = found[start:stop]
            size += sum(map(sys.getsizeof, x[start:stop].flat))
            check(size, self.largest_mib, where)
            start = stop
        return x

    @functools.cached_property
    def width(self) -> int:
        """Returns D, from the first video that has features."""
        with _reading(self.name, InputError):
            for features in filter(_is_some, map(self.features, self.videos)):
                return features.shape[1] if features.ndim == 2 else 1
        raise InputError(f"{self.name}: has no features of any video")


def _open(file: Path, stack: contextlib.ExitStack, largest_mib: float = math.inf) -> _Track:
    """Returns the `data` group of a computational sequence that refers to no other file."""
    with _reading(file, InputError):
        content = stack.enter_context(h5py.File(file, "r"))
        _check_links(content, file)
        roots = [group for name in content if isinstance(group := content.get(name), h5py.Group)]
        if len(roots) != 1 or not isinstance(roots[0].get("data"), h5py.Group):
            raise InputError(f"{file}: expected one root group with a group `data` in it")
        data = roots[0]["data"]
        return _Track(file.name, data, tuple(data), largest_mib)


def _is_some(value: object) -> bool:
    return value is not None


def _check_links(content: h5py.File, file: Path) -> None:
    """Raises InputError for the first thing in a file that refers to another file."""

    def outside(name: str, link: object) -> str | None:
        if isinstance(link, h5py.ExternalLink):
            return f"{name} is a link to another file, {link.filename}"
        # A soft link is a path in the file; what it leads to is looked at where it stands.
        found = content[name] if isinstance(link, h5py.HardLink) else None
        if not isinstance(found, h5py.Dataset):
            return None
        if found.is_virtual:
            names = dict.fromkeys(source.file_name for source in found.virtual_sources())
            return f"{name} is a virtual data set, of {', '.join(names)}"
        if found.external:
            return (
                f"{name} is stored outside, in {', '.join(str(part[0]) for part in found.external)}"
            )
        return None

    reason = content.visititems_links(outside)  # it stops at the first reason
    if reason is not None:
        raise InputError(f"{file}: {reason}; only what stands in the file itself is read")


def _segments(
    tracks: dict[str, _Track],
    video: str,
    aligned: bool,
    longest: Mapping[str, int],
    skipped: SkippedRecords,
    room: _Room,
) -> list[_Segment]:
    """Returns the segments of one video, cut from all its tracks; spans may overlap."""
    if video not in tracks["label"]:
        raise _WrongEntry("has no label")
    labels, spans = _entry(tracks["label"], video)
    steps = {m: _entry(tracks[m], video) for m in MODALITIES if video in tracks.get(m, ())}
    words = _entry(tracks["words"], video, False) if video in tracks.get("words", ()) else None
    if aligned and "text" not in steps:
        steps = {}
    segments = []
    for k, (label, span) in enumerate(zip(labels, spans, strict=True)):
        rows = {m: _rows(times, span) for m, (_, times) in steps.items()}
        lengths = {m: len(rows["text"] if aligned and len(x) else x) for m, x in rows.items()}
        for modality, length in lengths.items():
            if modality in longest and length > longest[modality]:
                skipped.cut[modality] = skipped.cut.get(modality, 0) + 1
                lengths[modality] = longest[modality]
        room.take(_SEGMENT + sum(n * steps[m][0][:1].nbytes for m, n in lengths.items()))
        if aligned:
            arrays = _over_words(steps, rows, lengths)
        else:
            arrays = {m: x[rows[m][: lengths[m]]] for m, (x, _) in steps.items()}
        said = _sentence(words[0][_rows(words[1], span)]) if words is not None else ""
        room.take(sys.getsizeof(said))
        segments.append(_Segment(f"{video}[{k}]", label, arrays, said))
    return segments


def _entry(track: _Track, video: str, numbers: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Returns `[T, D]` features and `[T, 2]` intervals of a video, in order of time."""
    name = track.name
    features, intervals = track.read(video, "features"), track.read(video, "intervals")
    if intervals.dtype.kind not in "fiu":
        raise _WrongEntry(f"has intervals of {intervals.dtype} in {name}; expected numbers")
    intervals = intervals.astype(np.float64)
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
        if features.shape[1] != track.width:
            raise _WrongEntry(
                f"has {features.shape[1]} features in {name}, where the first video has"
                f" {track.width}"
            )
        features = features.astype(np.float32)
    order = np.argsort(intervals.mean(axis=1), kind="stable")
    return features[order], intervals[order]


def _rows(intervals: np.ndarray, span: np.ndarray) -> np.ndarray:
    """Returns the rows of the steps `[T, 2]` whose middle lies in a span."""
    middle = intervals.mean(axis=1)
    return np.flatnonzero((middle >= span[0]) & (middle < span[1]))


def _over_words(
    steps: dict[str, tuple[np.ndarray, np.ndarray]],
    rows: dict[str, np.ndarray],
    lengths: dict[str, int],
) -> dict[str, np.ndarray]:
    """Returns every modality with one row a word; one without any step in the segment stays empty.

    Args:
      steps: `[T, D]` and their intervals `[T, 2]` by modality.
      rows: the rows of the segment in them.
      lengths: how many words are kept, by modality.
    """
    result = {}
    for modality, (features, intervals) in steps.items():
        chosen = rows[modality]
        if modality == "text" or not len(chosen):
            result[modality] = features[chosen[: lengths[modality]]]
            continue
        spans = steps["text"][1][rows["text"][: lengths[modality]]]
        x, times = features[chosen], intervals[chosen]
        result[modality] = np.empty((len(spans), features.shape[1]), np.float32)
        for row, span in enumerate(spans):
            result[modality][row] = _finite_mean(x[_rows(times, span)])
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
    tracks: dict[str, _Track],
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
        m: _pad([s.arrays.get(m) for s in segments], longest[m], tracks[m].width) for m in names
    }
    words = tuple(s.words for s in segments) if "words" in tracks else None
    return Split(ids, label, modalities, words)


def _check_padded(segments: list[_Segment], largest_mib: float, where: str) -> None:
    """Raises InputError where a split would take too much memory when it is padded."""
    for modality in MODALITIES:
        arrays = [s.arrays[modality] for s in segments if modality in s.arrays]
        steps, width = (max((x.shape[axis] for x in arrays), default=0) for axis in (0, 1))
        size = len(segments) * steps * width * np.dtype(np.float32).itemsize
        check(size, largest_mib, f"{where}: {modality} padded to {steps} steps (see max_length)")


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
