"""The one evaluation loop: predictions of a whole split, its metrics, tables and missing.json.

Letters: S seeds, N examples, B batch, M modalities.
"""

import csv
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from affectjax import folds, metrics
from affectjax.data import described, missing
from affectjax.data.inputs import Inputs
from affectjax.data.pipeline import DataConfig, Dataset
from affectjax.errors import InputError
from affectjax.feeds import Batches
from affectjax.runtime import checkpoints, configs, parallel, steps
from affectjax.runtime.parallel import Engine, ParallelConfig
from affectjax.runtime.workdir import Workdir, write_json
from affectjax.store import Store
from affectjax.tasks import base

Model = dict[str, Any]
Predictions = dict[str, np.ndarray]


class Predictor:
    """Predicts whole parts with several models at once; compiled once for all parts."""

    def __init__(self, task: base.Task, engine: Engine, seeds: int):
        self.task, self.engine, self.seeds = task, engine, seeds
        models = parallel.over_seeds(steps.predict_batch(task.predict), seeds, (0, 0, None, None))
        self._run = engine.compile(models, (None, None, None, 0))

    def __call__(
        self, model: Model, batches: Batches, present: Sequence[str] | None = None
    ) -> Predictions:
        """Returns predictions `[S, N, ...]` by name, in the part's order.

        Args:
          model: `params` and `variables`, replicated, with an axis of seeds.
          batches: of the part.
          present: the modalities to show, None for all that an example has.
        """
        shown = self.task.modalities if present is None else present
        keep = self.engine.replicate({m: np.bool_(m in shown) for m in self.task.modalities})
        run = functools.partial(self._run, model["params"], model["variables"], keep)
        chunks = self.engine.fetch([run(batch) for batch in batches])
        whole = jax.tree.map(lambda *xs: np.concatenate(xs, axis=1), *chunks)
        valid = batches.rows.reshape(-1) >= 0
        return {name: value[:, valid] for name, value in whole.items()}


def summarize(per_seed: Sequence[metrics.Metrics], seeds: Sequence[int]) -> dict[str, Any]:
    """Returns metrics by name; of several seeds `mean`, `std` and `per_seed`."""
    if len(seeds) == 1:
        return dict(per_seed[0])
    by_seed = {str(seed): m for seed, m in zip(seeds, per_seed, strict=True)}
    return {**metrics.over_seeds(per_seed), "per_seed": by_seed}


def evaluate_part(
    predictor: Predictor, model: Model, batches: Batches, present: Sequence[str] | None = None
) -> tuple[list[metrics.Metrics], Predictions]:
    """Returns the metrics of each seed, and the predictions `[S, N, ...]`."""
    predictions = predictor(model, batches, present)
    label = batches.dataset.labels(batches.part)
    per_seed = [
        predictor.task.metrics({k: v[s] for k, v in predictions.items()}, label)
        for s in range(predictor.seeds)
    ]
    return per_seed, predictions


def final_evaluation(
    workdir: Workdir,
    predictor: Predictor,
    model: Model,
    batches: Batches,
    split: str,
    seeds: Sequence[int],
) -> dict[str, Any]:
    """Writes eval/<split>.json, the csv files and eval/missing.json; returns the metrics.

    Args:
      workdir: where.
      predictor: of the task.
      model: `params` and `variables`, replicated, with an axis of seeds.
      batches: of the split.
      split: its name in the file names.
      seeds: of the models.
    """
    per_seed, predictions = evaluate_part(predictor, model, batches)
    result = summarize(per_seed, seeds)
    modalities = predictor.task.modalities
    fewer = {}
    if len(modalities) > 1 and split == "test":
        for shown in missing.subsets(modalities):
            metrics_shown, _ = evaluate_part(predictor, model, batches, shown)
            fewer["+".join(shown)] = summarize(metrics_shown, seeds)
    if jax.process_index() == 0:
        folder = workdir.path / "eval"
        write_json(folder / f"{split}.json", result)
        if fewer:
            write_json(folder / "missing.json", {"split": split, "subsets": fewer})
        _write_tables(folder, split, predictor.task, batches, predictions, seeds)
    return result


def _write_tables(
    folder: Path,
    split: str,
    task: base.Task,
    batches: Batches,
    predictions: Predictions,
    seeds: Sequence[int],
) -> None:
    """Writes <split>.csv (of several seeds: their mean prediction), and one a seed in seeds/."""
    dataset, part = batches.dataset, batches.part
    ids, labels = dataset.ids(part), dataset.labels(part)
    mean = {name: value.mean(0) for name, value in predictions.items()}
    _write_csv(folder / f"{split}.csv", task, ids, labels, mean)
    if len(seeds) > 1:
        for s, seed in enumerate(seeds):
            own = {name: value[s] for name, value in predictions.items()}
            _write_csv(folder / "seeds" / str(seed) / f"{split}.csv", task, ids, labels, own)


def _write_csv(
    path: Path, task: base.Task, ids: Sequence[str], labels: np.ndarray, own: Predictions
) -> None:
    """Writes one row an example: id, label, prediction, and a column a class."""
    columns = task.table(own)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "label", *columns])
        for row, name in enumerate(ids):
            values = [_cell(column[row]) for column in columns.values()]
            writer.writerow([name, _label(task.spec, labels[row]), *values])


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
) -> tuple[Workdir, dict[str, Any], Dataset, base.Task, Engine]:
    """Returns what a finished workdir needs to predict again.

    Args:
      path: the workdir.
      overrides: config values by dotted name, which win over those of the run; only `data.` and
        `parallel.` may differ.

    Raises:
      InputError: no workdir, or an override that would make it another model.
    """
    workdir = Workdir(path)
    config = workdir.config()
    for key, value in overrides.items():
        _override(config, key, value)
    configs.check_top_level(config)
    parallel_config = configs.read(ParallelConfig, config["parallel"], "config.parallel")
    parallel.initialize(parallel_config)
    data = configs.read(DataConfig, config["data"], "config.data")
    inputs = described.load(workdir.path)
    dataset = Dataset(data, inputs.statistics, inputs.tokenizer)
    task = base.find(config).Task(config, dataset.inputs, parallel.AXIS)
    return workdir, config, dataset, task, Engine(parallel_config.engine)


def _override(config: dict[str, Any], key: str, value: Any) -> None:
    """Sets one dotted key of a saved config."""
    *sections, last = key.split(".")
    if key not in configs.flatten(config):
        configs.check_keys([key], configs.flatten(config), "config")
    section = config
    for name in sections:
        section = section[name]
    if key.split(".")[0] not in ("data", "parallel"):
        have = json.loads(json.dumps(configs.plain(value)))
        if section.get(last) != have:
            raise InputError(
                f'"config.{key}" is {section.get(last)!r} in the run; an evaluation cannot change '
                "it, only config.data and config.parallel"
            )
    section[last] = value


def evaluate(path: str | Path, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Evaluates the best models of a workdir on `config.data.split`; returns the metrics.

    Args:
      path: the workdir.
      overrides: see `open_run`.

    Raises:
      InputError: see `open_run`, or nothing is trained there yet.
    """
    config = Workdir(path).config()
    if folds.of(config):
        again = lambda _, folder: evaluate(folder, overrides)  # noqa: E731
        split = (overrides or {}).get("data.split", config["data"]["split"])
        return folds.each(config, path, again, split)
    workdir, config, dataset, task, engine = open_run(path, overrides or {})
    seeds = configs.seeds(config)
    model = load_best(workdir, task, dataset.inputs, seeds)
    split = config["data"]["split"]
    batches = Batches(dataset, dataset.part(split), engine, config["train"]["eval_batch_size"])
    predictor = Predictor(task, engine, len(seeds))
    result = final_evaluation(workdir, predictor, engine.replicate(model), batches, split, seeds)
    logging.info("%s: %s", split, workdir.path / "eval" / f"{split}.json")
    return result


def load_best(workdir: Workdir, task: base.Task, inputs: Inputs, seeds: Sequence[int]) -> Model:
    """Returns `params` and `variables` of the best epochs, host side, with an axis of seeds.

    Raises:
      InputError: no checkpoint is there.
    """
    store = Store(workdir.path)
    found = store.restore_best()
    store.close()
    if found is None:
        raise InputError(f"{workdir.path} has no trained model: checkpoints/best is empty")
    shapes = jax.eval_shape(lambda k: task.init(k, inputs.zeros(2)), jax.random.key(0))
    stack = lambda x: np.zeros((len(seeds), *x.shape), x.dtype)  # noqa: E731
    params, variables = jax.tree.map(stack, shapes)
    checkpoints.check({"params": params, "variables": variables}, checkpoints.flatten(found[0]))
    return {"variables": {}, **found[0]}
