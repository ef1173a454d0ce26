"""The order of the examples in training, and streams of batches that can stop and go on.

Letters: N examples, B batch (over all devices).
"""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np

Arrays = dict[str, Any]


class BatchSource(Protocol):
    """Batches by number; several threads ask at once."""

    def __len__(self) -> int:
        """Returns how many there are."""

    def __getitem__(self, index: int) -> Arrays:
        """Returns one of them."""


class BatchStream:
    """A Grain iterator over batches whose position can be saved.

    Each batch has leaves `[..., B, ...]`, the leading axes those of the rows.
    """

    def __init__(self, source: BatchSource, threads: int):
        import grain  # slow to import, and a prediction needs none

        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
        self._iterator = iter(grain.MapDataset.source(source).to_iter_dataset(options))

    def __iter__(self) -> Iterator[Arrays]:
        return self._iterator

    def state(self) -> dict[str, Any]:
        """Returns the position, in JSON's types."""
        return self._iterator.get_state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes to a position that `state` returned."""
        self._iterator.set_state(dict(state))


def order(examples: int, seed: int, stage: int, epoch: int) -> np.ndarray:
    """Returns `[N]`: the examples in the order of an epoch of a stage, shuffled by Grain."""
    import grain

    shuffled = grain.MapDataset.range(examples).seed(seed + 2**31 * stage).shuffle().repeat()
    start = epoch * examples
    return np.array([shuffled[start + i] for i in range(examples)], np.int32)


def rows_of(order: np.ndarray, batch: int, columns: int) -> np.ndarray:
    """Returns `[steps, columns]`: the order cut into batches; -1 pads the last one, and the width.

    Args:
      order: `[N]`.
      batch: B, examples in a full batch.
      columns: at least B, such that the devices share it evenly.
    """
    steps = -(-len(order) // batch)
    rows = np.full(steps * batch, -1, np.int32)
    rows[: len(order)] = order
    return np.pad(rows.reshape(steps, batch), ((0, 0), (0, columns - batch)), constant_values=-1)
