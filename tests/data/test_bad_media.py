"""Files that are odd or broken, through the real preparation: each works, or is skipped by name."""

import json
import shutil

import cv2
import media_files
import numpy as np
import pytest
from clip_layouts import own
from unpaired_layouts import iemocap, image, meld, rafdb, sound, write

from affectjax.data.batches.dataset import DataConfig, Dataset
from affectjax.data.media import codec
from affectjax.data.prepare import prepared
from affectjax.data.prepare.clip_storage import Storage
from affectjax.errors import InputError

SIZE = 24
PLAIN = Storage(image_size=SIZE, detector="none", image_encoding="png")
ACTOR = "Actor_01/03-01-0{}-01-01-01-01.wav"


def prepare(name, raw, data, storage=PLAIN, **options):
    """Returns the examples of train by id, and the card."""
    folder = prepared.prepare(
        name, raw, data, aligned=False, view="clips", storage=storage, **options
    )
    source = prepared.open_prepared(folder).source("train")
    examples = {example["id"]: example for example in (source[i] for i in range(len(source)))}
    return examples, json.loads((folder / "affectjax.json").read_text())


def picture(example):
    """Returns the one frame of an example."""
    (encoded,) = example["vision"]
    return codec.decode(encoded)


# ---- images -------------------------------------------------------------------------------------


def faces(raw, labels=(1, 4, 6)):
    """Writes RAF-DB with an image of grey 5 for each label; returns the images' paths."""
    rafdb(raw, [f"train_{n}.jpg {label}" for n, label in enumerate(labels)])
    names = [f"train_{n}_aligned.jpg" for n in range(len(labels))]
    return [image(raw / "Image" / "aligned" / name, 5) for name in names]


@pytest.mark.parametrize("content", [b"", b"this is no image\n", b"\xff\xd8\xff\xe0 cut"])
def test_images_that_are_none_are_skipped_by_name(content, tmp_path):
    raw = tmp_path / "raw"
    bad = faces(raw)[1]
    bad.write_bytes(content)
    examples, card = prepare("rafdb", raw, tmp_path / "data")
    assert list(examples) == ["train_0", "train_2"] and card["splits"] == {"train": 2}
    (skipped,) = card["skipped"]
    assert skipped["id"] == "train_1" and bad.name in skipped["reason"]
    with pytest.raises(InputError, match=r"rafdb: train: example train_1: .*train_1_aligned\.jpg"):
        prepare("rafdb", raw, tmp_path / "strict", strict=True)


def test_a_split_of_nothing_but_broken_images(tmp_path):
    for path in faces(tmp_path / "raw"):
        path.write_bytes(b"none")
    with pytest.raises(InputError, match="rafdb: train: has no example that can be used"):
        prepare("rafdb", tmp_path / "raw", tmp_path / "data")


def odd(kind):
    """Returns an image of level 7 of `media_files`, as OpenCV writes it."""
    level = 7 * media_files.STEP
    forms = {
        "grey": np.full((40, 40), level, np.uint8),
        "alpha": np.full((40, 40, 4), (level, level, level, 9), np.uint8),
        "deep": np.full((40, 40, 3), level * 256, np.uint16),
        "large": np.full((5000, 5000, 3), level, np.uint8),
        "dot": np.full((1, 1, 3), level, np.uint8),
    }
    ending = ".jpg" if kind == "large" else ".png"
    return cv2.imencode(ending, forms[kind])[1].tobytes()


@pytest.mark.parametrize("kind", ["grey", "alpha", "deep", "large", "dot"])
def test_odd_images_work(kind, tmp_path):
    raw = tmp_path / "raw"
    faces(raw)[1].write_bytes(odd(kind))
    examples, card = prepare("rafdb", raw, tmp_path / "data")
    assert card["skipped"] == [] and len(examples) == 3
    frame = picture(examples["train_1"])
    assert frame.shape == (SIZE, SIZE, 3) and media_files.number(frame) == 7


def test_aligned_faces_are_kept_whole(tmp_path):
    path = faces(tmp_path / "raw")[0]
    half = np.concatenate([media_files.grey(5, 50, 100), media_files.grey(9, 50, 100)])
    path.write_bytes(codec.encode(half, "png"))
    examples, card = prepare("rafdb", tmp_path / "raw", tmp_path / "data")
    frame = picture(examples["train_0"])
    # 100 x 100 in 24 x 24: two halves to the very edge, no border and no crop.
    assert media_files.number(frame[:12]) == 5 and media_files.number(frame[12:]) == 9
    assert frame[:11].min() == frame[:11].max() and frame[13:].min() == frame[13:].max()
    assert card["without_face"] == 0
    # With a detector the same images are looked at, and kept although no face is in them.
    cascade = Storage(image_size=SIZE, detector="cascade", image_encoding="png")
    examples, card = prepare("rafdb", tmp_path / "raw", tmp_path / "again", cascade)
    assert len(examples) == 3 and card["without_face"] == 3


def test_images_of_each_kind_by_class(tmp_path):
    level = np.full((30, 30, 3), 7 * media_files.STEP, np.uint8)
    for ending in (".jpg", ".png", ".bmp", ".webp", ".tif", ".gif"):
        path = tmp_path / "raw" / "angry" / f"1{ending}"
        write(path, "")
        path.write_bytes(cv2.imencode(ending, level)[1].tobytes())
    folder = prepared.prepare(
        "imagen", tmp_path / "raw", tmp_path / "data", aligned=False, view="clips", storage=PLAIN
    )
    opened = prepared.open_prepared(folder)
    source = opened.source("test")
    assert opened.splits == {"test": 6}
    assert opened.inputs["vision"]["longest"] == 1
    # OpenCV's gif mixes the grey of a few others.
    means = [picture(source[i]).mean() for i in range(6)]
    np.testing.assert_allclose(means, 7 * media_files.STEP, atol=1)


# ---- sounds -------------------------------------------------------------------------------------


def check_sound(example, seconds, level):
    """The sound is finite, mono at 16 kHz, of that length, and of that greatest amplitude."""
    samples = example["audio"]
    assert samples.ndim == 1 and samples.dtype == np.int16
    assert abs(len(samples) - seconds * 16000) <= 2
    assert np.abs(samples / 32767.0).max() == pytest.approx(level, abs=0.02)


def test_odd_sounds_work(tmp_path):
    raw = tmp_path / "raw"
    sound(raw / ACTOR.format(1), amplitude=0.0)
    sound(raw / ACTOR.format(2), 0.1)
    sound(raw / ACTOR.format(3), codec="pcm_u8", form="u8")
    sound(raw / ACTOR.format(4), channels=5)
    sound(raw / ACTOR.format(5), channels=2, rate=48000)
    sound(raw / ACTOR.format(6), codec="pcm_f32le", form="flt", rate=8000)
    examples, card = prepare("ravdess", raw, tmp_path / "data")
    assert card["skipped"] == []
    wanted = {
        1: (0.5, 0),
        2: (0.1, 0.5),
        3: (0.5, 0.5),
        4: (0.5, 0.5),
        5: (0.5, 0.5),
        6: (0.5, 0.5),
    }
    for number, (seconds, level) in wanted.items():
        check_sound(examples[f"03-01-0{number}-01-01-01-01"], seconds, level)
    assert not examples["03-01-01-01-01-01-01"]["audio"].any()
    assert card["inputs"]["audio"] == {
        "kind": "waveform",
        "longest": max(len(e["audio"]) for e in examples.values()),
        "rate": 16000,
    }


def test_odd_sounds_become_batches(tmp_path):
    raw = tmp_path / "raw"
    for split in ("01", "21", "23"):
        actor = raw / f"Actor_{split}"
        sound(actor / f"03-01-01-01-01-01-{split}.wav", amplitude=0.0)
        sound(actor / f"03-01-02-01-01-01-{split}.wav", 0.1)
    config = DataConfig(
        "ravdess",
        dir=str(raw),
        view="clips",
        cache_dir=str(tmp_path / "cache"),
        modalities=("audio",),
        seconds=0.25,
    )
    data = Dataset(config)
    arrays = data.arrays(data.part("train"))
    assert arrays["audio"]["x"].shape == (2, 4000) and np.isfinite(arrays["audio"]["x"]).all()
    # Silence is sound: it is there; what is short is padded.
    np.testing.assert_array_equal(arrays["audio"]["mask"].sum(1), [4000, 1600])
    np.testing.assert_array_equal(arrays["present"]["audio"], [True, True])


def test_broken_sounds_are_skipped_by_name(tmp_path):
    raw = iemocap(
        tmp_path / "raw",
        [(f"Ses01F_impro01_F00{n}", "sad", "Well.") for n in range(4)],
    )
    wav = raw / "Session1" / "sentences" / "wav" / "Ses01F_impro01"
    good = sound(wav / "Ses01F_impro01_F000.wav")
    (wav / "Ses01F_impro01_F001.wav").write_bytes(b"no sound at all, but words of some length")
    cut = good.read_bytes()
    (wav / "Ses01F_impro01_F002.wav").write_bytes(cut[: len(cut) // 2])
    examples, card = prepare("iemocap", raw, tmp_path / "data")
    # Cut in the middle: what stands before the cut. Number 3 is empty.
    assert list(examples) == ["Ses01F_impro01_F000", "Ses01F_impro01_F002"]
    assert len(examples["Ses01F_impro01_F000"]["audio"]) == 8000
    assert 3900 < len(examples["Ses01F_impro01_F002"]["audio"]) < 4000
    assert [s["id"] for s in card["skipped"]] == ["Ses01F_impro01_F001", "Ses01F_impro01_F003"]
    assert "F001.wav" in card["skipped"][0]["reason"]
    assert card["labels"]["kind"] == "class" and card["labels"]["classes"][3] == "sad"


def test_a_sound_without_a_sample_leaves_the_text(tmp_path):
    raw = iemocap(tmp_path / "raw", [(f"Ses01F_impro01_F00{n}", "ang", "Go!") for n in range(2)])
    wav = raw / "Session1" / "sentences" / "wav" / "Ses01F_impro01"
    sound(wav / "Ses01F_impro01_F000.wav")
    header = (wav / "Ses01F_impro01_F000.wav").read_bytes()
    at = header.index(b"data")
    (wav / "Ses01F_impro01_F001.wav").write_bytes(header[: at + 4] + bytes(4))
    examples, card = prepare("iemocap", raw, tmp_path / "data")
    empty = examples["Ses01F_impro01_F001"]
    assert len(empty["audio"]) == 0 and empty["transcript"] == "Go!"
    assert card["has"]["train"] == {"text": 2, "audio": 1}


def test_a_clip_that_cannot_be_opened(tmp_path):
    meld(
        tmp_path / "raw" / "train_sent_emo.csv",
        [(125, 2, "joy", "Hi!"), (125, 3, "neutral", "No.")],
    )
    folder = tmp_path / "raw" / "train_splits"
    folder.mkdir()
    pictures = [media_files.grey(i) for i in range(3)]
    media_files.write(folder / "dia125_utt2.mp4", pictures, media_files.tone(0.3, 16000)[None])
    shutil.copy(folder / "dia125_utt2.mp4", folder / "dia125_utt3.mp4")
    data = (folder / "dia125_utt3.mp4").read_bytes()
    (folder / "dia125_utt3.mp4").write_bytes(data[: len(data) // 2])
    examples, card = prepare("meld", tmp_path / "raw", tmp_path / "data")
    assert list(examples) == ["dia125_utt2"] and len(examples["dia125_utt2"]["vision"]) == 3
    assert [s["id"] for s in card["skipped"]] == ["dia125_utt3"]


# ---- words and classes --------------------------------------------------------------------------


def test_empty_sentences_are_skipped_by_name(tmp_path):
    write(tmp_path / "raw" / "train.tsv", "Fine\t17\ta\n   \t17\tb\nSad\t25\tc\n")
    examples, card = prepare("goemotions", tmp_path / "raw", tmp_path / "data")
    assert {n: e["transcript"] for n, e in examples.items()} == {"a": "Fine", "c": "Sad"}
    assert [(s["id"], s["reason"]) for s in card["skipped"]] == [("b", "has no text")]
    assert list(card["inputs"]) == ["text"]
    rows = [("x_1", "train", "joy", "", "", "Words."), ("x_2", "train", "sad", "", "", "  ")]
    own(tmp_path / "own", rows)
    examples, card = prepare("clips", tmp_path / "own", tmp_path / "data")
    assert list(examples) == ["x_1"]
    assert [(s["id"], s["reason"]) for s in card["skipped"]] == [
        ("x_2", "has no video, no audio and no text")
    ]


def test_a_class_with_no_example_keeps_its_number(tmp_path):
    faces(tmp_path / "raw", labels=(1, 7, 7))
    examples, card = prepare("rafdb", tmp_path / "raw", tmp_path / "data")
    assert [int(e["label"]) for e in examples.values()] == [0, 6, 6]
    assert len(card["labels"]["classes"]) == 7
