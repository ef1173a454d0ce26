import numpy as np
import pytest
import tiny_onnx

from affectjax.data.media import decoding, faces
from affectjax.errors import InputError


class Scripted:
    """Answers look after look with boxes set beforehand, and keeps what it was shown."""

    def __init__(self, *answers):
        self.answers, self.shown = list(answers), []

    def detect(self, image):
        self.shown.append(image)
        return rows(self.answers[len(self.shown) - 1])


def rows(boxes):
    """Returns boxes as a detector does, `[K, 5]`."""
    return np.array([[*b, 1] for b in boxes], np.float32).reshape(-1, 5)


def numbered(count, height=60, width=80):
    """Returns frames in which red is the column, green the row and blue the frame."""
    row, column = np.mgrid[:height, :width]
    frame = np.stack([column, row, 0 * row], axis=-1)
    frames = np.repeat(frame[None], count, axis=0)
    frames[..., 2] = np.arange(count)[:, None, None]
    return frames.astype(np.uint8)


def centre(x):
    """Returns (column, row) of the original frame that stands in the middle of each square."""
    half = x.shape[1] // 2
    return x[:, half - 1 : half + 1, half - 1 : half + 1, :2].mean(axis=(1, 2)).round(1).tolist()


# Crop: what is followed, by detectors that answer as told


def test_crop_cuts_the_box_with_its_margin():
    detector = Scripted([[30, 20, 10, 10]])
    squares, seen = faces.crop(numbered(1), detector, 20, margin=0.5)
    assert seen == faces.Crop(faces=1, most=1, looked=1)
    assert squares.shape == (1, 20, 20, 3) and squares.dtype == np.uint8
    assert np.array_equal(squares[0], numbered(1)[0, 15:35, 25:45])  # 10 wide, 5 more on each side


def test_crop_averages_areas_when_it_shrinks():
    frame = np.zeros((1, 60, 80, 3), np.uint8)
    frame[0, :, ::2] = 200
    squares, _ = faces.crop(frame, Scripted([[20, 10, 40, 40]]), 10, margin=0.0)
    assert (squares == 100).all()


def test_crop_without_detector_or_face_keeps_the_whole_frame():
    for detector, seen in ((None, faces.Crop(0, 0, 0)), (Scripted([], []), faces.Crop(0, 0, 2))):
        squares, found = faces.crop(np.full((2, 20, 40, 3), 90, np.uint8), detector, 16)
        assert found == seen and squares.shape == (2, 16, 16, 3)
        assert (squares[:, 4:12] == 90).all()
        assert not squares[:, :4].any() and not squares[:, 12:].any()
    assert faces.crop(numbered(0), Scripted(), 16)[0].shape == (0, 16, 16, 3)


def test_crop_is_black_outside_of_the_frame():
    squares, _ = faces.crop(
        np.full((1, 60, 80, 3), 9, np.uint8), Scripted([[-5, 50, 20, 20]]), 20, 0
    )
    assert (squares[0, :10, 5:] == 9).all()
    assert not squares[0, 10:].any() and not squares[0, :, :5].any()


def test_crop_follows_a_moving_face():
    steps = [[[10 + 4 * i, 20 + i, 12, 12]] for i in range(9)]
    squares, seen = faces.crop(numbered(9), Scripted(*steps), 12, margin=0.0)
    assert seen == faces.Crop(9, 1, 9)
    # Steady motion: the average over five looks is the look in the middle, but at the ends.
    expected = [[15.5 + 4 * i, 25.5 + i] for i in range(9)]
    assert centre(squares)[2:7] == expected[2:7]
    start = np.mean([0, 0, 0, 1, 2])  # the first box stands for those before it
    assert centre(squares)[0] == pytest.approx([15.5 + 4 * start, 25.5 + start], abs=0.5)


def test_crop_smooths_a_jitter():
    boxes = [[[30 + (i % 2) * 6, 20, 12, 12]] for i in range(15)]
    squares, _ = faces.crop(numbered(15), Scripted(*boxes), 12, margin=0.0)
    columns = np.array(centre(squares))[2:-2, 0]
    assert np.ptp(columns) <= 2 and abs(columns.mean() - 38.5) <= 1


def test_crop_takes_the_nearest_box_where_the_face_is_lost():
    still, moved = [[10, 10, 12, 12]], [[40, 30, 12, 12]]
    answers = [[], still, [], [], *[[]] * 6, moved, []]
    boxes = faces._steady(faces._follow([rows(a) for a in answers]), 12, 1)
    # Out of reach: another face, so that the greater sum of areas decides; a tie keeps the first.
    assert np.unique(boxes, axis=0).tolist() == [[16, 16, 12]]
    near = [[20, 14, 12, 12]]
    answers[-2] = near
    squares, seen = faces.crop(numbered(12), Scripted(*answers), 12, margin=0.0)
    assert seen == faces.Crop(2, 1, 12)
    assert centre(squares)[:4] == [[15.5, 15.5]] * 4 and centre(squares)[-4:] == [[25.5, 19.5]] * 4
    assert centre(squares)[5] != centre(squares)[0]  # nearest: looks 0 to 5, averaged over five


def test_crop_follows_the_face_of_greatest_area_and_presence():
    left, middle, right = [5, 20, 10, 10], [30, 20, 14, 14], [60, 20, 12, 12]
    # The middle one is the largest, but is there in two frames of six only: 392 against 864.
    answers = [
        [middle, left, right],
        [right, left],
        [right],
        [left, right, middle],
        [right],
        [right],
    ]
    squares, seen = faces.crop(numbered(6), Scripted(*answers), 12, margin=0.0)
    assert seen == faces.Crop(faces=6, most=3, looked=6)
    assert centre(squares) == [[65.5, 25.5]] * 6


def test_crop_does_not_hop_to_a_neighbour_while_the_face_is_lost():
    face, other = [10, 20, 16, 16], [34, 20, 10, 10]
    answers = [[face, other], [face, other], [other], [other], [face, other]]
    squares, _ = faces.crop(numbered(5), Scripted(*answers), 16, margin=0.0)
    assert centre(squares) == [[17.5, 27.5]] * 5


def test_crop_follows_a_face_that_grows():
    boxes = [[[40 - 2 * i, 30 - 2 * i, 4 * i + 8, 4 * i + 8]] for i in range(7)]
    squares, _ = faces.crop(numbered(7), Scripted(*boxes), 8, margin=0.0)
    spread = squares[:, 4, -1, 0].astype(int) - squares[:, 4, 0, 0]
    assert (np.diff(spread) > 0).all()  # each square shows more columns than the one before
    assert np.abs(np.array(centre(squares)) - [43.5, 33.5]).max() <= 0.5  # whole pixels


def test_crop_looks_at_few_frames_of_a_long_clip():
    detector = Scripted(*[[[30, 20, 10, 10]]] * 14)
    squares, seen = faces.crop(numbered(40), detector, 10, margin=0.0)
    assert [int(x[0, 0, 2]) for x in detector.shown] == list(range(0, 40, 3))
    assert seen == faces.Crop(14, 1, 14)
    assert squares[:, 0, 0].tolist() == [[30, 20, i] for i in range(40)]


def test_crop_of_a_long_clip_takes_the_nearest_look():
    answers = [[[20, 20, 12, 12]]] * 8 + [[[32, 20, 12, 12]]] * 8
    squares, _ = faces.crop(numbered(48), Scripted(*answers), 12, margin=0.0)
    columns = np.array(centre(squares))[:, 0]
    assert (np.diff(columns) >= 0).all()
    assert columns[0] == 25.5 and columns[-1] == 37.5
    # Frames 21 and 24 were looked at: 22 is nearer to the first, 23 to the second. Two looks to
    # either side are averaged, so frame 22 over 16 to 28, of which seven frames are at 26.
    boxes = faces._steady(faces._follow([rows(a) for a in answers]), 48, 3)
    assert boxes[22].tolist() == pytest.approx([(7 * 26 + 6 * 38) / 13, 26, 12])
    assert boxes[15].tolist() == [26, 26, 12] and boxes[30].tolist() == [38, 26, 12]


# The built-in detector


def test_cascade_finds_a_face_and_its_place():
    astronaut = pytest.importorskip("skimage.data").astronaut()  # 512 by 512, face at (178, 63)
    detector = faces.detector("cascade")
    (found,) = detector.detect(astronaut)
    assert found.dtype == np.float32 and found[4] == 1
    truth = np.array([178, 63, 98, 98])  # eyes, nose and mouth, read off the picture
    assert np.abs(found[:4] - truth).max() < 20
    small = astronaut[40:200, 140:300]
    assert np.abs(detector.detect(small)[0, :2] - truth[:2] + [140, 40]).max() < 20


def test_cascade_finds_three_faces_the_largest_first():
    astronaut = pytest.importorskip("skimage.data").astronaut()
    face = astronaut[30:190, 140:300]
    wide = np.full((260, 520, 3), 128, np.uint8)
    wide[50:210, 10:170] = face
    wide[60:180, 180:300] = decoding.fit(face, 120, 120)
    wide[70:170, 380:480] = decoding.fit(face, 100, 100)
    found = faces.detector("cascade").detect(wide)
    assert len(found) == 3
    middle = found[:, 0] + found[:, 2] / 2
    assert np.abs(middle - [97, 246, 435]).max() < 20
    squares, seen = faces.crop(np.stack([wide] * 2), faces.detector("cascade"), 64)
    assert seen == faces.Crop(2, 3, 2)
    assert np.array_equal(squares[0], squares[1])


def test_cascade_finds_nothing_in_nothing():
    detector = faces.detector("cascade")
    for shape in ((240, 320, 3), (8, 600, 3), (1, 1, 3)):
        assert detector.detect(np.full(shape, 90, np.uint8)).shape == (0, 5)


# Detectors from a file


def test_detectors_by_name(tmp_path):
    assert faces.detector("none") is None
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    other = {"a": np.zeros((1, 2)), "b": np.zeros((1, 3))}
    tiny_onnx.write(tmp_path / "other.onnx", (1, 3, 64, 64), other)
    three = {name: np.zeros((1, 20, n)) for name, n in (("a", 4), ("b", 2), ("c", 10))}
    tiny_onnx.write(tmp_path / "three.onnx", (1, 3, 640, 640), three)
    for name, words in (
        ("mtcnn", "detector 'mtcnn' is unknown; allowed: none, cascade, or the path"),
        (str(tmp_path / "none.onnx"), r"none\.onnx: no such file"),
        (str(tmp_path / "bad.onnx"), r"bad\.onnx: cannot be read as an ONNX model"),
        (str(tmp_path / "other.onnx"), r"other\.onnx: has outputs a, b; allowed: YuNet"),
    ):
        with pytest.raises(InputError, match=words):
            faces.detector(name)
    with pytest.raises(
        InputError, match=r"three\.onnx: its outputs are not RetinaFace's \[1, 16800"
    ):
        faces.detector(str(tmp_path / "three.onnx")).detect(np.zeros((64, 64, 3), np.uint8))


def test_yunet_by_its_outputs(tmp_path):
    outputs = {
        f"{name}_{stride}": np.zeros((1, (64 // stride) ** 2, width), np.float32)
        for name, width in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10))
        for stride in (8, 16, 32)
    }
    # Cell (row 1, column 2) of stride 8: centre (2.5, 1.5) * 8, size (3, 2) * 8, score sqrt(.81).
    outputs["cls_8"][0, 10], outputs["obj_8"][0, 10] = 0.81, 1.0
    outputs["bbox_8"][0, 10] = [0.5, 0.5, np.log(3), np.log(2)]
    # Cell (1, 1) of stride 32: centre (32, 32), size (32, 32), a better score.
    outputs["cls_32"][0, 3], outputs["obj_32"][0, 3] = 1.0, 1.0
    path = tiny_onnx.write(tmp_path / "yunet.onnx", (1, 3, 64, 64), outputs)
    detector = faces.detector(str(path))
    assert isinstance(detector, faces.YuNet)
    found = detector.detect(np.zeros((64, 64, 3), np.uint8))
    expected = [[16, 16, 32, 32, 1.0], [8, 4, 24, 16, 0.9]]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_retinaface_by_its_outputs(tmp_path):
    count = 2 * (80**2 + 40**2 + 20**2)
    offsets, scores = np.zeros((1, count, 4)), np.tile([0.9, 0.1], (1, count, 1))
    place = 2 * (3 * 80 + 5) + 1  # stride 8, row 3, column 5, the prior of 32 pixels
    scores[0, place] = [0.2, 0.8]
    offsets[0, place] = [1.0, -2.0, 5 * np.log(2), 0.0]
    place = 2 * (80**2 + 40**2) + 2 * (4 * 20 + 10)  # stride 32, row 4, column 10, that of 256
    scores[0, place] = [0.1, 0.9]
    outputs = {"loc": offsets, "conf": scores, "landm": np.zeros((1, count, 10))}
    path = tiny_onnx.write(tmp_path / "retina.onnx", (1, 3, 640, 640), outputs)
    detector = faces.detector(str(path))
    assert isinstance(detector, faces.RetinaFace)
    found = detector.detect(np.zeros((720, 1280, 3), np.uint8))  # reduced to one half
    second = [44 + 0.1 * 32 - 32, 28 - 0.2 * 32 - 16, 64, 32]  # centre (44, 28) before it moved
    first = [336 - 128, 144 - 128, 256, 256]
    expected = [[*np.multiply(first, 2), 0.9], [*np.multiply(second, 2), 0.8]]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-3)


def test_retinaface_priors_are_those_of_literal_loops():
    expected = []
    for stride, lengths in ((8, (16, 32)), (16, (64, 128)), (32, (256, 512))):
        for row in range(-(-96 // stride)):
            for column in range(-(-96 // stride)):
                for length in lengths:
                    at = [(column + 0.5) * stride, (row + 0.5) * stride]
                    expected.append([*at, length, length])
    found = faces.priors(96, faces.RetinaFace.SIZES)
    np.testing.assert_allclose(found, np.array(expected) / 96, rtol=1e-6)


def test_retinaface_keeps_one_box_a_face():
    base = np.array([[0.5, 0.5, 0.2, 0.2]] * 3 + [[0.2, 0.2, 0.1, 0.1]])
    offsets = np.zeros((4, 4))
    offsets[1] = [0.5, 0, 0, 0]  # overlaps the first by nine tenths
    scores = np.array([[0.3, 0.7], [0.1, 0.9], [0.5, 0.5], [0.35, 0.65]])
    found = faces.decode(offsets, scores, base)
    expected = [[0.41, 0.4, 0.2, 0.2, 0.9], [0.15, 0.15, 0.1, 0.1, 0.65]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert faces.decode(offsets, 1 - scores[:1].repeat(4, 0), base).shape == (0, 5)
