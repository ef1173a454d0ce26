"""Where a run is, in JSON's types at the border of a checkpoint; and the measurements of an epoch.

Letters: S seeds, C steps of an epoch.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from affectjax.runtime import steps

# Measurements by name, `[S, C]` each.
Series = dict[str, np.ndarray]


@dataclasses.dataclass
class Progress:
    """Where a run is.

    Attributes:
      stage: its number.
      epoch: of the stage, how many are done.
      step: of all stages together, how many are done.
      finished: whether the final evaluation is done.
      stream: within an epoch of a streamed part, the position of the stream; None between epochs.
      series: what was measured in that epoch so far.
    """

    stage: int = 0
    epoch: int = 0
    step: int = 0
    finished: bool = False
    stream: dict[str, Any] | None = None
    series: Series = dataclasses.field(default_factory=dict)

    @classmethod
    def from_json(cls, meta: Mapping[str, Any]) -> "Progress":
        """Returns what `to_json` gave; other keys of `meta` do not count."""
        own = {field.name: meta[field.name] for field in dataclasses.fields(cls)}
        series = {name: np.array(values) for name, values in own.pop("series").items()}
        return cls(**own, series=series)

    def to_json(self) -> dict[str, Any]:
        """Returns it in JSON's types."""
        series = {name: values.tolist() for name, values in self.series.items()}
        return {**vars(self), "series": series}

    @property
    def steps_of_epoch(self) -> int:
        """Returns how many steps of the present epoch are done."""
        return next((values.shape[1] for values in self.series.values()), 0)

    def begin_stage(self, stage: int) -> None:
        """Goes to the start of a stage."""
        self.stage, self.epoch = stage, 0

    def pause_epoch(self, stream: dict[str, Any], series: Series) -> None:
        """Notes a place within an epoch."""
        self.stream, self.series = stream, series

    def end_steps(self, count: int) -> None:
        """Notes that all `count` steps of an epoch are done."""
        self.step, self.stream, self.series = self.step + count, None, {}


def concatenate(chunks: Sequence[Series]) -> Series:
    """Returns measurements `[S, C]`, the steps of all chunks in order."""
    full = [chunk for chunk in chunks if chunk]
    return {name: np.concatenate([chunk[name] for chunk in full], axis=1) for name in full[0]}


def epoch_means(series: Series, s: int) -> dict[str, float]:
    """Returns each measurement of model `s` over an epoch: weighted means, and the last rate."""
    weight = series[steps.EXAMPLES][s].astype(np.float64)
    means = {
        name: float((value[s] * weight).sum() / max(weight.sum(), 1e-9))
        for name, value in series.items()
        if name != steps.EXAMPLES
    }
    return means | {"learning_rate": float(series["learning_rate"][s, -1])}
