"""`config.data.kfold` deals folds of a set that has none, and `config.data.share` takes a part."""

import collections
import itertools

import numpy as np
import pytest
from clip_media import HEADER, table
from conftest import write_own
from test_class_map import FACES, SCORES, Stored

from affectjax.data.batches.config import DataConfig
from affectjax.data.batches.dataset import Dataset
from affectjax.data.batches.splits import Parts, assign_folds, share
from affectjax.data.batches.tokenizer import Tokenizer
from affectjax.errors import InputError

ROLES = ("train", "valid", "test")


def words(count=40, **more):
    """Returns a set of words; two examples a group, and a test split that no fold looks at."""
    return Stored(FACES, {"train": np.arange(count) % 5, "test": [0, 1]}, **more)


def parts(stored, fold, k=3, **changes):
    return Parts(DataConfig("own", kfold=k, fold=fold, **changes), stored)


def rows_by_role(stored, fold, k=3, **changes):
    """Returns the rows of each role of a fold, all of them of the training split."""
    found = {role: parts(stored, fold, k, **changes).find(role) for role in ROLES}
    assert {part.source for part in found.values()} == {"train"}
    return {role: part.rows.tolist() for role, part in found.items()}


# ---- dealing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "k"), [(40, 3), (41, 5), (10, 5)])
def test_each_example_is_tested_once_and_no_group_has_two_roles(count, k):
    folds = [rows_by_role(words(count), str(i + 1), k) for i in range(k)]
    tested = [row for fold in folds for row in fold["test"]]
    assert sorted(tested) == list(range(count))
    for i, fold in enumerate(folds):
        assert fold["valid"] == folds[(i + 1) % k]["test"]
        assert sorted(itertools.chain(*fold.values())) == list(range(count))
        groups = {role: {row // 2 for row in rows} for role, rows in fold.items()}
        assert sum(map(len, groups.values())) == len(set.union(*groups.values()))
    sizes = [len(fold["test"]) for fold in folds]
    assert max(sizes) - min(sizes) <= 2


def test_the_seed_alone_says_who_is_in_which_fold():
    first = rows_by_role(words(), "2", seed=4)
    assert rows_by_role(words(), "2", seed=4) == first
    assert rows_by_role(words(), "2", seed=5) != first


def test_parts_of_groups_of_all_sizes():
    """Whole groups, none empty, sizes as even as the groups allow; another seed, other parts."""
    rng = np.random.default_rng(0)
    sizes = rng.permutation(np.arange(1, 31))
    groups = rng.permutation(np.repeat([f"g{i}" for i in range(30)], sizes))
    found = {seed: assign_folds(groups, 5, seed) for seed in range(4)}
    for part in found.values():
        assert all(len(set(part[groups == name])) == 1 for name in set(groups))
        # 465 examples are 93 a part.
        assert (np.bincount(part) >= 90).all() and (np.bincount(part) <= 96).all()
    apart = {tuple(sorted(np.flatnonzero(part == part[0]))) for part in found.values()}
    assert len(apart) == 4


def test_two_parts_differ_by_no_more_than_the_largest_group():
    groups = ["big"] * 50 + [f"g{i}" for i in range(10)]
    part = assign_folds(groups, 3, 0)
    counts = np.bincount(part)
    assert sorted(counts) == [5, 5, 50] and counts[part[0]] == 50


def test_groups_of_one_example_are_drawn():
    """No rule of their names: neighbours fall into one part as often as chance has it."""
    together = [
        (np.diff(assign_folds([f"{i:03d}" for i in range(300)], 3, s)) == 0).sum() for s in range(9)
    ]
    assert 70 < np.mean(together) < 130


# ---- with what else the config says --------------------------------------------------------------


def test_classes_that_are_left_out_move_nobody():
    plain = rows_by_role(words(), "1")
    mapped = rows_by_role(words(), "1", class_map="three")
    kept = [row for row in range(40) if row % 5 in (0, 2, 3)]
    assert {r: [row for row in rows if row in kept] for r, rows in plain.items()} == mapped


def test_scores_are_cut_as_without_folds():
    stored = Stored(SCORES, {"train": np.linspace(-3, 3, 12, dtype=np.float32)})
    found = parts(stored, "1", threshold=0.0)
    for role in ROLES:
        part = found.find(role)
        wanted = [int(row >= 6) for row in part.rows]
        assert found.index(part.source).label[part.rows].tolist() == wanted


def test_the_split_that_is_dealt_may_have_another_name():
    stored = Stored(FACES, {"all": np.arange(20) % 5})
    found = parts(stored, "3", train="all")
    rows = {role: found.find(role).rows.tolist() for role in ROLES}
    assert sorted(itertools.chain(*rows.values())) == list(range(20)) and all(rows.values())
    # What validates, or is tested, may be another part of the fold.
    other = parts(stored, "3", train="all", valid="train", test="valid")
    assert other.find("valid").rows.tolist() == rows["train"] == other.find("train").rows.tolist()
    assert other.find("test").rows.tolist() == rows["valid"]
    # Where nothing reads the part for validation, it trains.
    all_else = parts(stored, "3", train="all", valid="train")
    assert all_else.find("test").rows.tolist() == rows["test"]
    assert all_else.find("train").rows.tolist() == sorted(rows["train"] + rows["valid"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kfold": 2}, "kfold is 2; allowed: 0, or 3 or more"),
        ({"kfold": -1}, "kfold is -1; allowed: 0, or 3 or more"),
        ({"kfold": 3, "fold": "4"}, "fold '4' is none of those that kfold makes; allowed: 1 to 3"),
        ({"kfold": 3, "folds": (1, 7)}, "fold '7' is none of those that kfold makes"),
        (
            {"kfold": 3, "valid": "holdout", "holdout": 0.2},
            'valid is "holdout", but kfold makes a part for validation',
        ),
    ],
)
def test_folds_that_no_config_may_ask_for(changes, message):
    with pytest.raises(ValueError, match=message):
        DataConfig("own", **changes)


FOLDED = {"1": {"train": ["all0_0"], "test": ["all0_1"]}}
REFUSED = {
    "more folds than groups": (
        words(10), {"fold": "1", "k": 6},
        "is 6, but split 'train' of own has 5 videos or speakers; allowed: no more folds than",
    ),
    "folds of its own": (
        Stored(FACES, {"all": [0, 1]}, FOLDED), {"fold": "1"},
        "is 3, but own comes in folds; allowed: 0, and folds 1 as they are",
    ),
    "no fold named": (words(), {"fold": ""}, '"config.data.fold" is empty; allowed: 1 to 3'),
    "no such part": (
        words(), {"fold": "1", "test": "x"},
        '"config.data.test" is \'x\', but the data has the splits train, valid, test$',
    ),
}  # fmt: skip


@pytest.mark.parametrize(("stored", "changes", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_folds_that_the_data_does_not_have(stored, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        parts(stored, **changes).find("test")
    assert "\n" not in str(caught.value)


# ---- through the data set -----------------------------------------------------------------------

TEXTS = [f"person{letter} went" for letter in "abcdefghij"]


@pytest.fixture(scope="module")
def sentences(tmp_path_factory):
    """Clips of words alone: thirty of ten people, whose every sentence names them."""
    folder = tmp_path_factory.mktemp("raw")
    rows = [
        (f"p{i // 3}_{i % 3}", "train", ("sad", "glad")[i % 2], "", "", TEXTS[i // 3])
        for i in range(30)
    ]
    return table(folder, [*rows, ("q_0", "test", "sad", "", "", "nobody")], HEADER)


def open_sentences(folder, **changes):
    return Dataset(DataConfig("clips", dir=str(folder), view="clips", **changes))


def test_folds_of_clips(sentences):
    tested = []
    for fold in "1234":
        data = open_sentences(sentences, kfold=4, fold=fold)
        ids = {role: data.ids(data.part(role)) for role in ROLES}
        people = [{name.split("_")[0] for name in names} for names in ids.values()]
        assert set.union(*people) == {f"p{i}" for i in range(10)} and sum(map(len, people)) == 10
        tested += ids["test"]
        # The tokenizer has read the training part alone.
        own = [TEXTS[int(name[1])] for name in ids["train"]]
        assert same_tokens(data.tokenizer, Tokenizer.train([*own, "glad", "sad"]))
        (batch,) = data.stream(data.part("test"), [np.arange(len(ids["test"]))])
        assert batch["text"]["mask"].any(1).all() and len(batch["label"]) == len(ids["test"])
    assert sorted(tested) == sorted(f"p{i // 3}_{i % 3}" for i in range(30))


def same_tokens(a, b):
    """Returns whether two tokenizers write every name alike."""
    return a.vocab == b.vocab and all(a.words(text) == b.words(text) for text in TEXTS)


def test_folds_of_sequences(own):
    found = collections.Counter()
    for fold in "123":
        data = Dataset(DataConfig("own", dir=str(own), kfold=3, fold=fold))
        found.update(data.ids(data.part("test")))
        part = data.part("train")
        arrays = data.arrays(part)
        valid = arrays["audio"]["x"][arrays["audio"]["mask"]]
        # Standardised by the fold's own training part.
        np.testing.assert_allclose(valid.mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(valid.std(0), 1, atol=1e-4)
        assert not set(data.ids(part)) & set(data.ids(data.part("test")))
    assert found == {f"v{i // 3}_{i % 3}": 1 for i in range(29)}


# ---- a share of the training part ---------------------------------------------------------------


def test_of_each_class_the_same_share():
    label = np.repeat([0, 1, 2, 5], [40, 20, 10, 1])
    for part, counts in ((0.5, (20, 10, 5, 1)), (0.1, (4, 2, 1, 1)), (0.01, (1, 1, 1, 1))):
        found = share(label, part, seed=3)
        assert np.bincount(label[found]).tolist() == [*counts[:3], 0, 0, counts[3]]
        np.testing.assert_array_equal(share(label, part, seed=3), found)
        assert (share(label, part, seed=4) != found).any()
    assert share(label, 1.0, seed=0).all()


def test_a_larger_share_has_all_of_a_smaller_one():
    label = np.arange(60) % 3
    found = [share(label, part, seed=1) for part in (0.1, 0.3, 0.8)]
    assert [f.sum() for f in found] == [6, 18, 48]
    assert (found[0] <= found[1]).all() and (found[1] <= found[2]).all()


@pytest.mark.parametrize(
    "label", [np.linspace(-3, 3, 20, dtype=np.float32), np.eye(20, 4, dtype=int)]
)
def test_scores_and_binary_tasks_are_one_class(label):
    assert share(label, 0.25, seed=0).sum() == 5 and share(label, 0.01, seed=0).sum() == 1


def test_statistics_are_of_the_share_and_the_other_parts_stay(own, tmp_path):
    whole = Dataset(DataConfig("own", dir=str(own)))
    data = Dataset(DataConfig("own", dir=str(own), share=0.3, seed=2))
    part = data.part("train")
    chosen = share(whole.labels(whole.part("train")), 0.3, seed=2)
    assert part.rows.tolist() == np.flatnonzero(chosen).tolist() and 0 < len(part) < 15
    assert set(data.labels(part)) == set(whole.labels(whole.part("train")))
    raw = np.load(own / "features.npz")
    for m in ("audio", "vision"):
        steps = [raw[m][row, : raw[f"{m}_lengths"][row]] for row in part.rows]
        values = np.concatenate(steps).astype(np.float64)
        np.testing.assert_allclose(data.statistics[m]["mean"], values.mean(0), rtol=1e-5)
        np.testing.assert_allclose(data.statistics[m]["std"], values.std(0), rtol=1e-5)
        assert (np.abs(whole.statistics[m]["mean"] - data.statistics[m]["mean"]) > 1e-3).any()
    for role in ("valid", "test"):
        assert data.ids(data.part(role)) == whole.ids(whole.part(role))


def test_the_tokenizer_has_read_the_share_alone(sentences):
    data = open_sentences(sentences, share=0.2, valid="test")
    ids = data.ids(data.part("train"))
    assert len(ids) == 6
    own = [TEXTS[int(name[1])] for name in ids]
    assert same_tokens(data.tokenizer, Tokenizer.train([*own, "glad", "sad"]))
    assert not same_tokens(data.tokenizer, open_sentences(sentences, valid="test").tokenizer)


def test_what_validates_is_held_out_before_the_share(tmp_path):
    folder = write_own(tmp_path / "own", sizes={"train": 60, "test": 3})
    held = {"valid": "holdout", "holdout": 0.3}
    whole = Dataset(DataConfig("own", dir=str(folder), **held))
    data = Dataset(DataConfig("own", dir=str(folder), share=0.5, **held))
    assert data.ids(data.part("valid")) == whole.ids(whole.part("valid"))
    trained = whole.part("train")
    taken = share(whole.labels(trained), 0.5, seed=0)
    assert data.part("train").rows.tolist() == trained.rows[taken].tolist()


def test_a_share_of_a_fold(own):
    whole, data = (
        Dataset(DataConfig("own", dir=str(own), kfold=3, fold="2", share=part)) for part in (1, 0.5)
    )
    assert set(data.ids(data.part("train"))) < set(whole.ids(whole.part("train")))
    assert data.ids(data.part("test")) == whole.ids(whole.part("test"))
