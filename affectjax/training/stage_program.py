"""A stage as the devices run it: its data, its optimizer, and its compiled steps.

Letters: S seeds, C steps of an epoch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from affectjax.data.batches.dataset import Dataset
from affectjax.data.batches.streams import BatchStream
from affectjax.runtime import optim, steps
from affectjax.runtime.parallel import Engine
from affectjax.tasks import base
from affectjax.tasks.base import Model, Stage
from affectjax.training.device_data import TrainingData, UnpairedTrainingData

Tree = Any


class StageProgram:
    """What the loop runs of one stage, for the models of all seeds and on all devices.

    Attributes:
      stage: which.
      data: its training examples.
    """

    def __init__(
        self,
        stage: Stage,
        index: int,
        datasets: Mapping[str, Dataset],
        engine: Engine,
        seeds: Sequence[int],
        compiled: dict[Any, Callable[..., Tree]],
        *,
        streams: bool = False,
    ):
        """Places the data; compiles when it is first run.

        Args:
          stage: which.
          index: its number.
          datasets: of the run, by name.
          engine: the devices.
          seeds: S of them.
          compiled: steps of the stages before, which this one may share; its own are added.
          streams: whether the data is streamed though it would fit on the devices.
        """
        self.stage, self.index, self.engine, self.seeds = stage, index, engine, seeds
        if stage.turns is None:
            size = stage.rules.batch_size
            self.data = TrainingData(datasets[base.MAIN], engine, size, streams=streams)
        else:
            sizes = stage.rules.batch_size
            self.data = UnpairedTrainingData(datasets, engine, sizes, stage.turns, streams=streams)
        count = stage.rules.epochs * self.data.steps
        rate = optim.schedule(stage.optim, stage.rules.epochs, self.data.steps)
        self._rates = np.broadcast_to(np.asarray(rate(np.arange(count)), np.float32), count)
        settings = {name: np.float32(value) for name, value in stage.settings.items()}
        self._settings = engine.replicate(settings)
        self._optimizer = optim.optimizer(stage.optim)
        key = stage.loss, stage.optim, self.data.pick
        if key not in compiled:
            compiled[key] = self._compile_steps()
        self._run = compiled[key]
        self._on_epoch = self._compile_on_epoch()

    def _compile_steps(self) -> Callable[..., Tree]:
        decay = self.stage.optim.average_decay
        step = steps.train_step(self.stage.loss, self._optimizer, decay)
        step = steps.hold_finished(step) if len(self.seeds) > 1 else step
        chunk = steps.train_chunk(step, self.data.pick)
        axes, models = (None, None, None, None, 2), (0, 0, None, None, 0)
        return self.engine.compile(chunk, axes, donate=(0,), models=models)

    def run_steps(self, state: Tree, frozen: Tree, first: int, inputs: Tree) -> tuple[Tree, Tree]:
        """Runs C steps; returns the new state and measurements `[S, C]`, and frees the old state.

        Args:
          state: of the models.
          frozen: parameters that do not train.
          first: the number of the first step, from 0 at the start of the stage.
          inputs: of the C steps, see `inputs`.
        """
        count = self.data.steps if self.data.resident else 1
        rate = self.engine.replicate(self._rates[first : first + count])
        numbers = {"rate": rate, "settings": self._settings}
        return self._run(state, frozen, self.data.data, numbers, inputs)

    def _compile_on_epoch(self) -> Callable[[Tree], Tree] | None:
        if self.stage.on_epoch is None:
            return None
        return self.engine.compile(self.stage.on_epoch, (None,), models=(0,))

    def new_state(self, models: Sequence[Model]) -> tuple[Tree, Tree]:
        """Returns the state and the frozen parameters, host side, leaves `[S, ...]`.

        Args:
          models: that the stage starts from, one of each seed.
        """
        states, frozen = [], []
        for seed, model in zip(self.seeds, models, strict=True):
            trained, rest = steps.split_params(model["params"], self.stage.trains)
            key = jax.random.fold_in(jax.random.key(seed), self.index)
            averaged = bool(self.stage.optim.average_decay)
            state = steps.new_state(
                trained, model["variables"], self._optimizer, key, averaged=averaged
            )
            states.append(jax.device_get(state))
            frozen.append(rest)
        return _stack(states), _stack(frozen)

    def start_epoch(self, state: steps.State) -> steps.State:
        """Returns the state after what the stage does to the variables before an epoch."""
        if self._on_epoch is None:
            return state
        return state | {"variables": self._on_epoch(state["variables"])}

    def draw_rows(self, epoch: int) -> Tree:
        """Returns the rows of an epoch's batches, `[S, C, columns]`."""
        return _stack([self.data.rows(seed, self.index, epoch) for seed in self.seeds])

    def inputs(
        self, rows: Tree, epoch: int, position: Mapping[str, Any] | None
    ) -> tuple[BatchStream | None, Iterator[Any]]:
        """Returns the stream of the batches, if it is one, and the inputs of each call in order.

        Args:
          rows: of the epoch, see `draw_rows`.
          epoch: of the run, not of the stage alone: random frames are new in every one.
          position: of the stream, from which to go on; None for its start.
        """
        mine = jax.tree.map(self.engine.mine, rows)
        if self.data.resident:
            return None, iter([self.engine.shard(mine, 2, models=True)])
        stream = self.data.stream(mine, epoch, self.seeds)
        if position is not None:
            stream.restore(position)
        return stream, (self.engine.shard(batch, 2, models=True) for batch in stream)


def _stack(trees: list[Tree]) -> Tree:
    return jax.tree.map(lambda *xs: np.stack(xs), *trees)
