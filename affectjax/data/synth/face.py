"""Draws the cartoon face: the pose of the brows, eyes and mouth over time, and its pixels.

Only the correctly rounded operations (add, subtract, multiply, divide, square root, clip) touch a
pixel, one element at a time: a seed gives the same bytes on every machine, with any thread count.

Letters: N examples, T times, P pose numbers, H and W pixels. Lengths are pixels, y points down.
"""

import numpy as np

from affectjax.data.synth.script import CLIP_SECONDS, Script, bell, speaking, stream
from affectjax.data.synth.sentences import CLASSES

FRAMES = 16
SIZE = 64

# What a pose says, each 0 in a resting face:
#   brow_in, brow_out   height of the inner and outer end of the brows, pixels up
#   lid                 opening of the eyes over rest, squint: lift of the lower lid
#   curve               smile (positive) or frown
#   width, open         of the mouth
#   wrinkle, skew       of the nose, of the mouth (a lip pulled up on one side)
#   gaze                of the eyes, down
#   teeth, blush        how much of them shows
POSE = (
    "brow_in",
    "brow_out",
    "lid",
    "squint",
    "curve",
    "width",
    "open",
    "wrinkle",
    "skew",
    "gaze",
    "teeth",
    "blush",
    "turn",
    "nod",
)
EXPRESSION = 12

# fmt: off
EXPRESSIONS = {
    # brow_in, brow_out, lid, squint, curve, width, open, wrinkle, skew, gaze, teeth, blush
    "neutral":  (0.0, 0.0, 0.00, 0.0, 0.0, 0.0, 0.00, 0.0, 0.0, 0.0, 0.0, 0.0),
    "happy":    (1.4, 1.0, -0.05, 0.55, 1.0, 0.30, 0.45, 0.0, 0.0, 0.0, 1.0, 1.0),
    "sad":      (2.8, -2.0, -0.22, 0.0, -0.95, -0.1, 0.0, 0.0, 0.0, 1.0, 0.0, 0.2),
    "angry":    (-3.2, 2.0, -0.12, 0.25, -0.70, 0.05, 0.35, 0.3, 0.0, 0.0, 1.0, 0.7),
    "fear":     (4.0, 1.2, 0.55, 0.0, -0.70, 0.25, 0.50, 0.0, 0.0, 0.0, 0.8, -0.5),
    "disgust":  (-2.2, 0.3, -0.30, 0.5, -0.60, -0.05, 0.18, 1.0, 1.0, 0.4, 0.2, -0.2),
    "surprise": (3.2, 3.6, 0.62, 0.0, 0.0, -0.42, 0.90, 0.0, 0.0, -0.2, 0.0, 0.0),
}
# fmt: on

SKIN = ((255, 220, 188), (244, 196, 154), (224, 168, 122), (190, 130, 88), (148, 98, 66))
HAIR = ((44, 32, 28), (98, 60, 34), (160, 96, 44), (226, 182, 92), (188, 72, 40), (150, 150, 158))
SHIRT = ((74, 124, 190), (208, 92, 84), (96, 164, 112), (240, 188, 84), (140, 108, 178))
WALL = ((206, 230, 244), (248, 232, 206), (220, 240, 212), (238, 218, 238), (232, 232, 226))
INK, WHITE, TONGUE, THROAT = (40, 28, 30), (252, 252, 250), (226, 106, 110), (96, 24, 34)

EYE_Y, BROW_Y, NOSE_Y, MOUTH_Y = 30.0, 22.0, 37.0, 46.0
EYE_WINDOW = (slice(12, 39), slice(10, 54))
MOUTH_WINDOW = (slice(36, 61), slice(15, 49))
CHUNK = 8


def frames(script: Script) -> np.ndarray:
    """Draws the clips.

    Args:
      script: of N examples.

    Returns:
      `[N, 16, 64, 64, 3]` uint8, RGB, at equal distances in time, 0.05 s to 1.45 s.
    """
    clips = np.empty((len(script), FRAMES, SIZE, SIZE, 3), np.uint8)
    for start in range(0, len(script), CHUNK):
        part = script.part(slice(start, start + CHUNK))
        times = np.broadcast_to(frame_times(), (len(part), FRAMES))
        clips[start : start + CHUNK] = draw(pose(part, times), looks(part))
    return clips


def frame_times() -> np.ndarray:
    """Returns `[16]` the moments of the frames, in seconds."""
    return (np.arange(FRAMES) + 0.5) * (CLIP_SECONDS / FRAMES)


def strength(script: Script, times: np.ndarray) -> np.ndarray:
    """Returns how strong the expression is at given moments.

    Args:
      script: of N examples.
      times: `[N, T]` seconds.

    Returns:
      `[N, T]`: 0 before the onset, then about a half, and the full strength around the flash.
    """
    risen = np.clip((times - script.onset[:, None]) / 0.18, 0, 1)
    flash = np.clip(1 - np.abs(times - script.flash[:, None]) / 0.17, 0, 1)
    flash = flash * flash * (3 - 2 * flash)
    return script.face_strength[:, None] * np.maximum(0.5 * risen, flash)


def pose(script: Script, times: np.ndarray) -> np.ndarray:
    """Returns the pose of the face at given moments.

    Args:
      script: of N examples.
      times: `[N, T]` seconds.

    Returns:
      `[N, T, P]` float64 in the order of `POSE`; an example does not depend on the others.
    """
    table = np.array([EXPRESSIONS[name] for name in CLASSES])
    blend = script.face_blend[:, None]
    target = table[script.face] * (1 - blend) + table[script.face_twin] * blend
    moves = strength(script, times)[..., None] * target[:, None]
    noise = np.stack(
        [bell(stream(script.seed, name, "pose"), (EXPRESSION,)) for name in script.ids]
    )
    scale = np.array([0.5, 0.5, 0.06, 0.08, 0.12, 0.06, 0.0, 0.05, 0.05, 0.15, 0.0, 0.1])
    moves = moves + (noise * scale)[:, None]
    moves[..., 2] = np.where(_blinks(script, times), -1.0, moves[..., 2])
    moves[..., 6] = moves[..., 6] + 0.22 * speaking(script, times)
    sway = np.stack([stream(script.seed, name, "sway").random(4) for name in script.ids])
    swing = np.abs(((times / 0.9 + sway[:, :1]) % 1) * 2 - 1) * 2 - 1
    turn = (sway[:, 1:2] - 0.5) * 3 + 0.5 * swing
    nod = (sway[:, 2:3] - 0.5) * 2 + 0.4 * swing - 1.0 * np.clip(moves[..., 2], 0, 1)
    return np.concatenate([moves, turn[..., None], nod[..., None]], -1)


def _blinks(script: Script, times: np.ndarray) -> np.ndarray:
    """Returns `[N, T]` true where the eyes are shut in a blink; never during the flash."""
    moment = np.array([stream(script.seed, name, "blink").random() for name in script.ids])
    moment = moment[:, None] * CLIP_SECONDS * 2
    far = np.abs(moment - script.flash[:, None]) > 0.3
    return far & (np.abs(times - moment) < 0.047)


def looks(script: Script) -> dict[str, np.ndarray]:
    """Returns what the speakers look like.

    Args:
      script: of N examples.

    Returns:
      Arrays of N rows: colours `[N, 3]`, lengths and counts `[N]`.
    """
    people = {who: _person(script.seed, int(who)) for who in np.unique(script.speaker)}
    return {
        name: np.stack([people[who][name] for who in script.speaker])
        for name in next(iter(people.values()))
    }


def _person(seed: int, number: int) -> dict[str, np.ndarray]:
    """Returns the looks of one speaker."""
    rng = stream(seed, "looks", number)
    shade = 0.92 + 0.1 * rng.random()
    colours = {
        name: np.minimum(np.array(palette[rng.integers(len(palette))]) * shade, 255)
        for name, palette in (("skin", SKIN), ("hair", HAIR), ("shirt", SHIRT), ("wall", WALL))
    }
    return colours | {
        "wide": np.array(18.5 + 3 * rng.random()),
        "tall": np.array(22.5 + 3 * rng.random()),
        "apart": np.array(8.0 + 1.6 * rng.random()),
        "eye": np.array(0.9 + 0.25 * rng.random()),
        "brow": np.array(0.85 + 0.6 * rng.random()),
        "mouth": np.array(7.0 + 1.8 * rng.random()),
        "nose": np.array(1.6 + 1.2 * rng.random()),
        "style": np.array(rng.integers(4)),
        "glasses": np.array(rng.random() < 0.2),
        "freckles": np.array(rng.random() < 0.25),
    }


def draw(poses: np.ndarray, look: dict[str, np.ndarray]) -> np.ndarray:
    """Draws faces.

    Args:
      poses: `[N, T, P]`.
      look: of the N speakers, as `looks` gives it.

    Returns:
      `[N, T, H, W, 3]` uint8.
    """
    count, steps = poses.shape[:2]
    heads = _head(look)
    image = np.repeat(heads, steps, 0)
    flat = {name: np.repeat(value, steps, 0) for name, value in look.items()}
    move = dict(zip(POSE, np.moveaxis(poses.reshape(count * steps, -1), -1, 0), strict=True))
    _eyes(image, move, flat)
    _mouth(image, move, flat)
    pixels = (image + np.float32(0.5)).astype(np.uint8)
    return pixels.transpose(0, 2, 3, 1).reshape(count, steps, SIZE, SIZE, 3)


def _grid(window: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the x `[1, 1, W]` and y `[1, H, 1]` of the centres of the pixels of a window."""
    axis = np.arange(SIZE, dtype=np.float32) + np.float32(0.5)
    return axis[window[1]][None, None, :], axis[window[0]][None, :, None]


def _column(value: np.ndarray) -> np.ndarray:
    """Returns numbers `[F]` as float32 `[F, 1, 1]`, ready to meet pixels."""
    return np.asarray(value, np.float32).reshape(-1, 1, 1)


def _ellipse(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns about how far pixels are outside an ellipse of half-axes a and b, negative inside."""
    u, v = x / a, y / b
    return (np.sqrt(u * u + v * v) - np.float32(1)) * np.minimum(a, b)


def _paint(image: np.ndarray, outside: np.ndarray, colour: np.ndarray | tuple[int, ...]) -> None:
    """Paints pixels in place, smoothly at the edge.

    Args:
      image: `[F, 3, H, W]` float32; the channels first, because long rows are fast.
      outside: `[F, H, W]` distance from the shape, negative inside.
      colour: `[3]` or `[F, 3]`.
    """
    share = np.clip(np.float32(0.5) - outside, 0, 1)[:, None]
    colour = np.asarray(colour, np.float32).reshape(-1, 3, 1, 1)
    image += share * (colour - image)


def _head(look: dict[str, np.ndarray]) -> np.ndarray:
    """Returns `[N, 3, H, W]` float32 all that does not move: wall, shirt, hair, head, ears."""
    x, y = _grid((slice(None), slice(None)))
    x = x - 32
    wall = look["wall"].astype(np.float32)[..., None, None]
    image = np.broadcast_to(wall, (*wall.shape[:2], SIZE, SIZE)).copy()
    wide, tall = _column(look["wide"]), _column(look["tall"])
    skin, hair, style = look["skin"], look["hair"], _column(look["style"])
    shade, side = skin * 0.86, np.abs(x)
    away = np.float32(99)
    long_hair = _ellipse(x, y - 38, wide + 5, tall + 3)
    _paint(image, np.where(style == 2, long_hair, away), hair * 0.85)
    _paint(image, _ellipse(x, y - 70, wide + 7, wide * 0 + 14), look["shirt"])
    _paint(image, np.maximum(side - 6, np.abs(y - 56) - 6), shade)
    _paint(image, _ellipse(side - wide, y - 34, wide * 0 + 3.6, wide * 0 + 4.6), shade)
    bun = _ellipse(x, y - 5, wide * 0 + 7, wide * 0 + 6)
    _paint(image, np.where(style == 3, bun, away), hair * 0.9)
    crown = _ellipse(x, y - 30, wide + 2.4, tall + 2.6)
    _paint(image, np.where(style > 0, np.maximum(crown, y - 33), away), hair)
    _paint(image, _ellipse(x, y - 35, wide, tall), skin)
    _fringe(image, x, y, look)
    freckle = _ellipse(
        (side - 11.5) % 3 - 1.5, (y - 40) % 2.6 - 1.3, wide * 0 + 0.5, wide * 0 + 0.5
    )
    spots = np.maximum(freckle, np.maximum(np.abs(side - 12) - 3, np.abs(y - 40) - 2))
    _paint(image, np.where(_column(look["freckles"]) > 0, spots, away), shade * 0.92)
    return image


def _fringe(image: np.ndarray, x: np.ndarray, y: np.ndarray, look: dict[str, np.ndarray]) -> None:
    """Paints the hair over the forehead; style 0 has only the tufts at the sides."""
    wide, tall, style = _column(look["wide"]), _column(look["tall"]), _column(look["style"])
    cap = _ellipse(x, y - 34, wide + 1.4, tall + 1.8)
    edge = np.where(style == 1, 17.5 - 0.18 * x, 15.5 + 0.012 * x * x)
    edge = np.where(style == 3, 16.5 + 0.02 * x * x - 1.5 * np.abs(x) / 10, edge)
    tufts = np.maximum(wide - 2.6 - np.abs(x), np.abs(y - 26) - 6)
    _paint(image, np.maximum(cap, np.where(style == 0, tufts, y - edge)), look["hair"])


def _eyes(image: np.ndarray, move: dict[str, np.ndarray], look: dict[str, np.ndarray]) -> None:
    """Paints blush, eyes, brows, nose and glasses; both sides at once, mirrored about the nose.

    Args:
      image: `[F, 3, 64, 64]` float32, changed in place.
      move: the pose, `[F]` a name.
      look: of the speaker of each frame.
    """
    m = {name: _column(value) for name, value in move.items()}
    part = image[:, :, EYE_WINDOW[0], EYE_WINDOW[1]]
    x, y = _grid(EYE_WINDOW)
    x = x - 32 - m["turn"]
    y = y - m["nod"]
    sign = np.where(x < 0, np.float32(-1), np.float32(1))
    side = np.abs(x) - _column(look["apart"])
    scale = _column(look["eye"])
    a = 4.4 * scale
    b = np.maximum(3.5 * scale * (1 + m["lid"]), np.float32(0.55))
    up = y - np.float32(EYE_Y)
    white = _ellipse(side, up, a, b)
    lower = up - (b - 1.9 * scale * np.clip(m["squint"], 0, 1) * 1.6)
    # The distance is poor for a nearly shut eye, so the width is held apart.
    white = np.maximum(np.maximum(white, lower), np.abs(side) - a)
    _paint(part, white - np.float32(0.9), INK)
    _paint(part, white, WHITE)
    ix, iy = side - 0.35 * m["turn"] * sign, up - 1.3 * m["gaze"]
    pupil = _ellipse(ix, iy, 2.3 * scale, 2.3 * scale)
    _paint(part, np.maximum(pupil, white), INK)
    glint = _ellipse(ix * sign - 0.8, iy + 0.9, 0.8 * scale, 0.8 * scale)
    _paint(part, np.maximum(glint, white), WHITE)
    _brows(part, side, y, m, look)
    _nose(part, x, y, m, look)
    rim = np.abs(_ellipse(side, up, np.float32(6.6), np.float32(6.2))) - 0.45
    bridge = np.maximum(np.abs(up + 1) - 0.5, np.abs(x) - _column(look["apart"]) + 6.4)
    rim = np.where(_column(look["glasses"]) > 0, np.minimum(rim, bridge), np.float32(99))
    _paint(part, rim, (70, 70, 84))


def _brows(
    part: np.ndarray,
    side: np.ndarray,
    y: np.ndarray,
    m: dict[str, np.ndarray],
    look: dict[str, np.ndarray],
) -> None:
    """Paints the brows: bent bars from the inner to the outer end."""
    along = np.clip((side + 4.6) / np.float32(10), 0, 1)
    inner, outer = m["brow_in"], m["brow_out"]
    middle = np.float32(BROW_Y) - inner * (1 - along) - outer * along - 4 * along * (1 - along)
    thick = _column(look["brow"]) * (1.25 - 0.5 * along)
    bar = np.maximum(np.abs(y - middle) - thick, np.abs(side - 0.4) - np.float32(5.2))
    _paint(part, bar, look["hair"] * 0.6)


def _nose(
    part: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    m: dict[str, np.ndarray],
    look: dict[str, np.ndarray],
) -> None:
    """Paints the nose, its wrinkles and the blush of the cheeks."""
    shade = look["skin"] * 0.80
    nose = _ellipse(x * 1.0, y - np.float32(NOSE_Y), _column(look["nose"]), np.float32(1.5))
    _paint(part, nose, shade)
    lift = np.abs(np.abs(y - 32.2 + 0.5 * np.abs(x)) - 1.4) - 0.5
    lines = np.maximum(lift, np.abs(x) - 3.2 * np.clip(m["wrinkle"], 0, 1))
    _paint(part, np.where(m["wrinkle"] > 0.35, lines, np.float32(99)), shade * 0.8)


def _mouth(image: np.ndarray, move: dict[str, np.ndarray], look: dict[str, np.ndarray]) -> None:
    """Paints the cheeks and the mouth: lips around a throat with teeth and tongue.

    Args:
      image: `[F, 3, 64, 64]` float32, changed in place.
      move: the pose, `[F]` a name.
      look: of the speaker of each frame.
    """
    m = {name: _column(value) for name, value in move.items()}
    part = image[:, :, MOUTH_WINDOW[0], MOUTH_WINDOW[1]]
    x, y = _grid(MOUTH_WINDOW)
    x = x - 32 - m["turn"]
    y = y - np.float32(MOUTH_Y) - 0.7 * m["nod"]
    warm = np.clip(m["blush"], 0, 1) * 3.4 + 0.01
    cheek = _ellipse(np.abs(x) - 12.5, y + 5.5, warm, warm * 0.75)
    _paint(part, np.where(warm > 0.8, cheek, np.float32(99)), _blend(look["skin"], (236, 96, 92)))
    half = _column(look["mouth"]) * (1 + m["width"])
    u = x / half
    arc = np.maximum(1 - u * u, 0)
    opening = np.maximum(m["open"], 0)
    line = 4.6 * m["curve"] * (arc - 0.6) - 1.1 * m["skew"] * (u + np.abs(u))
    gape = opening * np.sqrt(arc)
    top = line - 2.6 * gape
    bottom = line + 5.6 * gape + 2.0 * np.clip(m["curve"], 0, 1) * gape
    inside = np.maximum(np.maximum(top - y, y - bottom), np.abs(x) - half)
    _paint(part, inside - np.float32(1.15), _blend(look["skin"] * 0.8, (150, 40, 52)))
    inside = np.where(opening > 0.06, inside + 0.25, np.float32(99))
    _paint(part, inside, THROAT)
    tongue = _ellipse(x, y - bottom, half * 0.62, opening * 2.2 + 0.1)
    _paint(part, np.maximum(tongue, inside), TONGUE)
    teeth = np.maximum(inside, y - top - 2.6 * np.clip(m["teeth"], 0, 1))
    _paint(part, np.where(m["teeth"] > 0.25, teeth, np.float32(99)), WHITE)


def _blend(colour: np.ndarray, other: tuple[int, ...]) -> np.ndarray:
    """Returns `[F, 3]` the middle of two colours."""
    return 0.5 * colour + 0.5 * np.array(other)
