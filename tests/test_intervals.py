"""Intervals: metrics of resamples, which groups are drawn, and what a run writes of them."""

import csv
import json

import numpy as np
import pytest
from conftest import toy_config
from scipy import stats

from affectjax import metrics
from affectjax.metrics import Answers
from affectjax.training import evaluator, intervals, loop

CLASSES = ("a", "b", "c", "d")
N = 90


def answers_of(kind, seed=0):
    """Returns answers that are better than chance; the class "d" is rare."""
    rng = np.random.default_rng(seed)
    if kind == "score":
        label = np.round(rng.uniform(-3, 3, N), 0)
        return Answers(kind, label + rng.normal(0, 1.5, N), label)
    if kind == "class":
        label = rng.choice(4, N, p=[0.4, 0.3, 0.27, 0.03])
        return Answers(kind, rng.dirichlet(np.ones(4), N) + np.eye(4)[label] / 3, label, CLASSES)
    label = rng.integers(0, 2, (N, 2))
    return Answers(kind, np.clip(label + rng.normal(0, 0.6, (N, 2)), 0, 1), label, CLASSES[:2])


@pytest.mark.parametrize("kind", ["score", "class", "binary"])
@pytest.mark.parametrize("part", [False, True], ids=["all", "some"])
def test_a_resample_is_measured_as_its_examples_would_be(kind, part):
    """Whole groups, as often as they were drawn, by the functions that measure a split."""
    rng = np.random.default_rng(1)
    answers, group = answers_of(kind), rng.integers(0, 12, N)
    rows = np.arange(N)
    if part:
        rows = np.flatnonzero(rng.random(N) < 0.7)
        answers = Answers(
            kind, answers.prediction[rows], answers.label[rows], answers.classes, rows
        )
    times = rng.multinomial(12, np.full(12, 1 / 12), 20)
    found = intervals.measured(answers, group, times.astype(float))
    assert tuple(found) == metrics.MAIN[kind]
    for r in range(20):
        drawn = np.repeat(np.arange(len(rows)), times[r][group[rows]])
        expected = metrics.measure(
            Answers(kind, answers.prediction[drawn], answers.label[drawn], answers.classes)
        )
        for name, values in found.items():
            assert values[r] == pytest.approx(expected[name], abs=1e-9), name


def test_examples_that_are_their_own_groups_are_scipys_bootstrap():
    answers = answers_of("class")
    right = (answers.prediction.argmax(1) == answers.label).astype(float)
    theirs = stats.bootstrap(
        (right,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    values = intervals.resampled([{"": answers}], [str(i) for i in range(N)])
    assert len(values["war"]) == intervals.RESAMPLES
    # The ends of 1000 resamples vary by about a tenth of the deviation; shares of 90 are steps.
    np.testing.assert_allclose(intervals.ends(values)["war"], theirs, atol=2 / N)


def test_groups_of_equal_examples_are_as_uncertain_as_one_example_each():
    """Ten copies of each example say no more than one does; as single examples they would."""
    answers, one = answers_of("class"), [str(i) for i in range(N)]
    ten = Answers(
        "class", np.repeat(answers.prediction, 10, 0), np.repeat(answers.label, 10), CLASSES
    )
    width = lambda a, g: np.ptp(intervals.ends(intervals.resampled([{"": a}], g))["war"])  # noqa: E731
    assert width(ten, np.repeat(one, 10)) == pytest.approx(width(answers, one))
    assert width(ten, range(10 * N)) < width(answers, one) / 2


def test_seeds_are_measured_on_the_same_resamples():
    both = [{"": answers_of("class", seed)} for seed in (0, 1)]
    groups = [str(i % 9) for i in range(N)]
    one, two = (intervals.resampled([own], groups)["war"] for own in both)
    np.testing.assert_allclose(intervals.resampled(both, groups)["war"], (one + two) / 2)


def test_one_group_alone_has_no_interval():
    assert intervals.resampled([{"": answers_of("score")}], ["only"] * N) == {}
    assert (
        intervals.ends({"corr": np.array([np.nan, np.nan])})["corr"]
        == [pytest.approx(np.nan, nan_ok=True)] * 2
    )


def test_unpaired_data_sets_have_intervals_of_each_and_of_their_mean():
    text, audio = np.arange(4.0), np.full(4, 2.0)
    found = evaluator.merge_data_sets(
        {"audio": {"war": audio}, "text": {"war": text, "three/war": text}}
    )
    assert list(found) == ["war", "text/war", "text/three/war", "audio/war"]
    np.testing.assert_allclose(found["war"], (text + audio) / 2)


# ---- a run --------------------------------------------------------------------------------------


def read(workdir, split):
    return json.loads((workdir / "eval" / f"{split}.json").read_text())


def test_a_run_writes_the_interval_of_each_main_metric(finished):
    for split in ("valid", "test"):
        result = read(finished, split)
        assert tuple(result["interval"]) == metrics.MAIN["class"] and "ensemble" not in result
        for name, (low, high) in result["interval"].items():
            assert low <= result[name] <= high and low < high


@pytest.fixture(scope="module", params=["own", "scores"])
def seeds(request, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "seeds"
    folder = request.getfixturevalue(request.param)
    loop.train(toy_config(folder, seed=0, seeds=(3, 8)), workdir)
    return workdir


def test_the_ensemble_is_the_table_of_mean_predictions_measured(seeds):
    with (seeds / "eval" / "test.csv").open() as file:
        rows = list(csv.DictReader(file))
    result = read(seeds, "test")
    assert list(result) == ["mean", "std", "per_seed", "ensemble", "interval"]
    classes = [c for c in rows[0] if c not in ("id", "label", "prediction")]
    if classes:
        probability = np.array([[float(row[c]) for c in classes] for row in rows])
        label = np.array([classes.index(row["label"]) for row in rows])
        expected = metrics.classification(probability, label, classes)
    else:
        score, label = (np.array([float(row[k]) for row in rows]) for k in ("prediction", "label"))
        expected = metrics.sentiment(score, label)
    assert result["ensemble"].pop("confusion", None) == expected.pop("confusion", None)
    assert set(result["ensemble"]) == set(result["mean"]) - {"loss"}
    assert result["ensemble"] == pytest.approx(expected, abs=1e-4)
    # It is no mean of the metrics of the seeds.
    assert result["ensemble"] != {k: v for k, v in result["mean"].items() if k != "loss"}


def test_an_evaluation_gives_the_same_intervals_again(seeds):
    before = read(seeds, "test")
    assert evaluator.evaluate(seeds)["interval"] == before["interval"]
    assert read(seeds, "test") == before
