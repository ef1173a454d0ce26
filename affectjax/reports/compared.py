"""Two runs on the same examples: what the difference is worth where there are no seeds to pair.

Letters: N examples, R resamples.
"""

from pathlib import Path

import numpy as np

from affectjax.reports.html import Table
from affectjax.reports.run_page import predictions
from affectjax.training import intervals


def examples(workdir: str | Path, against: str | Path, split: str) -> Table | None:
    """Returns the difference of two runs over the examples that both predicted.

    Of classes: the share that is right, with McNemar's exact test; of scores: the mean absolute
    error. The interval is the bootstrap's, over examples. None where they share fewer than two
    examples, or their labels.

    Args:
      workdir: of a run; of several seeds their mean prediction counts.
      against: of the other.
      split: as in eval/<split>.csv.

    Source: McNemar 1947, "Note on the sampling error of the difference between correlated
    proportions or percentages"; Dietterich 1998, section 3.1.
    """
    ours, theirs = ({row["id"]: row for row in predictions(w, split)} for w in (workdir, against))
    shared = [name for name in ours if name in theirs]
    if len(shared) < 2 or any(ours[n].get("label") != theirs[n].get("label") for n in shared):
        return None
    pairs = [(ours[name], theirs[name]) for name in shared]
    if set(pairs[0][0]) == {"id", "label", "prediction"}:
        a, b = (
            np.array([abs(float(p[i]["label"]) - float(p[i]["prediction"])) for p in pairs])
            for i in (0, 1)
        )
        what, p = "mean absolute error", None
    else:
        a, b = (np.array([p[i]["label"] == p[i]["prediction"] for p in pairs]) for i in (0, 1))
        what, p = "share right", mcnemar(a, b)
    a, b = a.astype(np.float64), b.astype(np.float64)
    low, high = difference(a, b)
    head = ("over examples", str(workdir), str(against), "difference", "95 % interval", "p")
    cells = (f"{a.mean():.4f}", f"{b.mean():.4f}", f"{(a - b).mean():+.4f}")
    row = (what, *cells, f"{low:+.4f} to {high:+.4f}", "-" if p is None else f"{p:.4f}")
    test = "; p of McNemar's exact test" if p is not None else ""
    return Table(f"{split}, {len(shared)} examples that both predicted{test}", head, [row])


def mcnemar(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Returns the two-sided exact p of McNemar's test; 1 where the runs never differ.

    Args:
      ours: `[N]` bool, whether the one is right.
      theirs: `[N]` bool, whether the other is.
    """
    from scipy import stats  # slow, and few calls need it

    one, other = int((ours & ~theirs).sum()), int((~ours & theirs).sum())
    return float(stats.binomtest(one, one + other).pvalue) if one + other else 1.0


def difference(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """Returns the ends of the 95 % interval of the mean difference `[N]`, by the bootstrap."""
    rng = np.random.default_rng(intervals.SEED)
    count = len(ours)
    times = rng.multinomial(count, np.full(count, 1 / count), intervals.RESAMPLES)
    low, high = np.percentile(times @ (ours - theirs) / count, intervals.ENDS)
    return float(low), float(high)
