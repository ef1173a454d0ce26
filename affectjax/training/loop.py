"""The one training loop: it starts or goes on, runs stages and their epochs, then evaluates.

Letters: S seeds (models trained together), N examples, B batch, C steps of an epoch.
"""

import concurrent.futures
import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tqdm
from absl import logging

from affectjax.data.batches import open_datasets, saved_inputs
from affectjax.data.batches.dataset import Dataset
from affectjax.errors import InputError, RunStopped
from affectjax.runtime import (
    checkpoints,
    configs,
    disk,
    hosts,
    hub,
    manifest,
    parallel,
    steps,
    workdir_lock,
)
from affectjax.runtime.parallel import Engine
from affectjax.runtime.preemption import EXIT_CODE, Preemption
from affectjax.runtime.workdir import MetricWriter, Workdir
from affectjax.tasks import base
from affectjax.tasks.base import Model
from affectjax.training import baselines, calibration, early_stopping, folds, progress, run_config
from affectjax.training.evaluator import Evaluator
from affectjax.training.progress import Progress, Series
from affectjax.training.run_checkpoints import RunCheckpoints
from affectjax.training.run_config import TrainConfig
from affectjax.training.stage_program import StageProgram

Tree = Any


class NonFiniteLoss(RunStopped, ArithmeticError):
    """The loss or its gradient is NaN or infinite; the last good checkpoint stays."""


def train(config: Mapping[str, Any], workdir: str | Path) -> dict[str, Any]:
    """Trains as the config says, or goes on where a run in `workdir` stopped; then evaluates.

    Args:
      config: see the files in configs/.
      workdir: where the run leaves everything; see docs/runs.md.

    Returns:
      The metrics of the test split, as eval/test.json has them.

    Raises:
      InputError: bad config or data, a workdir of another config, or one that another run is in.
      RunStopped: the disk is full, or as NonFiniteLoss, which names stage, step and seed.
      SystemExit: after a SIGTERM, with the checkpoint on disk.
    """
    given, config = config, run_config.resolve(config)
    hub.check(config)  # before any data is opened
    settings = configs.read(TrainConfig, config["train"], "config.train")
    parallel_config = run_config.join(config)
    alone = contextlib.nullcontext() if parallel_config.process else workdir_lock.hold(workdir)
    if folds.fold_names(config):
        with alone:
            return folds.run_each(given, workdir, train)
    with hosts.watch():
        return _train_one(config, workdir, settings, parallel_config, alone)


def _train_one(
    config: Mapping[str, Any],
    workdir: str | Path,
    settings: TrainConfig,
    parallel_config: parallel.ParallelConfig,
    alone: contextlib.AbstractContextManager,
) -> dict[str, Any]:
    """Returns what `train` does, of one run whose processes are joined.

    Args:
      config: the whole one.
      workdir: of the run.
      settings: `config.train`.
      parallel_config: `config.parallel`.
      alone: holds the lock of the workdir.
    """
    seeds = configs.seeds(config)
    datasets = open_datasets.open_all(run_config.data_sets(config))
    task = base.build(config, {n: d.inputs for n, d in datasets.items()}, parallel.AXIS)
    engine = parallel.engine(parallel_config, len(seeds))
    evaluator = Evaluator(task, datasets, engine, seeds, settings.eval_batch_size)
    check_select(task, evaluator)
    folder = Workdir(workdir)
    with alone:
        if jax.process_index() == 0:
            folder.claim(config, [task.stages[-1].name])
        trainer = Trainer(task, datasets, evaluator, engine, settings, seeds, folder)
        full = disk.full_stops_a_run(folder.path)
        with full, contextlib.closing(trainer), Preemption() as preemption:
            return trainer.run(preemption)


def check_select(task: base.Task, evaluator: Evaluator) -> None:
    """Raises InputError for a stage that selects by a metric which the task does not have."""
    for stage in task.stages:
        names = evaluator.metric_names(stage)
        select = stage.rules.select
        if select not in (base.LAST, *names):
            raise InputError(
                f'"config.stages.{stage.name}.select" is {select!r}; '
                f"allowed: {base.LAST}, {', '.join(names)}"
            )


class Trainer:
    """One run: the models of all seeds, and all that must survive a restart.

    Attributes:
      state, frozen, best: on the devices, each leaf with an axis of seeds: `steps.new_state`, the
        parameters that do not train, and params and variables of each model's best epoch.
      stopping: on the host, see `early_stopping`.
      progress: on the host, where the run is.
      program: the stage that is running.
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
        self.compiled: dict[Any, Any] = {}  # steps that stages share
        self.checkpoints = RunCheckpoints(workdir.path)
        self.thread = concurrent.futures.ThreadPoolExecutor(1)
        self.writer: MetricWriter | None = None
        self.keep_better = engine.compile(
            steps.keep_better, (None, None, None), donate=(2,), models=(0, 0, 0)
        )

    def close(self) -> None:
        """Waits for checkpoints under way, and closes files."""
        self.thread.shutdown(cancel_futures=True)
        with contextlib.ExitStack() as both:
            both.callback(self.checkpoints.close)
            if self.writer is not None:
                both.callback(self.writer.close)

    def run(self, preemption: Preemption) -> dict[str, Any]:
        """Runs the stages that are left, then the final evaluation and the baselines.

        Returns:
          The metrics of the test split.
        """
        found = self.checkpoints.restore()
        if found is not None and found[1]["finished"] and not self._may_go_on(found):
            return self._complete(found)
        self._start(found)
        self.progress.finished = False
        first, models = self.progress.stage, []
        for index in range(first, len(self.task.stages)):
            if index > first:
                self._begin_stage(index, models)
                self.progress.begin_stage(index)
            self._run_stage(preemption)
            models = self._end_stage()
        return self._finish()

    def _may_go_on(self, found: tuple[checkpoints.Flat, dict[str, Any]]) -> bool:
        """Returns whether the last stage of a finished run has epochs left, as it is longer now."""
        left = self.task.stages[-1].rules.epochs - found[1]["epoch"]
        return left > 0 and bool(found[0]["control/active"].any())

    def _finish(self) -> dict[str, Any]:
        """Writes all that a finished run has; returns the metrics of the test split."""
        result = self._evaluate()
        self.progress.finished = True
        self._save(self.progress.step + 1)
        self._write_baselines()
        return result

    def _complete(self, found: tuple[checkpoints.Flat, dict[str, Any]]) -> dict[str, Any]:
        """Writes what a finished run lacks, from its checkpoint; returns what `_finish` did."""
        path = self.workdir.path
        test = path / "eval" / "test.json"
        if parallel.anywhere(not self._is_whole(test)):
            logging.warning("%s lacks some of its files: they are written again", path)
            self._start(found)
            return self._finish()
        logging.info("%s is finished already: nothing to do", path)
        self._write_baselines()  # it may have been stopped before them
        return json.loads(test.read_text())

    def _is_whole(self, test: Path) -> bool:
        """Returns whether a finished run has its results, its best models, and what they read."""
        results = _is_json(test) and _is_json(test.with_stem("valid"))
        sound = results and not manifest.damage(self.workdir.path)
        return sound and self.checkpoints.best.is_sound()

    # Order of initialisation: the run's own checkpoint, else new parameters, of which pretrained
    # weights take the place where there are any.

    def _start(self, found: tuple[checkpoints.Flat, dict[str, Any]] | None) -> None:
        """Fills all attributes from a checkpoint or anew, and opens what the run writes to."""
        if jax.process_index() == 0:
            self.workdir.check_writable()
            for name, dataset in self.datasets.items():
                saved_inputs.save(dataset.inputs, self.workdir.path, name)
                dataset.save_missing(saved_inputs.where(self.workdir.path, name))
        if found is None:
            self.checkpoints.remove_after(-1, -1)
            self.progress = Progress()
            self._begin_stage(0, self._new_models())
            self.writer = MetricWriter(self.workdir)
            return
        flat, meta = found
        self.progress = Progress.from_json(meta)
        self.checkpoints.remove_after(meta["number"], self.progress.stage)
        self._begin_stage(self.progress.stage, self._models(checkpoints.nested(flat)))
        flat = {path: leaf for path, leaf in flat.items() if not path.startswith("frozen/")}
        tree = checkpoints.fill(self._host_tree(), flat)
        self.state, self.best = self._place((tree["state"], tree["best"]))
        self.stopping = tree["control"]
        position, crc = meta["metrics_bytes"], meta.get("metrics_crc")
        self.writer = MetricWriter(self.workdir, position, self.progress.step, crc)
        name = self.program.stage.name
        logging.info("going on in stage %s after epoch %d", name, self.progress.epoch)

    def _new_models(self) -> list[Model]:
        """Returns the models that the run begins with, one of each seed, host side."""
        stage = self.task.stages[0]
        inputs = {name: dataset.inputs for name, dataset in self.datasets.items()}
        batch = base.zeros(inputs, stage.data_sets)
        init = jax.jit(lambda key: stage.init(key, batch))
        made = [jax.device_get(init(jax.random.key(seed))) for seed in self.seeds]
        return [stage.prepare({"params": p, "variables": v}) for p, v in made]

    def _models(self, saved: Tree) -> list[Model]:
        """Returns the models of a checkpoint, one of each seed, host side."""
        state = saved["state"]
        params = steps.merge_params(state["params"], saved.get("frozen", {}))
        model = {"params": params, "variables": state.get("variables", {})}
        return [jax.tree.map(lambda x, s=s: x[s], model) for s in range(len(self.seeds))]

    def _place(self, tree: Tree) -> Tree:
        """Returns a tree of models, host side, on the devices."""
        return self.engine.replicate(tree, models=True)

    # One stage.

    def _begin_stage(self, index: int, models: list[Model]) -> None:
        """Makes program, state, frozen, best and stopping of a stage that starts from `models`."""
        stage = self.task.stages[index]
        within = self.progress.stream is not None  # an epoch whose batches were streamed
        self.program = StageProgram(
            stage, index, self.datasets, self.engine, self.seeds, self.compiled, streams=within
        )
        state, frozen = self.program.new_state(models)
        self.checkpoints.save_frozen(index, frozen)
        self.state, self.frozen = self._place((state, frozen))
        self.best = self._place(steps.model_of(state))
        self.stopping = early_stopping.start(stage, len(self.seeds))

    def _run_stage(self, preemption: Preemption) -> None:
        """Runs the epochs of the stage that are left."""
        program, stage = self.program, self.program.stage
        bar = tqdm.tqdm(
            desc=stage.name,
            initial=self.progress.epoch,
            total=stage.rules.epochs,
            unit="epoch",
            disable=not self.settings.progress or jax.process_index() > 0,
        )
        # The rows of an epoch are drawn while the devices are at the one before.
        following = self.thread.submit(program.draw_rows, self.progress.epoch)
        while not self._stage_is_over():
            rows = following.result()
            following = self.thread.submit(program.draw_rows, self.progress.epoch + 1)
            if self.progress.stream is None:
                self.state = program.start_epoch(self.state)
            series = self._run_epoch(rows, preemption)
            self.progress.end_steps(program.data.steps)
            bar.set_postfix_str(self._end_epoch(series), refresh=False)
            bar.update()
            self.progress.epoch += 1
            asked = preemption.asked()
            due = self.progress.epoch % self.settings.checkpoint_epochs == 0
            if due or asked or self._stage_is_over():
                self._save(self.progress.step)
            if asked:
                self._stop()
        bar.close()

    def _stage_is_over(self) -> bool:
        all_epochs = self.progress.epoch == self.program.stage.rules.epochs
        return all_epochs or not self.stopping["active"].any()

    def _end_stage(self) -> list[Model]:
        """Returns the best models of the stage as the next one starts from them, host side."""
        best = self._with_frozen(self.best)
        host, models = self.engine.fetch(best), []
        for s, end in enumerate(self.evaluator.stage_ends(best, self.workdir.path)):
            own = jax.tree.map(lambda x, s=s: x[s], host)
            models.append(self.program.stage.on_end(own, end))
        return models

    def _with_frozen(self, model: Model) -> Model:
        """Returns a model with the frozen parameters among the others."""
        return model | {"params": steps.merge_params(model["params"], self.frozen)}

    # One epoch.

    def _run_epoch(self, rows: Tree, preemption: Preemption) -> Series:
        """Runs the steps of an epoch that are left; returns all measurements, `[S, C]` each."""
        program, every = self.program, self.settings.checkpoint_steps
        series, count = [self.progress.series], self.progress.steps_of_epoch
        chunks: list[Tree] = []
        stream, inputs = program.inputs(rows, self._epoch_of_run(), self.progress.stream)
        for xs in inputs:
            first = self.progress.epoch * program.data.steps + count
            self.state, measured = program.run_steps(self.state, self.frozen, first, xs)
            chunks.append(measured)
            if stream is None:
                continue
            asked = preemption.asked()
            count += 1
            # The last step of an epoch is saved with the epoch.
            if count < program.data.steps and (asked or (every and count % every == 0)):
                series = [progress.concatenate([*series, *map(self.engine.fetch, chunks)])]
                chunks = []
                self._check_finite(series[0])
                self.progress.pause_epoch(stream.state(), series[0])
                self._save(self.progress.step + count)
                if asked:
                    self._stop()
        whole = progress.concatenate([*series, *map(self.engine.fetch, chunks)])
        self._check_finite(whole)
        return whole

    def _epoch_of_run(self) -> int:
        """Returns the number of the epoch, counted from the start of the run, not of the stage."""
        before = self.task.stages[: self.progress.stage]
        return sum(stage.rules.epochs for stage in before) + self.progress.epoch

    def _check_finite(self, series: Series) -> None:
        """Raises NonFiniteLoss for the first step of a training model that is not finite."""
        bad = ~np.isfinite(series["loss"]) | ~np.isfinite(series["grad_norm"])
        bad &= self.stopping["active"][:, None]
        if bad.any():
            c, s = min((int(c), int(s)) for s, c in np.argwhere(bad))
            raise NonFiniteLoss(
                f"stage {self.program.stage.name!r}, step {self.progress.step + c + 1}, seed "
                f"{self.seeds[s]}: the loss is {series['loss'][s, c]} and the gradient norm "
                f"{series['grad_norm'][s, c]}; the last good checkpoint stays in "
                f"{self.workdir.path / 'checkpoints'}"
            )

    def _end_epoch(self, series: Series) -> str:
        """Validates, logs, keeps what is better, applies the rules; returns a line of it."""
        stage, epoch = self.program.stage, self.progress.epoch
        model = self._with_frozen(steps.model_of(self.state))
        trained = [progress.epoch_means(series, s) for s in range(len(self.seeds))]
        measured = self.evaluator(model, stage.data_sets)
        where = {"step": self.progress.step, "epoch": epoch, "stage": stage.name}
        for s in np.flatnonzero(self.stopping["active"]):
            for split, values in (("train", trained[s]), ("valid", measured[s])):
                self.writer.write({**where, "split": split, "seed": self.seeds[s]}, values)
        self.stopping, better = early_stopping.update(
            self.stopping, stage, epoch, measured, trained
        )
        self.best = self.keep_better(self._place(better), steps.model_of(self.state), self.best)
        changed = {key: self.stopping[key] for key in ("scale", "active")}
        self.state |= self._place(changed)
        loss = np.mean([values["loss"] for values in measured])
        best = self.stopping["best_value"].mean()
        return f"validation loss {loss:.4f}, best {stage.rules.select} {best:.4f}"

    # What is kept, and the end.

    def _save(self, number: int) -> None:
        """Starts to write checkpoints."""
        written = {"metrics_bytes": self.writer.position, "metrics_crc": self.writer.crc}
        meta = {**self.progress.to_json(), **written}
        frozen = bool(jax.tree.leaves(self.frozen))
        best_epoch = self.stopping["best_epoch"]
        self.checkpoints.save(number, self._host_tree(), meta, best_epoch, frozen)

    def _host_tree(self) -> Tree:
        state, best = self.engine.fetch((self.state, self.best))
        return {"state": state, "best": best, "control": self.stopping}

    def _stop(self) -> None:
        """Ends the process after a SIGTERM, once all is on disk."""
        self.checkpoints.wait()
        logging.warning("SIGTERM: all is saved; the same command goes on from here")
        raise SystemExit(EXIT_CODE)

    def _evaluate(self) -> dict[str, Any]:
        """Writes eval/ for validation and test split; returns the metrics of the test split."""
        model, names = self._with_frozen(self.best), self.task.stages[-1].data_sets
        self.evaluator.write_results(self.workdir, model, names, "valid")
        result = self.evaluator.write_results(self.workdir, model, names, "test")
        if jax.process_index() == 0:
            calibration.write(self.workdir.path)
        return result

    def _write_baselines(self) -> None:
        """Leaves the simple baselines beside the results, where they are wanted and not yet there.

        One process does: each has all of the data at hand. All is saved before, so that no other
        waits for it.
        """
        there = (self.workdir.path / "eval" / baselines.FILE).is_file()
        if self.settings.baselines and jax.process_index() == 0 and not there:
            names = self.task.stages[-1].data_sets
            baselines.write(self.workdir.path, self.task, self.datasets, names)


def _is_json(file: Path) -> bool:
    """Returns whether a file is there and holds JSON."""
    try:
        return bool(json.loads(file.read_text()))
    except (OSError, ValueError, RecursionError):
        return False
