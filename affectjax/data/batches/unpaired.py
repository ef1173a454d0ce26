"""Unpaired data sets: one a modality, each with batches of its own, that share the steps of a run.

Letters: N examples, B batch (over all devices), C steps of an epoch.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from affectjax.data.batches.streams import Arrays, BatchSource, order, rows_of

UNITS = ("batches", "epochs")
LENGTHS = ("each", "longest", "shortest")


@dataclasses.dataclass(frozen=True)
class Turns:
    """How data sets share the steps of an epoch.

    Attributes:
      names: of the data sets, in the order of their turns.
      together: whether each step has a batch of every data set, or of one, in turn.
      cycle: of turns, how long one lasts.
      unit: of `cycle`: "batches", or "epochs": so many times through the data set.
      length: how many batches each gives an epoch. "each": each goes through its own data once, and
        has no more turns then. "longest": as many as the one with the most batches; the others
        begin again. "shortest": as many as the one with the fewest; the others go on from there in
        the next epoch. Together, "each" is "longest".
    """

    names: tuple[str, ...]
    together: bool = False
    cycle: int = 1
    unit: str = "batches"
    length: str = "each"

    def __post_init__(self):
        for key, allowed in (("unit", UNITS), ("length", LENGTHS)):
            if getattr(self, key) not in allowed:
                raise ValueError(f"{key} is {getattr(self, key)!r}; allowed: {', '.join(allowed)}")
        if self.cycle < 1:
            raise ValueError(f"cycle is {self.cycle}; allowed: 1 or more")

    def counts(self, batches: Mapping[str, int]) -> dict[str, int]:
        """Returns how many batches each data set gives an epoch.

        Args:
          batches: by name, how many a data set has.
        """
        own = {name: batches[name] for name in self.names}
        if self.length == "shortest":
            return dict.fromkeys(own, min(own.values()))
        if self.length == "longest" or self.together:
            return dict.fromkeys(own, max(own.values()))
        return own

    def steps(self, batches: Mapping[str, int]) -> int:
        """Returns C, the same in every epoch."""
        counts = self.counts(batches)
        return max(counts.values()) if self.together else sum(counts.values())

    def plan(self, batches: Mapping[str, int], epoch: int) -> tuple[np.ndarray, dict]:
        """Returns whose turn each step of an epoch is, and which batch each data set gives then.

        Args:
          batches: by name, how many a data set has.
          epoch: of the stage, from 0.

        Returns:
          `[C]` int32, places in `names` (0 where all take part), and by name `[C]` int64: the
          number of the batch, counted from the start of the stage; -1 for none.
        """
        counts, steps = self.counts(batches), self.steps(batches)
        if self.together:
            number = epoch * steps + np.arange(steps)
            return np.zeros(steps, np.int32), {name: number.copy() for name in self.names}
        # Turns that last k epochs repeat after k epochs, not after one.
        span = self.cycle if self.unit == "epochs" else 1
        left = {name: span * counts[name] for name in self.names}
        turns: list[int] = []
        while any(left.values()):
            for place, name in enumerate(self.names):
                take = left[name] if self.unit == "epochs" else min(self.cycle, left[name])
                turns += [place] * take
                left[name] -= take
        all_turns = np.array(turns, np.int32)
        first = (epoch % span) * steps
        mine, numbers = all_turns[first : first + steps], {}
        for place, name in enumerate(self.names):
            before = epoch // span * span * counts[name] + (all_turns[:first] == place).sum()
            at = mine == place
            numbers[name] = np.where(at, before + np.cumsum(at) - 1, -1)
        return mine, numbers


def rows(
    numbers: np.ndarray, examples: int, batch: int, columns: int, seed: int, stage: int
) -> np.ndarray:
    """Returns `[C, columns]`: the rows of a data set for batches by number, -1 where there is none.

    Batch q is the q-th of the data set gone through again and again, in a new order every time.

    Args:
      numbers: `[C]`, see `Turns.plan`.
      examples: N.
      batch: B.
      columns: at least B, such that the devices share it evenly.
      seed: of the run.
      stage: its number.
    """
    each = -(-examples // batch)
    found = np.full((len(numbers), columns), -1, np.int32)
    for again in np.unique(numbers[numbers >= 0] // each):
        at = numbers // each == again
        whole = rows_of(order(examples, seed, stage, int(again)), batch, columns)
        found[at] = whole[numbers[at] % each]
    return found


class Together(BatchSource):
    """Batches by number of several data sets side by side, with whose turn it is."""

    def __init__(self, sources: Mapping[str, BatchSource], turn: Sequence[np.ndarray]):
        self._sources, self._turn = dict(sources), turn

    def __len__(self) -> int:
        return len(self._turn)

    def __getitem__(self, index: int) -> Arrays:
        found: Arrays = {name: source[index] for name, source in self._sources.items()}
        return found | {"turn": self._turn[index]}
