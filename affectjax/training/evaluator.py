"""The one evaluation loop: predictions of a whole split, its metrics, tables and missing.json.

Letters: S seeds, N examples, B batch, M modalities.
"""

import csv
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from affectjax import metrics
from affectjax.data.batches import missing, open_datasets, saved_inputs
from affectjax.data.batches.dataset import Dataset
from affectjax.data.batches.inputs import Inputs
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES
from affectjax.runtime import checkpoints, configs, parallel, steps
from affectjax.runtime.parallel import Engine
from affectjax.runtime.workdir import Workdir, write_json
from affectjax.tasks import base
from affectjax.training import folds, intervals, run_config
from affectjax.training.device_data import EvaluationData
from affectjax.training.run_checkpoints import best_of

Model = dict[str, Any]
Predictions = dict[str, np.ndarray]
Predict = Callable[[Any, Any, Any], Any]


class Predictor:
    """Runs a function over whole parts with several models at once; compiled once for all parts."""

    def __init__(self, function: Predict, modalities: Sequence[str], engine: Engine):
        """Compiles nothing yet.

        Args:
          function: `(params, variables, batch) -> tree of [B, ...]`.
          modalities: those that it reads.
          engine: the devices of the S models.
        """
        self.modalities, self.engine = tuple(modalities), engine
        axes, models = (None, None, None, 0), (0, 0, None, None)
        self._run = engine.compile(steps.predict_batch(function), axes, models=models)

    def __call__(
        self, model: Model, batches: EvaluationData, present: Sequence[str] | None = None
    ) -> Predictions:
        """Returns what the function gives `[S, N, ...]`, in the part's order.

        Args:
          model: `params` and `variables`, replicated, with an axis of seeds.
          batches: of the part.
          present: the modalities to show, None for all that an example has.
        """
        shown = self.modalities if present is None else present
        keep = self.engine.replicate({m: np.bool_(m in shown) for m in self.modalities})
        run = functools.partial(self._run, model["params"], model["variables"], keep)
        chunks = self.engine.fetch([run(batch) for batch in batches])
        whole = jax.tree.map(lambda *xs: np.concatenate(xs, axis=1), *chunks)
        valid = batches.rows.reshape(-1) >= 0
        return jax.tree.map(lambda value: value[:, valid], whole)


class Evaluator:
    """Measures models on the parts of a run's data sets; each part is placed once."""

    def __init__(
        self,
        task: base.Task,
        datasets: Mapping[str, Dataset],
        engine: Engine,
        seeds: Sequence[int],
        batch: int,
    ):
        """Compiles nothing yet.

        Args:
          task: has a scorer of each data set.
          datasets: by name.
          engine: the devices.
          seeds: of the S models.
          batch: examples at once, over all devices.
        """
        self.task, self.datasets, self.engine = task, datasets, engine
        self.seeds, self.batch = seeds, batch
        self._batches: dict[tuple[str, str], EvaluationData] = {}
        self._predictors: dict[str, Predictor] = {}

    def batches(self, name: str, role: str) -> EvaluationData:
        """Returns the batches of a part; that of validation is kept."""
        if (name, role) in self._batches:
            return self._batches[name, role]
        dataset = self.datasets[name]
        found = EvaluationData(dataset, dataset.part(role), self.engine, self.batch)
        if role == "valid":
            self._batches[name, role] = found
        return found

    def __call__(self, model: Model, names: Sequence[str]) -> list[metrics.Metrics]:
        """Returns the metrics of each model on the validation parts of data sets.

        Args:
          model: `params` and `variables`, replicated, with an axis of seeds.
          names: of the data sets.

        Returns:
          S dicts; of unpaired data sets see `merge_data_sets`.
        """
        measured = {
            name: self._score(name, model, self.batches(name, "valid"))[0] for name in names
        }
        return [
            merge_data_sets({n: own[s] for n, own in measured.items()})
            for s in range(len(self.seeds))
        ]

    def _score(
        self, name: str, model: Model, batches: EvaluationData, present: Sequence[str] | None = None
    ) -> tuple[list[metrics.Metrics], Predictions]:
        """Returns the metrics of each seed on a part, and the predictions `[S, N, ...]`."""
        scorer = base.scorer(self.task, name)
        if name not in self._predictors:
            self._predictors[name] = Predictor(scorer.predict, scorer.modalities, self.engine)
        predictions = self._predictors[name](model, batches, present)
        label = batches.dataset.labels(batches.part)
        return [scorer.metrics(own, label) for own in _of_each(predictions)], predictions

    def write_results(
        self, workdir: Workdir, model: Model, names: Sequence[str], split: str, stem: str = ""
    ) -> dict[str, Any]:
        """Writes eval/<split>.json, the csv files and eval/missing.json; returns the metrics.

        Args:
          workdir: where.
          model: `params` and `variables`, replicated, with an axis of seeds.
          names: of the data sets.
          split: of the data that is read: "train", "valid" or "test".
          stem: of the files; the split by default.
        """
        stem, folder = stem or split, workdir.path / "eval"
        measured: dict[str, list[metrics.Metrics]] = {}
        averaged, values = {}, {}
        for name in names:
            batches, scorer = self.batches(name, split), base.scorer(self.task, name)
            measured[name], predictions = self._score(name, model, batches)
            averaged[name], values[name] = _over_examples(scorer, batches, predictions)
            if jax.process_index() == 0:
                _write_tables(folder / name, stem, scorer, batches, predictions, self.seeds)
        per_seed = [
            merge_data_sets({n: own[s] for n, own in measured.items()})
            for s in range(len(self.seeds))
        ]
        more = {"ensemble": merge_data_sets(averaged)} if len(self.seeds) > 1 else {}
        more["interval"] = intervals.ends(merge_data_sets(values))
        result = combine_seeds(per_seed, self.seeds) | more
        fewer = self._subsets(model, split) if base.MAIN in names and stem == "test" else {}
        if jax.process_index() == 0:
            write_json(folder / f"{stem}.json", result)
            if fewer:
                write_json(folder / "missing.json", {"split": split, "subsets": fewer})
        return result

    def _subsets(self, model: Model, split: str) -> dict[str, Any]:
        """Returns the metrics for each non-empty subset of the modalities; {} for a single one."""
        modalities = self.task.modalities
        if len(modalities) == 1:
            return {}
        batches = self.batches(base.MAIN, split)
        return {
            "+".join(shown): combine_seeds(
                self._score(base.MAIN, model, batches, shown)[0], self.seeds
            )
            for shown in missing.subsets(modalities)
        }

    def stage_ends(self, model: Model, folder: Path) -> list[base.StageEnd]:
        """Returns what the end of a stage may ask for, one for each model.

        What is asked of a part is run once for all models.

        Args:
          model: `params` and `variables`, replicated, with an axis of seeds.
          folder: of the run; several models have folders of their own in it.
        """
        found: dict[Any, Any] = {}
        placed: dict[Any, EvaluationData] = {}

        def run(s: int, function: Predict, name: str, role: str) -> tuple[Any, list, np.ndarray]:
            if (name, role) not in placed:
                placed[name, role] = self.batches(name, role)
            batches = placed[name, role]
            if (function, name, role) not in found:
                seen = base.scorer(self.task, name).modalities
                predictor = Predictor(function, seen, self.engine)
                found[function, name, role] = predictor(model, batches)
            own = jax.tree.map(lambda x: x[s], found[function, name, role])
            return own, batches.dataset.ids(batches.part), batches.dataset.labels(batches.part)

        several = len(self.seeds) > 1
        return [
            base.StageEnd(
                seed, folder / str(seed) if several else folder, functools.partial(run, s)
            )
            for s, seed in enumerate(self.seeds)
        ]

    def metric_names(self, stage: base.Stage) -> tuple[str, ...]:
        """Returns the names of the metrics that a stage may select by."""
        named = {n: base.scorer(self.task, n).metric_names() for n in stage.data_sets}
        return tuple(merge_data_sets({n: dict.fromkeys(own, 0.0) for n, own in named.items()}))


def merge_data_sets(per_set: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the metrics of one model on several data sets as one.

    Args:
      per_set: by data set; numbers, or `[R]` of resampled examples.

    Returns:
      Those of `MAIN` as they are; of unpaired ones by "<name>/<metric>", and the mean of those
      numbers that all of them have by "<metric>".
    """
    if base.MAIN in per_set:
        return dict(per_set[base.MAIN])
    # In the order of MODALITIES: sums in another order differ in their last digits.
    per_set = {m: per_set[m] for m in MODALITIES if m in per_set}
    named = {f"{name}/{k}": v for name, own in per_set.items() for k, v in own.items()}
    shared = [
        k
        for k, value in next(iter(per_set.values())).items()
        if isinstance(value, float | np.ndarray) and all(k in own for own in per_set.values())
    ]
    means = {k: np.mean([own[k] for own in per_set.values()], axis=0) for k in shared}
    return {k: v if v.ndim else float(v) for k, v in means.items()} | named


def combine_seeds(per_seed: Sequence[metrics.Metrics], seeds: Sequence[int]) -> dict[str, Any]:
    """Returns metrics by name; of several seeds `mean`, `std` and `per_seed`."""
    if len(seeds) == 1:
        return dict(per_seed[0])
    by_seed = {str(seed): m for seed, m in zip(seeds, per_seed, strict=True)}
    return {**metrics.over_seeds(per_seed), "per_seed": by_seed}


def _over_examples(
    scorer: base.Scorer, batches: EvaluationData, predictions: Predictions
) -> tuple[metrics.Metrics, dict[str, np.ndarray]]:
    """Returns the metrics of the mean prediction, and the main ones of resampled examples.

    Args:
      scorer: of the data set.
      batches: of the part.
      predictions: `[S, N, ...]`. The loss of their mean is not known here, and left out.
    """
    dataset, part = batches.dataset, batches.part
    label, groups = dataset.labels(part), dataset.groups(part)
    said = [base.answers(scorer, own, label) for own in _of_each(predictions)]
    return base.measure(scorer, _mean(predictions), label), intervals.resampled(said, groups)


def _of_each(predictions: Predictions) -> list[Predictions]:
    """Returns the predictions of each model, `[N, ...]`, of those of all, `[S, N, ...]`."""
    return [{k: v[s] for k, v in predictions.items()} for s in range(len(predictions["loss"]))]


def _mean(predictions: Predictions) -> Predictions:
    """Returns the mean prediction `[N, ...]` of the models."""
    return {name: value.mean(0) for name, value in predictions.items()}


def _write_tables(
    folder: Path,
    split: str,
    scorer: base.Scorer,
    batches: EvaluationData,
    predictions: Predictions,
    seeds: Sequence[int],
) -> None:
    """Writes <split>.csv (of several seeds: their mean prediction), and one a seed in seeds/."""
    dataset, part = batches.dataset, batches.part
    ids, labels = dataset.ids(part), dataset.labels(part)
    _write_csv(folder / f"{split}.csv", scorer, ids, labels, _mean(predictions))
    if len(seeds) > 1:
        for seed, own in zip(seeds, _of_each(predictions), strict=True):
            _write_csv(folder / "seeds" / str(seed) / f"{split}.csv", scorer, ids, labels, own)


def _write_csv(
    path: Path, scorer: base.Scorer, ids: Sequence[str], labels: np.ndarray, own: Predictions
) -> None:
    """Writes one row an example: id, label, prediction, and a column a class."""
    columns = scorer.table(own)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "label", *columns])
        for row, name in enumerate(ids):
            values = [_cell(column[row]) for column in columns.values()]
            writer.writerow([name, _label(scorer.spec, labels[row]), *values])


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, np.floating) else str(value)


def _label(spec: Any, label: Any) -> str:
    """Returns a label in the words of its data set."""
    if spec.kind == "score":
        return f"{label:.6g}"
    if spec.kind == "class":
        return spec.classes[int(label)]
    return "+".join(n for n, yes in zip(spec.classes, label, strict=True) if yes) or "none"


def open_run(
    path: str | Path, overrides: Mapping[str, Any]
) -> tuple[Workdir, dict[str, Any], dict[str, Dataset], base.Task, Engine]:
    """Returns what a finished workdir needs to predict again; the data sets by name.

    Args:
      path: the workdir.
      overrides: config values by dotted name, which win over those of the run; only `data.` and
        `parallel.` may differ.

    Raises:
      InputError: no workdir, an override that would make it another model, or data whose classes
        are not the run's.
    """
    workdir = Workdir(path)
    config = workdir.config()
    config = run_config.override(config, overrides)
    parallel_config = run_config.join(config)
    data, wanted = run_config.data_sets(config), base.evaluated_data_sets(config)
    inputs = {name: saved_inputs.load(workdir.path, name) for name in wanted}
    split = config["data"]["split"]
    datasets = open_datasets.open_all({name: data[name] for name in wanted}, inputs, (split,))
    task = base.build(config, {n: d.inputs for n, d in datasets.items()}, parallel.AXIS)
    engine = parallel.engine(parallel_config, len(configs.seeds(config)))
    return workdir, config, datasets, task, engine


def evaluate(path: str | Path, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Evaluates the best models of a workdir on `config.data.split`; returns the metrics.

    Args:
      path: the workdir.
      overrides: see `open_run`.

    Raises:
      InputError: see `open_run`, or nothing is trained there yet.
    """
    config = Workdir(path).config()
    if folds.fold_names(config):
        run_config.join(run_config.override(config, overrides or {}))
        again = lambda _, folder: evaluate(folder, overrides)  # noqa: E731
        return folds.run_each(config, path, again, stem(config, overrides or {}))
    workdir, config, datasets, task, engine = open_run(path, overrides or {})
    seeds = configs.seeds(config)
    model = load_best(workdir, task, {n: d.inputs for n, d in datasets.items()}, seeds)
    split, size = config["data"]["split"], config["train"]["eval_batch_size"]
    evaluator = Evaluator(task, datasets, engine, seeds, size)
    name = stem(workdir.config(), overrides or {})
    model = engine.replicate(model, models=True)
    result = evaluator.write_results(workdir, model, tuple(datasets), split, name)
    logging.info("%s: %s", split, workdir.path / "eval" / f"{name}.json")
    return result


def stem(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> str:
    """Returns the stem of the files of an evaluation: the split, of another data set its name too.

    So what a run is on other data does not take the place of what it is on its own.
    """
    own = config["data"]
    split, name = (overrides.get(f"data.{key}", own.get(key)) for key in ("split", "name"))
    return split if name == own.get("name") else f"{name}_{split}"


def load_best(
    workdir: Workdir, task: base.Task, inputs: Mapping[str, Inputs], seeds: Sequence[int]
) -> Model:
    """Returns `params` and `variables` of the best epochs, host side, with an axis of seeds.

    Args:
      workdir: of the run.
      task: of its config.
      inputs: by name, of the data sets that its last stage reads.
      seeds: of the models.

    Raises:
      InputError: no checkpoint is there.
    """
    found = best_of(workdir.path)
    if found is None:
        raise InputError(f"{workdir.path} has no trained model: checkpoints/best is empty")
    saved = {"variables": {}, **found}
    batch = base.zeros(inputs, tuple(inputs))
    shapes = jax.eval_shape(lambda key: task.stages[-1].init(key, batch), jax.random.key(0))
    stack = lambda x: np.zeros((len(seeds), *x.shape), x.dtype)  # noqa: E731
    params, variables = jax.tree.map(stack, shapes)
    checkpoints.check({"params": params, "variables": variables}, checkpoints.flatten(saved))
    return saved
