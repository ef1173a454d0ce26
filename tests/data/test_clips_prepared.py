"""Raw clips to a prepared folder and back, and what the doctor says of them."""

import contextlib
import csv
import dataclasses
import json
import shutil
import subprocess
import sys

import feature_layouts
import media_files
import numpy as np
import pytest
import tensorflow_datasets as tfds
from clip_media import ROWS, raw_files, table

from affectjax.data.clip import Clip
from affectjax.data.labels import LabelSpec
from affectjax.data.media import codec, decoding, faces
from affectjax.data.prepare import builder, clip_examples, doctor, prepared
from affectjax.data.prepare.clip_storage import Storage
from affectjax.data.raw import sets
from affectjax.data.raw.dataset import RawDataset
from affectjax.errors import InputError

PLAIN = Storage(image_size=24, detector="none", image_encoding="png")


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return raw_files(tmp_path_factory.mktemp("raw") / "own")


@pytest.fixture(scope="module")
def stored(raw, tmp_path_factory):
    return prepare(raw, tmp_path_factory.mktemp("data"))


def prepare(raw, data, name="clips", storage=PLAIN, **kwargs):
    return prepared.prepare(name, raw, data, aligned=False, view="clips", storage=storage, **kwargs)


def card(folder):
    return json.loads((folder / "affectjax.json").read_text())


def examples(folder, split):
    source = prepared.open_prepared(folder).source(split)
    return {example["id"]: example for example in (source[i] for i in range(len(source)))}


# ---- there and back -----------------------------------------------------------------------------


def test_every_kind_of_file(stored, raw):
    assert stored.parts[-3:] == ("clips", "clips", "1.0.0")
    train = examples(stored, "train")
    whole, mute, pictures = train["mia_1"], train["mia_2"], train["mia_3"]
    assert [len(x["vision"]) for x in (whole, mute, pictures)] == [6, 6, 3]
    decoded = np.stack([codec.decode(image) for image in whole["vision"]])
    assert decoded.shape == (6, 24, 24, 3)
    assert media_files.number(decoded) == [0, 1, 2, 3, 4, 5]
    # Of 48 x 64 in 24 x 24, aspect ratio kept: three rows of black above and below.
    assert not decoded[:, :3].any() and not decoded[:, -3:].any() and decoded[1:, 3:-3].all()
    # A sound of its own wins; a silent video and pictures have none.
    assert abs(len(whole["audio"]) - 8000) < 1100 and whole["audio"].dtype == np.int16
    np.testing.assert_array_equal(mute["audio"], codec.quantize(decoding.audio(raw / "tone.wav")))
    assert len(mute["audio"]) == 8000 and len(pictures["audio"]) == 0
    assert [x["transcript"] for x in (whole, mute, pictures)] == ["What a day!", "", "Well."]
    assert [int(x["label"]) for x in (whole, mute, pictures)] == [0, 1, 0]
    valid = examples(stored, "valid")
    image = codec.decode(valid["tom_1"]["vision"][0])
    assert len(valid["tom_1"]["vision"]) == 1 and media_files.number(image) == 9
    assert valid["tom_2"]["vision"] == [] and len(valid["tom_2"]["audio"]) == 8000
    words = examples(stored, "test")["tom_3"]
    assert words["vision"] == [] and len(words["audio"]) == 0


def test_what_is_kept_beside_the_records(stored):
    opened = prepared.open_prepared(stored)
    assert opened.view == "clips" and opened.spec == LabelSpec("class", ("glad", "sad"))
    assert opened.splits == {"train": 3, "valid": 2, "test": 1} and opened.folds == {}
    longest = max(len(e["audio"]) for e in examples(stored, "train").values())
    assert opened.inputs == {
        "text": {"kind": "text"},
        "audio": {"kind": "waveform", "longest": longest, "rate": 16000},
        "vision": {"kind": "frames", "longest": 6, "size": 24, "encoding": "png"},
    }
    index = opened.index("train")
    assert index.ids == ("mia_1", "mia_2", "mia_3") and index.label.tolist() == [0, 1, 0]
    assert index.label.dtype == np.int32
    assert index.present.astype(int).tolist() == [[1, 1, 1], [0, 1, 1], [1, 0, 1]]
    assert index.transcripts == ("What a day!", None, "Well.")
    assert card(stored)["has"]["valid"] == {"text": 0, "audio": 1, "vision": 1}
    assert card(stored)["without_face"] == 0 and card(stored)["skipped"] == []


def test_the_index_asks_for_no_record(stored, monkeypatch):
    opened = prepared.open_prepared(stored)
    monkeypatch.setattr(tfds, "builder_from_directory", None)
    assert len(opened.index("train")) == 3


def test_a_folder_without_its_index_is_refused(stored, tmp_path):
    folder = shutil.copytree(stored, tmp_path / "copy")
    (folder / "checksums.json").unlink()  # as an older program left it
    (folder / "examples.json").write_text("{")
    with pytest.raises(InputError, match=r"examples\.json: is not readable"):
        prepared.open_prepared(folder).index("train")
    (folder / "examples.json").unlink()
    with pytest.raises(
        InputError, match=r"examples\.json: is not there; prepare the data set again"
    ):
        prepared.open_prepared(folder).index("train")


def test_a_damaged_folder_is_refused(stored, tmp_path):
    def read(folder):
        found = prepared.open_prepared(folder)
        for split in found.splits:
            found.index(split)
            list(found.source(split)[i] for i in range(len(found.source(split))))

    read(stored)
    files = [file.name for file in stored.iterdir() if file.is_file()]
    assert len(files) > 5
    for number, name in enumerate(files):
        folder = shutil.copytree(stored, tmp_path / str(number))
        whole = (folder / name).read_bytes()
        half = [whole[: len(whole) // 2]]
        for content in [*half, b"[" * 100000, b"[1]", b"{}"] if "json" in name else half:
            (folder / name).write_bytes(content)
            with contextlib.suppress(InputError):
                read(folder)


def test_it_is_a_tfds_data_set(stored):
    record = tfds.builder_from_directory(stored).as_data_source("train")[1]
    assert record["id"] == b"mia_2" and not record["has_transcript"]
    assert record["vision"].dtype == np.uint8
    assert record["vision_sizes"].sum() == len(record["vision"])
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize(("keep", "numbers"), [(2, [1, 4]), (4, [0, 2, 3, 5]), (6, list(range(6)))])
def test_frames_are_kept_evenly(raw, tmp_path, keep, numbers):
    storage = Storage(image_size=8, detector="none", keep_frames=keep)
    found = examples(prepare(raw, tmp_path, storage=storage), "train")["mia_2"]["vision"]
    decoded = np.stack([codec.decode(image) for image in found])
    assert media_files.number(decoded) == numbers and found[0][:2] == b"\xff\xd8"


# ---- sets that bring arrays ---------------------------------------------------------------------

NOISE = np.random.default_rng(0).integers(0, 256, (4, 3, 10, 10, 3), np.uint8)


TWO = LabelSpec("class", ("glad", "sad"))


def made(monkeypatch, clips, spec=TWO, **fields):
    """Installs a data set that lists these clips."""
    how = {"labels": spec, "group": r"^(.+?)_", "clips": lambda raw, skipped: clips, **fields}
    monkeypatch.setattr(sets, "get", lambda name: RawDataset(**how))


def test_a_set_made_by_code_comes_back_exactly(tmp_path, monkeypatch):
    sound = np.linspace(-1, 1, 50, dtype=np.float32)

    def generate(view, seed):
        assert (view, seed) == ("clips", 3)
        whole = (
            Clip(f"a_{i}", "sad", "train", frames=x, waveform=sound) for i, x in enumerate(NOISE)
        )
        return {"train": whole, "test": iter([Clip("b_0", 0, "test", text="hm")])}

    made(monkeypatch, None, generate=generate, views=("clips",))
    folder = prepare(None, tmp_path, "made", Storage(), seed=3)
    found = examples(folder, "train")
    for i, frames in enumerate(NOISE):
        back = np.stack([codec.decode(image) for image in found[f"a_{i}"]["vision"]])
        np.testing.assert_array_equal(back, frames)
        np.testing.assert_allclose(found[f"a_{i}"]["audio"] / 32767, sound, atol=0.51 / 32767)
    assert prepared.open_prepared(folder).inputs["vision"]["size"] == 10
    options = card(folder)["options"]
    assert options["image_encoding"] == "png" and "image_size" not in options


def test_labels_of_every_kind(tmp_path, monkeypatch):
    for number, (spec, labels, expected) in enumerate(
        (
            (LabelSpec("score", low=-3.0), ["0.1", -3, 2.5], np.float32([0.1, -3, 2.5])),
            (LabelSpec("binary", ("a", "b")), ["1 0", [0, 1], "1 1"], [[1, 0], [0, 1], [1, 1]]),
        )
    ):
        clips = [Clip(f"a_{i}", said, "train", text="x") for i, said in enumerate(labels)]
        made(monkeypatch, clips, spec)
        folder = prepare(tmp_path, tmp_path / f"data{number}", "made")
        label = prepared.open_prepared(folder).index("train").label
        np.testing.assert_array_equal(label, expected)
        for i, example in enumerate(examples(folder, "train").values()):
            np.testing.assert_array_equal(example["label"], expected[i])


def test_folds_are_kept(tmp_path, monkeypatch):
    folds = [{"1": "train", "2": "test"}, {"1": "test", "2": "train"}, {"1": "train"}]
    clips = [Clip(f"a_{i}", 0, "all", folds=f, text="x") for i, f in enumerate(folds)]
    # A clip that cannot be used is in no fold either.
    clips.append(Clip("a_3", "what", "all", folds={"1": "test"}, text="x"))
    made(monkeypatch, clips)
    opened = prepared.open_prepared(prepare(tmp_path, tmp_path / "data", "made"))
    assert opened.splits == {"all": 3}
    assert opened.folds == {
        "1": {"train": ["a_0", "a_2"], "test": ["a_1"]},
        "2": {"train": ["a_1"], "test": ["a_0"]},
    }


class Eye:
    """A detector that finds a face in bright images only, always in the same place."""

    def detect(self, image):
        return np.float32([[2, 2, 4, 4, 1]] if image.mean() > 100 else np.zeros((0, 5)))


def test_clips_without_a_face_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(faces, "detector", lambda name: Eye())
    bright, dark = np.full((2, 10, 10, 3), 200, np.uint8), np.zeros((2, 10, 10, 3), np.uint8)
    values = [bright, dark, dark, None]
    clips = [Clip(f"a_{i}", 0, "train", frames=x, text="x") for i, x in enumerate(values)]
    made(monkeypatch, clips)
    folder = prepare(tmp_path, tmp_path / "data", "made", Storage(image_size=8))
    assert card(folder)["without_face"] == 2 and card(folder)["splits"] == {"train": 4}


def test_order_survives_shards_and_threads(tmp_path, monkeypatch):
    monkeypatch.setattr(builder.Builder, "MEDIA_SHARD", 3)
    monkeypatch.setattr(builder.Builder, "MEDIA_CHUNK", 2)
    frames = [np.full((1 + i % 3, 4 + i, 4, 3), i, np.uint8) for i in range(40)]
    made(monkeypatch, [Clip(f"a_{i}", 0, "train", frames=x) for i, x in enumerate(frames)])
    folder = prepare(tmp_path, tmp_path / "data", "made")
    assert len(list(folder.glob("*array_record*"))) == 14
    found = examples(folder, "train")
    assert list(found) == [f"a_{i}" for i in range(40)]
    assert [len(e["vision"]) for e in found.values()] == [1 + i % 3 for i in range(40)]
    for i, example in enumerate(found.values()):
        assert codec.decode(example["vision"][0])[12, 12].tolist() == [i] * 3


def test_no_more_than_a_few_clips_are_ahead(tmp_path, monkeypatch):
    monkeypatch.setattr(clip_examples.os, "cpu_count", lambda: 2)
    asked = []

    def clips():
        for i in range(40):
            asked.append(i)
            yield (Clip(f"a_{i}", 0, "train", text="x"), 0)

    done = 0
    work = lambda clip, detector: clip.id  # noqa: E731
    for clip, _, result in clip_examples._in_order(clips(), work, lambda: None):
        done += 1
        assert result == clip.id and len(asked) - done <= 5
    assert done == 40


# ---- what cannot be used ------------------------------------------------------------------------


def broken(tmp_path):
    """Writes a folder of which only the first and the last two rows can be used."""
    rows = (
        ("ok_1", "train", "glad", "whole.mp4", "", ""),
        ("bad_1", "train", "sad", "text.mp4", "", ""),
        ("bad_2", "train", "sad", "whole.mp4", "empty.wav", ""),
        ("bad_3", "train", "sad", "nowhere.mp4", "", "but words"),
        ("bad_4", "train", "sad", "", "quiet.mp4", ""),
        ("ok_2", "train", "sad", "whole.mp4", "", ""),
        ("ok_3", "test", "sad", "", "", "words"),
    )
    folder = raw_files(tmp_path / "raw", rows)
    (folder / "text.mp4").write_text("this is no video")
    (folder / "empty.wav").write_bytes(b"")
    shutil.copy(folder / "silent.mp4", folder / "quiet.mp4")
    return folder


REASONS = {
    "bad_1": "text.mp4",
    "bad_2": "empty.wav",
    "bad_3": "nowhere.mp4",
    "bad_4": "has no modality",
}


def test_broken_clips_are_skipped_counted_and_listed(tmp_path):
    raw = broken(tmp_path)
    folder = prepare(raw, tmp_path / "data")
    assert list(examples(folder, "train")) == ["ok_1", "ok_2"]
    listed = {entry["id"]: entry["reason"] for entry in card(folder)["skipped"]}
    assert set(listed) == set(REASONS)
    for name, words in REASONS.items():
        assert words in listed[name]
    with pytest.raises(InputError, match=r"train: example bad_3: .*nowhere.mp4"):
        prepare(raw, tmp_path / "strict", strict=True)
    table(
        raw,
        [row for row in csv.reader((raw / "clips.csv").open()) if row[0] not in ("id", "bad_3")],
    )
    with pytest.raises(InputError, match=r"train: example bad_1: .*text.mp4"):
        prepare(raw, tmp_path / "strict", strict=True)
    assert not (tmp_path / "strict").exists() or not list((tmp_path / "strict").iterdir())


def test_ids_and_labels_that_are_wrong(tmp_path, monkeypatch):
    clips = [
        Clip("a", "sad", "train", text="x"),
        Clip("a", "glad", "train", text="y"),
        Clip("b", "gald", "train", text="x"),
        Clip("c", 2, "train", text="x"),
    ]
    made(monkeypatch, clips)
    folder = prepare(tmp_path, tmp_path / "data", "made")
    assert [e["transcript"] for e in examples(folder, "train").values()] == ["x"]
    reasons = [entry["reason"] for entry in card(folder)["skipped"]]
    assert "twice" in reasons[0] and "'gald'" in reasons[1] and "2" in reasons[2]


def test_the_first_of_an_id_that_stands_twice_is_kept(tmp_path):
    rows = (("a", "train", "sad", "", "", "x"), ("a", "train", "glad", "", "", "y"))
    raw = raw_files(tmp_path / "raw", (*rows, ("b", "train", "glad", "", "", "z")))
    found = diagnose(raw)
    assert found.splits["train"].count == 2 and "a of train: stands twice" in found.problems[0]
    folder = prepare(raw, tmp_path / "data")
    assert [e["transcript"] for e in examples(folder, "train").values()] == ["x", "z"]


def test_as_many_are_skipped_as_the_published_set_lacks(tmp_path, monkeypatch):
    labels = (0, 1, 7, 7)
    listed = [Clip(str(i), label, "train", text="x") for i, label in enumerate(labels)]
    for gaps, problems in ((0, 1), (1, 1), (2, 0), (None, 0)):
        made(monkeypatch, listed, gaps=gaps)
        found = diagnose(tmp_path, "made")
        assert len(found.problems) == problems
        assert found.warnings[0].startswith("2 examples cannot") == (not problems)


@pytest.mark.parametrize("count", [0, 1])
def test_a_split_without_anything_usable(tmp_path, monkeypatch, count):
    clips = [Clip("a", 0, "train", text="x"), Clip("b", "no", "valid", text="x")][: count + 1]
    clips = clips if count else [Clip("b", "no", "valid", text="x")]
    made(monkeypatch, clips)
    with pytest.raises(InputError, match="valid: has no example that can be used"):
        prepare(tmp_path, tmp_path / "data", "made")
    assert not list((tmp_path / "data").iterdir())


# ---- which preparation --------------------------------------------------------------------------


def test_the_same_preparation_is_found_again(raw, tmp_path):
    folder = prepare(raw, tmp_path / "data")
    stamp = (folder / "affectjax.json").stat().st_mtime_ns
    assert prepare(raw, tmp_path / "data") == folder
    assert prepare(tmp_path / "data", tmp_path / "no") == folder == prepare(folder, tmp_path / "no")
    assert (folder / "affectjax.json").stat().st_mtime_ns == stamp
    with pytest.raises(InputError, match="other files or with other options"):
        prepare(raw, tmp_path / "data", storage=Storage(image_size=25, detector="none"))


def test_the_cache_follows_files_and_options(tmp_path):
    raw = raw_files(tmp_path / "raw", ROWS[2:4] + ROWS[5:])
    cache = tmp_path / "cache"

    def cached(storage=PLAIN):
        return prepared.cached("clips", raw, cache, aligned=False, view="clips", storage=storage)

    first = cached()
    assert cached() == first and first.is_relative_to(cache)
    assert cached(Storage(image_size=23, detector="none")) != first
    (raw / "pictures" / "frame1.png").write_bytes(codec.encode(media_files.grey(7), "png"))
    second = cached()
    assert second != first
    image = examples(second, "train")["mia_3"]["vision"][1]
    assert media_files.number(codec.decode(image)) == 7
    table(raw, [("mia_3", "train", "sad", "pictures", "", "Well."), *ROWS[3:4], *ROWS[5:]])
    assert cached() not in (first, second)


def test_what_is_larger_than_allowed_is_skipped_by_name(tmp_path):
    raw = raw_files(tmp_path / "raw")
    large = np.zeros((900, 900, 3), np.uint8)
    (raw / "pictures" / "frame1.png").write_bytes(codec.encode(large, "png"))
    few = dataclasses.replace(PLAIN, largest_mib=1.0)
    said = {}
    for storage in (PLAIN, few):
        folder = prepared.cached(
            "clips", raw, tmp_path, aligned=False, view="clips", storage=storage
        )
        said[storage] = {entry["id"]: entry["reason"] for entry in card(folder)["skipped"]}
        found = prepared.diagnose("clips", raw, view="clips", storage=storage)
        assert len(found.skipped) == len(said[storage])
    assert said[PLAIN] == {}
    assert list(said[few]) == ["mia_3"]
    assert "900 x 900 pixels: would take 2 MiB of memory; allowed: 1" in said[few]["mia_3"]


def test_the_limit_of_features_and_their_folder(tmp_path):
    raw = feature_layouts.csd(tmp_path / "raw")
    (raw / "covarep.csd").rename(tmp_path / "other.csd")
    (raw / "covarep.csd").symlink_to(tmp_path / "other.csd")
    with pytest.raises(InputError, match="only allow_outside permits"):
        prepared.cached("mosei", raw, tmp_path, storage=Storage())
    outside = Storage(allow_outside=True, largest_mib=1e-6)
    with pytest.raises(InputError, match="which largest_mib says"):
        prepared.cached("mosei", raw, tmp_path, storage=outside)
    assert prepared.cached("mosei", raw, tmp_path, storage=Storage(allow_outside=True))
    with pytest.raises(InputError, match="largest_mib is -1; allowed: 0 or more"):
        Storage(largest_mib=-1)


def test_views(tmp_path, raw):
    with pytest.raises(InputError, match="data set mosi has no view 'clips'; it has sequences"):
        prepare(tmp_path, tmp_path / "data", "mosi")
    with pytest.raises(InputError, match="data set clips has no view 'sequences'; it has clips"):
        prepared.prepare("clips", raw, tmp_path / "data", aligned=False)
    with pytest.raises(InputError, match="of sequences, not of clips"):
        prepare(raw, tmp_path / "data", max_length={"audio": 3})
    with pytest.raises(InputError, match="ravdess has no option allow_outside"):
        prepare(raw, tmp_path / "data", "ravdess", Storage(allow_outside=True))
    with pytest.raises(InputError, match="image_size is 0; allowed: 1 or more"):
        Storage(image_size=0)
    with pytest.raises(InputError, match="image_encoding is 'gif'; allowed: auto, png, jpeg"):
        Storage(image_encoding="gif")
    with pytest.raises(InputError, match="say where they are"):
        prepare(None, tmp_path / "data")


def test_a_prepared_folder_of_another_view(stored, tmp_path):
    with pytest.raises(InputError, match=r"holds the prepared data set clips \(clips\), not own"):
        prepared.prepare("own", stored, tmp_path, aligned=False)


# ---- the doctor ---------------------------------------------------------------------------------


def diagnose(raw, name="clips"):
    return prepared.diagnose(name, raw, aligned=False, view="clips")


def test_a_healthy_set(raw):
    found = diagnose(raw)
    assert found.problems == () and found.skipped == {} and found.folds == {}
    train = found.splits["train"]
    assert train.count == 3 and train.labels == {"glad": 2, "sad": 1}
    assert train.has == {"text": 2, "audio": 2, "vision": 3} and train.words == (1, 2.0, 3)
    assert found.splits["test"].words == (2, 2.0, 2) and found.splits["valid"].words is None
    assert "train: 1 examples have no audio" in found.warnings
    assert "test: has no example of glad" in found.warnings
    text = doctor.format(found)
    for words in (
        "train: 3 examples\n  text    in 2, words 1 to 3 (median 2)\n  audio   in 2\n",
        "  label   glad: 2, sad: 1",
        "Skipped: none",
        "Problems: none",
    ):
        assert words in text


def test_the_doctor_finds_what_cannot_be_used(tmp_path):
    found = diagnose(broken(tmp_path))
    assert {name for _, name in found.skipped} == set(REASONS)
    for (_, name), reason in found.skipped.items():
        assert REASONS[name] in reason
    assert len(found.problems) == 1 and found.problems[0].startswith("4 examples cannot be used")
    text = doctor.format(found)
    assert "Skipped: 4\n" in text and "  train: bad_4: has no modality" in text


def test_the_doctor_decodes_a_sample(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (10, 48, 64, 3), np.uint8)
    folder = tmp_path / "raw"
    rows = [
        ("loud", "train", "sad", "loud.mkv", "", ""),
        ("quiet", "train", "glad", "", "quiet.wav", ""),
        ("blank", "train", "sad", "blank.mkv", "", "words"),
        ("words", "test", "sad", "", "", "words"),
    ]
    folder.mkdir()
    table(folder, rows)
    media_files.write(folder / "loud.mkv", noise, media_files.tone(1, 48000), sound_rate=48000)
    wav = {"sound_codec": "pcm_s16le", "form": "s16"}
    media_files.write(folder / "quiet.wav", sound=np.zeros(48000, np.float32), **wav)
    media_files.packets(folder / "blank.mkv", "mpeg4", [bytes(50)] * 3)
    found = diagnose(folder)
    media = found.media
    assert (media.decoded, media.total, set(media.broken)) == (2, 3, {("train", "blank")})
    assert media.samples == {48000: 1, 16000: 1} and media.sizes == {"64 x 48": 1}
    assert media.seconds == pytest.approx((1.0, 3.0), abs=0.05) and media.pictures == (10.0,)
    assert (media.faces, media.looked, media.silent) == (0, 1, ("quiet",))
    assert found.splits["train"].count == 2 and "blank of train: " in found.problems[0]
    assert "no frame of its video stream can be decoded" in found.problems[0]
    text = doctor.format(found)
    for words in (
        "media: 3 of 3 clips decoded\n  broken  1\n  seconds 1.0 to 3.0",
        "  sound   samples a second 16000: 1, 48000: 1",
        "  video   64 x 48: 1; pictures a second 10.0 to 10.0",
        "  faces   in 0 of 1",
        "1 of 2 sounds are silent, first quiet",
        "no face was found in any of 1 clips",
    ):
        assert words in text


PROBLEMS = {
    "no train": ([("a", 0, "test", {})], "there is no split named train; there are test"),
    "one label": (
        [("a", 0, "train", {}), ("b", 0, "train", {})],
        "train: every label is the same",
    ),
    "shared": (
        [("a", 0, "train", {}), ("b", 1, "train", {}), ("a", 1, "test", {})],
        "1 ids stand in two splits, such as a",
    ),
    "nothing usable": (
        [("a", 0, "train", {}), ("b", 1, "train", {}), ("c", 7, "test", {})],
        "test: has no example that can be used",
    ),
    "a fold without train": (
        [("a", 0, "all", {"1": "train", "2": "test"}), ("b", 1, "all", {"1": "train"})],
        "fold 2: there is no split named train; there are test",
    ),
}


@pytest.mark.parametrize(("clips", "words"), PROBLEMS.values(), ids=PROBLEMS.keys())
def test_what_would_spoil_a_training(monkeypatch, tmp_path, clips, words):
    listed = [Clip(name, said, split, folds, text="x") for name, said, split, folds in clips]
    made(monkeypatch, listed, gaps=None)
    assert diagnose(tmp_path, "made").problems == (words,)


def test_folds_in_the_diagnosis(monkeypatch, tmp_path):
    folds = [{"1": "train", "2": "test"}, {"1": "test", "2": "train"}, {"1": "train", "2": "train"}]
    made(monkeypatch, [Clip(f"a_{i}", i % 2, "all", f, text="x") for i, f in enumerate(folds)])
    found = diagnose(tmp_path, "made")
    counts = {fold: {s: g.count for s, g in parts.items()} for fold, parts in found.folds.items()}
    assert counts == {"1": {"train": 2, "test": 1}, "2": {"train": 2, "test": 1}}
    assert found.splits["all"].labels == {"glad": 2, "sad": 1}
    assert "fold 1, train: 2 examples" in doctor.format(found)


# ---- the app ------------------------------------------------------------------------------------


def app(*flags):
    command = [sys.executable, "-m", "affectjax.prepare", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_app_exit_codes(raw, tmp_path):
    look = app("--dataset=clips", f"--raw_dir={raw}", "--doctor")
    assert look.returncode == 0 and "train: 3 examples" in look.stdout, look.stderr
    one = raw_files(tmp_path / "one", [row for row in ROWS if row[2] == "glad"])
    look = app("--dataset=clips", f"--raw_dir={one / 'clips.csv'}", "--doctor")
    assert look.returncode == 1 and "every label is the same" in look.stdout
    flags = ("--detector=none", "--image_size=12", "--keep_frames=2", "--image_encoding=png")
    done = app("--dataset=clips", f"--raw_dir={raw}", f"--data_dir={tmp_path / 'data'}", *flags)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "data" / "clips" / "clips" / "1.0.0"
    assert done.stdout.strip() == str(folder)
    vision = prepared.open_prepared(folder).inputs["vision"]
    assert vision == {"kind": "frames", "longest": 2, "size": 12, "encoding": "png"}
    for flags, words in (
        (["--view=sequences"], "data set clips has no view 'sequences'"),
        (["--detector=nothing.onnx"], "nothing.onnx"),
        (["--image_size=0"], "image_size is 0"),
        (["--view=smell"], "view"),
    ):
        data = f"--data_dir={tmp_path / 'other'}"
        refused = app("--dataset=clips", f"--raw_dir={raw}", data, *flags)
        assert refused.returncode == 2 and refused.stdout == "", refused.stderr
        errors = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1 and words in errors[0] and "Traceback" not in refused.stderr
    assert not list((tmp_path / "other").glob("*/*"))
