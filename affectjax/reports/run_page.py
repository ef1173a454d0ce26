"""What the page of a run shows besides its tables: curves, errors, calibration, prompts, origin.

Each function returns pieces of HTML, none where the run has nothing of the kind.

Letters: C classes, M modalities, N examples or prompts.
"""

import csv
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from affectjax import metrics
from affectjax.data.batches import saved_inputs
from affectjax.errors import InputError
from affectjax.modalities import chosen
from affectjax.models.umbenet import POOL, SEVERAL, activations
from affectjax.reports import html, run_figures
from affectjax.reports.html import Table
from affectjax.runtime import configs
from affectjax.runtime.workdir import CONFIG, Workdir
from affectjax.training import baselines, calibration, folds
from affectjax.training.run_checkpoints import best_of

HARDEST = 10
_TRAIN_METRICS = {"war": "accuracy", "acc": "accuracy"}
_ABOUT_CALIBRATION = (
    "A point is what the model said with about that probability; on the dotted line it is as often "
    "right as it says. Large points stand for many examples."
)
_ABOUT_PROMPTS = (
    "Left: of all times that a modality asked the pool, the part that each prompt answered, in the "
    "last epoch or in the stage before. Right: the keys, laid out by their two main directions."
)


def folders(workdir: str | Path) -> list[Path]:
    """Returns the workdirs that have been trained in: that of a run, or those of its folds."""
    path = Path(workdir)
    names = folds.fold_names(Workdir(path).config())
    return [path / "folds" / name for name in names] or [path]


# ---- learning -----------------------------------------------------------------------------------


def curves(workdir: str | Path, metric: str | None) -> list[str]:
    """Returns loss and main metric by epoch.

    Args:
      workdir: of a run.
      metric: by which it is judged; None for the loss alone.
    """
    found: dict[tuple[str, str], dict[Any, tuple[list[float], list[float]]]] = {}
    starts: dict[str, int] = {}
    for folder in folders(workdir):
        offsets: dict[str, int] = {}
        last = 0
        for row in _lines(folder / "metrics.jsonl"):
            if not isinstance(row, dict):
                raise InputError(f"{folder / 'metrics.jsonl'} cannot be read: a line is no object")
            stage, epoch = row.get("stage"), row.get("epoch")
            if stage is None or epoch is None:
                continue
            offset = offsets.setdefault(stage, last)
            last = max(last, offset + epoch + 1)
            starts.setdefault(stage, offset)
            names = {"loss": "loss"} | ({metric: metric} if metric else {})
            if row.get("split") == "train" and metric in _TRAIN_METRICS:
                names[metric] = _TRAIN_METRICS[metric]
            if row.get("split") not in ("train", "valid"):
                continue
            of = {"train": "training", "valid": "validation"}[row["split"]]
            for name, key in names.items():
                value = row.get(key)
                if isinstance(value, int | float):
                    x, y = found.setdefault((name, of), {}).setdefault(
                        (folder, row.get("seed")), ([], [])
                    )
                    x.append(offset + epoch + 1)
                    y.append(float(value))
    if not found:
        return []
    panels: dict[str, dict[str, list]] = {}
    for (name, of), models in found.items():
        panels.setdefault(name, {})[of] = list(models.values())
    drawn = run_figures.curves(panels, starts)
    return [html.heading("Learning"), html.figure(drawn, "loss and main metric by epoch")]


def _lines(file: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} cannot be read: {error}") from error


# ---- errors -------------------------------------------------------------------------------------


def errors(workdir: str | Path, split: str, result: Mapping[str, Any]) -> list[str]:
    """Returns the confusion matrix, calibration and hardest examples, or a picture of scores.

    Args:
      workdir: of a run.
      split: as in eval/<split>.json.
      result: that file's content.
    """
    rows = predictions(workdir, split)
    each = [*result.get("per_fold", result.get("per_seed", {"": result})).values()]
    each = [one for own in each for one in own.get("per_seed", {"": own}).values()]
    matrices = [np.array(one["confusion"]) for one in each if one.get("confusion")]
    classes = [n.removeprefix("recall/") for n in each[0] if n.startswith("recall/")]
    parts = []
    square = matrices and all(m.shape == (len(classes),) * 2 for m in matrices)
    if square and classes:
        drawn = run_figures.confusion(np.sum(matrices, axis=0), classes)
        said = "of all seeds or folds together" if len(matrices) > 1 else ""
        parts += [html.heading("Errors"), html.paragraph(said) if said else ""]
        parts += [html.figure(drawn, "confusion matrix and recall of each class")]
    if rows and classes and all(name in rows[0] for name in (*classes, "label", "prediction")):
        parts += _of_classes(rows, classes, split, calibration.load(Path(workdir)))
    elif rows and not classes and {*rows[0]} == {"id", "label", "prediction"}:
        parts += _of_scores(rows)
    return parts


def _of_classes(
    rows: Sequence[Mapping[str, str]],
    classes: Sequence[str],
    split: str,
    cooling: Mapping[str, Any] | None,
) -> list[str]:
    probability = np.array([[float(row[name]) for name in classes] for row in rows])
    right = np.array([row["label"] == row["prediction"] for row in rows])
    drawn = run_figures.reliability(*calibration.expected_error(probability.max(1), right))
    parts = [html.heading("Calibration"), html.paragraph(_ABOUT_CALIBRATION)]
    if cooling:
        errors = cooling.get("ece", {}).get(split, {})
        before, after = (errors.get(k) for k in ("before", "after"))
        if before is not None and after is not None:
            said = (
                f"A temperature of {cooling['temperature']:.2f}, fitted on the validation part, "
                f"brings the error from {before:.3f} to {after:.3f}."
            )
            parts.append(html.paragraph(said))
    parts += [html.figure(drawn, "reliability diagram")]
    known = [row["label"] in classes for row in rows]
    of_label = np.array(
        [float(row[row["label"]]) if ok else np.nan for row, ok in zip(rows, known, strict=True)]
    )
    hardest = np.argsort(of_label)[:HARDEST]
    body = [
        (rows[i]["id"], rows[i]["label"], f"{of_label[i]:.3f}", rows[i]["prediction"],
         f"{probability[i].max():.3f}")
        for i in hardest
    ]  # fmt: skip
    head = ("id", "true", "its probability", "predicted", "its probability")
    table = Table("Those whose true class the model holds for least likely", head, body)
    return [*parts, html.heading("Hardest examples"), table.html()]


def _of_scores(rows: Sequence[Mapping[str, str]]) -> list[str]:
    label, prediction = (
        np.array([float(row[key]) for row in rows]) for key in ("label", "prediction")
    )
    drawn = run_figures.scores(label, prediction)
    worst = np.argsort(-np.abs(label - prediction))[:HARDEST]
    body = [(rows[i]["id"], f"{label[i]:.2f}", f"{prediction[i]:.2f}") for i in worst]
    table = Table("Those with the largest errors", ("id", "true", "predicted"), body)
    return [
        html.heading("Errors"),
        html.figure(drawn, "predicted scores over true ones"),
        html.heading("Hardest examples"),
        table.html(),
    ]


def predictions(workdir: str | Path, split: str) -> list[dict[str, str]]:
    """Returns the rows of eval/<split>.csv; none where the run has none.

    Raises:
      InputError: it cannot be read.
    """
    file = Path(workdir) / "eval" / f"{split}.csv"
    try:
        with file.open(newline="", encoding="utf-8") as opened:
            rows = list(csv.DictReader(opened))
        if any(None in row or None in row.values() for row in rows):
            raise ValueError("a row has fewer or more cells than the head")
        return rows
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{file} cannot be read: {error}") from error


# ---- modalities and prompts ---------------------------------------------------------------------


def subsets(values: Mapping[str, tuple[float, float]], metric: str) -> str:
    """Returns a bar for each subset of the modalities, see `run_figures.subsets`."""
    return html.figure(run_figures.subsets(values, metric), "bars over subsets of modalities")


def prompts(workdir: str | Path) -> list[str]:
    """Returns which prompts of UMBEnet's pool serve what, of each fold and seed the first."""
    folder = folders(workdir)[0]
    if not (folder / "checkpoints" / "best").is_dir():
        return []
    config = Workdir(folder).config()
    if not config.get("model", {}).get("pool_size") and config.get("task") != "umbenet":
        return []
    found = best_of(folder)
    pool = {} if found is None else found.get("variables", {}).get(POOL, {}).get("pool", {})
    if not pool:
        return []
    counts = activations(*(np.asarray(pool[name][0]) for name in ("served", "epoch")))
    keys = np.asarray(found["params"]["pool"]["keys"][0])
    task_modalities = _modalities(folder, config, len(counts) - 1)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    drawn = run_figures.prompts(share, keys, (*task_modalities, SEVERAL), counts.sum(0))
    says = "which prompts answered which modality, and the keys in a plane"
    return [html.heading("Prompts"), html.paragraph(_ABOUT_PROMPTS), html.figure(drawn, says)]


def _modalities(folder: Path, config: Mapping[str, Any], count: int) -> tuple[str, ...]:
    """Returns the modalities of the model; numbers where the run no longer says."""
    try:
        found = saved_inputs.load(folder).modalities
        # As the model chooses; building it would read its towers' weights.
        named = chosen(config["model"].get("modalities", ()), found, "config.model.modalities")
    except InputError:
        named = ()
    return named if len(named) == count else tuple(map(str, range(count)))


# ---- where it comes from ------------------------------------------------------------------------


def origin(workdir: str | Path) -> list[str]:
    """Returns the command, the versions and the whole config of a run."""
    said = json.loads((Path(workdir) / CONFIG).read_text(encoding="utf-8"))
    rows = [("command", shlex.join(said["command"]))] if said.get("command") else []
    rows += [("source", said["git"])] if said.get("git") else []
    rows += [("devices", ", ".join(said.get("devices", ())))]
    rows += sorted(said.get("versions", {}).items())
    rows += [("seeds", ", ".join(map(str, configs.seeds(said["config"]))))]
    whole = json.dumps(said["config"], indent=2, sort_keys=True)
    return [
        html.heading("Where it comes from"),
        Table("", ("what", "value"), rows).html(),
        html.folded("the whole config", whole),
    ]


def headline(standings: Sequence[Any], result: Mapping[str, Any]) -> list[str]:
    """Returns in one line how good the run is: its metric, interval, seeds, and baselines.

    Args:
      standings: see `affectjax.training.baselines.standings`; [] where there are none.
      result: of eval/<split>.json.
    """
    each = result.get("per_fold") or result.get("per_seed") or {}
    kind = "folds" if "per_fold" in result else "seeds"
    count = f", mean of {len(each)} {kind}" if len(each) > 1 else ", one seed"
    if not standings:
        named = result.get("mean", result)
        name = next((n for names in metrics.MAIN.values() for n in names if n in named), None)
        value = None if name is None else named[name]
        if value is None or math.isnan(value):
            return []
        return [html.headline(f"{value:.3f}", f"{name}{count}")]
    parts = []
    for standing in standings:
        name = standing.names[0]
        rows = {row: own[name] for row, own in standing.rows.items() if own[name] is not None}
        if baselines.MODEL not in rows:
            continue
        ends = standing.interval.get(name)
        said = f"{name}{f' of {standing.of}' if standing.of else ''}{count}"
        if ends and None not in ends:
            said += f", 95 % interval {ends[0]:.3f} to {ends[1]:.3f}"
        linear = {row: v for row, v in rows.items() if row.startswith(baselines.LINEAR)}
        if "majority" in rows or "mean score" in rows:
            simple = next(row for row in ("majority", "mean score") if row in rows)
            said += f"; {simple} {rows[simple]:.3f}"
        if linear:
            best = max(linear, key=linear.get)
            said += f"; {best} {linear[best]:.3f}"
        parts.append(html.headline(f"{rows[baselines.MODEL]:.3f}", said))
        if standing.verdict:
            parts.append(html.paragraph(standing.verdict[0].upper() + standing.verdict[1:] + "."))
    return parts
