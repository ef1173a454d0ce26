"""Opens video and sound files, and yields their frames in time.

What `media` is made of: nothing here chooses frames or converts them. Only files are opened, only
by containers that hold their own media, and damage ends or thins out what is yielded.
"""

import itertools
import math
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
    try:
        return av.open(name, options={"format_whitelist": CONTAINERS}, metadata_errors="replace")
    except av.error.FFmpegError as error:
        raise InputError(
            f"{path}: cannot be read as video or sound ({error.strerror}); allowed: {ALLOWED}"
        ) from error


def track(container: av.container.InputContainer, kind: str) -> Any | None:
    """Returns the first video or audio stream that is no cover picture, None without one."""
    cover = av.stream.Disposition.attached_pic
    for stream in getattr(container.streams, kind):
        if not stream.disposition & cover:
            return stream
    return None


def origin(container: av.container.InputContainer) -> float:
    """Returns the container's time of its first packet, in seconds: the zero of our times."""
    return (container.start_time or 0) / av.time_base


def packets(container: av.container.InputContainer, *streams: Any) -> Iterator[av.Packet]:
    """Yields the packets of the streams up to the end, or up to where the file is damaged."""
    try:
        yield from (packet for packet in container.demux(*streams) if packet.size)
    except av.error.FFmpegError:
        return


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


def picture_size(path: Path | str) -> tuple[int, int]:
    """Returns width and height as the head of a file with a video stream says; 0 for unknown."""
    with opened(path) as container:
        stream = track(container, "video")
        return (0, 0) if stream.codec_context is None else (stream.width, stream.height)


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
    for packet in itertools.chain(packets(container, stream), (flush,)):
        try:
            decoded = stream.decode(packet)
        except av.error.FFmpegError:
            continue
        yield from decoded


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
