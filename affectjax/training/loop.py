"""The one training loop: stages, epochs, checkpoints, the final evaluation.

Letters: S seeds (models trained together), N examples, B batch, C steps of an epoch.
"""

import concurrent.futures
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tqdm
from absl import logging

from affectjax.data.batches import dataset as pipeline
from affectjax.data.batches import open_datasets, saved_inputs
from affectjax.data.batches.dataset import Dataset
from affectjax.errors import InputError
from affectjax.runtime import checkpoints, configs, optim, parallel, steps
from affectjax.runtime.parallel import Engine, ParallelConfig
from affectjax.runtime.preemption import EXIT_CODE, Preemption
from affectjax.runtime.workdir import MetricWriter, Workdir
from affectjax.tasks import base
from affectjax.tasks.base import Stage
from affectjax.training import early_stopping, folds, run_config
from affectjax.training.device_data import Feed, UnpairedFeed
from affectjax.training.evaluator import Evaluator, Model
from affectjax.training.run_checkpoints import Store
from affectjax.training.run_config import TrainConfig

Tree = Any
Series = dict[str, np.ndarray]


class NonFiniteLoss(ArithmeticError):
    """The loss or its gradient is NaN or infinite; the last good checkpoint stays."""


def train(config: Mapping[str, Any], workdir: str | Path) -> dict[str, Any]:
    """Trains as the config says, or goes on where a run in `workdir` stopped; then evaluates.

    Args:
      config: see the files in configs/.
      workdir: where the run leaves everything; see README.

    Returns:
      The metrics of the test split, as eval/test.json has them.

    Raises:
      InputError: bad config or data, or a workdir of another config.
      NonFiniteLoss: names stage, step and seed.
      SystemExit: after a SIGTERM, with the checkpoint on disk.
    """
    given, config = config, run_config.resolve(config)
    if folds.of(config):
        return folds.each(given, workdir, train)
    parallel_config = configs.read(ParallelConfig, config["parallel"], "config.parallel")
    settings = configs.read(TrainConfig, config["train"], "config.train")
    seeds = configs.seeds(config)
    parallel.initialize(parallel_config)
    datasets = open_datasets.open_all(run_config.data_sets(config))
    task = base.build(config, {n: d.inputs for n, d in datasets.items()}, parallel.AXIS)
    engine = Engine(parallel_config.engine)
    evaluator = Evaluator(task, datasets, engine, seeds, settings.eval_batch_size)
    check_select(task, evaluator)
    folder = Workdir(workdir)
    if jax.process_index() == 0:
        folder.claim(config)
    trainer = Trainer(task, datasets, evaluator, engine, settings, seeds, folder)
    try:
        with Preemption() as preemption:
            return trainer.run(preemption)
    finally:
        trainer.close()


def check_select(task: base.Task, evaluator: Evaluator) -> None:
    """Raises InputError for a stage that selects by a metric which the task does not have."""
    for stage in task.stages:
        names = evaluator.metric_names(stage)
        if stage.select not in (early_stopping.LAST, *names):
            raise InputError(
                f'"config.stages.{stage.name}.select" is {stage.select!r}; '
                f"allowed: {early_stopping.LAST}, {', '.join(names)}"
            )


class Trainer:
    """One run: the models of all seeds, and all that must survive a restart.

    Attributes:
      state, frozen, best: on the devices, each leaf with an axis of seeds: `steps.new_state`, the
        parameters that do not train, and params and variables of each model's best epoch.
      control: on the host, see `selection`.
      done: on the host, in JSON's types, where the run is: stage, epoch, step (of all stages
        together), finished; and within an epoch of a streamed part `stream`, its position, and
        `series`, what was measured so far.
    """

    def __init__(
        self,
        task: base.Task,
        datasets: Mapping[str, Dataset],
        evaluator: Evaluator,
        engine: Engine,
        settings: TrainConfig,
        seeds: tuple[int, ...],
        workdir: Workdir,
    ):
        self.task, self.datasets, self.evaluator = task, datasets, evaluator
        self.engine, self.settings, self.seeds, self.workdir = engine, settings, seeds, workdir
        self.store = Store(workdir.path)
        self.thread = concurrent.futures.ThreadPoolExecutor(1)
        self.writer: MetricWriter | None = None
        keep = parallel.over_seeds(steps.keep_better, len(seeds), (0, 0, 0))
        self.keep_better = engine.compile(keep, (None, None, None), donate=(2,))

    def close(self) -> None:
        """Waits for checkpoints under way, and closes files."""
        self.thread.shutdown(cancel_futures=True)
        self.store.close()
        if self.writer is not None:
            self.writer.close()

    def run(self, preemption: Preemption) -> dict[str, Any]:
        """Runs the stages that are left, then the final evaluation; returns its metrics."""
        found = self.store.restore()
        if found is not None and found[1]["finished"]:
            logging.info("%s is finished already: nothing to do", self.workdir.path)
            return json.loads((self.workdir.path / "eval" / "test.json").read_text())
        self._start(found)
        while True:
            index = self.done["stage"]
            self._run_stage(self.task.stages[index], preemption)
            models, last = self._end_stage(index), index + 1 == len(self.task.stages)
            if last:
                break
            self._begin_stage(index + 1, models)
            self.done |= {"stage": index + 1, "epoch": 0}
        result = self._evaluate()
        self.done |= {"finished": True}
        self._save(self.done["step"] + 1)
        return result

    # Order of initialisation: the run's own checkpoint, else pretrained weights, else from scratch.

    def _start(self, found: tuple[checkpoints.Flat, dict[str, Any]] | None) -> None:
        """Fills state, frozen, best, control and done, and opens what the run writes to."""
        self.done = {"stage": 0, "epoch": 0, "step": 0, "finished": False}
        self.done |= {"stream": None, "series": {}}
        if jax.process_index() == 0:
            self.workdir.check_writable()
            for name, dataset in self.datasets.items():
                folder = saved_inputs.where(self.workdir.path, name)
                saved_inputs.save(dataset.inputs, folder)
                dataset.save_missing(folder)
        where = (-1, -1) if found is None else (found[1].pop("number"), found[1]["stage"])
        self.store.forget_after(*where)
        if found is None:
            self._begin_stage(0, self._init())
            self.writer = MetricWriter(self.workdir)
            return
        flat, self.done = found
        written = self.done.pop("metrics_bytes")
        self.done.pop("frozen")
        self._begin_stage(self.done["stage"], self._models(checkpoints.nested(flat)))
        flat = {path: leaf for path, leaf in flat.items() if not path.startswith("frozen/")}
        tree = checkpoints.fill(self._host_tree(), flat)
        self.state, self.best = self.engine.replicate((tree["state"], tree["best"]))
        self.control = tree["control"]
        self.writer = MetricWriter(self.workdir, written, self.done["step"])
        name = self.task.stages[self.done["stage"]].name
        logging.info("going on in stage %s after epoch %d", name, self.done["epoch"])

    def _models(self, saved: Tree) -> list[Model]:
        """Returns the models of a checkpoint, one of each seed, host side."""
        state = saved["state"]
        params = steps.merge_params(state["params"], saved.get("frozen", {}))
        model = {"params": params, "variables": state.get("variables", {})}
        return [jax.tree.map(lambda x, s=s: x[s], model) for s in range(len(self.seeds))]

    def _init(self) -> list[Model]:
        """Returns new params and variables, one of each seed, host side."""
        stage = self.task.stages[0]
        inputs = {name: dataset.inputs for name, dataset in self.datasets.items()}
        new, batch = stage.init or self.task.init, base.zeros(inputs, stage.reads)
        init = jax.jit(lambda key: new(key, batch))
        made = [jax.device_get(init(jax.random.key(seed))) for seed in self.seeds]
        return [stage.prepare({"params": p, "variables": v}) for p, v in made]

    def _begin_stage(self, index: int, models: list[Model]) -> None:
        """Makes state, frozen, best and control for a stage that starts from `models`."""
        stage = self.task.stages[index]
        self.feed = self._feed(stage)
        tx = optim.optimizer(stage.optim, self._rate(stage))
        states, frozen = [], []
        for seed, model in zip(self.seeds, models, strict=True):
            trained, rest = steps.split_params(model["params"], stage.trains)
            key = jax.random.fold_in(jax.random.key(seed), index)
            averaged = bool(stage.optim.average_decay)
            state = steps.new_state(trained, model["variables"], tx, key, averaged=averaged)
            states.append(jax.device_get(state))
            frozen.append(rest)
        state, frozen = _stack(states), _stack(frozen)
        self.store.begin_stage(index, frozen)
        self.state, self.frozen = self.engine.replicate((state, frozen))
        self.best = self.engine.replicate(steps.model_of(state))
        self.control = early_stopping.begin(stage, len(self.seeds))

    def _end_stage(self, index: int) -> list[Model]:
        """Returns the best models of a stage as the next one starts from them, host side."""
        stage, best = self.task.stages[index], self._whole(self.best)
        host, models = self.engine.fetch(best), []
        for s, ending in enumerate(self.evaluator.endings(best, self.workdir.path)):
            own = jax.tree.map(lambda x, s=s: x[s], host)
            if stage.on_leave is not None:
                stage.on_leave(own, ending)
            last = index + 1 == len(self.task.stages)
            models.append(own if last else stage.on_end(own, ending))
        return models

    def _whole(self, model: Model) -> Model:
        """Returns a model with the frozen parameters among the others."""
        return model | {"params": steps.merge_params(model["params"], self.frozen)}

    # One stage.

    def _run_stage(self, stage: Stage, preemption: Preemption) -> None:
        """Runs the epochs of a stage that are left."""
        run_chunk, on_epoch = self._compile(stage), self._on_epoch(stage)
        bar = tqdm.tqdm(
            desc=stage.name,
            initial=self.done["epoch"],
            total=stage.epochs,
            unit="epoch",
            disable=not self.settings.progress or jax.process_index() > 0,
        )
        following = self._shuffle(self.done["epoch"])
        while not self._over(stage):
            rows = following.result()
            following = self._shuffle(self.done["epoch"] + 1)
            if self.done["stream"] is None:
                self.state |= {"variables": on_epoch(self.state["variables"])}
            series = self._run_epoch(stage, run_chunk, rows, preemption)
            self.done["step"] += self.feed.steps
            bar.set_postfix_str(self._end_epoch(stage, series), refresh=False)
            bar.update()
            self.done["epoch"] += 1
            asked = preemption.asked()
            due = self.done["epoch"] % self.settings.checkpoint_epochs == 0
            if due or asked or self._over(stage):
                self._save(self.done["step"])
            if asked:
                self._stop()
        bar.close()

    def _over(self, stage: Stage) -> bool:
        return self.done["epoch"] == stage.epochs or not self.control["active"].any()

    def _feed(self, stage: Stage) -> Feed | UnpairedFeed:
        if stage.turns is None:
            return Feed(self.datasets[base.MAIN], self.engine, stage.batch_size)
        return UnpairedFeed(self.datasets, self.engine, stage.batch_size, stage.turns)

    def _rate(self, stage: Stage) -> Callable[[Any], Any]:
        return optim.schedule(stage.optim, stage.epochs, self.feed.steps)

    def _on_epoch(self, stage: Stage) -> Callable[[Tree], Tree]:
        """Returns what the stage does to the variables at the start of an epoch."""
        if stage.on_epoch is None:
            return lambda variables: variables
        change = parallel.over_seeds(stage.on_epoch, len(self.seeds), (0,))
        return self.engine.compile(change, (None,))

    def _compile(self, stage: Stage) -> Callable[..., Any]:
        """Returns the scan over steps, for all models and devices."""
        rate = self._rate(stage)
        tx = optim.optimizer(stage.optim, rate)
        step = steps.train_step(stage.loss, tx, rate, stage.optim.average_decay)
        step = steps.hold_finished(step) if len(self.seeds) > 1 else step
        chunk = steps.train_chunk(step, self.feed.pick)
        models = parallel.over_seeds(chunk, len(self.seeds), (0, 0, None, 0))
        return self.engine.compile(models, (None, None, None, 2), donate=(0,))

    def _shuffle(self, epoch: int) -> concurrent.futures.Future:
        """Starts to draw an epoch's rows `[S, C, columns]`, while the devices do another's."""
        feed, stage = self.feed, self.done["stage"]

        def draw():
            return _stack([feed.rows(seed, stage, epoch) for seed in self.seeds])

        return self.thread.submit(draw)

    def _run_epoch(
        self,
        stage: Stage,
        run_chunk: Callable[..., Any],
        rows: Tree,
        preemption: Preemption,
    ) -> Series:
        """Runs the steps of an epoch that are left; returns all measurements, `[S, C]` each."""
        series = [{k: np.array(v) for k, v in self.done["series"].items()}]
        count = len(next(iter(self.done["series"].values()), [[]])[0])
        chunks: list[Tree] = []
        stream, inputs = self._inputs(jax.tree.map(self.engine.mine, rows))
        for xs in inputs:
            self.state, measured = run_chunk(self.state, self.frozen, self.feed.data, xs)
            chunks.append(measured)
            if stream is None:
                continue
            every = self.settings.checkpoint_steps
            asked = preemption.asked()
            count += 1
            # The last step of an epoch is saved with the epoch.
            if count < self.feed.steps and (asked or (every and count % every == 0)):
                series = [_concatenate([*series, *map(self.engine.fetch, chunks)])]
                chunks = []
                self._check_finite(stage, series[0])
                self._save_within(stream, series[0])
                if asked:
                    self._stop()
        self.done |= {"stream": None, "series": {}}
        whole = _concatenate([*series, *map(self.engine.fetch, chunks)])
        self._check_finite(stage, whole)
        return whole

    def _inputs(self, mine: Tree) -> tuple[pipeline.Batches | None, Iterator]:
        """Returns the stream, if it is one, and an iterator over the inputs of each call."""
        if self.feed.resident:
            return None, iter([self.engine.shard(mine, 2)])
        # Random frames are new in every epoch of the run, not of the stage alone.
        epoch = self.done["epoch"] + sum(s.epochs for s in self.task.stages[: self.done["stage"]])
        stream = self.feed.stream(mine, epoch, self.seeds)
        if self.done["stream"] is not None:
            stream.restore(self.done["stream"])
        return stream, (self.engine.shard(batch, 2) for batch in stream)

    def _check_finite(self, stage: Stage, series: Series) -> None:
        """Raises NonFiniteLoss for the first step of a training model that is not finite."""
        bad = ~np.isfinite(series["loss"]) | ~np.isfinite(series["grad_norm"])
        bad &= self.control["active"][:, None]
        if bad.any():
            c, s = min((int(c), int(s)) for s, c in np.argwhere(bad))
            raise NonFiniteLoss(
                f"stage {stage.name!r}, step {self.done['step'] + c + 1}, seed {self.seeds[s]}: "
                f"the loss is {series['loss'][s, c]} and the gradient norm "
                f"{series['grad_norm'][s, c]}; the last good checkpoint stays in "
                f"{self.workdir.path / 'checkpoints'}"
            )

    def _end_epoch(self, stage: Stage, series: Series) -> str:
        """Validates, logs, keeps what is better, applies the rules; returns a line of it."""
        model = self._whole(steps.model_of(self.state))
        trained = [_means(series, s) for s in range(len(self.seeds))]
        measured = self.evaluator(model, stage.reads)
        where = {"step": self.done["step"], "epoch": self.done["epoch"], "stage": stage.name}
        for s in np.flatnonzero(self.control["active"]):
            for split, values in (("train", trained[s]), ("valid", measured[s])):
                self.writer.write({**where, "split": split, "seed": self.seeds[s]}, values)
        self.control, better = early_stopping.judge(
            self.control, stage, self.done["epoch"], measured, trained
        )
        self.best = self.keep_better(
            self.engine.replicate(better), steps.model_of(self.state), self.best
        )
        changed = {key: self.control[key] for key in ("scale", "active")}
        self.state |= self.engine.replicate(changed)
        loss = np.mean([values["loss"] for values in measured])
        best = self.control["best_value"].mean()
        return f"validation loss {loss:.4f}, best {stage.select} {best:.4f}"

    # What is kept.

    def _save(self, number: int) -> None:
        """Starts to write checkpoints."""
        meta = {**self.done, "metrics_bytes": self.writer.position}
        frozen = bool(jax.tree.leaves(self.frozen))
        self.store.save(number, self._host_tree(), meta, self.control["best_epoch"], frozen)

    def _save_within(self, stream: pipeline.Batches, series: Series) -> None:
        """Starts to write checkpoints within an epoch of a streamed part."""
        values = {name: value.tolist() for name, value in series.items()}
        self.done |= {"stream": stream.state(), "series": values}
        self._save(self.done["step"] + series["loss"].shape[1])

    def _host_tree(self) -> Tree:
        state, best = self.engine.fetch((self.state, self.best))
        return {"state": state, "best": best, "control": self.control}

    def _stop(self) -> None:
        """Ends the process after a SIGTERM, once all is on disk."""
        self.store.wait()
        logging.warning("SIGTERM: all is saved; the same command goes on from here")
        raise SystemExit(EXIT_CODE)

    def _evaluate(self) -> dict[str, Any]:
        """Writes eval/ for validation and test split; returns the metrics of the test split."""
        model, names = self._whole(self.best), self.task.stages[-1].reads
        self.evaluator.final(self.workdir, model, names, "valid")
        return self.evaluator.final(self.workdir, model, names, "test")


def _stack(trees: list[Tree]) -> Tree:
    return jax.tree.map(lambda *xs: np.stack(xs), *trees)


def _concatenate(chunks: list[Series]) -> Series:
    """Returns measurements `[S, C]`, the steps of all chunks in order."""
    full = [chunk for chunk in chunks if chunk]
    return {name: np.concatenate([chunk[name] for chunk in full], axis=1) for name in full[0]}


def _means(series: Series, s: int) -> dict[str, float]:
    """Returns each measurement of model `s` over an epoch: weighted means, and the last rate."""
    weight = series[steps.EXAMPLES][s].astype(np.float64)
    means = {
        name: float((value[s] * weight).sum() / max(weight.sum(), 1e-9))
        for name, value in series.items()
        if name != steps.EXAMPLES
    }
    return means | {"learning_rate": float(series["learning_rate"][s, -1])}
