"""What the features of one modality look like: shape, lengths, and values that spoil a training.

Letters: N examples, T steps, D features.
"""

import dataclasses

import numpy as np

from affectjax.data.sequences import Sequences

_CHUNK = 256  # examples in memory at once, in double precision
_WORST = 5


@dataclasses.dataclass(frozen=True)
class FeatureReport:
    """One modality of one split.

    Attributes:
      shape: `[N, T, D]` as it lies in the file.
      dtype: its precision there.
      lengths: least, median and greatest number of valid steps, of the examples that have it.
      absent: how many examples do not have it.
      nan: NaN values in valid steps.
      inf: infinite values in valid steps.
      worst: the dimensions with most non-finite values, and how many.
      dead: dimensions without one finite value.
      constant: dimensions with one finite value throughout.
    """

    shape: tuple[int, int, int]
    dtype: str
    lengths: tuple[int, float, int]
    absent: int
    nan: int
    inf: int
    worst: tuple[tuple[int, int], ...]
    dead: tuple[int, ...]
    constant: tuple[int, ...]

    def __str__(self) -> str:
        low, median, high = self.lengths
        line = (
            f"{list(self.shape)} {self.dtype}, steps {low} to {high} (median {median:g}), absent"
            f" in {self.absent}, NaN {self.nan}, inf {self.inf}"
        )
        if self.worst:
            line += ", worst dimensions " + ", ".join(f"{d} ({n})" for d, n in self.worst)
        return line


def report(sequences: Sequences) -> FeatureReport:
    """Returns the report of one modality, a few hundred examples at a time to spare memory."""
    x, mask = sequences.x, sequences.mask
    width = x.shape[2]
    nan, inf = np.zeros(width, np.int64), np.zeros(width, np.int64)
    low, high = np.full(width, np.inf), np.full(width, -np.inf)
    for start in range(0, len(x), _CHUNK):
        steps = x[start : start + _CHUNK][mask[start : start + _CHUNK]]
        finite = np.isfinite(steps)
        nan += np.isnan(steps).sum(axis=0)
        inf += np.isinf(steps).sum(axis=0)
        low = np.minimum(low, np.where(finite, steps, np.inf).min(axis=0, initial=np.inf))
        high = np.maximum(high, np.where(finite, steps, -np.inf).max(axis=0, initial=-np.inf))
    lengths = mask.sum(axis=1)
    here = lengths[lengths > 0]
    spread = (int(here.min()), float(np.median(here)), int(here.max())) if len(here) else (0, 0, 0)
    bad = nan + inf
    order = [int(d) for d in np.argsort(-bad, kind="stable")[:_WORST] if bad[d]]
    return FeatureReport(
        shape=x.shape,
        dtype=str(x.dtype),
        lengths=spread,
        absent=int((lengths == 0).sum()),
        nan=int(nan.sum()),
        inf=int(inf.sum()),
        worst=tuple((d, int(bad[d])) for d in order),
        dead=tuple(np.flatnonzero(low > high).tolist()) if len(here) else (),
        constant=tuple(np.flatnonzero(low == high).tolist()),
    )
