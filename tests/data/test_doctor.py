import dataclasses
import hashlib

import numpy as np
import pytest
from feature_layouts import steps

from affectjax.data.labels import LabelSpec
from affectjax.data.prepare import doctor, hashes
from affectjax.data.prepare.sequence_examples import examine
from affectjax.data.sequences import FeatureSet, Sequences, Split

SCORE = LabelSpec("score", low=-3.0, high=3.0)


def split(name, lengths, label):
    x = steps(lengths, 4, 2)
    mask = np.arange(4) < np.asarray(lengths)[:, None]
    ids = tuple(f"{name}{i}" for i in range(len(lengths)))
    return Split(ids, np.asarray(label, np.float32), {"audio": Sequences(x, mask)})


def healthy():
    return FeatureSet({"train": split("t", [1, 2, 4], [-3, 0, 3]), "valid": split("v", [3], [1])})


def changed(features, name, **changes):
    splits = dict(features.splits)
    splits[name] = dataclasses.replace(splits[name], **changes)
    return FeatureSet(splits)


def with_audio(features, edit, name="train"):
    audio = features.splits[name].modalities["audio"]
    x, mask = audio.x.copy(), audio.mask.copy()
    edit(x, mask)
    return changed(features, name, modalities={"audio": Sequences(x, mask)})


NO_TEST = (
    "there is no split named test; there are train, valid: config.data.valid and config.data.test "
    'name those to use, and valid="holdout" holds a part of train out'
)


def test_healthy_set():
    found = examine(healthy(), SCORE)
    assert found.problems == () and found.warnings == (NO_TEST,)
    report = found.splits["train"].features["audio"]
    assert {name: g.count for name, g in found.splits.items()} == {"train": 3, "valid": 1}
    assert report.shape == (3, 4, 2) and report.dtype == "float32"
    assert report.lengths == (1, 2.0, 4) and report.absent == 0
    # Seven equal ranges over [-3, 3]: -3 in the first, 0 in the middle one, 3 in the last.
    assert list(found.splits["train"].labels.values()) == [1, 0, 0, 1, 0, 0, 1]


def test_non_finite_values_are_counted_where_they_are():
    def edit(x, mask):
        x[0, 0, 1] = np.nan
        x[2, 0, 1] = np.inf
        x[2, 1, 0] = -np.inf
        x[0, 3, 0] = np.nan  # padding, does not count

    found = examine(with_audio(healthy(), edit), SCORE)
    report = found.splits["train"].features["audio"]
    assert (report.nan, report.inf) == (1, 2)
    assert report.worst == ((1, 2), (0, 1))
    assert found.problems == ()
    assert found.warnings == (
        "train: audio has 1 NaN and 2 infinite values; preparing sets them to 0",
        NO_TEST,
    )


def test_constant_dimension_and_absent_examples_warn_only():
    def edit(x, mask):
        x[:, :, 1] = 7.0
        mask[0] = False

    found = examine(with_audio(healthy(), edit), SCORE)
    assert found.splits["train"].features["audio"].absent == 1
    assert found.splits["train"].features["audio"].lengths == (2, 3.0, 4)
    assert found.problems == ()
    assert found.warnings == ("train: audio is constant in dimensions 1", NO_TEST)


def dead_modality(x, mask):
    x[:] = np.nan


def dead_dimension(x, mask):
    x[:, :, 1] = -np.inf


def no_step(x, mask):
    mask[:] = False


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (dead_modality, "train: audio has no finite value at all"),
        (dead_dimension, "train: audio has no finite value in dimensions 1"),
        (no_step, "train: audio has no valid step"),
    ],
)
def test_modalities_that_spoil_a_training(edit, words):
    assert words in examine(with_audio(healthy(), edit), SCORE).problems


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        (
            "train",
            {"label": np.float32([0, 4, 1])},
            "1 labels are wrong, first that of t1: label 4",
        ),
        ("train", {"label": np.float32([0, np.nan, 1])}, "first that of t1: label nan"),
        ("train", {"label": np.float32([2, 2, 2])}, "train: every label is 2.0"),
        ("train", {"ids": ("a", "b", "a")}, "1 ids stand twice in a split, such as a"),
        ("train", {"ids": ("a", "b", "v0")}, "1 ids stand in two splits, such as v0"),
    ],
)
def test_labels_and_ids_that_spoil_a_training(name, changes, words):
    problems = examine(changed(healthy(), name, **changes), SCORE).problems
    assert len(problems) == 1 and words in problems[0]


def test_empty_split_and_no_train():
    splits = healthy().splits
    found = examine(FeatureSet({**splits, "test": split("e", [], [])}), SCORE)
    assert found.problems == ("test: the split is empty",)
    found = examine(FeatureSet({"dev": splits["valid"]}), SCORE)
    assert found.problems == ("there is no split named train; there are dev",)


def test_histograms_of_classes_and_tasks():
    spec = LabelSpec("class", ("sad", "happy", "calm"))
    classes = changed(healthy(), "train", label=np.int32([0, 1, 1]))
    classes = changed(classes, "valid", label=np.int32([2]))
    found = examine(classes, spec)
    assert found.splits["train"].labels == {"sad": 1, "happy": 2, "calm": 0} and not found.problems
    tasks = changed(healthy(), "train", label=np.int32([[0, 1], [1, 1], [0, 1]]))
    tasks = changed(tasks, "valid", label=np.int32([[0, 0]]))
    found = examine(tasks, LabelSpec("binary", ("sad", "happy")))
    assert found.splits["train"].labels == {"sad": 1, "happy": 3} and not found.problems


def test_text_of_a_diagnosis(tmp_path):
    (tmp_path / "a.pkl").write_bytes(b"abc")
    digest = hashes.checksum(tmp_path / "a.pkl")
    assert digest == hashlib.sha256(b"abc").hexdigest()
    bad = with_audio(healthy(), dead_dimension)
    text = doctor.format(examine(bad, SCORE, checksums={"a.pkl": digest}))
    for words in (
        f"a.pkl  sha256 {digest}",
        "train: 3 examples",
        "audio   [3, 4, 2] float32, steps 1 to 4 (median 2), absent in 0, NaN 0, inf 7",
        "worst dimensions 1 (7)",
        "Problems: 1\n  train: audio has no finite value in dimensions 1",
    ):
        assert words in text
