"""Prepared clips to batches: frames, sound and words, parts, folds, and what is taken away."""

import dataclasses
import itertools
import json

import chex
import media_files
import numpy as np
import pytest
from clip_media import raw_files
from conftest import write_own

from affectjax.data.batches import inputs as inputs_lib
from affectjax.data.batches import missing
from affectjax.data.batches.dataset import DataConfig, Dataset
from affectjax.data.batches.inputs import Inputs
from affectjax.data.batches.tokenizer import Tokenizer
from affectjax.data.clip import Clip
from affectjax.data.labels import LabelSpec
from affectjax.data.media import codec
from affectjax.data.prepare import records
from affectjax.data.raw import sets
from affectjax.data.raw.dataset import RawDataset
from affectjax.data.synth import views
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES
from affectjax.runtime.parallel import Engine
from affectjax.training.device_data import TrainingData

SPEC = LabelSpec("class", ("calm", "glad", "sad"))
FRAMES = 4
SIZE = 6
SIZES = {"train": 20, "valid": 5, "test": 7}
# How many frames, samples and words example i has; 0 where it lacks the modality.
LENGTHS = [(i % 10 + 1 if i % 4 else 0, 40 * (i % 5), i % 6) for i in range(sum(SIZES.values()))]


def clip(i, split, label=None, **changes):
    """Returns clip i, whose frame t has the value 10 t + 3 everywhere."""
    frames, samples, words = LENGTHS[i]
    values = np.uint8(10 * np.arange(frames) + 3)[:, None, None, None]
    given = {
        "id": f"s{i // 3}_{i}",
        "label": i % 3 if label is None else label,
        "split": split,
        "frames": np.broadcast_to(values, (frames, SIZE, SIZE, 3)) if frames else None,
        "waveform": np.float32(np.sin(np.arange(samples) + i)) if samples else None,
        "text": " ".join(f"word{i}{w}" for w in range(words)) or None,
    }
    return Clip(**(given | changes))


def usual():
    """Returns the clips by split; number 0 has nothing but a word."""
    numbers, made = iter(range(len(LENGTHS))), {}
    for split, size in SIZES.items():
        made[split] = [clip(i, split) for i in itertools.islice(numbers, size)]
    made["train"][0] = clip(0, "train", text="one")
    return made


def module(clips, spec=SPEC):
    """Returns a data set made by code that has these clips."""
    return RawDataset(
        labels=spec,
        group=r"^(s\d+)_",
        views=("clips",),
        generate=lambda view, seed: {split: iter(those) for split, those in clips.items()},
    )


@pytest.fixture(scope="module")
def install():
    """Puts data sets into the place of others, and returns a way to open one."""
    known, patch = {}, pytest.MonkeyPatch()
    get = sets.get
    patch.setattr(sets, "get", lambda name: known.get(name) or get(name))

    def install(name, clips, spec=SPEC):
        known[name] = module(clips, spec)

        def opened(statistics=None, tokenizer=None, **changes):
            given = {"view": "clips", "frames": FRAMES, **changes}
            return Dataset(DataConfig(name, **given), statistics, tokenizer)

        return opened

    yield install
    patch.undo()


@pytest.fixture(scope="module")
def opened(install):
    return install("usual", usual())


@pytest.fixture(scope="module")
def dataset(opened):
    return opened()


def leaves(tree, path=""):
    """Returns (path, array) of a batch, in order of their names."""
    if not isinstance(tree, dict):
        return [(path, tree)]
    return [leaf for key in sorted(tree) for leaf in leaves(tree[key], f"{path}/{key}")]


def whole(data, part, **how):
    """Returns a part as one streamed batch."""
    return next(iter(data.stream(part, [np.arange(len(part))], **how)))


def numbers(x):
    """Returns which frames `[..., H, W, 3]` of a clip these are."""
    return (x[..., 0, 0, 0].astype(int) - 3) // 10


# ---- the batch ----------------------------------------------------------------------------------


def test_shapes_are_no_longer_than_the_longest_example(dataset, opened):
    shapes = {m: kind.shape for m, kind in dataset.inputs.kinds.items()}
    # Ten frames at most, of which the config takes four; 160 samples at most.
    assert shapes["vision"] == (4, SIZE, SIZE, 3) and shapes["audio"] == (160,)
    said = [text for split in usual().values() for text in (c.text for c in split) if text]
    longest = max(len(dataset.tokenizer.words(text)) for text in said) + 2
    assert shapes["text"] == (longest,)
    other = opened(frames=12, seconds=100 / 16000, tokens=4)
    shapes = {m: kind.shape[0] for m, kind in other.inputs.kinds.items()}
    assert shapes == {"text": 4, "audio": 100, "vision": 10}


def test_a_batch_is_what_the_clips_hold(dataset):
    part = dataset.part("train")
    batch = whole(dataset, part)
    rows = usual()["train"]
    words = [dataset.tokenizer.words(c.text) if c.text else [] for c in rows]
    for i, (c, tokens) in enumerate(zip(rows, words, strict=True)):
        frames, samples, _ = LENGTHS[i]
        assert batch["label"][i] == c.label and dataset.ids(part)[i] == c.id
        middles = [int((2 * t + 1) * frames / 8) for t in range(4)] if frames > 4 else range(frames)
        kept = len(middles)
        assert numbers(batch["vision"]["x"][i, :kept]).tolist() == list(middles)
        assert batch["vision"]["mask"][i].tolist() == [t < kept for t in range(4)]
        assert not batch["vision"]["x"][i, kept:].any()
        sound = batch["audio"]["x"][i]
        if samples:
            np.testing.assert_allclose(sound[:samples], c.waveform, atol=0.51 / 32767)
        assert not sound[samples:].any() and batch["audio"]["mask"][i].sum() == samples
        row = [dataset.tokenizer.sos, *tokens, dataset.tokenizer.eos] if tokens else []
        assert batch["text"]["x"][i, : len(row)].tolist() == row
        assert not batch["text"]["x"][i, len(row) :].any()
        assert batch["text"]["mask"][i].sum() == len(row)
        there = [bool(tokens), bool(samples), bool(frames)]
        assert [batch["present"][m][i] for m in MODALITIES] == there
    assert batch["vision"]["x"].dtype == np.uint8 and batch["audio"]["x"].dtype == np.float32
    assert batch["text"]["x"].dtype == np.int32


@pytest.mark.parametrize("role", SIZES)
def test_streamed_rows_are_the_resident_ones(dataset, role):
    part = dataset.part(role)
    arrays = dataset.arrays(part)
    rows = np.array([[3, -1, len(part) - 1], [0, 3, -1]])
    batch = next(iter(dataset.stream(part, [rows])))
    assert batch.pop("weight").tolist() == [[1, 0, 1], [1, 1, 0]]
    valid = rows >= 0
    assert [path for path, _ in leaves(batch)] == [path for path, _ in leaves(arrays)]
    for (path, ours), (_, theirs) in zip(leaves(batch), leaves(arrays), strict=True):
        np.testing.assert_array_equal(ours[valid], theirs[rows[valid]], err_msg=path)
        assert not ours[~valid].any() and ours.dtype == theirs.dtype
        assert len(theirs) == SIZES[role]


def test_zeros_has_the_shapes_and_types_of_a_batch(dataset):
    stream = next(iter(dataset.stream(dataset.part("train"), [np.arange(3)])))
    chex.assert_trees_all_equal_shapes_and_dtypes(dataset.zeros(3), stream)


def test_ids_and_labels_read_no_record(opened, monkeypatch):
    data = opened()
    monkeypatch.setattr(records.Source, "__getitem__", None)
    part = data.part("test")
    assert data.ids(part) == [c.id for c in usual()["test"]]
    assert data.labels(part).tolist() == [c.label for c in usual()["test"]]
    assert data.labels(part).dtype == np.int32


def test_a_part_fits_up_to_its_size(opened):
    kinds = opened().inputs.kinds
    # Bytes of x, then of the mask.
    each = kinds["text"].tokens * (4 + 1) + 160 * (4 + 1) + 4 * (SIZE * SIZE * 3 + 1)
    for extra, fits in ((0, True), (-1, False)):
        data = opened(resident_mib=(20 * each + extra) / 2**20)
        assert data.fits(data.part("train")) is data.fits(data.part("train"), training=True) is fits


def test_inputs_come_back_from_json(dataset):
    content = json.loads(json.dumps(dataset.inputs.to_json()))
    back = Inputs.from_json(content, tokenizer=dataset.tokenizer, statistics=dataset.statistics)
    read = dataset.reader(dataset.part("test"))
    rows = [read(i) for i in range(SIZES["test"])]
    chex.assert_trees_all_equal(back.collate(rows), dataset.inputs.collate(rows))
    # And from what a program that decodes a clip by itself would hand over.
    clips = usual()["test"]
    own = [
        {"id": c.id, "label": c.label, "transcript": c.text, "vision": c.frames}
        | {"audio": None if c.waveform is None else codec.quantize(c.waveform)}
        for c in clips
    ]
    chex.assert_trees_all_equal(back.collate(own), dataset.inputs.collate(rows))


def test_files_are_prepared_once_and_read_by_either_path(tmp_path):
    config = {"view": "clips", "cache_dir": str(tmp_path / "cache"), "frames": 4}
    config |= {"image_size": 16, "detector": "none", "image_encoding": "png"}
    raw = raw_files(tmp_path / "raw")
    data = Dataset(DataConfig("clips", str(raw), **config))
    card = data.prepared.path / "affectjax.json"
    assert data.prepared.path.is_relative_to(tmp_path / "cache")
    stamp = card.stat().st_mtime_ns
    again = Dataset(DataConfig("clips", str(raw / "clips.csv"), **config))
    there = Dataset(DataConfig("clips", str(data.prepared.path), view="clips", frames=4))
    assert card.stat().st_mtime_ns == stamp
    for role, size in {"train": 3, "valid": 2, "test": 1}.items():
        arrays = data.arrays(data.part(role))
        streamed = whole(data, data.part(role))
        assert streamed.pop("weight").tolist() == [1] * size
        for other in (streamed, again.arrays(again.part(role)), there.arrays(there.part(role))):
            chex.assert_trees_all_equal(other, arrays)
    train = data.arrays(data.part("train"))
    # Videos of six frames: the middles of four stretches; a folder of three pictures.
    first = train["vision"]["x"][:, :, 8, 8].mean(-1) / media_files.STEP
    assert np.rint(first).astype(int).tolist() == [[0, 2, 3, 5], [0, 2, 3, 5], [0, 1, 2, 0]]
    assert train["vision"]["mask"].sum(1).tolist() == [4, 4, 3]
    assert [train["present"][m].tolist() for m in MODALITIES] == [
        [True, False, True],
        [True, True, False],
        [True, True, True],
    ]


# ---- random frames ------------------------------------------------------------------------------


def test_random_frames_go_by_seed_epoch_and_example(opened):
    data = opened(sampling="random")
    part = data.part("train")
    drawn = {}
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        batch = whole(data, part, epoch=epoch, seed=seed)
        again = whole(data, part, epoch=epoch, seed=seed)
        chex.assert_trees_all_equal(batch, again)
        drawn[seed, epoch] = batch
        for i, (frames, _, _) in enumerate(LENGTHS[: SIZES["train"]]):
            if frames > FRAMES:
                own = inputs_lib.draws(seed, epoch, i, FRAMES)
                places = [int((t + own[t]) * frames / FRAMES) for t in range(FRAMES)]
                assert numbers(batch["vision"]["x"][i]).tolist() == places
    tall = np.array([n > FRAMES for n, _, _ in LENGTHS[: SIZES["train"]]])
    for a, b in (((0, 0), (0, 1)), ((0, 0), (1, 0))):
        one, other = drawn[a], drawn[b]
        assert (one["vision"]["x"][tall] != other["vision"]["x"][tall]).any()
        np.testing.assert_array_equal(one["vision"]["x"][~tall], other["vision"]["x"][~tall])
        np.testing.assert_array_equal(one["audio"]["x"], other["audio"]["x"])
    # Evaluation, and a stream without an epoch, take the middle.
    chex.assert_trees_all_equal(whole(data, part), whole(opened(), part, epoch=3))


def test_random_frames_of_an_example_do_not_depend_on_its_batch(opened):
    data = opened(sampling="random")
    part = data.part("train")
    batch = whole(data, part, epoch=2, seed=5)["vision"]["x"]
    rows = [np.array([7, 19]), np.array([-1, 9])]
    first, second = (b["vision"]["x"] for b in data.stream(part, rows, epoch=2, seed=5))
    np.testing.assert_array_equal(first, batch[[7, 19]])
    np.testing.assert_array_equal(second[1], batch[9])
    stream = data.stream(part, rows, epoch=2, seed=5)
    next(iter(stream))
    state = json.loads(json.dumps(stream.state()))
    stream = data.stream(part, rows, epoch=2, seed=5)
    stream.restore(state)
    np.testing.assert_array_equal(next(iter(stream))["vision"]["x"], second)


def test_each_of_several_models_draws_its_own_frames(opened):
    data = opened(sampling="random")
    part = data.part("train")
    rows = np.arange(20).reshape(1, 1, 20).repeat(2, axis=0)
    batch = next(iter(data.stream(part, [rows], epoch=1, seed=(3, 4))))["vision"]["x"]
    for s, seed in enumerate((3, 4)):
        np.testing.assert_array_equal(
            batch[s, 0], whole(data, part, epoch=1, seed=seed)["vision"]["x"]
        )
    assert (batch[0] != batch[1]).any()


def test_a_training_with_random_frames_streams(opened):
    for changes, fits in (
        ({"sampling": "random"}, False),
        ({"sampling": "random", "frames": 10}, True),  # no clip has more
        ({"sampling": "random", "modalities": ("text", "audio")}, True),
        ({"sampling": "middle"}, True),
    ):
        data = opened(**changes)
        assert data.fits(data.part("train"), training=True) is fits
        assert data.fits(data.part("train"))
        assert TrainingData(data, Engine("pmap"), 4).resident is fits


# ---- words --------------------------------------------------------------------------------------


def test_the_tokenizer_knows_the_training_texts_and_the_classes(install):
    long = "interminableness"
    clips = usual()
    clips["train"] = [clip(i, "train", text=f"{long} {i}") for i in range(10)]
    clips["test"] = [clip(i, "test", text="unfathomable") for i in range(20, 27)]
    opened = install("words", clips, LabelSpec("class", ("discombobulated", "b", "c")))
    tokenizer = opened().tokenizer
    assert len(tokenizer.words(long)) < len(long)
    assert len(tokenizer.words("discombobulated")) < len("discombobulated")
    assert len(tokenizer.words("unfathomable")) > 6


def test_an_earlier_tokenizer_wins(opened, tmp_path):
    given = Tokenizer.train(["quite another text"])
    data = opened(tokenizer=given)
    assert data.tokenizer is given and data.inputs.tokenizer is given
    given.save(tmp_path / "tokenizer")
    config = DataConfig("usual", view="clips", tokenizer=str(tmp_path / "tokenizer"))
    again = Dataset(config)
    part = again.part("valid")
    np.testing.assert_array_equal(again.arrays(part)["text"]["x"], data.arrays(part)["text"]["x"])
    with pytest.raises(InputError, match="holds no tokenizer"):
        Dataset(DataConfig("usual", view="clips", tokenizer=str(tmp_path)))


def test_without_words_there_is_no_tokenizer(opened, own):
    assert opened(modalities=("audio", "vision")).tokenizer is None
    assert Dataset(DataConfig("own", str(own))).tokenizer is None


def test_ten_thousand_words(install):
    clips = {split: [clip(1, split), clip(2, split)] for split in SIZES}
    text = " ".join(f"word{i}" for i in range(10000))
    clips["test"] = [clip(1, "test", text=text), clip(2, "test")]
    opened = install("long", clips)
    for tokens, words in ((77, 75), (60000, None)):
        data = opened(tokens=tokens)
        batch = whole(data, data.part("test"))["text"]
        known = data.tokenizer.words(text)
        row = [data.tokenizer.sos, *known[:words], data.tokenizer.eos]
        assert len(known) >= 10000 and batch["x"].shape == (2, len(row))
        assert batch["x"][0].tolist() == row and batch["mask"][0].all()
        assert batch["mask"][1].sum() < 77


# ---- which modalities ---------------------------------------------------------------------------


def test_an_example_with_no_modality_at_all(opened):
    data = opened(modalities=("vision", "audio"))
    assert data.modalities == ("audio", "vision")  # in the order of MODALITIES
    batch = whole(data, data.part("train"))
    assert set(batch) == {"audio", "vision", "present", "label", "weight"}
    nothing = [i for i, (f, s, _) in enumerate(LENGTHS[: SIZES["train"]]) if not f and not s]
    assert nothing == [0]
    for m in data.modalities:
        assert not batch[m]["x"][0].any() and not batch[m]["mask"][0].any()
        assert not batch["present"][m][0]
    assert batch["weight"][0] == 1 and not data.kept(data.part("train"))[0].any()


def test_a_modality_that_the_data_lacks(install):
    opened = install("silent", {s: [clip(5, s, waveform=None)] for s in SIZES})
    with pytest.raises(InputError, match=r'"config\.data\.modalities" has \'audio\'; the data has'):
        opened(modalities=("text", "audio"))


PATTERNS = {"text": 0, "audio": 1, "text+vision": None, "random": None}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_is_taken_away(opened, dataset, pattern):
    data = opened(missing_pattern=pattern, missing_rate=0.7, missing_seed=3)
    for role in SIZES:
        part = data.part(role)
        before = dataset.kept(part)
        expected = missing.draw(before, pattern, 0.7, 3)
        assert (data.kept(part) == expected).all() and (before != expected).any()
        arrays, full = data.arrays(part), dataset.arrays(part)
        chex.assert_trees_all_equal(
            arrays, {k: v for k, v in whole(data, part).items() if k != "weight"}
        )
        for column, m in enumerate(MODALITIES):
            kept = expected[:, column]
            np.testing.assert_array_equal(arrays["present"][m], kept)
            assert not arrays[m]["x"][~kept].any() and not arrays[m]["mask"][~kept].any()
            if m != "text":  # its tokenizer has seen fewer texts
                np.testing.assert_array_equal(arrays[m]["x"][kept], full[m]["x"][kept])


def test_only_the_modalities_in_use_count_when_some_are_taken_away(opened):
    data = opened(modalities=("text", "audio"), missing_pattern="random", missing_rate=1.0)
    both = opened(modalities=("text", "audio"))
    part = data.part("train")
    before, after = both.kept(part), data.kept(part)
    assert not after[:, 2].any()
    assert (after.sum(1) == np.minimum(before.sum(1), 1)).all()
    with pytest.raises(InputError, match="pattern 'vision' is unknown"):
        opened(modalities=("text", "audio"), missing_pattern="vision", missing_rate=0.5)


def test_texts_that_are_taken_away_are_not_learned_from(install):
    clips = {s: [clip(i, s, text="zyzzyva zyzzyva") for i in (1, 2, 3)] for s in SIZES}
    opened = install("hidden", clips)
    assert len(opened().tokenizer.words("zyzzyva")) < 7
    shown = opened(missing_pattern="vision", missing_rate=1.0)
    assert len(shown.tokenizer.words("zyzzyva")) == 8  # letters, and the space before them


def test_features_can_be_taken_away_too(tmp_path):
    raw = write_own(tmp_path / "raw")
    usual = Dataset(DataConfig("own", str(raw), standardize=("audio",)))
    fewer = Dataset(
        DataConfig(
            "own",
            str(raw),
            standardize=("audio",),
            missing_pattern="text",
            missing_rate=0.5,
            missing_seed=1,
        )
    )
    part = fewer.part("train")
    kept, before = fewer.kept(part), usual.kept(part)
    assert (kept[:, 1] < before[:, 1]).any() and kept[:, 1].any()
    plain = Dataset(DataConfig("own", str(raw), standardize=())).arrays(part)["audio"]
    steps = plain["x"][kept[:, 1]][plain["mask"][kept[:, 1]]].astype(np.float64)
    np.testing.assert_allclose(fewer.statistics["audio"]["mean"], steps.mean(0), rtol=1e-5)
    np.testing.assert_allclose(fewer.statistics["audio"]["std"], steps.std(0), rtol=1e-5)
    arrays = fewer.arrays(part)
    np.testing.assert_array_equal(arrays["present"]["audio"], kept[:, 1])
    assert not arrays["audio"]["x"][~kept[:, 1]].any()


# ---- folds --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folded(install):
    """Twenty clips, every other one tested in fold "a", the rest in fold "b"."""
    clips = []
    for i in range(20):
        own = {"a": "test" if i % 2 else "train", "b": "train" if i % 2 else "test"}
        clips.append(clip(i, "all", folds=own, text="x"))
    return install("folded", {"all": clips})


def test_a_fold_is_trained_and_tested_on_its_own_examples(folded):
    for fold, odd in (("a", 1), ("b", 0)):
        data = folded(fold=fold, valid="holdout", holdout=0.3)
        names = {role: data.ids(data.part(role)) for role in SIZES}
        tested = [f"s{i // 3}_{i}" for i in range(20) if i % 2 == odd]
        assert names["test"] == tested
        rest = [f"s{i // 3}_{i}" for i in range(20) if i % 2 != odd]
        assert sorted(names["train"] + names["valid"]) == sorted(rest)
        groups = [{name.split("_")[0] for name in names[role]} for role in ("train", "valid")]
        assert not groups[0] & groups[1] and len(names["valid"]) >= 3
        part = data.part("valid")
        batch = whole(data, part)
        assert batch["label"].tolist() == [int(name.split("_")[1]) % 3 for name in data.ids(part)]
        frames = [min(FRAMES, LENGTHS[int(name.split("_")[1])][0]) for name in data.ids(part)]
        assert batch["vision"]["mask"].sum(1).tolist() == frames


FOLDS = {
    "no fold": ({}, r'"config\.data\.valid" .* splits all; it has folds.*fold": a, b'),
    "no such fold": ({"fold": "c"}, r'"config\.data\.fold" is \'c\', but the data has folds a, b'),
    "no such split": ({"fold": "a"}, r'"config\.data\.valid" is \'valid\', .* splits train, test'),
}


@pytest.mark.parametrize(("changes", "message"), FOLDS.values(), ids=FOLDS.keys())
def test_folds_that_are_not_there(folded, changes, message):
    with pytest.raises(InputError, match=message):
        folded(modalities=("vision",), **changes).part("valid")


def test_a_fold_of_data_without_folds(opened):
    with pytest.raises(
        InputError, match=r'"config\.data\.fold" is \'1\', but the data has no folds'
    ):
        opened(fold="1").part("train")


# ---- labels -------------------------------------------------------------------------------------


def test_scores_become_two_classes(install):
    scores = [-0.5, 0.0, 0.25, 1.0, -2.0]
    clips = {s: [clip(i, s, score) for i, score in enumerate(scores, start=1)] for s in SIZES}
    opened = install("scores", clips, LabelSpec("score", low=-3.0, high=3.0))
    for threshold, expected in ((0.0, [0, 1, 1, 1, 0]), ((1,), [0, 0, 0, 1, 0])):
        data = opened(threshold=threshold, classes=("bad", "good"), without=("bad",))
        part = data.part("test")
        assert data.spec == data.inputs.spec == LabelSpec("class", ("bad", "good"))
        assert data.labels(part).tolist() == expected and data.labels(part).dtype == np.int32
        for label in (whole(data, part)["label"], data.arrays(part)["label"]):
            assert label.tolist() == expected and label.dtype == np.int32
    plain = opened()
    assert plain.labels(plain.part("test")).tolist() == scores and plain.spec.kind == "score"
    with pytest.raises(InputError, match="the classes are: none, the labels are scores"):
        opened(without=("bad",))


def test_a_threshold_and_classes_that_make_no_sense(opened):
    with pytest.raises(InputError, match=r'"config\.data\.threshold" makes classes of scores'):
        opened(threshold=0.5)
    with pytest.raises(
        InputError, match=r'"config\.data\.without" has \'gald\'; .*calm, glad, sad'
    ):
        opened(without=("gald",))


CONFIGS = {
    "view": ({"view": "videos"}, "view is 'videos'; allowed: sequences, clips"),
    "aligned": ({"aligned": True}, "aligned and max_length are of sequences"),
    "sampling": ({"sampling": "first"}, "sampling is 'first'; allowed: middle, random"),
    "encoding": ({"image_encoding": "gif"}, "image_encoding is 'gif'; allowed: auto, png, jpeg"),
    "modalities": ({"modalities": ("smell",)}, "'smell' is no modality"),
    "folds": ({"folds": "12"}, "folds is '12'; allowed: a tuple of names"),
    "a fold twice": ({"folds": ("1", "1")}, "folds has a name twice"),
    "classes": ({"classes": ("a", "b", "c")}, "classes is .*; allowed: two names"),
    "threshold": ({"threshold": (1, 2)}, r"threshold is \(1, 2\); allowed: \(\) or one number"),
    "frames": ({"frames": 0}, "frames is 0; allowed: 1 or more"),
    "tokens": ({"tokens": 1}, "tokens is 1; allowed: 2 or more"),
    "seconds": ({"seconds": 0}, "seconds is 0; allowed: more than 0"),
    "rate": ({"missing_rate": 1.5}, "missing_rate is 1.5; allowed: from 0 to 1"),
    "pattern alone": ({"missing_pattern": "text"}, "go together: both or none"),
}


@pytest.mark.parametrize(("changes", "message"), CONFIGS.values(), ids=CONFIGS.keys())
def test_what_a_config_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        DataConfig("usual", **{"view": "clips", **changes})


def test_a_view_that_the_data_set_lacks(opened):
    with pytest.raises(InputError, match="data set usual has no view 'sequences'; it has clips"):
        opened(view="sequences")


# ---- the embedded set ---------------------------------------------------------------------------


def test_affect_synth(monkeypatch, tmp_path):
    synth = sets.get("affect_synth")
    few = dataclasses.replace(synth, generate=lambda view, seed: synth.generate(view, seed, 6))
    monkeypatch.setattr(sets, "get", lambda name: few)
    data = Dataset(
        DataConfig("affect_synth", view="clips", seed=2, cache_dir=str(tmp_path), seconds=1.0)
    )
    part = data.part("train")
    arrays, made = data.arrays(part), views.clips("train", 2, 6)
    np.testing.assert_array_equal(arrays["vision"]["x"], made.frames)
    np.testing.assert_allclose(arrays["audio"]["x"], made.waveform[:, :16000], atol=0.51 / 32767)
    assert arrays["label"].tolist() == made.labels.tolist() and data.ids(part) == list(made.ids)
    tokens, mask = data.tokenizer.encode(made.sentences, 77)
    np.testing.assert_array_equal(arrays["text"]["x"], tokens[:, : arrays["text"]["x"].shape[1]])
    assert mask.sum() == arrays["text"]["mask"].sum()
    assert all(arrays["present"][m].all() for m in MODALITIES)
