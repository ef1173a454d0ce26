import json
import multiprocessing
import pickle
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from feature_layouts import REALDATA, csd, dump, mmsa, mult_split, plain, steps

from affectjax.data.prepare import builder, prepared, write
from affectjax.data.raw import readers, sets
from affectjax.data.raw.dataset import RawDataset
from affectjax.data.sequences import FeatureSet, Sequences, Split
from affectjax.errors import InputError


def prepare(raw, data, name="mosi", aligned=False, **kwargs):
    return prepared.prepare(name, raw, data, aligned=aligned, **kwargs)


def load(opened, split):
    """Returns a whole split of features in memory, float32, padded at the end to `lengths`."""
    source = opened.source(split)
    ids, labels, transcripts = [], [], []
    shapes = {m: (len(source), opened.lengths[m], opened.dims[m]) for m in opened.dims}
    x = {m: np.zeros(shape, np.float32) for m, shape in shapes.items()}
    counts = {m: np.zeros(len(source), np.int64) for m in shapes}
    for row in range(len(source)):
        example = source[row]
        ids.append(example["id"])
        labels.append(example["label"])
        transcripts.append(example["transcript"])
        for m, array in x.items():
            counts[m][row] = len(example[m])
            array[row, : len(example[m])] = example[m]
    modalities = {m: Sequences(x[m], np.arange(opened.lengths[m]) < counts[m][:, None]) for m in x}
    said = tuple(transcripts) if opened.card["transcripts"] else None
    return Split(tuple(ids), np.stack(labels), modalities, said)


def card(folder):
    return json.loads((folder / "affectjax.json").read_text())


def files(folder):
    return sorted(str(f.relative_to(folder)) for f in folder.rglob("*"))


def unpadded(source):
    """Returns per split the valid steps of each example, straight from the reader."""
    return {
        name: [{m: s.x[i][s.mask[i]] for m, s in split.ordered()} for i in range(len(split))]
        for name, split in source.splits.items()
    }


def test_round_trip_is_exact_and_unpadded(tmp_path):
    raw = mmsa(tmp_path / "raw" / "unaligned.pkl")
    folder = prepare(raw.parent, tmp_path / "data")
    assert folder == tmp_path / "data" / "mosi" / "unaligned" / "1.0.0"
    source = readers.read(raw, sets.get("mosi").labels, False)
    expected = unpadded(source)
    opened = prepared.open_prepared(folder)
    assert opened.splits == {"train": 3, "valid": 2} and opened.name == "mosi"
    assert opened.spec == sets.get("mosi").labels
    assert opened.dims == {"text": 6, "audio": 3, "vision": 2}
    assert opened.lengths == {"text": 4, "audio": 5, "vision": 7}
    for name, split in source.splits.items():
        examples = opened.source(name)
        assert len(examples) == len(split)
        for i, example in enumerate(examples):
            assert (example["id"], example["transcript"]) == (split.ids[i], split.transcripts[i])
            assert example["label"].dtype == np.float32 and example["label"] == split.label[i]
            for m, x in expected[name][i].items():
                np.testing.assert_array_equal(example[m], x.astype(example[m].dtype))
        assert examples[0]["text"].dtype == np.float16
        assert examples[0]["vision"].dtype == np.float32
    assert opened.source("train")[2]["audio"].shape == (0, 3)


def test_load_pads_at_the_end_whatever_the_source_did(tmp_path):
    raw = dump(tmp_path / "mosi_data_noalign.pkl", {"train": mult_split()})
    train = load(prepared.open_prepared(prepare(raw, tmp_path / "data")), "train")
    text = train.modalities["text"]
    assert text.x.dtype == np.float32 and train.transcripts is None
    # The reader's text counts 1..12 over 2, 3 and 1 steps of two columns, padded in front.
    assert text.x.tolist() == [
        [[1, 2], [3, 4], [0, 0]],
        [[5, 6], [7, 8], [9, 10]],
        [[11, 12], [0, 0], [0, 0]],
    ]
    assert text.mask.astype(int).tolist() == [[1, 1, 0], [1, 1, 1], [1, 0, 0]]
    assert train.modalities["vision"].mask.astype(int).tolist() == [[1, 0], [1, 1], [0, 0]]
    assert train.label.tolist() == [-1.0, 2.5, 0.0] and train.label.dtype == np.float32
    assert train.ids == ("train_0", "train_1", "train_2")


def test_the_index_of_feature_sequences(tmp_path):
    folder = prepare(mmsa(tmp_path / "unaligned.pkl"), tmp_path / "data")
    opened = prepared.open_prepared(folder)
    index = opened.index("train")
    assert index.ids == ("a0$_$0", "a1$_$1", "a2$_$2")
    assert index.label.tolist() == [-1.0, 2.5, 0.0] and index.label.dtype == np.float32
    # The audio lengths are 5, 1, 0.
    assert index.present[:, 1].tolist() == [True, True, False]
    assert (
        index.transcripts
        == readers.read(tmp_path / "unaligned.pkl", opened.spec, False).splits["train"].transcripts
    )


def test_binary_labels_come_back(tmp_path):
    part = mult_split()
    yes = np.array([[1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0]])
    part["labels"] = np.stack([1 - yes, yes], axis=-1)
    raw = dump(tmp_path / "iemocap_data_noalign.pkl", {"train": part})
    opened = prepared.open_prepared(prepare(raw, tmp_path / "data", name="iemocap"))
    assert load(opened, "train").label.tolist() == yes.tolist()
    assert load(opened, "train").label.dtype == np.int32
    assert opened.source("train")[1]["label"].tolist() == [0, 1, 0, 1]


def test_it_is_a_tfds_data_set_and_asks_no_network(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError(f"looked up {args}")

    monkeypatch.setattr("socket.getaddrinfo", refuse)
    monkeypatch.setattr("socket.socket.connect", refuse)
    folder = prepare(mmsa(tmp_path / "unaligned.pkl"), tmp_path / "data")
    builder = tfds.builder_from_directory(folder)
    example = builder.as_data_source("valid")[0]
    assert example["id"] == b"bb0$_$0" and example["audio"].shape == (5, 3)
    assert builder.info.splits["train"].num_examples == 3
    assert "tensorflow" not in sys.modules


def test_order_survives_several_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(builder.Builder, "SHARD", 3)
    monkeypatch.setattr(builder.Builder, "CHUNK", 2)
    rows = [(f"v_{i}", "train", str(i % 2)) for i in range(8)]
    raw = plain(tmp_path / "own", rows, text=steps([1] * 8, 1, 1))
    folder = prepare(raw, tmp_path / "data", name="own")
    assert len(list(folder.glob("*array_record*"))) > 1
    loaded = load(prepared.open_prepared(folder), "train")
    assert loaded.ids == tuple(f"v_{i}" for i in range(8))
    assert loaded.modalities["text"].x.ravel().tolist() == [1, 2, 3, 4, 5, 6, 7, 8]


def test_cleaning_is_counted(tmp_path):
    audio = np.ones((3, 5, 3))
    audio[0, 0] = [np.nan, -np.inf, 2.0]
    audio[0, 1, 0] = 1e300  # finite in the source, infinite in float32
    audio[2] = np.nan  # not valid there: its length is 0
    folder = prepare(mmsa(tmp_path / "unaligned.pkl", audio=audio), tmp_path / "data")
    first = prepared.open_prepared(folder).source("train")[0]["audio"]
    assert first[0].tolist() == [0.0, 0.0, 2.0] and first[1].tolist() == [0.0, 1.0, 1.0]
    assert card(folder)["cleaned"]["audio"] == {"nan": 1, "inf": 2}
    assert card(folder)["cleaned"]["text"] == {"nan": 0, "inf": 0}


def test_wrong_records_are_skipped_counted_and_listed(tmp_path):
    raw = mmsa(
        tmp_path / "unaligned.pkl",
        regression_labels=np.array([3.5, "two", 0.0], object),
        id=["a", "b", "c"],
    )
    folder = prepare(raw, tmp_path / "data")
    assert load(prepared.open_prepared(folder), "train").ids == ("c",)
    assert card(folder)["splits"] == {"train": 1, "valid": 2}
    listed = {entry["id"]: entry["reason"] for entry in card(folder)["skipped"]}
    assert set(listed) == {"a", "b"}
    assert "3.5" in listed["a"] and "'two'" in listed["b"]
    with pytest.raises(InputError, match="example b: label 'two' is not a number in"):
        prepare(raw, tmp_path / "strict", strict=True)
    assert files(tmp_path / "strict") == []


def test_an_id_twice_keeps_the_first(tmp_path):
    raw = mmsa(tmp_path / "unaligned.pkl", id=["a", "b", "a"])
    folder = prepare(raw, tmp_path / "data")
    loaded = load(prepared.open_prepared(folder), "train")
    assert loaded.ids == ("a", "b") and loaded.label.tolist() == [-1.0, 2.5]
    assert "twice" in card(folder)["skipped"][0]["reason"]


def test_nothing_usable_in_a_split(tmp_path):
    raw = mmsa(tmp_path / "unaligned.pkl", regression_labels=[9, 9, 9])
    with pytest.raises(InputError, match="train: has no example that can be used"):
        prepare(raw, tmp_path / "data")
    assert files(tmp_path / "data") == []


def test_strict_refuses_what_would_spoil_a_training(tmp_path):
    raw = mmsa(tmp_path / "unaligned.pkl", audio=np.full((3, 5, 3), np.nan))
    with pytest.raises(InputError, match="audio has no finite value at all"):
        prepare(raw, tmp_path / "data", strict=True)
    lenient = prepare(raw, tmp_path / "data")
    assert card(lenient)["problems"] == ["train: audio has no finite value at all"]


def test_max_length_cuts_and_counts(tmp_path):
    raw = mmsa(tmp_path / "unaligned.pkl")
    folder = prepare(raw, tmp_path / "data", max_length={"audio": 2})
    opened = prepared.open_prepared(folder)
    assert opened.lengths["audio"] == 2
    assert load(opened, "train").modalities["audio"].x.shape == (3, 2, 3)
    # Of the audio lengths 5, 1, 0 and 5, 1 one each is over 2.
    assert card(folder)["cut"] == {"text": 0, "audio": 2, "vision": 0}
    for wrong in ({"smell": 2}, {"audio": 0}):
        with pytest.raises(InputError, match="max_length"):
            prepare(raw, tmp_path / "other", max_length=wrong)


def test_aligned_modalities_keep_one_length(tmp_path):
    folder = prepare(csd(tmp_path / "sdk"), tmp_path / "data", aligned=True)
    opened = prepared.open_prepared(folder)
    assert opened.lengths == {"text": 2, "audio": 2} and opened.aligned
    assert load(opened, "train").modalities["audio"].x[:, :, 0].tolist() == [[2, 5], [11, 0]]
    assert opened.source("valid")[0]["audio"].shape == (0, 1)
    folder = prepare(tmp_path / "sdk", tmp_path / "cut", aligned=True, max_length={"text": 1})
    cut = prepared.open_prepared(folder)
    assert cut.lengths == {"text": 1, "audio": 1}
    assert load(cut, "train").modalities["audio"].x.ravel().tolist() == [2, 11]


def test_own_plain_folder(tmp_path):
    rows = [("a", "train", "sad"), ("b", "train", "glad"), ("c", "test", "sad")]
    raw = plain(tmp_path / "own", rows, vision=steps([1, 2, 3], 3, 2))
    opened = prepared.open_prepared(prepare(raw, tmp_path / "data", name="own"))
    assert opened.spec.classes == ("glad", "sad")
    assert load(opened, "train").label.tolist() == [1, 0]
    assert load(opened, "test").modalities["vision"].x.tolist() == [[[7, 8], [9, 10], [11, 12]]]


def test_a_data_set_made_by_code(tmp_path, monkeypatch):
    def generate(view, seed):
        assert view == "sequences"
        x = np.full((2, 1, 1), seed, np.float32)
        part = Split(("a", "b"), np.float32([0, 1]), {"text": Sequences(x, x[..., 0] > 0)})
        return FeatureSet({"train": part})

    labels = sets.get("mosi").labels
    made = RawDataset(labels=labels, generate=generate, views=("sequences",))
    monkeypatch.setattr(sets, "get", lambda name: made)
    first = prepared.cached("made", None, tmp_path, aligned=False, seed=3)
    other = prepared.cached("made", None, tmp_path, aligned=False, seed=4)
    assert first != other
    assert load(prepared.open_prepared(first), "train").modalities["text"].x.ravel().tolist() == [
        3.0,
        3.0,
    ]


def test_same_preparation_is_reused_and_another_refused(tmp_path):
    raw = mmsa(tmp_path / "unaligned.pkl")
    folder = prepare(raw, tmp_path / "data")
    before = folder.stat().st_ino
    assert prepare(raw, tmp_path / "data").stat().st_ino == before
    with pytest.raises(InputError, match="other files or with other options"):
        prepare(raw, tmp_path / "data", max_length={"text": 1})
    mmsa(raw, regression_labels=[1.0, 1.0, 2.0])
    with pytest.raises(InputError, match="other files or with other options"):
        prepare(raw, tmp_path / "data")


def test_prepared_folders_are_recognised(tmp_path):
    folder = prepare(mmsa(tmp_path / "raw" / "unaligned.pkl"), tmp_path / "data")
    for raw in (folder, tmp_path / "data"):
        assert prepare(raw, tmp_path / "no") == folder
        assert prepared.cached("mosi", raw, tmp_path / "no", aligned=False) == folder
        assert prepared.open_prepared(raw).path == folder
    with pytest.raises(InputError, match=r"holds the prepared data set mosi \(unaligned\), not"):
        prepare(folder, tmp_path / "no", aligned=True)
    with pytest.raises(InputError, match="was prepared with max_length"):
        prepare(folder, tmp_path / "no", max_length={"text": 2})
    with pytest.raises(InputError, match=r"expected one prepared data set .* found none"):
        prepared.open_prepared(tmp_path / "raw")
    with pytest.raises(InputError, match="has no split 'test'; it has train, valid"):
        prepared.open_prepared(folder).source("test")
    assert not (tmp_path / "no").exists()


def test_raw_files_come_before_an_older_preparation_beside_them(tmp_path):
    raw = mmsa(tmp_path / "unaligned.pkl")
    folder = prepare(tmp_path, tmp_path)
    assert prepare(tmp_path, tmp_path) == folder
    mmsa(raw, regression_labels=[1.0, 1.0, 2.0])
    with pytest.raises(InputError, match="other files or with other options"):
        prepare(tmp_path, tmp_path)


def test_cache_hit_follows_the_content(tmp_path):
    raw, cache = mmsa(tmp_path / "unaligned.pkl"), tmp_path / "cache"
    first = prepared.cached("mosi", raw, cache, aligned=False)
    made = first.stat().st_ino
    copy = tmp_path / "else" / "unaligned.pkl"
    copy.parent.mkdir()
    copy.write_bytes(raw.read_bytes())
    again = prepared.cached("mosi", copy.parent, cache, aligned=False)
    assert again == first and again.stat().st_ino == made
    assert prepared.cached("mosi", raw, cache, aligned=False, max_length={"text": 2}) != first
    mmsa(raw, regression_labels=[1.0, 1.0, 2.0])
    assert prepared.cached("mosi", raw, cache, aligned=False) != first


def _cache(raw, cache, barrier, results):
    barrier.wait()
    results.put(str(prepared.cached("mosi", raw, cache, aligned=False)))


def test_two_processes_share_a_cache(tmp_path):
    raw, cache = mmsa(tmp_path / "unaligned.pkl"), tmp_path / "cache"
    spawn = multiprocessing.get_context("spawn")
    barrier, results = spawn.Barrier(2), spawn.Queue()
    workers = [spawn.Process(target=_cache, args=(raw, cache, barrier, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    folders = {results.get(timeout=50) for _ in workers}
    for worker in workers:
        worker.join()
    assert len(folders) == 1
    assert len(load(prepared.open_prepared(folders.pop()), "train")) == 3
    assert not list(cache.rglob(write.UNFINISHED + "*"))


def test_the_second_to_finish_takes_the_result_of_the_first(tmp_path, monkeypatch):
    raw = mmsa(tmp_path / "unaligned.pkl")
    original = write.write

    def slow(*args):
        folder = original(*args)
        monkeypatch.setattr(write, "write", original)
        prepare(raw, tmp_path / "data")
        return folder

    monkeypatch.setattr(write, "write", slow)
    folder = prepare(raw, tmp_path / "data")
    assert len(load(prepared.open_prepared(folder), "train")) == 3
    assert not list((tmp_path / "data").glob(write.UNFINISHED + "*"))


def test_nothing_half_written_is_left(tmp_path, monkeypatch):
    raw, data = mmsa(tmp_path / "unaligned.pkl"), tmp_path / "data"

    def break_off(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(write, "_card", break_off)
        with pytest.raises(KeyboardInterrupt):
            prepare(raw, data)
    assert files(data) == []
    # A killed process cannot tidy up: the next one does, once that process is gone.
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = data / f"{write.UNFINISHED}{write.socket.gethostname()}-{gone.pid}-x"
    left.mkdir()
    folder = prepare(raw, data)
    assert not left.exists() and (folder / "affectjax.json").is_file()


def test_folder_that_cannot_be_written_in(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written in"):
        prepare(mmsa(tmp_path / "unaligned.pkl"), tmp_path / "file" / "data")


def test_missing_raw_files_are_listed(tmp_path):
    with pytest.raises(InputError, match=r"mosi_data_noalign.pkl, unaligned_50.pkl.*labels.csv"):
        prepare(tmp_path, tmp_path / "data")
    with pytest.raises(InputError, match="no such file or folder"):
        prepare(tmp_path / "none", tmp_path / "data")
    with pytest.raises(InputError, match="say where they are"):
        prepare(None, tmp_path / "data")


def test_sources_index_and_pickle(tmp_path):
    folder = prepare(mmsa(tmp_path / "unaligned.pkl"), tmp_path / "data")
    source = prepared.open_prepared(folder).source("train")
    assert source[np.int64(1)]["id"] == "a1$_$1"
    assert pickle.loads(pickle.dumps(source))[2]["id"] == "a2$_$2"
    for index in (3, -1):
        with pytest.raises(IndexError):
            source[index]


def app(*flags):
    command = [sys.executable, "-m", "affectjax.prepare", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_app_exit_codes(tmp_path):
    good = mmsa(tmp_path / "good" / "unaligned.pkl").parent
    bad = mmsa(tmp_path / "bad" / "unaligned.pkl", audio=np.full((3, 5, 3), np.nan)).parent
    look = app("--dataset=mosi", f"--raw_dir={good}", "--doctor")
    assert look.returncode == 0 and "train: 3 examples" in look.stdout
    look = app("--dataset=mosi", f"--raw_dir={bad}", "--doctor")
    assert look.returncode == 1 and "audio has no finite value at all" in look.stdout
    done = app("--dataset=mosi", f"--raw_dir={good}", f"--data_dir={tmp_path / 'data'}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "data" / "mosi" / "unaligned" / "1.0.0")
    for flags, words in (
        (["--dataset=mosi", f"--raw_dir={good}"], "--data_dir is needed"),
        (["--dataset=mosey", "--doctor"], "did you mean 'mosei'"),
        (["--dataset=mosi", "--colour=red"], "colour"),
        (["--dataset=mosi", "stray"], "unexpected argument 'stray'"),
    ):
        refused = app(*flags)
        assert refused.returncode == 2 and refused.stdout == ""
        assert words in refused.stderr and refused.stderr.count("\n") == 1


@pytest.mark.skipif(not REALDATA.is_dir(), reason="shared/realdata is not here: mosi_text_audio")
def test_real_mosi_there_and_back(tmp_path):
    raw = REALDATA / "mosi_text_audio"
    opened = prepared.open_prepared(prepare(raw, tmp_path))
    assert opened.splits == {"train": 1207, "valid": 240}
    source = readers.read(raw / "unaligned.pkl", opened.spec, False).splits["train"]
    loaded = load(opened, "train")
    assert loaded.ids == source.ids and loaded.transcripts == source.transcripts
    np.testing.assert_array_equal(loaded.label, source.label)
    for name, sequences in source.ordered():
        np.testing.assert_array_equal(loaded.modalities[name].mask, sequences.mask)
        valid = np.where(sequences.mask[..., None], sequences.x, 0).astype(np.float32)
        np.testing.assert_array_equal(loaded.modalities[name].x, valid)
