"""Metrics against scikit-learn, SciPy and definitions written out."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as skm

from affectjax import metrics

# ---- scores -------------------------------------------------------------------------------------


def sentiments(n=400):
    """Returns scores, some beyond the range, and labels in thirds with zeros among them."""
    rng = np.random.default_rng(0)
    label = rng.integers(-9, 10, n) / 3
    return (label + rng.normal(0, 1.2, n)).astype(np.float32), label.astype(np.float32)


def weighted_f1(truth, guess):
    """Returns F1 of the two classes, weighted by how often each is the truth."""
    total = 0.0
    for c in (False, True):
        hit = sum(1 for t, g in zip(truth, guess, strict=True) if t == c and g == c)
        wrong = sum(1 for t, g in zip(truth, guess, strict=True) if (t == c) != (g == c))
        f1 = 2 * hit / (2 * hit + wrong) if hit else 0.0
        total += f1 * sum(1 for t in truth if t == c)
    return total / len(truth)


def test_sentiment_is_the_definitions():
    score, label = sentiments()
    s, y = score.astype(np.float64), label.astype(np.float64)
    kept = [i for i in range(len(y)) if y[i] != 0]
    assert 0 < len(kept) < len(y)
    has0 = [v >= 0 for v in y], [v >= 0 for v in s]
    non0 = [y[i] > 0 for i in kept], [s[i] > 0 for i in kept]
    rounded = lambda v, b: round(min(max(v, -b), b))  # noqa: E731  (Python rounds half to even)
    expected = {
        "acc2_has0": np.mean([t == g for t, g in zip(*has0, strict=True)]),
        "f1_has0": weighted_f1(*has0),
        "acc2_non0": np.mean([t == g for t, g in zip(*non0, strict=True)]),
        "f1_non0": weighted_f1(*non0),
        "acc5": np.mean([rounded(a, 2) == rounded(b, 2) for a, b in zip(s, y, strict=True)]),
        "acc7": np.mean([rounded(a, 3) == rounded(b, 3) for a, b in zip(s, y, strict=True)]),
        "mae": skm.mean_absolute_error(y, s),
        "corr": stats.pearsonr(s, y).statistic,
    }
    ours = metrics.sentiment(score, label)
    assert list(ours) == list(expected)
    for name, value in expected.items():
        assert ours[name] == pytest.approx(value, abs=1e-9), name
        assert type(ours[name]) is float
    assert ours["f1_has0"] == pytest.approx(skm.f1_score(*has0, average="weighted"))


@pytest.mark.parametrize(
    ("score", "label", "acc7", "acc5"),
    [
        (0.5, 0.0, 1, 1),  # half to even: 0.5 is 0, 1.5 is 2, 2.5 is 2
        (1.5, 2.0, 1, 1),
        (2.5, 2.0, 1, 1),
        (2.5, 3.0, 0, 1),
        (-0.5, 0.0, 1, 1),
        (-1.5, -2.0, 1, 1),
        (9.0, 3.0, 1, 1),  # clipped first
        (9.0, 2.0, 0, 1),
        (-9.0, -2.4, 0, 1),
        (0.51, 0.49, 0, 0),
        (-0.4, 0.4, 1, 1),  # minus zero is zero
    ],
)
def test_classes_are_clipped_and_rounded(score, label, acc7, acc5):
    ours = metrics.sentiment(np.array([score]), np.array([label]))
    assert (ours["acc7"], ours["acc5"]) == (acc7, acc5)


def test_zero_is_positive_with_has0_and_left_out_of_non0():
    score, label = np.array([0.0, -0.1, 0.0, 2.0]), np.array([0.0, 0.0, 1.0, 1.0])
    ours = metrics.sentiment(score, label)
    assert ours["acc2_has0"] == 0.75  # only -0.1 against 0 is wrong
    assert ours["acc2_non0"] == 0.5  # of the two that are left, a score of 0 is not > 0
    # Both truths are positive: one found of two, F1 = 2/3; the negative class is no truth.
    assert ours["f1_non0"] == pytest.approx(2 / 3)
    assert ours["f1_has0"] == pytest.approx(6 / 7)


@pytest.mark.filterwarnings("error")
def test_sentiment_that_is_not_defined_is_nan():
    ours = metrics.sentiment(np.array([0.5, 0.5, 0.5]), np.array([0.0, 0.0, 0.0]))
    assert math.isnan(ours["acc2_non0"])
    assert math.isnan(ours["f1_non0"])
    assert math.isnan(ours["corr"])
    assert ours["acc2_has0"] == ours["f1_has0"] == ours["acc7"] == 1
    assert ours["mae"] == 0.5
    for constant in (np.array([1.0, 1.0]), np.array([1.0, 2.0])), (np.ones(2), np.ones(2)):
        assert math.isnan(metrics.sentiment(*constant)["corr"])
        assert math.isnan(metrics.sentiment(*constant[::-1])["corr"])


# ---- classes ------------------------------------------------------------------------------------

NAMES = ("anger", "joy", "fear", "calm")


def test_classification_is_scikit_learns():
    rng = np.random.default_rng(1)
    label = rng.choice(4, 300, p=(0.5, 0.3, 0.15, 0.05))
    probability = rng.dirichlet(np.ones(4), 300) + 0.4 * np.eye(4)[label]
    guess = np.array([max(range(4), key=row.__getitem__) for row in probability])
    recall = skm.recall_score(label, guess, average=None)
    ours = metrics.classification(probability, label, NAMES)
    expected = {
        "war": skm.accuracy_score(label, guess),
        "uar": skm.balanced_accuracy_score(label, guess),
        "f1_weighted": skm.f1_score(label, guess, average="weighted"),
        "f1_macro": skm.f1_score(label, guess, average="macro"),
    } | {f"recall/{name}": recall[i] for i, name in enumerate(NAMES)}
    confusion = ours.pop("confusion")
    assert ours == pytest.approx(expected)
    table = [[0] * 4 for _ in range(4)]
    for t, g in zip(label, guess, strict=True):
        table[t][g] += 1
    assert confusion == table
    # WAR is the mean recall weighted by how often a class is the truth.
    assert ours["war"] == pytest.approx(np.bincount(label) @ recall / 300)


@pytest.mark.filterwarnings("error")
def test_class_that_is_absent_has_recall_nan_and_no_part_in_means():
    # Truth: two of anger, one of joy. One anger is taken for fear, which is nobody's truth.
    probability = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0]])
    ours = metrics.classification(probability, np.array([0, 0, 1]), NAMES)
    assert ours["war"] == pytest.approx(2 / 3)
    assert ours["uar"] == pytest.approx((1 / 2 + 1) / 2)
    assert math.isnan(ours["recall/fear"])
    assert math.isnan(ours["recall/calm"])
    assert ours["f1_macro"] == pytest.approx((2 / 3 + 1) / 2)
    assert ours["f1_weighted"] == pytest.approx((2 * 2 / 3 + 1 * 1) / 3)
    assert ours["confusion"] == [[1, 0, 1, 0], [0, 1, 0, 0], [0] * 4, [0] * 4]


def test_tie_goes_to_the_lower_class():
    ours = metrics.classification(np.full((2, 4), 0.25), np.array([0, 3]), NAMES)
    assert ours["confusion"][0][0] == ours["confusion"][3][0] == 1


def test_binary_tasks_are_each_their_own():
    rng = np.random.default_rng(2)
    label = (rng.random((200, 3)) < (0.1, 0.5, 0.8)).astype(int)
    probability = np.clip(label * 0.3 + rng.random((200, 3)) * 0.7, 0, 1)
    ours = metrics.binary_tasks(probability, label, NAMES[:3])
    accuracies, f1s = [], []
    for i, name in enumerate(NAMES[:3]):
        guess = probability[:, i] > 0.5
        accuracies.append(skm.accuracy_score(label[:, i], guess))
        f1s.append(weighted_f1(label[:, i] == 1, guess))
        assert ours[f"{name}/acc"] == pytest.approx(accuracies[-1])
        assert ours[f"{name}/f1"] == pytest.approx(f1s[-1])
    assert ours["acc"] == pytest.approx(np.mean(accuracies))
    assert ours["f1"] == pytest.approx(np.mean(f1s))
    assert len(ours) == 8


def test_half_a_chance_is_no():
    ours = metrics.binary_tasks(np.array([[0.5], [0.51]]), np.array([[0], [1]]), ("joy",))
    assert ours["joy/acc"] == 1


# ---- over seeds and runs ------------------------------------------------------------------------


def test_over_seeds_is_mean_and_sample_deviation():
    runs = [
        {"war": 0.5, "mae": 1.0, "confusion": [[1]]},
        {"war": 0.7, "mae": 1.0, "confusion": [[2]]},
        {"war": 0.9, "mae": 4.0, "confusion": [[3]]},
    ]
    ours = metrics.over_seeds(runs)
    assert ours["mean"] == pytest.approx({"war": 0.7, "mae": 2.0})
    # Squared distances 0.04 + 0 + 0.04 over 2; 1 + 1 + 4 over 2.
    assert ours["std"] == pytest.approx({"war": 0.2, "mae": math.sqrt(3)})


def test_over_one_seed_there_is_no_deviation():
    ours = metrics.over_seeds([{"war": 0.5}])
    assert ours["mean"] == {"war": 0.5}
    assert math.isnan(ours["std"]["war"])


def test_metric_that_is_nan_for_a_seed_stays_nan():
    ours = metrics.over_seeds([{"war": 0.5, "corr": math.nan}, {"war": 0.6, "corr": 0.1}])
    assert math.isnan(ours["mean"]["corr"])
    assert ours["mean"]["war"] == pytest.approx(0.55)


def test_paired_t_test_is_scipys_and_the_formula():
    ours, theirs = (0.85, 0.84, 0.86, 0.83, 0.85), (0.82, 0.83, 0.84, 0.80, 0.84)
    t, p = metrics.paired_t_test(ours, theirs)
    expected = stats.ttest_rel(ours, theirs)
    assert (t, p) == pytest.approx((expected.statistic, expected.pvalue))
    d = np.subtract(ours, theirs)
    by_hand = d.mean() / (math.sqrt(sum((d - d.mean()) ** 2) / 4) / math.sqrt(5))
    assert t == pytest.approx(by_hand)
    assert p == pytest.approx(2 * stats.t.sf(by_hand, 4))
    back, same = metrics.paired_t_test(theirs, ours)
    assert (back, same) == pytest.approx((-t, p))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [((0.5,), (0.4,)), ((0.5, 0.6), (0.5, 0.6)), ((1.0, 2.0, 3.0), (0.5, 1.5, 2.5))],
    ids=["one seed", "the same", "the same difference"],
)
def test_paired_t_test_that_is_not_defined_is_nan(ours, theirs):
    assert all(map(math.isnan, metrics.paired_t_test(ours, theirs)))


def test_paired_t_test_of_equal_differences_up_to_rounding_is_nan():
    """0.81 - 0.80 and 0.82 - 0.81 differ by 1e-16 in floats: no evidence of anything."""
    t, p = metrics.paired_t_test((0.81, 0.82, 0.83), (0.80, 0.81, 0.82))
    assert math.isnan(t)
    assert math.isnan(p)


def test_what_is_better():
    assert metrics.lower_is_better("mae")
    assert metrics.lower_is_better("loss")
    for name in ("war", "uar", "acc7", "corr", "f1_non0", "joy/acc", "f1"):
        assert not metrics.lower_is_better(name)


# ---- fewer classes ------------------------------------------------------------------------------


@pytest.mark.parametrize("dropped", [("b",), ("a", "d"), ()], ids=["middle", "ends", "none"])
def test_without_is_scikit_learn_on_what_is_left(dropped):
    rng = np.random.default_rng(0)
    names = ("a", "b", "c", "d", "e")
    probability, label = rng.dirichlet(np.ones(5), 300), rng.integers(0, 5, 300)
    kept = [name for name in names if name not in dropped]
    truth, guess = [], []
    for row, number in zip(probability.tolist(), label, strict=True):
        if names[number] in kept:
            left = {n: p for n, p in zip(names, row, strict=True) if n in kept}
            truth.append(names[number])
            guess.append(max(left, key=left.get))
    ours = metrics.measure(metrics.Answers("class", probability, label, names).without(dropped))
    assert len(truth) < 300 or not dropped
    assert ours["war"] == pytest.approx(skm.accuracy_score(truth, guess))
    assert ours["uar"] == pytest.approx(skm.balanced_accuracy_score(truth, guess))
    assert ours["f1_weighted"] == pytest.approx(skm.f1_score(truth, guess, average="weighted"))
    assert ours["confusion"] == skm.confusion_matrix(truth, guess, labels=kept).tolist()
    assert [n for n in ours if n.startswith("recall/")] == [f"recall/{n}" for n in kept]


def test_without_a_class_its_examples_and_its_column_are_gone_by_hand():
    # The second example would be "neutral" and is then "sad"; the third is neutral and is left out.
    probability = np.array([[0.7, 0.2, 0.1], [0.1, 0.5, 0.4], [0.1, 0.8, 0.1], [0.3, 0.5, 0.2]])
    label = np.array([0, 2, 1, 2])
    answers = metrics.Answers("class", probability, label, ("glad", "neutral", "sad"))
    ours = metrics.measure(answers.without(("neutral",)))
    assert ours["war"] == pytest.approx(2 / 3) and ours["uar"] == 0.75
    assert ours["confusion"] == [[1, 0], [1, 1]]


def test_each_function_says_its_names_beforehand():
    """Its single numbers, in their order; a confusion matrix is none."""
    rng, classes = np.random.default_rng(0), ("a", "b", "c")
    label = rng.integers(0, 3, 20)
    found = {
        "score": metrics.sentiment(rng.normal(size=20), rng.normal(size=20)),
        "class": metrics.classification(rng.random((20, 3)), label, classes),
        "binary": metrics.binary_tasks(rng.random((20, 3)), rng.integers(0, 2, (20, 3)), classes),
    }
    for kind, named in found.items():
        numbers = [name for name, value in named.items() if isinstance(value, float)]
        assert list(metrics.names_of_kind(kind, classes)) == numbers


def test_the_line_of_a_result_has_its_first_numbers():
    result = {"loss": 1.23456, "confusion": [[1]], "war": 0.5, "uar": math.nan, "f1_weighted": 0.25}
    said = "loss 1.2346, war 0.5000, uar nan, f1_weighted 0.2500"
    assert metrics.line(result | {"f1_macro": 0.1}) == said
    assert metrics.line({"mean": result, "std": {}, "per_seed": {}}) == said
    # As JSON gives it back.
    assert metrics.line(result | {"uar": None}) == said
