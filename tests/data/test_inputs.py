"""Records to batches, apart from any data on disk."""

import json

import chex
import cv2
import numpy as np
import pytest

from affectjax.data.batches import inputs
from affectjax.data.batches.inputs import Features, Frames, Inputs, Text, Waveform
from affectjax.data.labels import LabelSpec
from affectjax.data.media import codec
from affectjax.errors import InputError

SPEC = LabelSpec("class", ("calm", "glad", "sad"))


class Letters:
    """A tokenizer of letters: a is 3, b is 4; 1 begins a text and 2 ends it; padded with 9."""

    def encode(self, texts, length):
        ids, mask = np.full((len(texts), length), 9, np.int32), np.zeros((len(texts), length), bool)
        for row, text in enumerate(texts):
            if text and text.strip():
                letters = [ord(c) - ord("a") + 3 for c in text][: length - 2]
                tokens = [1, *letters, 2]
                ids[row, : len(tokens)] = tokens
                mask[row, : len(tokens)] = True
        return ids, mask


KINDS = {"text": Text(5), "audio": Waveform(4), "vision": Frames(3, 2)}
CLIPS = Inputs(KINDS, SPEC, tokenizer=Letters())


def pictures(count, size=2):
    """Returns `[T, H, W, 3]` of which frame t has the value 10 t + 1 everywhere."""
    return np.stack([np.full((size, size, 3), 10 * t + 1, np.uint8) for t in range(count)])


def record(**changes):
    whole = {
        "id": "one",
        "label": 2,
        "transcript": "ab",
        "audio": np.int16([0, 32767, -32767]),
        "vision": pictures(2),
    }
    return whole | changes


def test_a_batch_by_hand():
    batch = CLIPS.collate([record(), None, {"id": "bare"}])
    assert batch["weight"].tolist() == [1, 0, 1]
    assert batch["label"].tolist() == [2, 0, 0] and batch["label"].dtype == np.int32
    assert batch["text"]["x"].tolist() == [[1, 3, 4, 2, 0], [0] * 5, [0] * 5]
    assert batch["text"]["mask"].sum(1).tolist() == [4, 0, 0]
    assert batch["audio"]["x"].tolist() == [[0, 1, -1, 0], [0] * 4, [0] * 4]
    assert batch["audio"]["mask"].tolist() == [[True, True, True, False], [False] * 4, [False] * 4]
    assert batch["vision"]["x"][0, :, 0, 0, 0].tolist() == [1, 11, 0]
    assert batch["vision"]["mask"].tolist() == [[True, True, False], [False] * 3, [False] * 3]
    assert not batch["vision"]["x"][1:].any()
    for m in KINDS:
        assert batch["present"][m].tolist() == [True, False, False]
    dtypes = {m: batch[m]["x"].dtype for m in KINDS}
    assert dtypes == {"text": np.int32, "audio": np.float32, "vision": np.uint8}


ABSENT = [None, "", "  "], [None, np.zeros(0, np.int16), np.zeros(0)], [None, [], pictures(1)[:0]]


@pytest.mark.parametrize("text", ABSENT[0])
@pytest.mark.parametrize("audio", ABSENT[1])
@pytest.mark.parametrize("vision", ABSENT[2])
def test_what_counts_as_absent(text, audio, vision):
    batch = CLIPS.collate([record(transcript=text, audio=audio, vision=vision)])
    for m in KINDS:
        assert not batch[m]["x"].any() and not batch[m]["mask"].any() and not batch["present"][m][0]


def test_what_is_too_long_is_cut():
    long = record(transcript="abcdefgh", audio=np.arange(9, dtype=np.int16), vision=pictures(9))
    batch = CLIPS.collate([long])
    assert batch["text"]["x"].tolist() == [[1, 3, 4, 5, 2]]
    np.testing.assert_array_equal(batch["audio"]["x"][0], np.float32([0, 1, 2, 3]) / 32767)
    # Of 9 frames in 3 stretches: 1, 4 and 7 are the middles.
    assert batch["vision"]["x"][0, :, 0, 0, 0].tolist() == [11, 41, 71]
    assert all(batch[m]["mask"].all() for m in KINDS)


def test_zeros_is_a_batch_in_which_all_is_there():
    batch = CLIPS.zeros(2)
    chex.assert_trees_all_equal_shapes_and_dtypes(batch, CLIPS.collate([record(), record()]))
    assert all(batch[m]["mask"].all() and batch["present"][m].all() for m in KINDS)
    assert not any(batch[m]["x"].any() for m in KINDS) and batch["weight"].tolist() == [1, 1]
    # x: 5 * 4, 4 * 4 and 3 * 2 * 2 * 3; masks: 5, 4 and 3.
    assert CLIPS.nbytes() == 20 + 16 + 36 + 12


@pytest.mark.parametrize(
    ("spec", "shape", "dtype"),
    [
        (LabelSpec("score"), (2,), np.float32),
        (LabelSpec("binary", ("a", "b", "c")), (2, 3), np.int32),
    ],
)
def test_labels_of_other_kinds(spec, shape, dtype):
    batch = Inputs({"audio": Waveform(2)}, spec).zeros(2)
    assert batch["label"].shape == shape and batch["label"].dtype == dtype


def test_floating_sound_is_taken_as_it_is():
    batch = CLIPS.collate([record(audio=np.array([0.25, -1.0]))])
    assert batch["audio"]["x"].tolist() == [[0.25, -1, 0, 0]]


def test_modalities_come_in_house_order():
    made = Inputs({"vision": Frames(1, 1), "text": Text(2)}, SPEC, tokenizer=Letters())
    assert made.modalities == ("text", "vision") and list(made.kinds) == ["text", "vision"]
    with pytest.raises(ValueError, match="text needs a tokenizer"):
        Inputs({"text": Text(2)}, SPEC)


# ---- features -----------------------------------------------------------------------------------


def test_features_are_standardised_where_they_are_valid():
    statistics = {"audio": {"mean": np.float32([1, 2]), "std": np.float32([2, 4])}}
    made = Inputs({"audio": Features(3, 2), "vision": Features(2, 1)}, SPEC, statistics=statistics)
    batch = made.collate(
        [{"audio": [[3, 6], [1, 2]], "vision": [[7]]}, {"vision": [[5], [6], [7]]}]
    )
    assert batch["audio"]["x"].tolist() == [[[1, 1], [0, 0], [0, 0]], [[0, 0]] * 3]
    assert batch["vision"]["x"].tolist() == [[[7], [0]], [[5], [6]]]
    assert batch["present"]["audio"].tolist() == [True, False]


# ---- frames -------------------------------------------------------------------------------------


def test_only_the_chosen_frames_are_decoded(monkeypatch):
    images = [codec.encode(x, "png") for x in pictures(8)]
    decoded = []
    decode = codec.decode
    monkeypatch.setattr(codec, "decode", lambda x: decoded.append(x) or decode(x))
    batch = CLIPS.collate([record(vision=images)])
    # Stretches of 8/3: their middles 1.33, 4 and 6.67.
    assert decoded == [images[1], images[4], images[6]]
    assert batch["vision"]["x"][0, :, 0, 0, 0].tolist() == [11, 41, 61]


def test_encoding_is_exact_as_png_and_near_as_jpeg():
    smooth = np.linspace(0, 255, 32 * 24 * 3).reshape(32, 24, 3).astype(np.uint8)
    png, jpeg = (codec.encode(smooth, kind) for kind in ("png", "jpeg"))
    np.testing.assert_array_equal(codec.decode(png), smooth)
    assert np.abs(codec.decode(jpeg).astype(int) - smooth).mean() < 3
    assert (png[1:4], jpeg[:2]) == (b"PNG", b"\xff\xd8")
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    # OpenCV's own order is blue, green, red.
    assert cv2.imdecode(np.frombuffer(codec.encode(red, "png"), np.uint8), 1)[0, 0].tolist() == [
        0,
        0,
        255,
    ]


@pytest.mark.parametrize("vision", [[b"no image"], pictures(2, size=3)])
def test_a_wrong_frame_names_its_example(vision):
    with pytest.raises(InputError, match="example one: a frame"):
        CLIPS.collate([record(vision=vision)])


@pytest.mark.parametrize(("have", "count"), [(1, 4), (4, 4), (5, 4), (7, 4), (64, 16), (17, 16)])
def test_each_frame_is_from_a_stretch_of_its_own(have, count):
    middle = codec.choose(have, count)
    if have <= count:
        assert middle.tolist() == list(range(have))
        return
    assert middle.tolist() == [int((2 * i + 1) * have / (2 * count)) for i in range(count)]
    low = codec.choose(have, count, np.zeros(count))
    high = codec.choose(have, count, np.full(count, 1 - 1e-9))
    for i in range(count):
        assert low[i] == i * have // count
        assert high[i] == -(-(i + 1) * have // count) - 1


def test_draws_go_by_seed_epoch_and_example_and_by_nothing_else():
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1), (2**31 - 1, 2**31, 2**31)]
    drawn = [tuple(inputs.draws(*key, 16)) for key in keys]
    assert len(set(drawn)) == len(keys)
    assert drawn == [tuple(inputs.draws(*key, 16)) for key in keys]
    many = np.stack([inputs.draws(3, 5, example, 16) for example in range(500)])
    assert many.min() >= 0 and many.max() < 1
    # Uniform: the mean of 8000 has a deviation of 0.0032.
    assert abs(many.mean() - 0.5) < 0.013
    assert abs(np.corrcoef(many[:-1].ravel(), many[1:].ravel())[0, 1]) < 0.045


def test_random_frames_follow_their_draws():
    draws = np.array([[0, 0.5, 0.99], [0.99, 0, 0]])
    batch = CLIPS.collate([record(vision=pictures(9)), record(vision=pictures(2))], draws)
    assert batch["vision"]["x"][0, :, 0, 0, 0].tolist() == [1, 41, 81]
    assert batch["vision"]["x"][1, :, 0, 0, 0].tolist() == [1, 11, 0]


# ---- sound --------------------------------------------------------------------------------------


def test_sound_comes_back_within_half_a_step():
    sound = np.sin(np.arange(4000) / 7).astype(np.float32)
    back = Waveform(4000).read(codec.quantize(sound), None)
    assert np.abs(back - sound).max() <= 0.5001 / 32767 and np.abs(back).max() <= 1
    assert codec.quantize(np.array([2.0, -2.0, 1.0])).tolist() == [32767, -32767, 32767]
    assert codec.samples(5.0) == 80000 and codec.samples(1e-9) == 1


# ---- to a file and back -------------------------------------------------------------------------


def test_inputs_come_back_from_json():
    kinds = {**KINDS, "vision": Frames(3, 2)}
    statistics = {"audio": {"mean": np.float32([1]), "std": np.float32([2])}}
    for made, rows in (
        (Inputs(kinds, SPEC, tokenizer=Letters()), [record(), None, record(audio=None)]),
        (
            Inputs({"audio": Features(2, 1)}, LabelSpec("score", low=-3.0), statistics=statistics),
            [{"audio": [[5]], "label": 0.5}, None],
        ),
    ):
        content = json.loads(json.dumps(made.to_json()))
        back = Inputs.from_json(content, tokenizer=made.tokenizer, statistics=made.statistics)
        assert back.spec == made.spec and back.kinds == made.kinds
        chex.assert_trees_all_equal(back.collate(rows), made.collate(rows))


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"labels": {"kind": "class"}, "inputs": {}},
        {"labels": {"kind": "score", "classes": []}, "inputs": {"audio": {"kind": "smell"}}},
        {"labels": {"kind": "score", "classes": []}, "inputs": {"audio": {"kind": "waveform"}}},
        {"labels": {"kind": "score", "classes": []}, "inputs": {"audio": 3}},
    ],
)
def test_other_json_is_refused(content):
    with pytest.raises(InputError, match="expected the labels and inputs of a run"):
        Inputs.from_json(content)
