"""Finds the face in the frames of a clip, and cuts it out as squares that move with it.

The built-in detector is a cascade of local binary patterns whose file comes with scikit-image: it
finds frontal faces and needs no download. YuNet and RetinaFace are better, and are read from an
ONNX file where there is one.

Letters: T frames, H height, W width, K boxes, P priors.
"""

import dataclasses
import itertools
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from affectjax.data.media.decoding import fit
from affectjax.errors import InputError

LOOKS = 16  # a clip is looked at in so many frames at most, evenly spaced: a face is slow
REACH = 2.0  # from one look to the next a face moves by less than so many of its sides
SMOOTH = 5  # looks over which the box is averaged
SCORE = 0.6  # least score of a face, where the detector has scores
OVERLAP = 0.4  # boxes that share more than this of their union are one face


class Detector(Protocol):
    """Finds faces in an image."""

    def detect(self, image: np.ndarray) -> np.ndarray:
        """Returns `[K, 5]` float32 (x, y, width, height, score), best first.

        Args:
          image: `[H, W, 3]` uint8 RGB; x and y are pixels of it.
        """


@dataclasses.dataclass(frozen=True)
class Crop:
    """What was seen of faces in a clip.

    Attributes:
      faces: frames in which the detector found a face, of those that it looked at.
      most: the greatest number of faces found in one frame.
      looked: frames that were looked at.
    """

    faces: int
    most: int
    looked: int


def detector(name: str) -> Detector | None:
    """Returns a detector by name.

    Args:
      name: "none", "cascade" (built in), or the path of an `.onnx` file of YuNet or RetinaFace,
        which are told apart by their outputs.

    Returns:
      The detector, or None for "none".

    Raises:
      InputError: neither a known name nor a model of a known kind.
    """
    if name == "none":
        return None
    if name == "cascade":
        return Cascade()
    if not name.endswith(".onnx"):
        raise InputError(
            f"detector {name!r} is unknown; allowed: none, cascade, or the path of an .onnx file"
        )
    if not Path(name).is_file():
        raise InputError(f"detector {name}: no such file")
    try:
        net = cv2.dnn.readNetFromONNX(name)
        outputs = sorted(net.getUnconnectedOutLayersNames())
    except cv2.error as error:
        raise InputError(f"detector {name}: cannot be read as an ONNX model") from error
    if {"cls_8", "obj_8", "bbox_8"} <= set(outputs):
        return YuNet(name)
    if len(outputs) == 3:
        return RetinaFace(net, name)
    raise InputError(
        f"detector {name}: has outputs {', '.join(outputs)}; allowed: YuNet (cls_8, obj_8, bbox_8 "
        "and on) or RetinaFace (boxes, scores, landmarks)"
    )


def crop(
    frames: np.ndarray, detector: Detector | None, size: int, margin: float = 0.3
) -> tuple[np.ndarray, Crop]:
    """Returns the face of a clip as squares, one a frame, and what was seen.

    Of several faces the one with the greatest area, summed over the frames that show it, is
    followed. A frame that was not looked at, or in which the face was lost, takes the box of the
    nearest one in which it was found; then the boxes are averaged over time. What of a square
    stands outside the frame is black. Without a detector or without any face, the squares are the
    whole frames, their aspect ratio kept, on black.

    Args:
      frames: `[T, H, W, 3]` uint8 RGB.
      detector: what `detector` returned.
      size: side of the squares in pixels; shrinking averages areas.
      margin: share of the greater side of the face's box that is added on each of the four sides.

    Returns:
      The squares `[T, size, size, 3]` uint8, and the `Crop`.
    """
    stride = -(-len(frames) // LOOKS) or 1
    looks = list(range(0, len(frames), stride)) if detector else []
    found = [detector.detect(frames[i]) for i in looks]
    counts = [len(boxes) for boxes in found]
    seen = Crop(sum(c > 0 for c in counts), max(counts, default=0), len(looks))
    if not seen.faces:
        squares = (fit(x, size, size) for x in frames)
    else:
        boxes = _steady(_follow(found), len(frames), stride)
        squares = (fit(_cut(x, b, margin), size, size) for x, b in zip(frames, boxes, strict=True))
    out = np.empty((len(frames), size, size, 3), np.uint8)
    for i, square in enumerate(squares):
        out[i] = square
    return out, seen


def _follow(found: list[np.ndarray]) -> dict[int, np.ndarray]:
    """Returns the box `[4]` of the face to follow, by look, for the looks that show it.

    In each look the boxes go to the faces known so far, the nearest pair first, unless they are
    out of reach; those left over are new faces.
    """
    tracks: list[dict[int, np.ndarray]] = []
    for look, boxes in enumerate(found):
        boxes = boxes[:, :4].astype(float)
        last = [list(track.values())[-1] for track in tracks]
        pairs = sorted(
            (_apart(last[t], boxes[b]), t, b)
            for t, b in itertools.product(range(len(last)), range(len(boxes)))
        )
        taken: set[int] = set()
        for distance, t, b in pairs:
            if distance < REACH and look not in tracks[t] and b not in taken:
                tracks[t][look] = boxes[b]
                taken.add(b)
        tracks += [{look: boxes[b]} for b in range(len(boxes)) if b not in taken]
    return max(tracks, key=lambda track: sum(w * h for _, _, w, h in track.values()))


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the distance of the centres of two boxes, in greater sides of the greater one."""
    return float(np.hypot(*(a[:2] + a[2:] / 2 - b[:2] - b[2:] / 2)) / max(*a[2:], *b[2:]))


def _steady(track: dict[int, np.ndarray], length: int, stride: int) -> np.ndarray:
    """Returns centre and side `[T, 3]` of a square for every frame, averaged over time."""
    x, y, width, height = np.stack(list(track.values())).T
    known = np.stack([x + width / 2, y + height / 2, np.maximum(width, height)], axis=1)
    at = np.array(list(track)) * stride
    nearest = np.abs(np.arange(length)[:, None] - at).argmin(axis=1)
    half = SMOOTH // 2 * stride
    padded = np.pad(known[nearest], ((half, half), (0, 0)), mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1, axis=0).mean(axis=-1)


def _cut(x: np.ndarray, box: np.ndarray, margin: float) -> np.ndarray:
    """Returns the square `[S, S, 3]` of a frame around a box, black where it leaves the frame."""
    side = max(1, round(box[2] * (1 + 2 * margin)))
    left, top = round(box[0] - side / 2), round(box[1] - side / 2)
    out = np.zeros((side, side, 3), np.uint8)
    inner = x[max(0, top) : max(0, top + side), max(0, left) : max(0, left + side)]
    out[max(0, -top) :, max(0, -left) :][: inner.shape[0], : inner.shape[1]] = inner
    return out


def _reduced(image: np.ndarray, longest: int) -> tuple[np.ndarray, float]:
    """Returns the image with its longer side at most `longest`, and by what it was scaled."""
    scale = min(1.0, longest / max(image.shape[:2]))
    if scale == 1:
        return image, scale
    side = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return cv2.resize(image, side, interpolation=cv2.INTER_AREA), scale


class Cascade:
    """Frontal faces by a cascade of local binary patterns, on a reduced frame.

    It has no scores: each is 1, and the largest face counts as the best.

    Source: Zhang et al. 2007, "Face detection based on multi-block LBP representation".
    """

    LONGEST = 320  # pixels of the frame's longer side
    LEAST = 30  # pixels of the smallest face there; half of the time goes into smaller ones
    STEP = 1.1  # from one size of face to the next
    NEIGHBOURS = 3  # fewer overlapping hits are chance

    def __init__(self):
        # Imported here: slow, and of no use to who brings a model or no face at all.
        from skimage.data import lbp_frontal_face_cascade_filename
        from skimage.feature import Cascade as Patterns

        self._patterns = Patterns(lbp_frontal_face_cascade_filename())

    def detect(self, image: np.ndarray) -> np.ndarray:
        """See `Detector`."""
        small, scale = _reduced(image, self.LONGEST)
        if min(small.shape[:2]) < self.LEAST:
            return np.zeros((0, 5), np.float32)
        found = self._patterns.detect_multi_scale(
            cv2.cvtColor(small, cv2.COLOR_RGB2GRAY),
            scale_factor=self.STEP,
            step_ratio=1,
            min_size=(self.LEAST, self.LEAST),
            max_size=small.shape[:2],
            min_neighbor_number=self.NEIGHBOURS,
        )
        found.sort(key=lambda f: (-f["width"] * f["height"], f["r"], f["c"]))  # threads mix them
        boxes = [[f["c"], f["r"], f["width"], f["height"]] for f in found]
        boxes = np.array(boxes, np.float32).reshape(-1, 4) / np.float32(scale)
        return np.pad(boxes, ((0, 0), (0, 1)), constant_values=1)


class YuNet:
    """Faces by YuNet, through OpenCV.

    Source: Wu et al. 2023, "YuNet: a tiny millisecond-level face detector".
    """

    LONGEST = 640

    def __init__(self, path: str):
        self._net = cv2.FaceDetectorYN.create(path, "", (320, 320), SCORE, OVERLAP)

    def detect(self, image: np.ndarray) -> np.ndarray:
        """See `Detector`."""
        small, scale = _reduced(image, self.LONGEST)
        self._net.setInputSize((small.shape[1], small.shape[0]))
        _, rows = self._net.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        if rows is None:
            return np.zeros((0, 5), np.float32)
        found = np.concatenate([rows[:, :4] / scale, rows[:, -1:]], axis=1).astype(np.float32)
        return found[np.argsort(-found[:, 4], kind="stable")]


class RetinaFace:
    """Faces by RetinaFace as most often exported: three outputs over a 640 by 640 image.

    The frame stands in the upper left corner, the rest is filled with the mean colour.

    Source: Deng et al. 2020, "RetinaFace"; the layout of the widespread PyTorch version.
    """

    SIDE = 640
    MEAN = (104, 117, 123)  # blue, green, red
    SIZES = ((8, (16, 32)), (16, (64, 128)), (32, (256, 512)))  # stride, sides of its two priors

    def __init__(self, net: cv2.dnn.Net, name: str):
        self._net, self._name = net, name
        self._outputs = net.getUnconnectedOutLayersNames()
        self._priors = priors(self.SIDE, self.SIZES)

    def detect(self, image: np.ndarray) -> np.ndarray:
        """See `Detector`."""
        small, scale = _reduced(image, self.SIDE)
        canvas = np.full((self.SIDE, self.SIDE, 3), self.MEAN, np.uint8)
        canvas[: small.shape[0], : small.shape[1]] = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
        self._net.setInput(cv2.dnn.blobFromImage(canvas, 1.0, mean=self.MEAN))
        try:
            outputs = {x.shape[-1]: x[0] for x in self._net.forward(self._outputs)}
        except cv2.error as error:
            raise InputError(
                f"detector {self._name}: does not take an image of {self.SIDE} by {self.SIDE}"
            ) from error
        rows = len(self._priors)
        if {k: x.shape for k, x in outputs.items()} != {k: (rows, k) for k in (4, 2, 10)}:
            raise InputError(
                f"detector {self._name}: its outputs are not RetinaFace's [1, {rows}, 4], "
                f"[1, {rows}, 2] and [1, {rows}, 10] for an image of {self.SIDE} by {self.SIDE}"
            )
        found = decode(outputs[4], outputs[2], self._priors)
        found[:, :4] *= self.SIDE / scale
        return found


def priors(side: int, sizes: tuple[tuple[int, tuple[int, int]], ...]) -> np.ndarray:
    """Returns RetinaFace's priors `[P, 4]` (centre x, centre y, width, height) in image sides.

    Args:
      side: pixels of the square image.
      sizes: stride of each level, and the sides of its priors in pixels.
    """
    rows = []
    for stride, lengths in sizes:
        steps = (np.arange(-(-side // stride)) + 0.5) * stride
        y, x, length = np.meshgrid(steps, steps, lengths, indexing="ij")
        rows.append(np.stack([x, y, length, length], axis=-1).reshape(-1, 4))
    return (np.concatenate(rows) / side).astype(np.float32)


def decode(offsets: np.ndarray, scores: np.ndarray, priors: np.ndarray) -> np.ndarray:
    """Returns the faces `[K, 5]` (x, y, width, height, score) that a RetinaFace output tells of.

    Args:
      offsets: `[P, 4]`: of the centre in tenths of the prior, of the size as a logarithm times 5.
      scores: `[P, 2]`: probabilities of background and face.
      priors: `[P, 4]`, see `priors`.
    """
    likely = scores[:, 1] >= SCORE
    offsets, score, base = offsets[likely], scores[likely, 1], priors[likely]
    centre = base[:, :2] + 0.1 * offsets[:, :2] * base[:, 2:]
    size = base[:, 2:] * np.exp(0.2 * offsets[:, 2:])
    boxes = np.concatenate([centre - size / 2, size], axis=1)
    order = np.asarray(cv2.dnn.NMSBoxes(boxes.tolist(), score.tolist(), SCORE, OVERLAP), int)
    return np.concatenate([boxes, score[:, None]], axis=1)[order.reshape(-1)].astype(np.float32)
