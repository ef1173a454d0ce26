"""Batches as compiled functions take them: kept on the devices where they fit, else streamed.

Letters: S seeds, N examples, B batch, C steps of an epoch.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from affectjax.data import pipeline
from affectjax.data.pipeline import Dataset, Part
from affectjax.runtime import steps
from affectjax.runtime.parallel import Engine


class Feed:
    """The training part as a compiled chunk takes it: resident on the devices, or streamed.

    Attributes:
      resident: whether it lies on the devices.
      pick: see `steps.train_chunk`.
      data: the part on the devices, {} where it is streamed.
    """

    def __init__(self, dataset: Dataset, engine: Engine, batch: int):
        """Places the part on the devices if it fits.

        Args:
          dataset: where it comes from.
          engine: the devices.
          batch: B, over all devices.
        """
        self.part, self.batch = dataset.part("train"), batch
        self.columns = engine.columns(batch)
        self.resident = dataset.fits(self.part, training=True)
        self.pick = steps.pick_rows if self.resident else steps.pick_given
        self.data = engine.replicate(dataset.arrays(self.part)) if self.resident else {}

    def rows(self, seed: int, stage: int, epoch: int) -> np.ndarray:
        """Returns `[C, columns]`: the rows of an epoch's batches."""
        order = pipeline.order(len(self.part), seed, stage, epoch)
        return pipeline.rows_of(order, self.batch, self.columns)


class Batches:
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
        self._kept = list(self._stream()) if dataset.fits(part) else None

    def __iter__(self) -> Iterator[Any]:
        return iter(self._stream() if self._kept is None else self._kept)

    def _stream(self) -> Iterator[Any]:
        stream = self.dataset.stream(self.part, self._mine)
        return (self.engine.shard(batch, 0) for batch in stream)
