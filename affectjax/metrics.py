"""Metrics by name, from the predictions of a whole split; never a mean of batch means.

Letters: N examples, C classes, K binary tasks.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# Every other metric is better when it is higher.
LOWER_IS_BETTER = ("loss", "mae")
# By the kind of labels, what a run is judged by first; the first of them is what it is said in.
MAIN = {
    "score": ("acc2_has0", "f1_has0", "acc2_non0", "f1_non0", "acc7", "mae", "corr"),
    "class": ("war", "uar", "f1_weighted", "f1_macro"),
    "binary": ("acc", "f1"),
}

Metrics = dict[str, float | list]


@dataclasses.dataclass(frozen=True)
class Answers:
    """What was said of examples, and what is true of them: all that metrics but the loss need.

    Attributes:
      kind: of the labels, see `affectjax.data.labels.LabelSpec`.
      prediction: `[N]` scores, `[N, C]` probabilities, or `[N, K]` those of "yes".
      label: `[N]` or `[N, K]`.
      classes: names of the classes or of the binary tasks.
      rows: `[N]`, which examples of the split they are; None for all, in order.
    """

    kind: str
    prediction: np.ndarray
    label: np.ndarray
    classes: Sequence[str] = ()
    rows: np.ndarray | None = None

    def without(self, dropped: Sequence[str]) -> "Answers":
        """Returns those among fewer classes, from the same probabilities.

        Args:
          dropped: names of the classes whose examples, and whose column, are left out.

        Source: MAFW's ten classes without neutral, SPEC section 1.
        """
        kept = np.array([c for c, name in enumerate(self.classes) if name not in dropped])
        rows = np.flatnonzero(np.isin(self.label, kept))
        return Answers(
            self.kind,
            self.prediction[rows][:, kept],
            np.searchsorted(kept, self.label[rows]),
            [self.classes[c] for c in kept],
            rows,
        )


def measure(answers: Answers) -> Metrics:
    """Returns the metrics of the kind of the labels, see `names_of_kind`."""
    if answers.kind == "score":
        return sentiment(answers.prediction, answers.label)
    function = classification if answers.kind == "class" else binary_tasks
    return function(answers.prediction, answers.label, answers.classes)


def lower_is_better(name: str) -> bool:
    """Returns whether a smaller value of the metric is the better one."""
    return name in LOWER_IS_BETTER


def classification(probability: np.ndarray, label: np.ndarray, classes: Sequence[str]) -> Metrics:
    """Returns war, uar, f1_weighted, f1_macro, recall/<class> and confusion.

    Args:
      probability: `[N, C]`; the largest is the prediction, ties to the lower class.
      label: `[N]` int.
      classes: C names.

    Returns:
      Fractions in [0, 1]; `confusion` is `[C][C]` counts, rows the truth. UAR and macro F1 are
      means over the classes that the split contains; an absent class has recall NaN.

    Source: WAR and UAR as in section 4.2 of the UMBEnet paper.
    """
    from sklearn import metrics as skm  # scikit-learn and SciPy are slow to import

    prediction = probability.argmax(-1)
    confusion = skm.confusion_matrix(label, prediction, labels=np.arange(len(classes)))
    count = confusion.sum(1)
    recall = np.where(count > 0, confusion.diagonal() / np.maximum(count, 1), np.nan)
    seen = np.unique(label)
    f1 = {
        average: skm.f1_score(label, prediction, labels=seen, average=average, zero_division=0)
        for average in ("weighted", "macro")
    }
    return {
        "war": float((prediction == label).mean()),
        "uar": float(np.nanmean(recall)),
        "f1_weighted": float(f1["weighted"]),
        "f1_macro": float(f1["macro"]),
        **{f"recall/{name}": float(value) for name, value in zip(classes, recall, strict=True)},
        "confusion": confusion.tolist(),
    }


def classification_names(classes: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of the numbers that `classification` returns."""
    return ("war", "uar", "f1_weighted", "f1_macro", *(f"recall/{name}" for name in classes))


def sentiment(score: np.ndarray, label: np.ndarray) -> Metrics:
    """Returns the metrics of CMU-MOSI and MOSEI for scores in [-3, 3].

    Args:
      score: `[N]` predictions, not clipped.
      label: `[N]` truths.

    Returns:
      acc2_has0 and f1_has0 (`>= 0` against `>= 0`, all examples), acc2_non0 and f1_non0
      (`> 0` against `> 0`, examples of truth 0 left out), acc5, acc7 (clipped and rounded), mae
      and corr (NaN where either side is constant). F1 is weighted by the truth.

    Source: SPEC of the MCR system; section 4.1.1 of the MCR paper.
    """
    from scipy import stats
    from sklearn import metrics as skm

    score, label = np.asarray(score, np.float64), np.asarray(label, np.float64)
    kept = label != 0
    constant = np.ptp(score) == 0 or np.ptp(label) == 0
    binary = {
        "has0": (score >= 0, label >= 0),
        "non0": (score[kept] > 0, label[kept] > 0),
    }
    out = {}
    for name, (guess, truth) in binary.items():
        some = truth.size > 0
        out[f"acc2_{name}"] = float((guess == truth).mean()) if some else float("nan")
        f1 = skm.f1_score(truth, guess, average="weighted", zero_division=0) if some else np.nan
        out[f"f1_{name}"] = float(f1)
    for classes, bound in ((5, 2), (7, 3)):
        rounded = (np.rint(np.clip(x, -bound, bound)) for x in (score, label))
        out[f"acc{classes}"] = float(np.equal(*rounded).mean())
    out["mae"] = float(np.abs(score - label).mean())
    out["corr"] = float("nan") if constant else float(stats.pearsonr(score, label)[0])
    return out


def sentiment_names() -> tuple[str, ...]:
    """Returns the names of the numbers that `sentiment` returns."""
    binary = (f"{kind}_{zero}" for zero in ("has0", "non0") for kind in ("acc2", "f1"))
    return (*binary, "acc5", "acc7", "mae", "corr")


def binary_tasks(probability: np.ndarray, label: np.ndarray, tasks: Sequence[str]) -> Metrics:
    """Returns `<task>/acc` and `<task>/f1` (weighted by the truth) and their means, acc and f1.

    Args:
      probability: `[N, K]` of "yes".
      label: `[N, K]` int, 0 or 1.
      tasks: K names, as the four emotions of IEMOCAP.

    Source: section 4.1.2 of the MCR paper.
    """
    from sklearn import metrics as skm

    out = {}
    for i, name in enumerate(tasks):
        guess, truth = (probability[:, i] > 0.5).astype(int), label[:, i]
        out[f"{name}/acc"] = float((guess == truth).mean())
        out[f"{name}/f1"] = float(skm.f1_score(truth, guess, average="weighted", zero_division=0))
    for kind in ("acc", "f1"):
        out[kind] = float(np.mean([out[f"{name}/{kind}"] for name in tasks]))
    return out


def binary_task_names(tasks: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of the numbers that `binary_tasks` returns."""
    return (*(f"{name}/{kind}" for name in tasks for kind in ("acc", "f1")), "acc", "f1")


def names_of_kind(kind: str, classes: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of the numbers that labels of a kind are measured by.

    Args:
      kind: "score", "class" or "binary", see `affectjax.data.labels.LabelSpec`.
      classes: names of the classes or of the binary tasks.
    """
    if kind == "score":
        return sentiment_names()
    return classification_names(classes) if kind == "class" else binary_task_names(classes)


def line(result: Mapping[str, Any], count: int = 4) -> str:
    """Returns the first numbers of a result in a line, as "loss 0.9, war 0.6".

    Args:
      result: metrics by name, or of several seeds or folds with `mean`; None counts as NaN.
      count: how many.
    """
    named = result.get("mean", result)
    scalar = {k: v for k, v in named.items() if v is None or isinstance(v, float)}
    numbers = [(k, float("nan") if v is None else v) for k, v in scalar.items()]
    return ", ".join(f"{name} {value:.4f}" for name, value in numbers[:count])


def over_seeds(per_seed: Sequence[Metrics]) -> dict[str, Metrics]:
    """Returns `mean` and `std` (sample, n - 1; null of a single one) of each scalar metric."""
    names = [n for n, value in per_seed[0].items() if isinstance(value, float)]
    table = {n: np.array([metrics[n] for metrics in per_seed]) for n in names}
    std = lambda v: float(v.std(ddof=1)) if len(v) > 1 else float("nan")  # noqa: E731
    return {
        "mean": {n: float(v.mean()) for n, v in table.items()},
        "std": {n: std(v) for n, v in table.items()},
    }


def paired_t_test(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float]:
    """Returns t and the two-sided p of a paired t-test; NaN where all differences are equal.

    Args:
      ours: one value a seed or fold.
      theirs: the values of the other run, in the same order.

    Source: Tables 2 to 4 of the MCR paper.
    """
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    rounding = 1e-12 * np.abs([ours, theirs]).max(initial=0)
    if len(ours) < 2 or np.ptp(ours - theirs) <= rounding:
        return float("nan"), float("nan")
    from scipy import stats

    result = stats.ttest_rel(ours, theirs)
    return float(result.statistic), float(result.pvalue)
