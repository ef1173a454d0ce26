import json
import tracemalloc

import h5py
import numpy as np
import pytest
from feature_layouts import (
    REALDATA,
    csd,
    csd_file,
    dump,
    dump_python2,
    mmsa,
    mmsa_split,
    mult_split,
    plain,
    steps,
)

from affectjax.data.labels import LabelSpec, infer
from affectjax.data.limits import Limits
from affectjax.data.raw import readers, sets
from affectjax.data.skipped import SkippedRecords
from affectjax.errors import InputError

SCORE = LabelSpec("score", low=-3.0, high=3.0)
MOOD = LabelSpec("class", ("sad", "happy"))
EMOTIONS = sets.get("iemocap").label_spec("sequences")


def read(path, spec=SCORE, aligned=False, **kwargs):
    return readers.read(path, spec, aligned, **kwargs)


def test_formats_are_found_by_module():
    assert readers.names() == ("csd", "mmsa", "mult", "plain")


def test_unknown_path_format_and_layout(tmp_path):
    other = dump(tmp_path / "other.pkl", {})
    for path, format, words in (
        (tmp_path / "none.pkl", "auto", "no such file"),
        (other, "auto", "no reader knows"),
        (other, "cmu", "format 'cmu' is unknown"),
    ):
        with pytest.raises(InputError, match=words):
            read(path, format=format)


# MulT


def test_mult_masks_come_from_zero_rows_at_both_ends(tmp_path):
    part = mult_split()
    part["text"][1, 2] = 0.0  # inside: stays a step
    part["audio"][0, 1, 2] = np.nan
    part["audio"][2, 0] = [-np.inf, 0, 0]
    found = read(dump(tmp_path / "mosi_data_noalign.pkl", {"train": part})).splits["train"]
    text, audio, vision = (found.modalities[m] for m in ("text", "audio", "vision"))
    assert text.mask.astype(int).tolist() == [[0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 0, 1]]
    assert audio.mask.astype(int).tolist() == [[1] * 5, [1, 0, 0, 0, 0], [1, 1, 0, 0, 0]]
    assert vision.mask.astype(int).tolist() == [[1, 0], [1, 1], [0, 0]]
    assert np.isnan(audio.x[0, 1, 2]) and audio.x[2, 0, 0] == -np.inf
    assert found.label.tolist() == [-1.0, 2.5, 0.0] and found.label.dtype == np.float32
    assert found.ids == ("train_0", "train_1", "train_2")
    assert found.transcripts is None


def test_mult_aligned_modalities_share_their_steps(tmp_path):
    part = mult_split()
    part["audio"] = steps([1, 3, 0], 4, 3, front=True)  # the first word has no sound in row 0
    part["vision"] = steps([4, 2, 1], 4, 1)
    path = dump(tmp_path / "mosi_data.pkl", {"train": part})
    found = read(path, aligned=True).splits["train"].modalities
    assert found["audio"].mask.astype(int).tolist() == [[1] * 4, [1] * 4, [0] * 4]
    assert found["text"].mask.astype(int).tolist() == [[1] * 4, [1] * 4, [1, 0, 0, 1]]
    with pytest.raises(InputError, match="aligned modalities must have the same number of steps"):
        read(dump(tmp_path / "b_data.pkl", {"train": mult_split()}), aligned=True)


def test_mult_ids_of_three_parts_and_python2(tmp_path):
    part = mult_split()
    part["id"] = np.array([[b"1DmNV9C1hbY", b"1.5", b"3.0"]] * 3, object)
    part["id"][1, 0] = b"other"
    old = {b"train": {k.encode(): v for k, v in mult_split().items()}}
    assert read(dump_python2(tmp_path / "old_data.pkl", old)).splits["train"].ids[2] == "train_2"
    found = read(dump(tmp_path / "mosi_data.pkl", {"train": part})).splits["train"]
    assert found.ids[:2] == ("1DmNV9C1hbY[1.5-3.0]", "other[1.5-3.0]")
    assert sets.get("mosi").group_of(found.ids[0]) == "1DmNV9C1hbY"


def test_mult_iemocap_pairs_become_four_tasks(tmp_path):
    part = mult_split()
    yes = np.array([[1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0]])
    part["labels"] = np.stack([1 - yes, yes], axis=-1)
    path = dump(tmp_path / "iemocap_data.pkl", {"train": part})
    found = read(path, EMOTIONS).splits["train"].label
    assert found.dtype == np.int32 and found.tolist() == yes.tolist()
    assert EMOTIONS.classes == ("neutral", "happy", "sad", "angry")
    part["labels"][1, 2] = [0, 0]
    with pytest.raises(InputError, match=r"train_1.*4 values of 0 or 1"):
        read(dump(tmp_path / "bad_data.pkl", {"train": part}), EMOTIONS)
    with pytest.raises(InputError, match=r"expected one number an example \[3, 1, 1\]"):
        read(path, SCORE)


def test_mult_labels_that_are_no_numbers(tmp_path):
    for labels in ([0.0, 1.0, 2.0], np.array(["a"] * 3), np.array(1.0), "abc"):
        path = dump(tmp_path / "a_data.pkl", {"train": mult_split() | {"labels": labels}})
        with pytest.raises(InputError, match="train: labels: expected an array of numbers"):
            read(path)


# MMSA


def test_mmsa_lengths_labels_and_text(tmp_path):
    found = read(mmsa(tmp_path / "unaligned.pkl")).splits["train"]
    assert found.ids[1] == "a1$_$1" and found.transcripts[2] == "sentence 2"
    assert found.modalities["text"].mask.sum(axis=1).tolist() == [4, 2, 3]
    assert found.modalities["text"].x.dtype == np.float16
    assert found.modalities["audio"].mask.sum(axis=1).tolist() == [5, 1, 0]
    assert found.modalities["vision"].mask.astype(int).tolist()[0] == [1, 1, 0, 0, 0, 0, 0]
    assert found.label.tolist() == [-1.0, 2.5, 0.0]


def test_mmsa_lengths_from_zero_rows_where_the_file_has_none(tmp_path):
    audio = steps([2, 5, 1], 5, 3, front=True)
    path = mmsa(tmp_path / "a.pkl", audio=audio, audio_lengths=None, vision=None)
    found = read(path).splits["train"].modalities
    assert found["audio"].mask.sum(axis=1).tolist() == [2, 5, 1]
    assert found["audio"].mask[0].tolist() == [False, False, False, True, True]
    assert list(found) == ["text", "audio"]


def test_mmsa_words_of_bytes(tmp_path):
    path = mmsa(
        tmp_path / "a.pkl",
        id=[b"v1", "v2", b"v\xc3\xa93"],
        raw_text=np.array([b"hello", b"a", b"b"]),
    )
    found = read(path).splits["train"]
    assert found.ids == ("v1", "v2", "v\u00e93")
    assert found.transcripts == ("hello", "a", "b")


def test_words_that_are_not_there(tmp_path):
    skipped = SkippedRecords(strict=False)
    words = [None, float("nan"), "b"]
    part = mult_split() | {"id": np.array(["v1", None, float("nan")], object)}
    for path in (
        mmsa(tmp_path / "a.pkl", id=["v1", *words[:2]], raw_text=words),
        dump(tmp_path / "b_data.pkl", {"train": part}),
    ):
        skipped.reasons.clear()
        found = read(path, skipped=skipped).splits["train"]
        assert found.ids == ("v1", "train_1", "train_2")
        assert skipped.reasons == {("train", f"train_{row}"): "has no id" for row in (1, 2)}
        assert found.transcripts in (("", "", "b"), None)
    with pytest.raises(InputError, match="train: raw_text: holds a list; expected a text an exam"):
        read(mmsa(tmp_path / "c.pkl", raw_text=[["so", "good"], "a", "b"]))


def test_mmsa_classes_of_bytes(tmp_path):
    part = mmsa_split() | {"annotations": np.array([b"happy", b"sad", b"sad"])}
    path = dump(tmp_path / "a.pkl", {"train": part})
    assert read(path, MOOD).splits["train"].label.tolist() == [1, 0, 0]


def test_pickles_are_no_larger_than_allowed(tmp_path):
    paths = (
        mmsa(tmp_path / "a.pkl", text=np.zeros((3, 2**16, 6)), text_bert=None),
        dump(tmp_path / "b_data.pkl", {"train": mult_split() | {"text": np.zeros((3, 2**16, 2))}}),
    )
    for path in paths:
        assert read(path, limits=Limits(largest_mib=12)).splits["train"]
        with pytest.raises(InputError, match=rf"{path.name}: .* MiB of memory; allowed: 1, which"):
            read(path, limits=Limits(largest_mib=1))


def test_mmsa_classes_by_name(tmp_path):
    spec = LabelSpec("class", ("Neutral", "Positive", "Negative"))
    path = dump(tmp_path / "a.pkl", {"train": mmsa_split()})
    assert read(path, spec).splits["train"].label.tolist() == [2, 1, 0]
    with pytest.raises(InputError, match=r"a2\$_\$2.*'Neutral'.*one of Positive, Negative"):
        read(path, LabelSpec("class", ("Positive", "Negative")))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"audio": np.ones((2, 5, 3))}, "train: audio has 2 examples where id has 3"),
        ({"audio": np.ones((3, 5))}, "train: audio: expected an array of numbers"),
        ({"audio_lengths": [5, 6, 1]}, "audio_lengths: length 6 of example 1 .* 5 steps"),
        ({"audio_lengths": [5, -1, 1]}, "audio_lengths: length -1 of example 1"),
        ({"audio_lengths": [5, 1]}, "audio_lengths: has 2 lengths for 3 examples"),
        ({"regression_labels": [1.0]}, "regression_labels has 1 examples where id has 3"),
        ({"regression_labels": None}, "train: has no labels of kind score.*regression_labels"),
        ({"raw_text": ["a"]}, "raw_text has 1 examples"),
        ({"id": None}, "train: has no key 'id'"),
        ({"text": None}, "train: has text_bert, which holds token ids, but no text"),
        ({"text_bert": np.ones((3, 4))}, "train: text_bert: expected an array of numbers"),
        ({"text_bert": np.ones((3, 4, 4))}, r"train: text_bert is \[3, 4, 4\], expected"),
        (
            {"audio": [np.ones((n, 3)) for n in (2, 5, 1)]},
            "train: audio: is a list of arrays of se",
        ),
        ({"id": 3}, "train: id is a int; expected one an example"),
        ({"regression_labels": [0.0, 3.5, 0.0]}, r"a1\$_\$1.*3.5 is not a number in \[-3, 3\]"),
        ({"regression_labels": [0.0, np.nan, 0.0]}, r"a1\$_\$1.*nan is not a number"),
        ({"audio": np.ones((3, 5, 4), np.float32)}, "audio has 4 features in train and 3 in valid"),
    ],
)
def test_mmsa_says_what_is_wrong_and_where(tmp_path, changes, words):
    with pytest.raises(InputError, match=words):
        read(mmsa(tmp_path / "unaligned.pkl", **changes))


def test_wrong_records_are_skipped(tmp_path):
    skipped = SkippedRecords(strict=False)
    path = mmsa(
        tmp_path / "a.pkl",
        regression_labels=np.array(["1.0", "??", "-4"], object),
        text=None,
        text_bert=None,
        vision=None,
        audio_lengths=[0, 1, 2],
    )
    found = read(path, skipped=skipped).splits["train"]
    assert len(found) == 3
    assert set(skipped.reasons) == {("train", f"a{i}$_${i}") for i in range(3)}
    assert "'??'" in skipped.reasons["train", "a1$_$1"]
    assert "no step in any modality" in skipped.reasons["train", "a0$_$0"]


# CMU computational sequences


def test_csd_cut_by_the_middles_of_the_steps(tmp_path):
    found = read(csd(tmp_path / "sdk"))
    train, valid = found.splits["train"], found.splits["valid"]
    assert train.ids == ("v1[0]", "v1[1]") and valid.ids == ("v2[0]",)
    assert train.label.tolist() == [1.0, -2.0]
    text, audio = train.modalities["text"], train.modalities["audio"]
    assert text.x.tolist() == [[[1, 10], [2, 20]], [[3, 30], [0, 0]]]
    assert text.mask.tolist() == [[True, True], [True, False]]
    assert audio.x[0, :, 0].tolist() == [1, 3, 5, -np.inf]
    assert audio.x[1, :, 0].tolist() == [9, 11, 0, 0]
    assert audio.mask.sum(axis=1).tolist() == [4, 2]
    assert not valid.modalities["audio"].mask.any()
    assert train.transcripts == ("so", "good") and valid.transcripts == ("",)


def test_csd_aligned_averages_over_words(tmp_path):
    found = read(csd(tmp_path / "sdk"), aligned=True).splits
    audio = found["train"].modalities["audio"]
    assert audio.x[:, :, 0].tolist() == [[2.0, 5.0], [11.0, 0.0]]
    assert audio.mask.tolist() == [[True, True], [True, False]]
    assert not found["valid"].modalities["audio"].mask.any()


def test_csd_cuts_what_is_too_long_and_counts_it(tmp_path):
    skipped = SkippedRecords()
    found = read(csd(tmp_path / "sdk"), max_length={"audio": 3}, skipped=skipped).splits["train"]
    assert found.modalities["audio"].x[:, :, 0].tolist() == [[1, 3, 5], [9, 11, 0]]
    assert skipped.cut == {"audio": 1}


def test_csd_roles_from_a_file_or_refused(tmp_path):
    folder = csd(tmp_path / "sdk")
    entry = ([[7.0]] * 3, [[0, 1], [1, 2], [2, 3]])
    csd_file(folder / "bert.csd", "bert", {"v1": entry, "v2": entry})
    with pytest.raises(InputError, match=r"both bert.csd and glove.csd look like text"):
        read(folder)
    roles = {"text": "bert.csd", "label": "labels.csd"}
    (folder / "modalities.json").write_text(json.dumps(roles))
    found = read(folder).splits["train"].modalities
    assert list(found) == ["text"] and found["text"].x.tolist() == [[[7], [7]], [[7], [0]]]
    (folder / "modalities.json").write_text(json.dumps(roles | {"smell": "bert.csd"}))
    with pytest.raises(InputError, match="smell"):
        read(folder)


def linked_outside(other):
    """Returns functions that make a track refer to another file, each in another way."""
    secret = other / "secret.h5"
    csd_file(secret, "root", {"v1": (np.ones((6, 1)), np.ones((6, 2)))})
    (other / "plain").write_bytes(np.ones(6, np.float32).tobytes())

    def features(file):
        entry = file["covarep/data/v1"]
        del entry["features"]
        return entry

    def external_link(file):
        features(file)["features"] = h5py.ExternalLink(str(secret), "root/data/v1/features")

    def external_video(file):
        file["covarep/data/v9"] = h5py.ExternalLink(str(secret), "root/data/v1")

    def by_a_soft_link(file):
        file["other"] = h5py.ExternalLink(str(secret), "root/data/v1")
        features(file)["features"] = h5py.SoftLink("/other/features")

    def virtual(file):
        layout = h5py.VirtualLayout((6, 1), float)
        layout[:] = h5py.VirtualSource(str(secret), "root/data/v1/features", (6, 1))
        features(file).create_virtual_dataset("features", layout)

    def outside(file):
        where = [(str(other / "plain"), 0, 24)]
        features(file).create_dataset("features", (6, 1), np.float32, external=where)

    return external_link, external_video, by_a_soft_link, virtual, outside


@pytest.mark.parametrize("way", range(5))
def test_csd_refers_to_no_other_file(tmp_path, way):
    raw = csd(tmp_path / "raw")
    change = linked_outside(tmp_path)[way]
    with h5py.File(raw / "covarep.csd", "a") as file:
        change(file)
    words = {3: "a virtual data set, of .*secret.h5", 4: "stored outside, in .*plain"}
    with pytest.raises(InputError, match=words.get(way, r"covarep\.csd: .*secret\.h5")):
        read(raw)


def test_csd_soft_links_within_the_file(tmp_path):
    raw = csd(tmp_path / "raw")
    with h5py.File(raw / "covarep.csd", "a") as file:
        file.move("covarep/data/v1/features", "covarep/metadata/f")
        file["covarep/data/v1/features"] = h5py.SoftLink("/covarep/metadata/f")
        file["nowhere"] = h5py.SoftLink("/none")
    found = read(raw).splits["train"]
    assert found.modalities["audio"].x[0, :, 0].tolist() == [1, 3, 5, -np.inf]


@pytest.mark.parametrize("way", ["link", "up", "absolute"])
def test_csd_files_stay_in_their_folder(tmp_path, way):
    raw = csd(tmp_path / "raw")
    outside = tmp_path / "other.csd"
    (raw / "covarep.csd").rename(outside)
    if way == "link":
        (raw / "covarep.csd").symlink_to(outside)
    else:
        roles = {"label": "labels.csd", "text": "glove.csd"}
        roles["audio"] = "../other.csd" if way == "up" else str(outside)
        (raw / "modalities.json").write_text(json.dumps(roles))
    with pytest.raises(InputError, match=r"leads out of .*; only allow_outside permits that"):
        read(raw)
    found = read(raw, limits=Limits(allow_outside=True)).splits["train"]
    assert found.modalities["audio"].x[0, :, 0].tolist() == [1, 3, 5, -np.inf]


@pytest.mark.parametrize("name", ["loop.csd", "a\0b", 3, None])
def test_csd_names_of_no_file(tmp_path, name):
    raw = csd(tmp_path / "raw")
    (raw / "loop.csd").symlink_to(raw / "loop.csd")
    roles = {"label": "labels.csd", "text": "glove.csd", "audio": name}
    (raw / "modalities.json").write_text(json.dumps(roles))
    with pytest.raises(InputError, match=r"modalities\.json: audio: "):
        read(raw)
    (raw / "modalities.json").write_text("[" * 100000)
    with pytest.raises(InputError, match="is not readable JSON"):
        read(raw)


def test_csd_video_of_another_width_is_skipped(tmp_path):
    raw = csd(tmp_path / "raw", {"train": ["v1", "v2"]})
    csd_file(
        raw / "covarep.csd",
        "covarep",
        {"v1": (np.ones((2, 3)), [[0, 1], [1, 2]]), "v2": (np.ones((1, 2)), [[0, 1]])},
    )
    skipped = SkippedRecords(strict=False)
    found = read(raw, skipped=skipped).splits["train"]
    assert found.ids == ("v1[0]", "v1[1]")
    assert "has 2 features in covarep.csd" in skipped.reasons["train", "v2"]


def test_csd_size_is_checked_before_it_is_read(tmp_path):
    raw = csd(tmp_path / "raw")
    with h5py.File(raw / "covarep.csd", "a") as file:
        del file["covarep/data/v1/features"]
        # Nothing is written: the file has a few kB and says that it has 745 GB.
        file["covarep/data/v1"].create_dataset("features", (10**8, 2000), np.float32, chunks=True)
    with pytest.raises(InputError, match=r"covarep\.csd: v1: features: would take 762,939 MiB"):
        read(raw)


def test_csd_size_of_a_padded_split(tmp_path):
    raw = csd(tmp_path / "raw")
    labels = np.ones((1000, 1)), [[i, i + 1] for i in range(1000)]
    long = np.ones((2000, 10)), [[0.5, 0.6]] * 1001 + [[i + 0.5, i + 0.6] for i in range(1, 1000)]
    csd_file(raw / "labels.csd", "Labels", {"v1": labels})
    csd_file(raw / "covarep.csd", "covarep", {"v1": long})
    (raw / "glove.csd").unlink()
    (raw / "folds.json").write_text('{"train": ["v1"]}')
    limits = Limits(largest_mib=10)
    with pytest.raises(InputError, match=r"audio padded to 1001 steps \(see max_length\): .* 38"):
        read(raw, limits=limits)
    assert len(read(raw, limits=limits, max_length={"audio": 5}).splits["train"]) == 1000


def overlapping(segments):
    return {"v1": (np.ones((segments, 1)), np.tile([0.0, 1e6], (segments, 1)))}


def texts(path, said, shared=False):
    """Writes words of variable length, one a second; if shared, all of them are the first one."""
    with h5py.File(path, "w") as file:
        group = file.create_group("words/data/v1")
        features = np.array(said, object)[:, None]
        features = group.create_dataset("features", data=features, dtype=h5py.string_dtype())
        start = features.id.get_offset()
        group["intervals"] = np.stack([np.arange(len(said)), np.arange(len(said)) + 1.0], axis=1)
    if shared:
        raw = bytearray(path.read_bytes())
        raw[start : start + 16 * len(said)] = raw[start : start + 16] * len(said)
        path.write_bytes(raw)


def spans_that_copy_audio(raw):
    csd_file(raw / "labels.csd", "Labels", overlapping(300))
    audio = np.ones((1000, 64), np.float32), np.stack([np.arange(1000.0)] * 2, axis=1)
    csd_file(raw / "covarep.csd", "covarep", {"v1": audio})


def spans_that_copy_words(raw):
    csd_file(raw / "labels.csd", "Labels", overlapping(300))
    csd_file(raw / "timestamped_words.csd", "words", {"v1": ([[b"a" * 2**18]], [[0, 1]])})


def words_that_widen_audio(raw):
    csd_file(raw / "labels.csd", "Labels", overlapping(1))
    times = np.stack([np.arange(20000.0)] * 2, axis=1)
    csd_file(raw / "glove.csd", "glove", {"v1": (np.ones((20000, 1), np.float32), times)})
    csd_file(raw / "covarep.csd", "covarep", {"v1": (np.ones((1, 1000)), [[0, 1]])})


def segments_of_nothing(raw):
    empty = {"v1": (np.ones((50000, 1), np.float32), np.full((50000, 2), 1e6))}
    csd_file(raw / "labels.csd", "Labels", empty)


def references_to_one_text(raw):
    texts(raw / "timestamped_words.csd", ["a" * 2**20, *"b" * 299], shared=True)


@pytest.mark.parametrize(
    ("write", "aligned"),
    [
        (spans_that_copy_audio, False),
        (spans_that_copy_words, False),
        (words_that_widen_audio, True),
        (segments_of_nothing, False),
        (references_to_one_text, False),
    ],
)
def test_csd_takes_no_more_memory_than_allowed(tmp_path, write, aligned):
    raw = csd(tmp_path / "raw", {"train": ["v1"], "valid": ["v2"]})
    write(raw)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"MiB of memory; allowed: 5, which largest_mib"):
            read(raw, aligned=aligned, limits=Limits(largest_mib=5))
        assert tracemalloc.get_traced_memory()[1] < 12 * 2**20
    finally:
        tracemalloc.stop()


def test_csd_words_of_variable_length(tmp_path):
    raw = csd(tmp_path / "raw")
    said = [f"w\u00f6rd{number}" for number in range(100)]
    texts(raw / "timestamped_words.csd", said)
    csd_file(raw / "labels.csd", "Labels", {v: ([[1.0]], [[0, 100]]) for v in ("v1", "v2")})
    for largest_mib in (1000, 0.04):  # at once, or in pieces of one to some words
        found = read(raw, limits=Limits(largest_mib=largest_mib))
        assert found.splits["train"].transcripts == (" ".join(said),)


def test_csd_words_that_are_no_texts(tmp_path):
    raw = csd(tmp_path / "raw", {"train": ["v1", "v2"]})
    with h5py.File(raw / "timestamped_words.csd", "w") as file:
        group = file.create_group("words/data/v1")
        numbers = group.create_dataset("features", 2, h5py.vlen_dtype(np.float32))
        numbers[0] = [1.0, 2.0]
        group["intervals"] = np.zeros((2, 2))
    skipped = SkippedRecords(strict=False)
    assert len(read(raw, skipped=skipped).splits["train"]) == 1
    assert "expected numbers, or a text a step" in skipped.reasons["train", "v1"]


def test_csd_damage_of_any_kind(tmp_path):
    raw = csd(tmp_path / "raw", {"train": ["v1", "v2"]})
    file, whole = raw / "covarep.csd", (raw / "covarep.csd").read_bytes()
    refused = 0
    for at in range(0, len(whole), 331):
        file.write_bytes(whole[:at] + b"\xff" * 16 + whole[at + 16 :])
        try:
            read(raw, skipped=SkippedRecords(strict=False))
        except InputError as error:
            refused += 1
            assert "covarep.csd" in str(error) or "raw" in str(error)
    assert refused


def test_csd_aligned_segment_without_words(tmp_path):
    raw = csd(tmp_path / "raw", {"train": ["v1"]})
    csd_file(raw / "glove.csd", "glove", {"v1": ([[1, 10]], [[0, 1]])})
    skipped = SkippedRecords(strict=False)
    split = read(raw, aligned=True, skipped=skipped).splits["train"]
    assert split.modalities["audio"].mask.sum(axis=1).tolist() == [1, 0]
    assert set(skipped.reasons) == {("no fold", "v2"), ("train", "v1[1]")}


def test_csd_wrong_videos_and_files(tmp_path):
    folder = csd(tmp_path / "sdk", folds={"train": ["v1", "gone"], "valid": []})
    skipped = SkippedRecords(strict=False)
    assert len(read(folder, skipped=skipped).splits["train"]) == 2
    assert skipped.reasons == {
        ("no fold", "v2"): "stands in no list of folds.json",
        ("train", "gone"): "has no label",
    }
    (folder / "covarep.csd").write_bytes(b"not HDF5")
    with pytest.raises(InputError, match=r"covarep.csd: is not a readable HDF5 file"):
        read(folder)
    with h5py.File(folder / "covarep.csd", "w") as file:
        file.create_group("covarep")
    with pytest.raises(InputError, match="a group `data`"):
        read(folder)
    (folder / "folds.json").unlink()
    with pytest.raises(InputError, match=r"folds.json: no such file"):
        read(folder)


# Plain folders

ROWS = [("a_1", "train", "sad"), ("b_1", "valid", "happy"), ("a_2", "train", "1")]


def test_plain_rows_lengths_and_masks(tmp_path):
    folder = plain(
        tmp_path / "own",
        ROWS,
        text_column=["x", "y, with comma", "z"],
        text=steps([1, 2, 2], 2, 2),
        text_lengths=np.array([1, 0, 2]),
        audio=np.ones((3, 3, 1), int),
        audio_mask=np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1]]),
        vision=steps([1, 3, 2], 3, 1, front=True),
    )
    train, valid = (read(folder, MOOD).splits[s] for s in ("train", "valid"))
    assert train.ids == ("a_1", "a_2") and train.label.tolist() == [0, 1]
    assert valid.transcripts == ("y, with comma",) and not valid.modalities["text"].mask.any()
    assert train.modalities["audio"].mask.astype(int).tolist() == [[1, 0, 0], [0, 1, 1]]
    assert train.modalities["audio"].x.dtype == np.float32
    assert train.modalities["vision"].mask.astype(int).tolist() == [[0, 0, 1], [0, 1, 1]]


def test_plain_errors(tmp_path):
    text = steps([1, 2, 2], 2, 2)
    with pytest.raises(InputError, match=r"example b_1: .*'happy'.*one of sad, glad"):
        read(plain(tmp_path / "a", ROWS, text=text), LabelSpec("class", ("sad", "glad")))
    with pytest.raises(InputError, match=r"text has 2 examples where labels.csv has 3 rows"):
        read(plain(tmp_path / "b", ROWS, text=text[:2]), MOOD)
    with pytest.raises(InputError, match=r"audio_lengths: length 9 of example 0"):
        folder = plain(tmp_path / "c", ROWS, audio=text, audio_lengths=np.array([9, 1, 1]))
        read(folder, MOOD)
    with pytest.raises(InputError, match="has no array of text, audio, vision"):
        read(plain(tmp_path / "d", ROWS, text_mask=np.ones((3, 2), bool)), MOOD)
    with pytest.raises(InputError, match=r"features.npz: text is an array of Python objects"):
        read(plain(tmp_path / "e", ROWS, text=np.array([{}] * 3, object)), MOOD)
    (tmp_path / "a" / "labels.csv").write_text("id,label\na,1\n")
    with pytest.raises(InputError, match="has no column split"):
        read(tmp_path / "a", MOOD)


def test_own_labels_are_told_or_inferred(tmp_path):
    own = sets.get("own")
    folder = plain(tmp_path / "a", ROWS[:2], text=steps([1, 1], 1, 1))
    assert own.label_spec("sequences", folder) == LabelSpec("class", ("happy", "sad"))
    (folder / "labels.json").write_text('{"kind": "class", "classes": ["sad", "happy"]}')
    assert own.label_spec("sequences", folder) == MOOD
    (folder / "labels.json").write_text('{"kind": "guess"}')
    with pytest.raises(InputError, match="guess"):
        own.label_spec("sequences", folder)
    assert infer(["0", "2", "1"]) == LabelSpec("class", ("0", "1", "2"))
    assert infer(["0", "-1"]) == infer(["0.5", "1"]) == LabelSpec("score")


def test_labels_that_are_no_number_do_not_decide(tmp_path):
    classes = LabelSpec("class", ("0", "1", "2"))
    for wrong in ("nan", "inf", "-inf", "1e400", "", " "):
        assert infer(["0", wrong, "2", "1"]) == classes
        assert infer(["0.5", wrong, "-2"]) == LabelSpec("score")
        rows = [("a", "train", "0"), ("b", "train", "2"), ("c", "train", wrong)]
        folder = plain(tmp_path / "a", rows, text=steps([1, 1, 1], 1, 1))
        skipped = SkippedRecords(strict=False)
        spec = sets.get("own").label_spec("sequences", folder)
        found = read(folder, spec, skipped=skipped).splits["train"]
        assert spec == classes and found.label.tolist() == [0, 2, -1]
        assert list(skipped.reasons) == [("train", "c")]
    assert infer(["nan"]) == LabelSpec("score")


def test_numbers_that_are_too_large_for_classes():
    assert len(infer(["9999", "3"]).classes) == 10000
    for large in ("10000", "100000000", "1e300"):
        with pytest.raises(
            InputError, match=r"would make \d+ classes; allowed: 10000, or a labels"
        ):
            infer(["0", large])
    assert infer(["0.5", "100000000"]) == LabelSpec("score")


def test_sets_by_name():
    assert {"mosi", "mosei", "iemocap", "own"} <= set(sets.names())
    with pytest.raises(InputError, match="did you mean 'mosei'"):
        sets.get("moseii")


@pytest.mark.parametrize(
    ("name", "example", "group"),
    [
        ("mosi", "1DmNV9C1hbY_1", "1DmNV9C1hbY"),
        ("mosi", "6_0THN4chvY_12", "6_0THN4chvY"),
        ("mosi", "_dI--eQ6qVU[10]", "_dI--eQ6qVU"),
        ("mosei", "-3g5yACwYnA$_$13", "-3g5yACwYnA"),
        ("iemocap", "Ses01F_impro01_F000", "Ses01"),
        ("iemocap", "train_17", "train_17"),
    ],
)
def test_group_of_an_id(name, example, group):
    assert sets.get(name).group_of(example) == group


# Real files


@pytest.mark.skipif(not REALDATA.is_dir(), reason="shared/realdata is not here: mosi_text_audio")
def test_real_mosi_text_audio():
    found = read(REALDATA / "mosi_text_audio" / "unaligned.pkl").splits
    assert {name: len(split) for name, split in found.items()} == {"train": 1207, "valid": 240}
    text = found["train"].modalities["text"]
    assert text.x.shape == (1207, 50, 384) and text.x.dtype == np.float16
    assert found["train"].modalities["audio"].mask.sum(axis=1)[:3].tolist() == [1, 10, 11]
    assert sets.get("mosi").group_of(found["train"].ids[0]) == "1DmNV9C1hbY"


@pytest.mark.skipif(not REALDATA.is_dir(), reason="shared/realdata is not here: mosi_dev_aligned")
def test_real_mosi_dev_aligned():
    found = read(REALDATA / "mosi_dev_aligned" / "aligned.pkl", aligned=True).splits
    assert {name: len(split) for name, split in found.items()} == {"train": 189, "valid": 40}
    for sequences in found["train"].modalities.values():
        assert sequences.mask.sum(axis=1)[:3].tolist() == [18, 6, 9]
