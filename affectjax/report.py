"""Prints what a run reached: `python -m affectjax.report --workdir=A --against=B`."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from affectjax import metrics
from affectjax.errors import InputError
from affectjax.runtime import app, configs
from affectjax.runtime.workdir import Workdir

_WORKDIR = flags.DEFINE_string("workdir", None, "The folder of the run.")
_AGAINST = flags.DEFINE_string("against", None, "Another run's folder, for a paired t-test.")
_SPLIT = flags.DEFINE_string("split", "test", "Which eval/<split>.json to read.")


def read_result(workdir: str | Path, split: str) -> dict[str, dict[str, float]]:
    """Returns the scalar metrics of each seed or fold, by its name; NaN where the file has null.

    Args:
      workdir: of a run.
      split: as in eval/<split>.json.

    Raises:
      InputError: the run has no such evaluation.
    """
    file = Path(workdir) / "eval" / f"{split}.json"
    try:
        result = json.loads(file.read_text())
    except FileNotFoundError:
        raise InputError(f"{file} is not there: is the run finished?") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{file} cannot be read: {error}") from error
    (only, *_) = configs.seeds(Workdir(workdir).config())
    per_seed = result.get("per_fold") or result.get("per_seed", {str(only): result})
    scalar = lambda value: value is None or isinstance(value, int | float)  # noqa: E731
    return {
        seed: {k: math.nan if v is None else v for k, v in named.items() if scalar(v)}
        for seed, named in per_seed.items()
    }


def table(workdir: str | Path, split: str = "test") -> str:
    """Returns a table of the metrics of a run: mean, and deviation over its seeds."""
    per_seed = read_result(workdir, split)
    summary = metrics.over_seeds(list(per_seed.values()))
    rows = [
        (name, _number(mean), _number(summary["std"][name]))
        for name, mean in summary["mean"].items()
    ]
    title = f"{workdir}, {split}, seeds {', '.join(per_seed)}"
    return f"{title}\n\n{_layout(('metric', 'mean', 'std'), rows)}"


def comparison(workdir: str | Path, against: str | Path, split: str = "test") -> str:
    """Returns a table of both runs with a paired t-test a metric, over the seeds of both.

    Args:
      workdir: of a run.
      against: of the other one.
      split: as in eval/<split>.json.

    Raises:
      InputError: an evaluation is not there, or fewer than two seeds stand in both.

    Source: Tables 2 to 4 of the MCR paper.
    """
    ours, theirs = read_result(workdir, split), read_result(against, split)
    seeds = [seed for seed in ours if seed in theirs]
    if len(seeds) < 2:
        raise InputError(
            f"a paired t-test needs two seeds or more in both runs; {workdir} has "
            f"{', '.join(ours)} and {against} has {', '.join(theirs)}"
        )
    rows = []
    for name in (n for n in ours[seeds[0]] if n in theirs[seeds[0]]):
        a, b = ([run[seed][name] for seed in seeds] for run in (ours, theirs))
        t, p = metrics.paired_t_test(a, b)
        rows.append((name, _spread(a), _spread(b), _number(t), _number(p)))
    title = f"{split}, seeds {', '.join(seeds)}; p of a paired t-test, two-sided"
    columns = ("metric", str(workdir), str(against), "t", "p")
    return f"{title}\n\n{_layout(columns, rows)}"


def _spread(values: Sequence[float]) -> str:
    summary: Mapping[str, Any] = metrics.over_seeds([{"x": v} for v in values])
    return f"{_number(summary['mean']['x'])} ± {_number(summary['std']['x'])}"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def _layout(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table with columns of even width."""
    cells = [tuple(head), *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    cells.insert(1, tuple("-" * width for width in widths))
    padded = ([c.ljust(w) for c, w in zip(row, widths, strict=True)] for row in cells)
    return "\n".join(f"| {' | '.join(row)} |" for row in padded)


def main(argv):
    """Prints the table that the flags ask for."""
    del argv
    if not _WORKDIR.value:
        raise InputError("--workdir is missing: which run?")
    if _AGAINST.value:
        print(comparison(_WORKDIR.value, _AGAINST.value, _SPLIT.value))
    else:
        print(table(_WORKDIR.value, _SPLIT.value))


if __name__ == "__main__":
    app.run(main)
