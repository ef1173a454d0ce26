"""From prepared data to batches: splits, statistics, order, streams."""

import json

import chex
import numpy as np
import pytest
from conftest import DIMS, SIZES, write_own
from feature_layouts import plain, steps

from affectjax.data.batches import dataset as pipeline
from affectjax.data.batches.dataset import DataConfig, Dataset
from affectjax.errors import InputError


def open_own(folder, **changes):
    return Dataset(DataConfig("own", str(folder), **changes))


@pytest.fixture(scope="module")
def dataset(own):
    return open_own(own)


# ---- parts --------------------------------------------------------------------------------------


def test_parts_are_the_splits(dataset):
    for role, size in SIZES.items():
        part = dataset.part(role)
        assert (part.source, part.rows.tolist()) == (role, list(range(size)))
    assert dataset.modalities == ("text", "audio", "vision")


def test_a_part_may_be_another_split(own):
    assert len(open_own(own, valid="test").part("valid")) == SIZES["test"]


def test_a_split_that_the_data_lacks(own):
    with pytest.raises(InputError, match=r'"config\.data\.valid" is \'dev\', but the data has'):
        open_own(own, valid="dev").part("valid")
    with pytest.raises(InputError, match=r'"config\.data\.train" is \'dev\', but the data has'):
        open_own(own, train="dev")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_holdout_takes_whole_videos(own, seed):
    data = open_own(own, valid="holdout", holdout=0.3, seed=seed)
    kept, out = (data.ids(data.part(role)) for role in ("train", "valid"))
    assert len(kept) + len(out) == SIZES["train"] and not set(kept) & set(out)
    video = lambda name: name.rpartition("_")[0]  # noqa: E731
    assert not {video(i) for i in kept} & {video(i) for i in out}
    # Drawn until 30% of 29 are out: at least 8.7, less than that and one more video of three.
    assert 9 <= len(out) <= 11
    again = open_own(own, valid="holdout", holdout=0.3, seed=seed)
    assert again.ids(again.part("valid")) == out
    assert len(data.part("test")) == SIZES["test"]


def test_holdout_differs_by_seed(own):
    chosen = set()
    for seed in range(4):
        data = open_own(own, valid="holdout", holdout=0.3, seed=seed)
        chosen.add(tuple(data.ids(data.part("valid"))))
    assert len(chosen) > 1


def test_holdout_of_all_is_an_empty_split(tmp_path):
    rows = [(f"same_{i}", "train", str(i % 2)) for i in range(4)]
    raw = plain(tmp_path / "one", rows, text=steps([1] * 4, 1, 1))
    with pytest.raises(InputError, match=r'"config\.data\.train": split \'train\' has no example'):
        open_own(raw, valid="holdout", holdout=0.5).part("train")


CONFIGS = {
    "holdout without a part": ({"valid": "holdout"}, "holdout is 0.0 .*allowed: holdout above 0"),
    "a part without holdout": ({"holdout": 0.2}, "holdout is 0.2 .*allowed: holdout 0, or val"),
    "all of it": ({"valid": "holdout", "holdout": 1.0}, "holdout is 1.0 .*and below 1"),
    "split": ({"split": "dev"}, "split is 'dev'; allowed: train, valid, test"),
    "standardize": ({"standardize": ("smell",)}, "'smell' is no modality; allowed: text"),
    "max_length": ({"max_length": {"smell": 3}}, "'smell' is no modality"),
}


@pytest.mark.parametrize(("changes", "message"), CONFIGS.values(), ids=CONFIGS.keys())
def test_what_a_config_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        DataConfig("own", **changes)


def test_no_folder_is_named_by_its_key():
    with pytest.raises(InputError, match=r'"config\.data\.dir" is empty: .* files of mosi\?'):
        Dataset(DataConfig("mosi"))


# ---- standardisation ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory):
    """Two videos in train, one in valid; audio of two features, the second of them constant."""
    rows = [
        ("a_0", "train", "0"),
        ("a_1", "train", "1"),
        ("b_0", "valid", "0"),
        ("c_0", "test", "1"),
    ]
    audio = np.full((4, 3, 2), 5, np.float32)
    audio[0, :, 0] = [1, 3, 1e6]  # the third step is masked
    audio[1, :, 0] = [8, 1e6, 1e6]
    audio[2, :, 0] = [100, 4, 4]
    text = np.full((4, 2, 1), 7, np.float32)
    return plain(
        tmp_path_factory.mktemp("raw") / "hand",
        rows,
        audio=audio,
        audio_lengths=np.array([2, 1, 3, 0]),
        text=text,
        text_lengths=np.array([2, 2, 2, 2]),
    )


def test_statistics_are_of_valid_training_steps(by_hand):
    data = open_own(by_hand)
    # Of 1, 3 and 8: mean 4, variance (9 + 1 + 16) / 3. What never changes is only centred.
    mean, std = data.statistics["audio"]["mean"], data.statistics["audio"]["std"]
    np.testing.assert_allclose(mean, [4, 5])
    np.testing.assert_allclose(std, [np.sqrt(26 / 3), 1], rtol=1e-6)
    assert set(data.statistics) == {"audio"}  # text is not standardised unless asked


def test_arrays_are_standardised_at_valid_steps_and_zero_elsewhere(by_hand):
    data = open_own(by_hand)
    batch = data.arrays(data.part("train"))
    scale = np.sqrt(26 / 3)
    expected = [[-3 / scale, -1 / scale, 0], [4 / scale, 0, 0]]
    np.testing.assert_allclose(batch["audio"]["x"][..., 0], expected, rtol=1e-6)
    assert not batch["audio"]["x"][..., 1].any()
    assert batch["audio"]["mask"].tolist() == [[True, True, False], [True, False, False]]
    assert (batch["text"]["x"] == 7).all()
    valid = data.arrays(data.part("valid"))["audio"]["x"][0, :, 0]
    np.testing.assert_allclose(valid, [96 / scale, 0, 0], rtol=1e-6)
    test = data.arrays(data.part("test"))
    assert test["present"]["audio"].tolist() == [False] and not test["audio"]["x"].any()
    assert test["present"]["text"].tolist() == [True]


def test_what_is_held_out_is_not_in_the_statistics(tmp_path):
    rows = [(f"{'ab'[i // 2]}_{i}", "train", str(i % 2)) for i in range(4)]
    audio = np.float32([1, 3, 100, 300]).reshape(4, 1, 1)
    raw = plain(tmp_path / "held", rows, audio=audio, audio_lengths=np.ones(4, int))
    data = open_own(raw, valid="holdout", holdout=0.5)
    kept = [1, 3] if data.ids(data.part("train")) == ["a_0", "a_1"] else [100, 300]
    np.testing.assert_allclose(data.statistics["audio"]["mean"], [np.mean(kept)])
    np.testing.assert_allclose(data.statistics["audio"]["std"], [np.std(kept)])


def test_which_modalities_are_standardised(own):
    data = open_own(own, standardize=("text",))
    assert set(data.statistics) == {"text"}
    batch = data.arrays(data.part("train"))["text"]
    valid = batch["x"][batch["mask"]]
    np.testing.assert_allclose(valid.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(valid.std(0), 1, atol=1e-5)
    assert open_own(own, standardize=()).statistics == {}


@pytest.mark.parametrize("standardize", [("audio", "vision"), ()])
def test_statistics_come_back_from_their_file(own, tmp_path, standardize):
    data = open_own(own, standardize=standardize)
    pipeline.save_statistics(data.statistics, tmp_path / "s.npz")
    back = pipeline.load_statistics(tmp_path / "s.npz")
    chex.assert_trees_all_equal(back, data.statistics)
    again = Dataset(data.config, back)
    chex.assert_trees_all_equal(again.arrays(again.part("test")), data.arrays(data.part("test")))


def test_statistics_of_an_earlier_run_win(by_hand):
    other = {"audio": {"mean": np.float32([1, 5]), "std": np.float32([2, 1])}}
    data = Dataset(DataConfig("own", str(by_hand)), other)
    assert data.arrays(data.part("train"))["audio"]["x"][0, :, 0].tolist() == [0, 1, 0]


# ---- the batch ----------------------------------------------------------------------------------


def test_zeros_has_the_shapes_and_types_of_a_batch(dataset):
    batch = dataset.zeros(4)
    for m, (length, width) in DIMS.items():
        chex.assert_shape(batch[m]["x"], (4, length, width))
        chex.assert_shape(batch[m]["mask"], (4, length))
    stream = next(iter(dataset.stream(dataset.part("train"), [np.arange(4)])))
    chex.assert_trees_all_equal_shapes_and_dtypes(batch, stream)


@pytest.mark.parametrize("kind", ["class", "score"])
def test_streamed_rows_are_the_resident_ones(kind, own, scores):
    data = open_own(own if kind == "class" else scores)
    part = data.part("train")
    arrays = data.arrays(part)
    rows = np.array([[3, -1, 28], [0, 3, -1]])
    batch = next(iter(data.stream(part, [rows])))
    assert batch.pop("weight").tolist() == [[1, 0, 1], [1, 1, 0]]
    valid = rows >= 0
    for ours, theirs in zip(*map(leaves, (batch, arrays)), strict=True):
        assert ours[0] == theirs[0]
        np.testing.assert_array_equal(ours[1][valid], theirs[1][rows[valid]], err_msg=ours[0])
        assert not ours[1][~valid].any()
        assert ours[1].dtype == theirs[1].dtype


def leaves(tree, path=""):
    """Returns (path, array) of a batch, in order of their names."""
    if not isinstance(tree, dict):
        return [(path, tree)]
    return [leaf for key in sorted(tree) for leaf in leaves(tree[key], f"{path}/{key}")]


def test_labels_and_ids_follow_the_rows(dataset):
    part = dataset.part("valid")
    first = SIZES["train"]
    assert dataset.ids(part) == [f"v{i // 3}_{i % 3}" for i in range(first, first + SIZES["valid"])]
    np.testing.assert_array_equal(dataset.labels(part), dataset.arrays(part)["label"])


def test_a_part_fits_up_to_its_size(own):
    # An example is 5 * (4 * 4 + 1) + 7 * (4 * 3 + 1) + 6 * (4 * 2 + 1) = 230 bytes.
    for extra, fits in ((0, True), (-1, False)):
        data = open_own(own, resident_mib=(29 * 230 + extra) / 2**20)
        assert data.fits(data.part("train")) is fits


# ---- order and streams --------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 29])
def test_order_is_a_permutation(count):
    assert sorted(pipeline.order(count, 3, 0, 2)) == list(range(count))


def test_order_differs_by_seed_stage_and_epoch_and_by_nothing_else():
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 2), (1, 1, 1), (2**31 - 1, 1, 0)]
    orders = [tuple(pipeline.order(29, *key)) for key in keys]
    assert len(set(orders)) == len(keys)
    assert orders == [tuple(pipeline.order(29, *key)) for key in keys]


@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize("seed", [0, 2**31 - 1])
def test_order_of_later_stages(stage, seed):
    """A system may have more stages than two."""
    others = [tuple(pipeline.order(29, seed, s, 0)) for s in range(stage)]
    assert tuple(pipeline.order(29, seed, stage, 0)) not in others


def test_order_is_no_order_of_the_data():
    # Of 29! orders the identity, or one that leaves half in place, is not drawn by chance.
    for seed in range(5):
        assert (pipeline.order(29, seed, 0, 0) == np.arange(29)).sum() < 14


def test_rows_pad_the_last_batch_and_the_width():
    rows = pipeline.rows_of(np.array([4, 2, 0, 1, 3]), 3, 4)
    assert rows.tolist() == [[4, 2, 0, -1], [1, 3, -1, -1]] and rows.dtype == np.int32
    assert pipeline.rows_of(np.arange(4), 2, 2).tolist() == [[0, 1], [2, 3]]
    assert pipeline.rows_of(np.arange(2), 5, 8).tolist() == [[0, 1, -1, -1, -1, -1, -1, -1]]


def test_a_stream_goes_on_from_a_saved_position(dataset):
    part = dataset.part("train")
    rows = list(pipeline.rows_of(pipeline.order(29, 0, 0, 0), 4, 4))
    whole = [batch["label"] for batch in dataset.stream(part, rows)]
    assert len(whole) == 8
    for stop in (0, 1, 5, 8):
        stream = dataset.stream(part, rows)
        before = [next(iter(stream))["label"] for _ in range(stop)]
        state = json.loads(json.dumps(stream.state()))
        again = dataset.stream(part, rows)
        again.restore(state)
        after = [batch["label"] for batch in again]
        np.testing.assert_array_equal(before + after, whole)


def test_an_empty_split_is_refused(tmp_path, own, monkeypatch):
    data = open_own(own)
    monkeypatch.setitem(data.prepared.splits, "valid", 0)
    with pytest.raises(InputError, match=r'"config\.data\.valid": split \'valid\' has no example'):
        data.part("valid")


def test_raw_files_are_prepared_once(tmp_path, monkeypatch):
    raw = write_own(tmp_path / "raw")
    first = open_own(raw, cache_dir=str(tmp_path / "cache"))
    assert first.prepared.path.is_relative_to(tmp_path / "cache")
    stamp = (first.prepared.path / "affectjax.json").stat().st_mtime_ns
    second = open_own(raw, cache_dir=str(tmp_path / "cache"))
    assert (second.prepared.path / "affectjax.json").stat().st_mtime_ns == stamp
