"""Folds: one run for each in `folds/<fold>/`, and their combined results, as of several seeds.

Each fold is a whole workdir of its own, so a stopped run goes on with the fold where it was.
"""

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils

from affectjax import metrics
from affectjax.data.batches.config import fold_names as split_names
from affectjax.runtime import configs
from affectjax.runtime.workdir import Workdir, write_json
from affectjax.training import baselines, calibration, run_config

Result = dict[str, Any]


def fold_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the names of the folds that a config asks for; none where it asks for one run."""
    data = config["data"]
    if not data.get("folds") and not data.get("fold"):
        return split_names(data.get("kfold", 0))
    return tuple(str(fold) for fold in data.get("folds", ()))


def run_each(
    config: Mapping[str, Any],
    workdir: str | Path,
    run: Callable[[Mapping[str, Any], Path], Result],
    split: str = "test",
) -> Result:
    """Runs every fold, writes what they say together, and returns the metrics of a split.

    Several processes have been joined before, see `parallel.initialize`.

    Args:
      config: with `config.data.folds` or `config.data.kfold`.
      workdir: of all of them.
      run: trains or evaluates one fold, `(config, workdir) -> metrics`.
      split: whose metrics to return.

    Returns:
      `mean`, `std` and `per_fold` of each metric over the folds, as eval/<split>.json has them.

    Raises:
      InputError: see `run_config.resolve`, or a workdir of another config.
    """
    folder = Workdir(workdir)
    if jax.process_index() == 0:
        whole = run_config.resolve(config)
        folder.claim(whole, whole["stages"], look=True)  # each fold knows which stage is the last
    names = fold_names(config)
    for name in names:
        one = configs.plain(config)
        one["data"] = {**one["data"], "fold": name, "folds": ()}
        run(one, folder.path / "folds" / name)
    if jax.process_index() == 0:
        folder.claim(whole, whole["stages"])
        write_combined(folder.path, names)
    if jax.process_count() > 1:  # the others read what the first has written
        multihost_utils.sync_global_devices("folds")
    return json.loads((folder.path / "eval" / f"{split}.json").read_text())


def write_combined(workdir: Path, names: Sequence[str]) -> None:
    """Writes eval/ of a workdir from those of its folds.

    A split's csv holds the examples of all folds, each once where no two test splits share any.

    Args:
      workdir: with folds/<name>/eval/ in it.
      names: of the folds.
    """
    folders = [workdir / "folds" / name / "eval" for name in names]
    for file in sorted(folders[0].glob("*.json")):
        read = {
            name: json.loads((f / file.name).read_text())
            for name, f in zip(names, folders, strict=True)
        }
        if file.name == "missing.json":
            shown = read[names[0]]["subsets"]
            subsets = {
                m: combine_folds({n: r["subsets"][m] for n, r in read.items()}) for m in shown
            }
            write_json(workdir / "eval" / file.name, {"split": "test", "subsets": subsets})
        elif file.name == calibration.FILE:
            continue  # each fold has its own
        elif file.name == baselines.FILE:
            write_json(workdir / "eval" / file.name, combine_baselines(read))
        else:
            write_json(workdir / "eval" / file.name, combine_folds(read))
    for file in sorted(folders[0].glob("*.csv")):
        rows: list[list[str]] = []
        for folder in folders:
            with (folder / file.name).open(newline="") as opened:
                head, *body = csv.reader(opened)
            rows += body
        with (workdir / "eval" / file.name).open("w", newline="") as opened:
            csv.writer(opened).writerows([head, *rows])


def combine_folds(per_fold: Mapping[str, Result]) -> Result:
    """Returns mean and std over folds of each metric, and each fold's own.

    Args:
      per_fold: by fold, its metrics; of several seeds, those with `mean`.
    """
    own = {name: _numbers(result.get("mean", result)) for name, result in per_fold.items()}
    return {**metrics.over_seeds(list(own.values())), "per_fold": own}


def combine_baselines(per_fold: Mapping[str, Result]) -> Result:
    """Returns eval/baselines.json of all folds: of each split as `combine_folds` has it.

    Args:
      per_fold: by fold, its own.
    """
    first = next(iter(per_fold.values()))
    if "sources" in first:
        names = first["sources"]
        each = {m: {n: own["sources"][m] for n, own in per_fold.items()} for m in names}
        return {"sources": {m: combine_baselines(own) for m, own in each.items()}}
    found = {}
    for name in first["baselines"]:
        own = {fold: dict(result["baselines"][name]) for fold, result in per_fold.items()}
        splits = {
            split: combine_folds({fold: one.pop(split) for fold, one in own.items()})
            for split in baselines.SPLITS
        }
        found[name] = {"per_fold": own, **splits}
    return {"metrics": first["metrics"], "baselines": found}


def _numbers(result: Result) -> Result:
    """Returns metrics as they were before JSON: NaN for null, as of a class that a fold lacks.

    The intervals stay in the fold's own file.
    """
    kept = {name: value for name, value in result.items() if name != "interval"}
    return {name: math.nan if value is None else value for name, value in kept.items()}
