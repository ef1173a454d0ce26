"""Opens video and sound files, and yields their frames in time.

What `media` is made of: nothing here chooses frames or converts them. Only files are opened, only
by containers that hold their own media, and damage ends or thins out what is yielded. What is not
used of a file is noted: see `noting`.
"""

import contextlib
import contextvars
import dataclasses
import itertools
import math
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from affectjax.errors import InputError

# Only containers that hold their own media: a playlist or a script would make the decoder open
# whatever file or address it names, and a text file passes for a drawing of characters.
CONTAINERS = "mov,matroska,avi,mpeg,mpegts,flv,asf,wav,w64,flac,mp3,ogg,aac,aiff,au"
ALLOWED = "whole files of mp4, mov, mkv, webm, avi, mpg, flv, wmv, wav, flac, mp3, m4a, ogg, aac"
# Their headers say no length: what a decoder tells is guessed from the bit rate.
_GUESSED = ("aac",)
_CUT = 0.5  # seconds that a whole file may lack of what its header says
# A moov or an index may stand at the end of these; of others, such a share is no header.
_INDEXED = ("mov", "avi")
_TAIL = 0.2
LONGEST_GAP = 3600.0  # seconds; what leaps further is another clock, or damage
# The heads of pictures that phones write; a grid of tiles says so in the first bytes.
_PICTURES = (b"heic", b"heix", b"mif1", b"msf1", b"avif", b"heim", b"heis")
_HEAD = 2**16
# Codecs of single pictures: a track with one frame, beside a sound, is its cover.
_STILL = ("mjpeg", "png", "bmp", "gif", "webp", "tiff", "ppm")
_notes: contextvars.ContextVar[list[str] | None] = contextvars.ContextVar("notes", default=None)


@contextlib.contextmanager
def noting() -> Iterator[list[str]]:
    """Gathers what of the files that are read within is not used, a sentence each."""
    notes: list[str] = []
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)


def note(path: Path | str, sentence: str) -> None:
    """Adds a sentence about a file to what is gathered, once."""
    notes, said = _notes.get(), f"{Path(path).name} {sentence}"
    if notes is not None and said not in notes:
        notes.append(said)


def existing(path: Path | str) -> Path:
    """Returns the path of a file that is there and not empty, or raises an InputError."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder where a file is expected")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if not path.stat().st_size:
        raise InputError(f"{path}: the file is empty (0 bytes)")
    return path


def opened(path: Path | str) -> av.container.InputContainer:
    """Opens a media file, or raises an InputError that names it."""
    # An absolute path is never taken for an address such as `concat:a`.
    name = str(existing(path).absolute())
    _refuse_tiles(path)
    try:
        return av.open(name, options={"format_whitelist": CONTAINERS}, metadata_errors="replace")
    except av.error.FFmpegError as error:
        raise InputError(
            f"{path}: cannot be read as video or sound ({error.strerror}); allowed: {ALLOWED}"
        ) from error


def _refuse_tiles(path: Path | str) -> None:
    """Raises InputError for a picture of several tiles: a decoder shows the first of them."""
    with Path(path).open("rb") as file:
        head = file.read(_HEAD)
    if head[4:8] == b"ftyp" and head[8:12] in _PICTURES and b"grid" in head:
        raise InputError(
            f"{path}: is a picture of several tiles, as phones write, which cannot be put together;"
            " save it as jpg or png"
        )


def track(container: av.container.InputContainer, kind: str) -> Any | None:
    """Returns the video or audio stream to be used, None without one.

    Of those that are no cover picture and have a decoder it is the first that the container marks
    as the default one, else the first.
    """
    found = [s for s in getattr(container.streams, kind) if not _is_cover(container, s)]
    default = av.stream.Disposition.default
    rank = lambda s: (s.codec_context is not None, bool(s.disposition & default))  # noqa: E731
    return max(found, key=rank, default=None)


def _is_cover(container: av.container.InputContainer, stream: Any) -> bool:
    """Returns whether a video stream is a cover picture, or thumbnails."""
    kinds = av.stream.Disposition
    if stream.disposition & (kinds.attached_pic | kinds.timed_thumbnails):
        return True
    still = stream.codec_context is not None and stream.codec_context.name in _STILL
    if stream.type != "video" or not still or not container.streams.audio:
        return False
    if stream.frames:
        return stream.frames == 1
    with av.open(container.name, options={"format_whitelist": CONTAINERS}) as again:
        there = packets(again, again.streams[stream.index])
        return len(list(itertools.islice(there, 2))) == 1


def origin(container: av.container.InputContainer) -> float:
    """Returns the container's time of its first packet, in seconds: the zero of our times."""
    return (container.start_time or 0) / av.time_base


def packets(container: av.container.InputContainer, *streams: Any) -> Iterator[av.Packet]:
    """Yields the packets of the streams up to the end, or up to where the file is damaged."""
    try:
        yield from (packet for packet in container.demux(*streams) if packet.size)
    except av.error.FFmpegError as error:
        note(container.name, f"cannot be read to its end ({error.strerror})")


def video_packets(path: Path | str, start: float, end: float) -> int | None:
    """Returns how many video packets stand in [start, end): most often the number of frames.

    None where there is no video stream.
    """
    with opened(path) as container:
        stream = track(container, "video")
        if stream is None:
            return None
        if start > 0:
            _seek(container, stream, start)
        zero, total = origin(container), 0
        for packet in packets(container, stream):
            if packet.dts is not None and packet.dts * packet.time_base - zero >= end:
                break
            time = packet.dts if packet.pts is None else packet.pts
            total += time is not None and start <= time * packet.time_base - zero < end
        return total


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a file says of its tracks; zeros for what is not there or not said.

    Attributes:
      width: of its pictures, in pixels of its own.
      height: likewise.
      aspect: width of such a pixel in its heights.
      pictures: a second.
      samples: of sound, a second.
    """

    width: int = 0
    height: int = 0
    aspect: float = 1.0
    pictures: float = 0.0
    samples: int = 0


def facts(path: Path | str) -> Facts:
    """Returns what the head of a file says."""
    found: dict[str, Any] = {}
    with opened(path) as container:
        seen, heard = track(container, "video"), track(container, "audio")
        if seen is not None and seen.codec_context is not None:
            aspect = float(seen.sample_aspect_ratio or 1)
            found = {"width": seen.width, "height": seen.height, "aspect": aspect or 1.0}
            found["pictures"] = float(seen.average_rate or 0)
        if heard is not None and heard.codec_context is not None:
            found["samples"] = heard.rate
    return Facts(**found)


def duration(path: Path | str) -> float:
    """Returns the length in seconds to the end of the longest stream, read off the packets."""
    last, reached = 0.0, 0
    with opened(path) as container:
        streams = [s for kind in ("video", "audio") if (s := track(container, kind))]
        for packet in packets(container, *streams):
            time = packet.dts if packet.pts is None else packet.pts
            reached = max(reached, (packet.pos or 0) + packet.size)
            if time is None:
                continue
            begin = float(time * packet.time_base) - origin(container)
            if begin > last + LONGEST_GAP:
                note(path, "has times that leap by more than an hour: its length leaves them out")
                continue
            shown = float((packet.duration or 0) * packet.time_base)
            last = max(last, begin + min(shown, LONGEST_GAP))
        size, kinds = Path(path).stat().st_size, container.format.name
    left = size - reached
    if reached > 0 and left > _TAIL * size and not any(kind in kinds for kind in _INDEXED):
        note(path, f"holds nothing that can be read in the last {left / size:.0%} of its bytes")
    return last


def note_cut(path: Path) -> None:
    """Notes that a media file ends before its head says, where it does."""
    with opened(path) as container:
        guessed = container.format.name in _GUESSED
        said = 0.0 if guessed else (container.duration or 0) / av.time_base
    have = duration(path)
    if said > have + _CUT:
        note(path, f"ends after {have:.1f} of {said:.1f} s: it seems to be cut")
        return
    with path.open("rb") as file:
        kind, size = struct.unpack("<4sI", file.read(8).ljust(8))
    missing = size + 8 - path.stat().st_size
    # wav and avi say their bytes; a recorder that cannot go back leaves the greatest number.
    if kind == b"RIFF" and missing > 1 and size < 2**31 - 1:
        note(path, f"lacks its last {missing} bytes: it seems to be cut")


def timed(path: Path | str, kind: str, start: float) -> Iterator[tuple[float, Any]]:
    """Yields (seconds, frame) of a stream, from a place at or before `start`, in order.

    Not every container seeks on every stream (WebM has an index of the video alone), nor lands
    where it was told: where no seek came out at or before `start`, this reads from the beginning.
    """
    for way in ("stream", "container", None) if start > 0 else (None,):
        with opened(path) as container:
            stream = track(container, kind)
            if stream is None:
                return
            _note_others(container, stream, kind)
            if way and not _seek(container, stream if way == "stream" else None, start):
                continue
            frames = _clocked(container, stream, math.inf if way else 0.0)
            first = next(frames, None)
            if first is not None and (first[0] <= start or not way):
                yield first
                yield from frames
                return


def _decode(container: av.container.InputContainer, stream: Any) -> Iterator[Any]:
    """Yields the frames of a stream; packets that do not decode are passed over."""
    if stream.codec_context is None:  # no decoder knows its codec: older PyAV would crash
        return
    flush = av.Packet()
    flush.time_base = stream.time_base
    total = failed = corrupt = 0
    name, kind = container.name, stream.type  # when this ends, the container may be closed
    try:
        for packet in itertools.chain(packets(container, stream), (flush,)):
            total += 1
            try:
                decoded = stream.decode(packet)
            except av.error.FFmpegError:
                failed += 1
                continue
            for frame in decoded:
                corrupt += bool(frame.is_corrupt)
                yield frame
    finally:
        if failed:
            note(name, f"is damaged: {failed} of {total} packets of its {kind} cannot be decoded")
        if corrupt:
            note(name, f"is damaged: {corrupt} frames of its {kind} are in part")


def _note_others(container: av.container.InputContainer, stream: Any, kind: str) -> None:
    """Notes the tracks of a kind that are not used."""
    streams = [s for s in getattr(container.streams, kind) if not _is_cover(container, s)]
    if len(streams) > 1:
        name = {"video": "pictures", "audio": "sound"}[kind]
        number = streams.index(stream) + 1
        note(container.name, f"has {len(streams)} tracks of {name}: number {number} is used")


def _seek(container: av.container.InputContainer, stream: Any | None, start: float) -> bool:
    """Goes to the last key frame at or before `start`; returns whether the container can.

    Of `stream`, or of the one that the container is indexed by.
    """
    unit = stream.time_base if stream else Fraction(1, av.time_base)
    try:
        container.seek(int((start + origin(container)) / unit), stream=stream)
    except av.error.FFmpegError:
        return False
    return True


def _clocked(
    container: av.container.InputContainer, stream: Any, clock: float
) -> Iterator[tuple[float, Any]]:
    """Yields (seconds, frame); a frame without a time counts as at that of the one before it."""
    zero = origin(container)
    for frame in _decode(container, stream):
        clock = clock if frame.time is None else frame.time - zero
        yield clock, frame
