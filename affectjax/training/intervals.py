"""Intervals of metrics over a split, by the bootstrap over its videos or speakers.

Examples of one video or speaker are alike: a resample draws whole groups, with replacement, and
every seed is measured on the same ones. Each metric here is a function of sums over examples, so a
resample weighs the sums of the groups, and nothing is computed again.

Source: Efron and Tibshirani 1993, sections 13.3 and 8.3: percentiles, and what is to be resampled.
Letters: N examples, G groups, R resamples, C classes, F sums.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from affectjax import metrics
from affectjax.metrics import Answers

RESAMPLES, SEED = 1000, 0
# Percentiles between which 95 % of the resamples lie.
ENDS = (2.5, 97.5)


def resampled(
    per_seed: Sequence[Mapping[str, Answers]], groups: Sequence[str]
) -> dict[str, np.ndarray]:
    """Returns by name `[R]` the main metrics of `metrics.MAIN`, their means over the seeds.

    Args:
      per_seed: of each model on the same examples, see `affectjax.tasks.base.answers`.
      groups: N names, the video or speaker of each example. Of one group alone nothing is known of
        others: there are no metrics then.
    """
    names, group = np.unique(groups, return_inverse=True)
    size = len(names)
    if size < 2 or not per_seed:
        return {}
    rng = np.random.default_rng(SEED)
    times = rng.multinomial(size, np.full(size, 1 / size), RESAMPLES).astype(np.float64)
    found = {}
    for prefix in per_seed[0]:
        each = [measured(own[prefix], group, times) for own in per_seed]
        found |= {f"{prefix}{name}": np.mean([own[name] for own in each], 0) for name in each[0]}
    return found


def ends(values: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    """Returns by name the low and the high end that 95 % of the resamples lie between.

    Args:
      values: by name `[R]`; resamples in which a metric does not exist are NaN and left out.
    """
    found = {}
    for name, own in values.items():
        there = own[~np.isnan(own)]
        low, high = np.percentile(there, ENDS) if len(there) else (np.nan, np.nan)
        found[name] = [float(low), float(high)]
    return found


def measured(answers: Answers, group: np.ndarray, times: np.ndarray) -> dict[str, np.ndarray]:
    """Returns by name `[R]` the main metrics of each resample.

    Args:
      answers: of all examples or of some.
      group: `[N]` int, of all examples.
      times: `[R, G]`, how often each resample has drawn each group.
    """
    own = group if answers.rows is None else group[answers.rows]
    totals = _Totals(own, times)
    with np.errstate(invalid="ignore", divide="ignore"):  # NaN where there is nothing to divide by
        if answers.kind == "score":
            found = _scores(answers, totals)
        elif answers.kind == "class":
            found = _of_confusion(
                totals.confusion(answers.prediction.argmax(-1), answers.label, len(answers.classes))
            )
        else:
            found = _binary(answers, totals)
    return {name: found[name] for name in metrics.MAIN[answers.kind]}


class _Totals:
    """Sums over the examples of each resample."""

    def __init__(self, group: np.ndarray, times: np.ndarray):
        self._group, self._times = group, times

    def only(self, rows: np.ndarray) -> "_Totals":
        """Returns those of some of the examples."""
        return _Totals(self._group[rows], self._times)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Returns `[R]`, the sums of `values` `[N]`."""
        size = self._times.shape[1]
        return self._times @ np.bincount(self._group, values, size)

    def confusion(self, guess: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
        """Returns `[R, C, C]` counts, rows the truth, of `guess` and `truth` `[N]` int."""
        size = self._times.shape[1]
        cell = (self._group * classes + truth) * classes + guess
        counts = np.bincount(cell, minlength=size * classes**2).reshape(size, -1)
        return (self._times @ counts).reshape(-1, classes, classes)


def _of_confusion(count: np.ndarray) -> dict[str, np.ndarray]:
    """Returns war, uar, f1_weighted and f1_macro, `[R]` each, of counts `[R, C, C]`."""
    right = np.diagonal(count, axis1=1, axis2=2)
    true, said = count.sum(2), count.sum(1)
    there = true > 0
    mean = lambda x: np.where(there, x, 0).sum(1) / there.sum(1)  # noqa: E731
    f1 = 2 * right / (true + said)
    return {
        "war": right.sum(1) / true.sum(1),
        "uar": mean(right / true),
        "f1_weighted": np.where(there, f1 * true, 0).sum(1) / true.sum(1),
        "f1_macro": mean(f1),
    }


def _scores(answers: Answers, totals: _Totals) -> dict[str, np.ndarray]:
    x, y = (np.asarray(v, np.float64) for v in (answers.prediction, answers.label))
    found, count = {}, totals(np.ones(len(y)))
    kept = np.flatnonzero(y != 0)
    sides = {
        "has0": (totals, x >= 0, y >= 0),
        "non0": (totals.only(kept), x[kept] > 0, y[kept] > 0),
    }
    for name, (own, guess, truth) in sides.items():
        binary = _of_confusion(own.confusion(guess.astype(int), truth.astype(int), 2))
        found |= {f"acc2_{name}": binary["war"], f"f1_{name}": binary["f1_weighted"]}
    rounded = (np.rint(np.clip(v, -3, 3)) for v in (x, y))
    found["acc7"] = totals(np.equal(*rounded)) / count
    found["mae"] = totals(np.abs(x - y)) / count
    # About their means over the split: sums of squares of numbers far from zero lose digits.
    x, y = x - x.mean(), y - y.mean()
    mean = {k: totals(v) / count for k, v in (("x", x), ("y", y), ("xy", x * y))}
    spread = (totals(v * v) / count - mean[k] ** 2 for k, v in (("x", x), ("y", y)))
    found["corr"] = (mean["xy"] - mean["x"] * mean["y"]) / np.sqrt(np.prod([*spread], axis=0))
    return found


def _binary(answers: Answers, totals: _Totals) -> dict[str, np.ndarray]:
    each = [
        _of_confusion(totals.confusion((said > 0.5).astype(int), truth, 2))
        for said, truth in zip(answers.prediction.T, answers.label.T, strict=True)
    ]
    means = {"acc": "war", "f1": "f1_weighted"}
    return {name: np.mean([own[key] for own in each], axis=0) for name, key in means.items()}
