"""How a run stands against simple baselines, which see what its model sees: eval/baselines.json.

The majority class (of scores their mean), and a linear model on each modality alone and on all
together. They are learned from the training part and measured as the model is.

Letters: N examples.
"""

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from affectjax import metrics
from affectjax.data.batches.dataset import Dataset, Part
from affectjax.data.batches.splits import share
from affectjax.modalities import MODALITIES
from affectjax.runtime.workdir import write_json
from affectjax.tasks import base
from affectjax.training import linear, pooling

FILE = "baselines.json"
# Training examples that linear models see, about: of each class the same share.
MOST = 4096
SPLITS = ("valid", "test")
MODEL, LINEAR = "model", "linear, "

Result = dict[str, Any]


# ---- made ---------------------------------------------------------------------------------------


def write(
    workdir: Path, task: base.Task, datasets: Mapping[str, Dataset], names: Sequence[str]
) -> None:
    """Writes eval/baselines.json: of the main data set, or of each unpaired one in `sources`.

    Args:
      workdir: of the run.
      task: has a scorer of each data set.
      datasets: by name.
      names: of those that the model was evaluated on.
    """
    start = time.monotonic()
    found = {name: of_data_set(base.scorer(task, name), datasets[name]) for name in names}
    whole = found.get(base.MAIN, {"sources": found})
    write_json(workdir / "eval" / FILE, whole)
    logging.info("simple baselines: %.1f s", time.monotonic() - start)


def of_data_set(scorer: base.Scorer, dataset: Dataset) -> Result:
    """Returns `metrics`, the names that a run is judged by first, and `baselines` by name.

    Each has its metrics by split, the `examples` that it learned from and, of a linear model, of
    how many `groups`, videos or speakers, these are, the number of its `features`, and its
    `penalty`.

    Args:
      scorer: says what the model sees, and measures.
      dataset: with a training part, a validation and a test split.
    """
    spec, train = scorer.spec, dataset.part("train")
    label = dataset.labels(train)
    parts = {split: dataset.part(split) for split in SPLITS}
    truth = {split: dataset.labels(part) for split, part in parts.items()}

    def measure(said: Mapping[str, np.ndarray]) -> Result:
        key = "score" if spec.kind == "score" else "probability"
        return {s: base.measure(scorer, {key: said[s]}, truth[s]) for s in SPLITS}

    always = {split: linear.constant(spec, label, len(part)) for split, part in parts.items()}
    found = {
        "mean score" if spec.kind == "score" else "majority": {
            "examples": len(train),
            **measure(always),
        }
    }
    if len(train) > MOST:
        train = train.only(share(label, MOST / len(train), linear.SEED))
        label = dataset.labels(train)
    groups = dataset.groups(train)
    choose = functools.partial(linear.choose, spec, label=label, groups=groups)
    chosen = _columns(dataset, {"train": train, **parts}, scorer.modalities, choose)
    for name, (columns, penalty) in chosen.items():
        x = columns.pop("train")
        found[f"{LINEAR}{name}"] = {
            "examples": len(train),
            "groups": len(set(groups)),
            "features": x.shape[1],
            "penalty": penalty,
            **measure(linear.predict(spec, x, label, penalty, columns)),
        }
    return {"metrics": _judged_by(scorer, always["test"], truth["test"]), "baselines": found}


def _columns(
    dataset: Dataset,
    parts: Mapping[str, Part],
    modalities: Sequence[str],
    choose: Callable[[np.ndarray], tuple[float, float]],
) -> dict[str, tuple[dict[str, np.ndarray], float]]:
    """Returns by name, a modality or "all", the columns of each part `[N, F]`, and the penalty.

    Args:
      dataset: of the parts.
      parts: by name, "train" among them.
      modalities: those that the model sees.
      choose: see `linear.choose`: of the forms of a modality the one with the least loss counts.
    """
    pooled = {name: pooling.pool(dataset, part, modalities) for name, part in parts.items()}
    found: dict[str, tuple[dict[str, np.ndarray], float]] = {}
    for m in modalities:
        least = np.inf
        for form in pooling.forms(dataset.inputs.kinds[m], pooled["train"][m].shape[1]):
            scaler = linear.Scaler(pooled["train"][m][:, form])
            scaled = {name: scaler(own[m][:, form]) for name, own in pooled.items()}
            penalty, loss = choose(scaled["train"])
            if m not in found or loss < least:
                found[m], least = (scaled, penalty), loss
    if len(modalities) > 1:
        both = {
            name: np.concatenate([found[m][0][name] for m in modalities], axis=1) for name in parts
        }
        found["all"] = both, choose(both["train"])[0]
    return found


def _judged_by(scorer: base.Scorer, said: np.ndarray, label: np.ndarray) -> list[str]:
    """Returns the names of `metrics.MAIN` as the scorer has them: of its own labels first."""
    key = "score" if scorer.spec.kind == "score" else "probability"
    prefix, first = next(iter(base.answers(scorer, {key: said}, label).items()))
    return [f"{prefix}{name}" for name in metrics.MAIN[first.kind]]


# ---- read ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Standing:
    """How the model of a run stands on one data set.

    Attributes:
      of: the name of an unpaired data set, "" of the main one.
      names: of metrics, the one that it is said in first.
      rows: by "model" and the names of the baselines, the metrics by name; of several seeds or
        folds their means; None for NaN.
      interval: of the model's metrics, by name.
    """

    of: str
    names: tuple[str, ...]
    rows: dict[str, dict[str, float | None]]
    interval: dict[str, list[float | None]]

    @property
    def verdict(self) -> str:
        """Returns in words whether the model is below the best linear baseline; "" if it is not."""
        name = self.names[0]
        best = max((row for row in self.rows if row.startswith(LINEAR)), key=self._value)
        if self._value(MODEL) >= self._value(best):
            return ""
        where = f" of {self.of}" if self.of else ""
        return (
            f"the model{where} is below its best linear baseline: {name} "
            f"{number(self.rows[MODEL][name])}, and {best} has {number(self.rows[best][name])}"
        )

    def _value(self, row: str) -> float:
        value = self.rows[row][self.names[0]]
        return -np.inf if value is None else value

    def lines(self) -> list[str]:
        """Returns what a run says when it ends: the first metric of each row, and the verdict."""
        name = self.names[0]
        wide = max(map(len, self.rows))
        said = [f"{row.ljust(wide)}  {number(own[name])}" for row, own in self.rows.items()]
        said[0] += ends(self.interval.get(name))
        title = f"{name} of {self.of} on the test split:" if self.of else f"{name} on test:"
        return [title, *(f"  {line}" for line in said), *filter(None, [self.verdict])]


def number(value: float | None) -> str:
    """Returns a metric with four digits; "-" for none."""
    return "-" if value is None or np.isnan(value) else f"{value:.4f}"


def ends(interval: Sequence[float | None] | None) -> str:
    """Returns an interval as it stands behind its metric, as in " [0.51, 0.62]"; "" for none."""
    if interval is None or None in interval:
        return ""
    return " [{:.4f}, {:.4f}]".format(*interval)


def standings(workdir: str | Path, split: str = "test") -> list[Standing]:
    """Returns how a run stands on each of its data sets; [] where it has no baselines.

    Args:
      workdir: of a finished run.
      split: "valid" or "test".
    """
    folder = Path(workdir) / "eval"
    if split not in SPLITS or not (folder / FILE).is_file():
        return []
    content = json.loads((folder / FILE).read_text())
    result = json.loads((folder / f"{split}.json").read_text())
    sources = content.get("sources", {})
    sets = {m: sources[m] for m in MODALITIES if m in sources} or {base.MAIN: content}
    return [_standing(name, own, result, split) for name, own in sets.items()]


def _standing(of: str, content: Result, result: Result, split: str) -> Standing:
    names, before = tuple(content["metrics"]), f"{of}/" if of else ""
    own = result.get("mean", result)
    interval = result.get("interval", {})
    rows = {MODEL: {name: own.get(f"{before}{name}") for name in names}}
    for name, found in content["baselines"].items():
        values = found[split].get("mean", found[split])
        rows[name] = {metric: values.get(metric) for metric in names}
    known = {name: interval[f"{before}{name}"] for name in names if f"{before}{name}" in interval}
    return Standing(of, names, rows, known)
