"""`config.data.class_map`: the classes of the data become others, or are left out."""

import logging as std_logging

import numpy as np
import pytest

from affectjax.data.batches.config import DataConfig
from affectjax.data.batches.dataset import Dataset
from affectjax.data.batches.splits import Parts
from affectjax.data.labels import LabelSpec
from affectjax.data.prepare.prepared import Index
from affectjax.errors import InputError

FACES = LabelSpec("class", ("happy", "contempt", "sad", "neutral", "surprise"))
SCORES = LabelSpec("score", low=-3.0, high=3.0)
TASKS = LabelSpec("binary", ("neutral", "happy"))
SEVEN = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")


class Stored:
    """A prepared data set of words alone, as `Parts` reads one."""

    def __init__(self, spec, labels, folds=None, group=2):
        self.spec, self.folds = spec, folds or {}
        self.inputs = {"text": {"kind": "text"}}
        self.labels = {split: np.asarray(those) for split, those in labels.items()}
        self.splits = {split: len(those) for split, those in self.labels.items()}
        self.group = group

    def index(self, split):
        count = self.splits[split]
        ids = tuple(f"{split}{i // self.group}_{i}" for i in range(count))
        present = np.tile([True, False, False], (count, 1))
        return Index(ids, self.labels[split], present, tuple("word" for _ in ids))


def faces(**splits):
    return Stored(
        FACES, {"train": [0, 1, 2, 3, 4, 0], "valid": [1, 4], "test": [2, 1, 3], **splits}
    )


def parts(stored, spec=None, **changes):
    return Parts(DataConfig("own", **changes), stored, spec)


def labels(found, role):
    part = found.find(role)
    return found.index(part.source).label[part.rows].tolist()


def rows(found, role):
    return found.find(role).rows.tolist()


def test_without_one_nothing_changes():
    found = parts(faces())
    assert found.spec == FACES
    assert labels(found, "train") == [0, 1, 2, 3, 4, 0] and rows(found, "train") == list(range(6))
    np.testing.assert_array_equal(found.index("test").label, [2, 1, 3])


@pytest.mark.parametrize(
    ("said", "classes", "train", "train_rows", "test"),
    [
        ("seven", SEVEN, [3, 5, 4, 6, 3], [0, 2, 3, 4, 5], [5, 4]),
        ("three", ("negative", "neutral", "positive"), [2, 0, 1, 2], [0, 2, 3, 5], [0, 1]),
        ("two", ("negative", "positive"), [1, 0, 1], [0, 2, 5], [0]),
        (
            "sad:down,happy:up,contempt:down,neutral:,surprise:up",
            ("up", "down"),
            [0, 1, 1, 0, 0],
            [0, 1, 2, 4, 5],
            [1, 1],
        ),
        (
            "happy:happiness,sad:sadness,neutral:,contempt:,surprise:",
            SEVEN,
            [3, 5, 3],
            [0, 2, 5],
            [5],
        ),
    ],
)
def test_classes_become_others(said, classes, train, train_rows, test):
    found = parts(faces(), class_map=said)
    assert found.spec == LabelSpec("class", classes)
    assert labels(found, "train") == train and rows(found, "train") == train_rows
    assert labels(found, "test") == test
    assert found.index("train").label.dtype == np.int32
    # What a source shows goes by its own rows: those left out are still counted there.
    assert found.kept("train").shape == (6, 3)


@pytest.mark.parametrize(
    ("said", "classes", "train", "train_rows"),
    [
        ("three", ("negative", "neutral", "positive"), [0, 1, 2, 0, 2], [0, 1, 2, 3, 4]),
        ("two", ("negative", "positive"), [0, 1, 0, 1], [0, 2, 3, 4]),
    ],
)
def test_scores_become_their_sign(said, classes, train, train_rows):
    scores = np.float32([-3, 0, 0.2, -0.2, 3])
    found = parts(Stored(SCORES, {"train": scores}), class_map=said)
    assert found.spec == LabelSpec("class", classes)
    assert labels(found, "train") == train and rows(found, "train") == train_rows


@pytest.mark.parametrize(
    ("stored", "said", "words"),
    [
        (
            Stored(SCORES, {"train": [1.0]}),
            "seven",
            "labels of own are .* 'score'; allowed: three,",
        ),
        (Stored(SCORES, {"train": [1.0]}), "a:b", "labels of own are .* 'score'; allowed: three,"),
        (Stored(TASKS, {"train": [[0, 1]]}), "three", "labels of own are of kind 'binary'$"),
        (faces(), "happy:a", "must name each of happy, contempt, sad, neutral, surprise once"),
        (Stored(LabelSpec("class", ("a", "b")), {"train": [0]}), "seven", "none of a, b belongs"),
    ],
)
def test_maps_that_do_not_fit(stored, said, words):
    with pytest.raises(InputError, match=f'"config.data.class_map".*{words}'):
        parts(stored, class_map=said)


def test_not_together_with_a_threshold():
    with pytest.raises(ValueError, match="class_map and threshold both make classes"):
        DataConfig("mosi", class_map="three", threshold=0.0)


def test_without_names_mapped_classes():
    assert parts(faces(), class_map="three", without=("neutral",)).spec.classes[1] == "neutral"
    with pytest.raises(
        InputError, match=r"without.* has 'calm'; the classes are: negative, neutral"
    ):
        parts(faces(), class_map="three", without=("calm",))


def test_a_class_with_no_example_is_named_once(caplog):
    found = parts(faces(), class_map="seven")
    with caplog.at_level(std_logging.WARNING):
        for _ in range(2):
            found.find("train")
            found.find("test")
    said = [record.getMessage() for record in caplog.records]
    wanted = [f"class {name} has no example in train" for name in ("anger", "disgust", "fear")]
    assert said == wanted


def test_a_split_of_nothing_but_what_is_left_out():
    with pytest.raises(InputError, match=r"data\.valid.*no example that .*class_map. keeps"):
        parts(faces(), class_map="two").find("valid")


def test_held_out_groups_have_no_example_that_is_left_out():
    stored = Stored(FACES, {"train": np.arange(40) % 5})
    found = parts(stored, class_map="three", valid="holdout", holdout=0.25)
    train, valid = rows(found, "train"), rows(found, "valid")
    kept = [i for i in range(40) if i % 5 in (0, 2, 3)]
    assert sorted(train + valid) == kept and 0 < len(valid) <= len(kept) // 3
    assert not {i // 2 for i in train} & {i // 2 for i in valid}


def test_folds():
    ids = [f"all{i // 2}_{i}" for i in range(6)]
    folds = {"1": {"train": ids[:4], "test": ids[4:]}}
    stored = Stored(FACES, {"all": [0, 1, 2, 3, 4, 0]}, folds)
    found = parts(stored, class_map="three", fold="1")
    assert rows(found, "train") == [0, 2, 3] and labels(found, "train") == [2, 0, 1]
    assert rows(found, "test") == [5] and labels(found, "test") == [2]


# ---- the labels of a trained run ----------------------------------------------------------------


def test_the_numbers_of_a_run_without_a_map():
    run = LabelSpec("class", ("surprise", "neutral", "happy", "contempt", "sad"))
    found = parts(faces(), run)
    assert found.spec == run
    assert labels(found, "train") == [2, 3, 4, 1, 0, 2]


def test_the_numbers_of_a_run_with_a_map(caplog):
    run = LabelSpec("class", ("happiness", "neutral", "sadness", "surprise", "anger"))
    with caplog.at_level(std_logging.WARNING):
        found = parts(faces(), run, class_map="seven")
        assert found.spec == run
        assert labels(found, "train") == [0, 2, 1, 3, 0] and labels(found, "test") == [2, 1]
    # A test of few classes is no training that lacks them.
    assert not caplog.records
    three = LabelSpec("class", ("positive", "neutral", "negative"))
    scores = Stored(SCORES, {"test": np.float32([-1, 0, 2])})
    assert labels(parts(scores, three, class_map="three"), "test") == [2, 1, 0]
    assert labels(parts(scores, three, class_map="two"), "test") == [2, 0]


@pytest.mark.parametrize("changes", [{}, {"class_map": "seven"}])
def test_classes_that_a_run_does_not_have(changes):
    run = LabelSpec("class", ("happy", "contempt", "sad", "neutral"))
    words = (
        'own has the classes .*surprise, but the run was trained on happy, .*"config.data.class_m'
    )
    with pytest.raises(InputError, match=words):
        parts(faces(), run, **changes)
    with pytest.raises(InputError, match=r"own has the classes .* was trained on score"):
        parts(faces(), SCORES, **changes)


def test_scores_and_tasks_of_a_run():
    scores, tasks = Stored(SCORES, {"train": [0.5]}), Stored(TASKS, {"train": [[0, 1]]})
    wider = LabelSpec("score")
    assert parts(scores, wider).spec == wider and labels(parts(scores, wider), "train") == [0.5]
    assert labels(parts(tasks, TASKS), "train") == [[0, 1]]
    with pytest.raises(
        InputError, match=r"own has the classes neutral, happy, but .* on happy, neutr"
    ):
        parts(tasks, LabelSpec("binary", ("happy", "neutral")))
    cut = parts(scores, LabelSpec("class", ("positive", "negative")), threshold=0.0)
    assert labels(cut, "train") == [0]
    with pytest.raises(InputError, match="own has the classes score, but the run was trained on a"):
        parts(scores, LabelSpec("class", ("a", "b")))


# ---- through the data set -----------------------------------------------------------------------


def test_batches_of_the_embedded_set():
    plain = Dataset(DataConfig("affect_synth"))
    data = Dataset(DataConfig("affect_synth", class_map="three"))
    words = plain.spec.classes
    becomes = {"happy": "positive", "neutral": "neutral", "surprise": None}
    mapped = [becomes.get(words[i], "negative") for i in plain.labels(plain.part("test"))]
    ids = plain.ids(plain.part("test"))
    part = data.part("test")
    assert data.spec.classes == ("negative", "neutral", "positive") == data.inputs.spec.classes
    assert data.ids(part) == [i for i, m in zip(ids, mapped, strict=True) if m]
    wanted = [data.spec.classes.index(m) for m in mapped if m]
    np.testing.assert_array_equal(data.labels(part), wanted)
    (batch,) = data.stream(part, [np.arange(len(part))])
    np.testing.assert_array_equal(batch["label"], wanted)
    again = Dataset(DataConfig("affect_synth"), spec=LabelSpec("class", words[::-1]))
    np.testing.assert_array_equal(
        again.labels(again.part("test")), len(words) - 1 - plain.labels(plain.part("test"))
    )
