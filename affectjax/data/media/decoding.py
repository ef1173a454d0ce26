"""Decodes video, images and sound files: frames as uint8 RGB, sound as 16 kHz mono.

Every function looks at one file (or folder of images), keeps nothing open, and holds no more than
the frames that it returns. A file that was cut, as by a broken download, gives what stands before
the cut as long as its container can be opened at all: mkv, webm, wav, mp3 can, an mp4 without its
index cannot. Packets that do not decode are passed over, as players do.

What a file says of its size is checked before memory is taken: `largest_mib` is the most of one
picture, in MiB of uint8 RGB; what is returned may have `limits.CLIP` times as much.

Letters: T frames, H height, W width, S samples.
"""

import dataclasses
import functools
import itertools
import math
import re
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np

from affectjax.data import limits
from affectjax.data.limits import LARGEST_PICTURE_MIB
from affectjax.data.media import containers, image_heads
from affectjax.errors import InputError
from affectjax.modalities import SAMPLE_RATE

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
_KINDS = "jpg, png, bmp, webp, tif, gif"
# Sound codecs need some packets before the wanted one to be exact: 80 ms for Opus, less elsewhere.
PREROLL = 0.2
# Samples a second of a sound that is none of these would become thousands, or need a filter that
# no memory holds.
RATES = (1000, 768000)
# Seconds: what the times of sound may be apart from its samples (they are rounded, and some
# recorders write them in haste), and how far they may step back before it is another clock.
GAP = 0.05
JUMP = 1.0
WIDEST_PIXEL = 4.0  # in its heights; what says more is damaged


@dataclasses.dataclass(frozen=True)
class Stretch:
    """What is seen and heard in a stretch of a file.

    Attributes:
      frames: `[T, H, W, 3]` uint8 RGB; None where the file has no picture then.
      audio: `[S]` float32 in [-1, 1], mono, 16 kHz, from the start of the stretch; shorter where
        the sound ends before it; None where the file has no sound then.
    """

    frames: np.ndarray | None
    audio: np.ndarray | None


def middles(total: int, count: int) -> list[int]:
    """Returns the middle place of `count` equal segments of `total`, all where there are fewer."""
    if count < 1:
        raise InputError(f"the number of frames is {count}; allowed: 1 or more")
    if total <= count:
        return list(range(total))
    return [(2 * i + 1) * total // (2 * count) for i in range(count)]


def frames(path: Path | str, count: int, largest_mib: float = LARGEST_PICTURE_MIB) -> np.ndarray:
    """Returns `[T, H, W, 3]` uint8 RGB of a folder of images, an image file or a video file.

    Args:
      path: the file or folder.
      count: most frames; those in the middle of so many equal segments are taken.
      largest_mib: the most of one picture.

    Raises:
      InputError: the path cannot be read as any of the three, or has a larger picture.
    """
    path = Path(path)
    if path.is_dir():
        return folder(path, count, largest_mib)
    if path.suffix.lower() in IMAGES:
        return image(path, largest_mib)[None]
    return video(path, count, largest_mib)


def image(path: Path | str, largest_mib: float = LARGEST_PICTURE_MIB) -> np.ndarray:
    """Returns an image file as `[H, W, 3]` uint8 RGB, turned as its EXIF orientation says.

    Of a gif that moves it is the first picture.

    Args:
      path: the file.
      largest_mib: the most that it may take.

    Raises:
      InputError: the file is missing, empty, no image or larger.
    """
    data = containers.existing(path).read_bytes()
    size, decoded = image_heads.size(data), None
    if size is not None:
        _check_picture(*size, largest_mib, path)
        try:
            decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error:
            decoded = None
    if decoded is None:
        raise InputError(f"{path}: cannot be read as an image; allowed: {_KINDS}")
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)


def folder(path: Path | str, count: int, largest_mib: float = LARGEST_PICTURE_MIB) -> np.ndarray:
    """Returns `[T, H, W, 3]` uint8 RGB of a folder's images, in the natural order of their names.

    Natural: frame2 before frame10. Hidden files and other kinds are passed over. Images of
    another size than the first are fitted into it (`fit`).

    Args:
      path: the folder.
      count: most frames, chosen as by `video`.
      largest_mib: the most of one picture.

    Raises:
      InputError: no such folder, no image in it, or one that cannot be read or is larger.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"{path}: no such folder")
    files = [p for p in path.iterdir() if p.suffix.lower() in IMAGES and p.name[0] != "."]
    if not files:
        raise InputError(f"{path}: the folder holds no image; allowed: {_KINDS}")
    files.sort(key=lambda p: (_natural(p.name), p.name))
    chosen: list[np.ndarray] = []
    places = middles(len(files), count)
    for place in places:
        picture = image(files[place], largest_mib)
        first = chosen[0] if chosen else picture
        if not chosen:
            limits.check(len(places) * first.nbytes, limits.CLIP * largest_mib, f"{path}: frames")
        chosen.append(fit(picture, *first.shape[:2]))
    return np.stack(chosen)


def video(path: Path | str, count: int, largest_mib: float = LARGEST_PICTURE_MIB) -> np.ndarray:
    """Returns `[T, H, W, 3]` uint8 RGB: the middle frame of `count` equal segments of a video.

    Segments are of frames that decode, by their number, not of seconds; where there are fewer than
    `count`, all are returned. Frames are turned and mirrored as the container says, to the nearest
    quarter, and brought to square pixels. A file cut in the middle that can be opened gives the
    frames before the cut.

    Args:
      path: the file.
      count: most frames.
      largest_mib: the most of one picture.

    Raises:
      InputError: the file is missing, empty, not media, without a video stream or without frames,
        or has larger ones.
    """
    found = _choose(path, count, largest_mib)
    if found is None:
        raise InputError(f"{path}: has no video stream, so no frames")
    if not len(found):
        raise InputError(f"{path}: no frame of its video stream can be decoded")
    return found


def audio(
    path: Path | str, seconds: float | None = None, largest_mib: float = LARGEST_PICTURE_MIB
) -> np.ndarray | None:
    """Returns the sound `[S]` as float32 in [-1, 1], mono, 16 kHz; None where there is none.

    Channels are mixed with weights that sum to one, so that the mix cannot clip.

    Args:
      path: a sound file, or a video file with a sound track.
      seconds: take only so much from the start.
      largest_mib: of one picture; the sound may take `limits.CLIP` times as much.

    Raises:
      InputError: the file is missing, empty, not media or longer, or its sound cannot be decoded.
    """
    samples = sys.maxsize if seconds is None else round(seconds * SAMPLE_RATE)
    heard = _sound(path, -math.inf, samples, largest_mib)
    if heard is None:
        with containers.opened(path) as container:
            stream = containers.track(container, "audio")
            if stream is not None and next(containers.packets(container, stream), None) is not None:
                raise InputError(f"{path}: no sample of its sound can be decoded")
    return heard


def timeline(
    path: Path | str,
    count: int,
    start: float,
    end: float,
    largest_mib: float = LARGEST_PICTURE_MIB,
) -> Stretch:
    """Returns the frames and the sound of the stretch [start, end) of a video or sound file.

    Decoding starts at the key frame before the stretch where the container can seek, else at the
    start of the file. A stretch in which no new frame comes shows the last one before it. Sound
    is placed to within a millisecond, the unit of Matroska's clock.

    Args:
      path: the file.
      count: most frames, chosen as by `video`.
      start: seconds from the start of the file.
      end: seconds from the start of the file.
      largest_mib: the most of one picture.

    Raises:
      InputError: the file cannot be read or has larger pictures, or the stretch is empty.
    """
    if not 0 <= start < end:
        raise InputError(
            f"{path}: stretch from {start:g} s to {end:g} s; allowed: 0 <= start < end"
        )
    found = _choose(path, count, largest_mib, start, end)
    heard = _sound(path, start, round((end - start) * SAMPLE_RATE), largest_mib)
    return Stretch(found if found is not None and len(found) else None, heard)


def duration(path: Path | str) -> float:
    """Returns the length of a video or sound file in seconds, to the end of its longest stream.

    Read off the packets, since what a header says is missing in live recordings and wrong in cut
    files.

    Raises:
      InputError: the file cannot be read as media.
    """
    return containers.duration(path)


def has_video(path: Path | str) -> bool:
    """Returns whether `frames` has something to read: a folder, an image, or a video stream.

    A cover picture in a sound file is no video.

    Raises:
      InputError: the file is missing, empty or not media.
    """
    path = Path(path)
    if path.is_dir() or path.suffix.lower() in IMAGES:
        return True
    with containers.opened(path) as container:
        return containers.track(container, "video") is not None


def fit(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns image `[H, W, 3]` as `[height, width, 3]`: aspect ratio kept, centred on black.

    Shrinks by averaging areas, enlarges by linear interpolation.
    """
    if x.shape[:2] == (height, width):
        return x
    scale = min(height / x.shape[0], width / x.shape[1])
    inner = tuple(max(1, round(side * scale)) for side in x.shape[:2])
    resized = cv2.resize(
        x, inner[::-1], interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    )
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    out = np.zeros((height, width, 3), x.dtype)
    out[top : top + inner[0], left : left + inner[1]] = resized
    return out


def _natural(name: str) -> list[tuple[int, str]]:
    """Returns a sorting key by which frame2 comes before frame10."""
    parts = re.split(r"(\d+)", name.casefold())
    return [(int(part), "") if i % 2 else (0, part) for i, part in enumerate(parts)]


def _between(path: Path | str, start: float, end: float) -> Iterator[av.VideoFrame]:
    """Yields the video frames shown in [start, end): the one before it where no new one comes."""
    before, new = None, False
    for seconds, frame in containers.timed(path, "video", start):
        if seconds >= end:
            break
        if seconds < start:
            before = frame
        else:
            new = True
            yield frame
    if before is not None and not new:
        yield before


def _choose(
    path: Path | str,
    count: int,
    largest_mib: float,
    start: float = -math.inf,
    end: float = math.inf,
) -> np.ndarray | None:
    """Returns `[T, H, W, 3]`: the middle frames of [start, end); None without a video stream."""
    total = containers.video_packets(path, start, end)
    if total is None:
        return None
    facts = containers.facts(path)
    aspect = facts.aspect
    if not 1 / WIDEST_PIXEL <= aspect <= WIDEST_PIXEL:
        containers.note(path, f"says that its pixels are {aspect:g} times as wide as high: ignored")
        aspect = 1.0
    _check_picture(facts.width, facts.height, largest_mib, path)
    keep = functools.partial(_keep, path, largest_mib, aspect, start, end)
    kept, seen = keep(middles(total, count))
    if seen != total:  # packets that show nothing, or show more than once: now the number is known
        kept, _ = keep(middles(seen, count))
    return kept


def _check_picture(width: int, height: int, largest_mib: float, path: Path | str) -> None:
    """Raises InputError for a picture that would be larger than allowed."""
    limits.check(3 * width * height, largest_mib, f"{path}: a picture of {width} x {height} pixels")


def _keep(
    path: Path | str, largest_mib: float, aspect: float, start: float, end: float, places: list[int]
) -> tuple[np.ndarray, int]:
    """Returns the frames `[T, H, W, 3]` at these places of [start, end), and how many it has."""
    kept, filled, seen = np.empty((0, 0, 0, 3), np.uint8), 0, 0
    wanted = set(places)
    for seen, frame in enumerate(_between(path, start, end), 1):
        if seen - 1 in wanted:
            width, height = _squared(frame.width, frame.height, aspect)
            _check_picture(width, height, largest_mib, path)
            picture = _turned(frame, _stretched(frame, height, width))
            if not filled:
                size = len(places) * picture.nbytes
                limits.check(size, limits.CLIP * largest_mib, f"{path}: {len(places)} frames")
                kept = np.empty((len(places), *picture.shape), np.uint8)
            kept[filled] = fit(picture, *kept.shape[1:3])
            filled += 1
    return kept[:filled], seen


def _squared(width: int, height: int, aspect: float) -> tuple[int, int]:
    """Returns width and height in square pixels: the side that is too short is made longer."""
    if aspect > 1:
        return round(width * aspect), height
    return width, round(height / aspect)


def _stretched(frame: av.VideoFrame, height: int, width: int) -> np.ndarray:
    """Returns a frame as `[height, width, 3]` uint8 RGB, its aspect ratio not kept."""
    picture = frame.to_ndarray(format="rgb24")
    return picture if picture.shape[:2] == (height, width) else cv2.resize(picture, (width, height))


def _turned(frame: av.VideoFrame, picture: np.ndarray) -> np.ndarray:
    """Returns a picture turned and mirrored as the container says of its frame.

    The container has a matrix (a b; c d) by which a place (x, y) is shown at (ax + cy, bx + dy); it
    is taken for the nearest of the eight that turn by quarters, mirrored or not.
    """
    said = frame.side_data.get(av.sidedata.sidedata.Type.DISPLAYMATRIX)
    if said is None:
        return picture
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(said)[:36])
    if abs(b) + abs(c) > abs(a) + abs(d):
        picture, right, down = picture.transpose(1, 0, 2), c, b
    else:
        right, down = a, d
    picture = picture[:, ::-1] if right < 0 else picture
    return picture[::-1] if down < 0 else picture


def _sound(path: Path | str, start: float, samples: int, largest_mib: float) -> np.ndarray | None:
    """Returns at most so many samples `[S]` from `start` on; None where there is no sound.

    From the first sample where `start` is -inf; zeros stand where the sound begins after `start`,
    and where the times of the file leave a gap.
    """
    timed = containers.timed(path, "audio", start - PREROLL)
    first = next(timed, None)
    if first is None:
        return None
    lead = 0 if start == -math.inf else round((start - first[0]) * SAMPLE_RATE)
    blocks, total, silent = [np.zeros(0, np.float32)], 0, 0
    for place, block in _mono(path, itertools.chain((first,), timed)):
        gap = max(0, min(place, lead + samples) - total)
        silent += gap
        total += gap + len(block)
        limits.check(block.itemsize * total, limits.CLIP * largest_mib, f"{path}: its sound")
        blocks += [np.zeros(gap, np.float32), block]
        if total >= lead + samples:
            break
    if silent:
        containers.note(
            path, f"has gaps in its sound, {silent / SAMPLE_RATE:.1f} s together: silence is heard"
        )
    heard = np.concatenate(blocks)[max(0, lead) : max(0, lead + samples)]
    return np.pad(heard, (max(0, -lead), 0)) if len(heard) else None


class _Stretches:
    """Tells at which second after the first frame of sound a stretch without a gap begins."""

    def __init__(self):
        self._first = self._begin = self._length = 0.0
        self._started = False

    def begin(self, seconds: float, frame: av.AudioFrame) -> float:
        """Returns it for the stretch that a frame is in; to be called once for each, in order."""
        if not self._started:
            self._first, self._started = seconds, True
        ahead = seconds - self._first - self._begin - self._length
        if (
            ahead < -JUMP or ahead > containers.LONGEST_GAP
        ):  # another clock: the sound goes on where it was
            self._first += ahead
        elif ahead > GAP:
            self._begin, self._length = self._begin + self._length + ahead, 0.0
        self._length += frame.samples / frame.sample_rate
        return self._begin


def _mono(
    path: Path | str, timed: Iterator[tuple[float, av.AudioFrame]]
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields sound as blocks `[S]` float32, mono, 16 kHz; its format may change midway.

    Before each stands the place, in samples after the first one, at which the stretch begins that
    it is in: see `_Stretches`.
    """
    stretches = _Stretches()

    def setup(pair: tuple[float, av.AudioFrame]) -> tuple:
        frame = pair[1]
        rate = frame.sample_rate
        if not RATES[0] <= rate <= RATES[1]:
            raise InputError(
                f"{path}: its sound has {rate} samples a second; allowed: {RATES[0]} to {RATES[1]}"
            )
        return frame.format.name, frame.layout.name, rate, stretches.begin(*pair)

    for (name, layout, _, begin), same in itertools.groupby(timed, setup):
        real = name.startswith(("flt", "dbl"))
        # To integers: for them the mix is scaled to sum to one, and cannot leave [-1, 1].
        resampler = av.AudioResampler("s32", "mono", SAMPLE_RATE)
        for frame in itertools.chain((frame for _, frame in same), (None,)):
            if frame and real and not np.isfinite(frame.to_ndarray()).all():
                raise InputError(f"{path}: its sound holds samples that are not finite numbers")
            for block in _resampled(resampler, frame, f"{path}: its sound of {layout}"):
                found = block.to_ndarray()[0].astype(np.float32) / 2**31
                yield round(begin * SAMPLE_RATE), found


def _resampled(
    resampler: av.AudioResampler, frame: av.AudioFrame | None, where: str
) -> list[av.AudioFrame]:
    """Returns what a frame becomes; an InputError for channels that nobody knows how to mix."""
    try:
        return resampler.resample(frame)
    except av.error.FFmpegError as error:
        raise InputError(f"{where} cannot be mixed to one channel ({error.strerror})") from error
