"""Batches as compiled functions take them: kept on the devices where they fit, else streamed.

Letters: S seeds, N examples, B batch, C steps of an epoch, W devices.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from affectjax.data.batches import dataset as pipeline
from affectjax.data.batches import streams, unpaired
from affectjax.data.batches.dataset import Dataset, Part
from affectjax.data.batches.unpaired import Turns
from affectjax.runtime import steps
from affectjax.runtime.parallel import Engine

Tree = Any


class TrainingData:
    """The training part as a compiled chunk takes it: resident on the devices, or streamed.

    Attributes:
      steps: C.
      resident: whether it lies on the devices.
      pick: see `steps.train_chunk`.
      data: the part on the devices, {} where it is streamed.
    """

    def __init__(self, dataset: Dataset, engine: Engine, batch: int, *, streams: bool = False):
        """Places the part on the devices if it fits.

        Args:
          dataset: where it comes from.
          engine: the devices.
          batch: B, over all devices.
          streams: whether it is streamed even so.
        """
        self.dataset, self.part, self.batch = dataset, dataset.part("train"), batch
        self.steps = -(-len(self.part) // batch)
        self.columns = engine.columns(batch)
        fits = dataset.fits(self.part, training=True, copies=engine.copies)
        self.resident = fits and not streams
        self.pick = steps.pick_rows if self.resident else steps.pick_given
        self.data = engine.replicate(dataset.arrays(self.part)) if self.resident else {}

    def rows(self, seed: int, stage: int, epoch: int) -> np.ndarray:
        """Returns `[C, columns]`: the rows of an epoch's batches."""
        order = pipeline.order(len(self.part), seed, stage, epoch)
        return pipeline.rows_of(order, self.batch, self.columns)

    def stream(self, mine: np.ndarray, epoch: int, seeds: Sequence[int]) -> streams.BatchStream:
        """Returns the batches of an epoch, each `[S, 1, B, ...]`.

        Args:
          mine: rows `[S, C, columns]` of this process.
          epoch: of the run, for the random frames.
          seeds: S of them.
        """
        rows = [mine[:, c, None] for c in range(mine.shape[1])]
        return self.dataset.stream(self.part, rows, epoch=epoch, seed=seeds)


class UnpairedTrainingData:
    """The training parts of several data sets that share the steps of an epoch.

    A batch is `{name: batch of that data set, "turn": place of the one whose turn it is}`; where it
    is not the turn of a data set, its batch only pads.

    Attributes: see `TrainingData`.
    """

    def __init__(
        self,
        datasets: Mapping[str, Dataset],
        engine: Engine,
        batch: Mapping[str, int],
        turns: Turns,
        *,
        streams: bool = False,
    ):
        """Places the parts on the devices if all of them fit.

        Args:
          datasets: by name.
          engine: the devices.
          batch: by name, B, over all devices.
          turns: how they share the steps.
          streams: whether they are streamed even so.
        """
        self.turns, self.count = turns, engine.count
        self.parts = {name: datasets[name].part("train") for name in turns.names}
        self.sets = {name: datasets[name] for name in turns.names}
        self.batch = {name: batch[name] for name in turns.names}
        self.columns = {name: engine.columns(size) for name, size in self.batch.items()}
        self.batches = {n: -(-len(part) // self.batch[n]) for n, part in self.parts.items()}
        self.steps = turns.steps(self.batches)
        self.resident = not streams and all(
            self.sets[n].fits(p, training=True, copies=engine.copies) for n, p in self.parts.items()
        )
        self.pick = pick_rows_of_each if self.resident else pick_given_of_each
        held = {n: self.sets[n].arrays(p) for n, p in self.parts.items()} if self.resident else {}
        self.data = engine.replicate(held)

    def rows(self, seed: int, stage: int, epoch: int) -> Tree:
        """Returns the rows of an epoch by name, `[C, columns]`, and `turn` `[C, W]`."""
        turn, numbers = self.turns.plan(self.batches, epoch)
        found = {
            name: unpaired.rows(
                numbers[name], len(part), self.batch[name], self.columns[name], seed, stage
            )
            for name, part in self.parts.items()
        }
        return found | {"turn": np.repeat(turn[:, None], self.count, axis=1)}

    def stream(self, mine: Tree, epoch: int, seeds: Sequence[int]) -> streams.BatchStream:
        """Returns the batches of an epoch; see `TrainingData.stream`."""
        step = lambda tree, c: jax.tree.map(lambda x: x[:, c, None], tree)  # noqa: E731
        all_rows = [step(mine, c) for c in range(self.steps)]
        sources = {
            name: self.sets[name].batches(
                part, [rows[name] for rows in all_rows], epoch=epoch, seed=seeds
            )
            for name, part in self.parts.items()
        }
        threads = max(dataset.config.threads for dataset in self.sets.values())
        turns = [rows["turn"] for rows in all_rows]
        return streams.BatchStream(unpaired.Together(sources, turns), threads)


def pick_rows_of_each(data: Tree, rows: Tree) -> Tree:
    """Returns the batches for `rows` of each data set that lies on the device."""
    picked = {name: steps.pick_rows(own, rows[name]) for name, own in data.items()}
    return picked | {"turn": rows["turn"][0]}


def pick_given_of_each(data: Tree, batch: Tree) -> Tree:
    """Returns the batches as they were streamed to the device."""
    del data
    return batch | {"turn": batch["turn"][0]}


class EvaluationData:
    """The batches of a part, in order, on the devices: kept there if they fit, else streamed."""

    def __init__(self, dataset: Dataset, part: Part, engine: Engine, batch: int):
        """Places the part on the devices if it fits.

        Args:
          dataset: where it comes from.
          part: which examples.
          engine: the devices.
          batch: B, over all devices.
        """
        self.dataset, self.part, self.engine = dataset, part, engine
        self.rows = pipeline.rows_of(
            np.arange(len(part), dtype=np.int32), batch, engine.columns(batch)
        )
        self._mine = list(engine.mine(self.rows))
        self._kept = list(self._stream()) if dataset.fits(part, copies=engine.copies) else None

    def __iter__(self) -> Iterator[Any]:
        return iter(self._stream() if self._kept is None else self._kept)

    def _stream(self) -> Iterator[Any]:
        stream = self.dataset.stream(self.part, self._mine)
        return (self.engine.shard(batch, 0) for batch in stream)
