"""What a run reached: its metrics, a comparison with another run, its shared space, and the page.

Letters: S seeds, N examples.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import logging

from affectjax import metrics
from affectjax.data.batches import saved_inputs
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES
from affectjax.reports import compared, html, run_page
from affectjax.reports.html import Table
from affectjax.runtime import configs
from affectjax.runtime.workdir import Workdir, write_json
from affectjax.tasks import base
from affectjax.tasks.supramodal import concept_bank
from affectjax.training import baselines, folds

COLUMNS = {
    "feature": "before the shared encoder",
    "emotion": "emotion features",
    "non_emotion": "non-emotion features",
}
_ABOUT_SPACE = (
    "Validation examples, as many of each modality, as t-SNE lays them out. A silhouette says how "
    "far groups lie apart, by cosine in the space itself: 1 apart, 0 mixed, below 0 among others. "
    "In a space that the modalities share, emotions have a high one and modalities one near 0."
)
_ABOUT_BASELINES = (
    "The baselines see what the model sees: the most frequent class or the mean score, and linear "
    "models of features pooled over time, on each modality and on all. In brackets the interval of "
    "the model at 95 %, by the bootstrap over videos or speakers."
)
_ABOUT_POOLS = "Concepts of each class, and in brackets the least confidence among them."

Numbers = dict[str, dict[str, float]]


# ---- metrics ------------------------------------------------------------------------------------


def _load(workdir: str | Path, split: str) -> dict[str, Any]:
    """Returns eval/<split>.json of a run; see `read` for what is raised."""
    file = Path(workdir) / "eval" / f"{split}.json"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it holds no object")
        return found
    except FileNotFoundError:
        raise InputError(f"{file} is not there: is the run finished?") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} cannot be read: {error}") from error


def read(workdir: str | Path, split: str) -> tuple[str, Numbers]:
    """Returns "seeds" or "folds", and the scalar metrics of each by its name; NaN for null.

    Args:
      workdir: of a run.
      split: as in eval/<split>.json.

    Raises:
      InputError: the run has no such evaluation.
    """
    return _per_run(_load(workdir, split), workdir)


def _per_run(result: dict[str, Any], workdir: str | Path) -> tuple[str, Numbers]:
    """Returns what `read` does, of eval/<split>.json."""
    kind = "folds" if "per_fold" in result else "seeds"
    (only, *_) = configs.seeds(Workdir(workdir).config())
    each = result.get("per_fold") or result.get("per_seed", {str(only): result})
    scalar = lambda value: value is None or isinstance(value, float)  # noqa: E731
    return kind, {
        name: {k: math.nan if v is None else v for k, v in named.items() if scalar(v)}
        for name, named in each.items()
    }


def table(workdir: str | Path, split: str = "test") -> str:
    """Returns a table of the metrics of a run: mean, and deviation over its seeds or folds.

    Of several seeds also those of their mean prediction, the ensemble; and where the run has them
    the 95 % intervals of the means.
    """
    return _table(workdir, split).markdown()


def _table(workdir: str | Path, split: str) -> Table:
    result, more = _load(workdir, split), {}
    kind, each = _per_run(result, workdir)
    summary = metrics.over_seeds(list(each.values()))
    if "ensemble" in result:
        scalar = {n: v for n, v in result["ensemble"].items() if not isinstance(v, list)}
        more["ensemble"] = {name: _number(v) for name, v in scalar.items()}
    if result.get("interval"):
        said = {name: baselines.ends(own).strip() for name, own in result["interval"].items()}
        more["95 % interval"] = said
    rows = [
        (
            *(name, _number(mean), _number(summary["std"][name])),
            *(own.get(name, "") for own in more.values()),
        )
        for name, mean in summary["mean"].items()
    ]
    head = ("metric", "mean", "std", *more)
    return Table(f"{workdir}, {split}, {kind} {', '.join(each)}", head, rows)


def _by_data_set(workdir: str | Path, split: str) -> Table:
    """Returns a column for each of the unpaired data sets, and `_table` where there are none."""
    narrow = _table(workdir, split)
    cells = {name: _with_deviation(mean, std) for name, mean, std, *_ in narrow.rows}
    held = [m for m in MODALITIES if any(name.startswith(f"{m}/") for name in cells)]
    if not held:
        return narrow
    short = [name.split("/", 1)[1] if name.split("/")[0] in held else name for name in cells]
    rows = [
        (name, *(cells.get(key, "") for key in (name, *(f"{m}/{name}" for m in held))))
        for name in dict.fromkeys(short)
    ]
    return Table(narrow.title, ("metric", "mean of all", *held), rows)


def standing_tables(workdir: str | Path, split: str) -> list[Table]:
    """Returns a table a data set: the model of a run and the baselines, by their main metrics.

    Args:
      workdir: of a run; one without baselines has no tables.
      split: as in eval/<split>.json.
    """
    found = []
    for standing in baselines.standings(workdir, split):
        rows = []
        for name, own in standing.rows.items():
            cells = [baselines.number(own[metric]) for metric in standing.names]
            if name == baselines.MODEL:
                cells[0] += baselines.ends(standing.interval.get(standing.names[0]))
            rows.append((name, *cells))
        title = "; ".join(filter(None, [standing.of, split, standing.verdict]))
        found.append(Table(title, (standing.of or "what", *standing.names), rows))
    return found


def missing_table(workdir: str | Path, split: str = "test") -> Table | None:
    """Returns a row for each subset of the modalities that the model was shown; None without any.

    Args:
      workdir: of a run.
      split: as in eval/<split>.json.
    """
    file = Path(workdir) / "eval" / "missing.json"
    content = _load(workdir, "missing") if file.is_file() else {"split": None}
    if content["split"] != split:
        return None
    summary, names = _subsets(workdir)
    ordered = list(summary)
    cell = lambda own, name: _with_deviation(*(_number(own[k][name]) for k in ("mean", "std")))  # noqa: E731
    rows = [(shown, *(cell(summary[shown], name) for name in names)) for shown in ordered]
    return Table(f"{workdir}, {split}, what the model is shown", ("shown", *names), rows)


def _subsets(workdir: str | Path) -> tuple[dict[str, dict[str, Any]], tuple[str, ...]]:
    """Returns mean and deviation of the metrics by subset, largest first, and the main metrics."""
    subsets = _load(workdir, "missing")["subsets"]
    summary = {
        shown: metrics.over_seeds(list(_per_run(subsets[shown], workdir)[1].values()))
        for shown in sorted(subsets, key=lambda shown: -shown.count("+"))
    }
    known = next(iter(summary.values()))["mean"]
    judged = (names for names in metrics.MAIN.values() if set(names) <= set(known))
    # A task of others may have metrics of its own.
    return summary, next(judged, tuple(known)[:5])


def _by_subset(workdir: str | Path) -> tuple[dict[str, tuple[float, float]], str]:
    """Returns by subset mean and deviation of the first main metric, and its name."""
    summary, (name, *_) = _subsets(workdir)
    return {shown: (own["mean"][name], own["std"][name]) for shown, own in summary.items()}, name


def _with_deviation(mean: str, std: str) -> str:
    """Returns the mean of a metric, and its deviation where there is one."""
    return mean if std == "-" else f"{mean} ± {std}"


def comparison(
    workdir: str | Path, against: str | Path | Sequence[str | Path], split: str = "test"
) -> str:
    """Returns tables of runs side by side, and of a run against each of the others.

    Over the seeds or folds that both have stands a paired t-test a metric; over the examples of
    both the bootstrap of the difference, and where they are classes McNemar's test. Of several
    others, those without pairs stand in the first table alone.

    Args:
      workdir: of a run.
      against: of the other one, or of several.
      split: as in eval/<split>.json.

    Raises:
      InputError: an evaluation is not there, or the one other run has nothing that makes pairs.

    Source: Tables 2 to 4 of the MCR paper.
    """
    return "\n\n".join(table.markdown() for table in _comparisons(workdir, against, split))


def _comparisons(
    workdir: str | Path, against: str | Path | Sequence[str | Path], split: str
) -> list[Table]:
    others = [against] if isinstance(against, str | Path) else list(against)
    tables = [_side_by_side([workdir, *others], split)] if len(others) > 1 else []
    for other in others:
        found = [_paired(workdir, other, split), compared.examples(workdir, other, split)]
        if not any(found) and len(others) == 1:
            (kind, ours), (other_kind, theirs) = read(workdir, split), read(other, split)
            raise InputError(
                f"nothing makes pairs of {workdir}, with {kind} {', '.join(ours)}, and {other}, "
                f"with {other_kind} {', '.join(theirs)}: a paired t-test needs two seeds or folds "
                f"that both have, other tests the same examples in eval/{split}.csv"
            )
        tables += filter(None, found)
    return tables


def _side_by_side(workdirs: Sequence[str | Path], split: str) -> Table:
    """Returns a column a run: mean, and deviation over its seeds or folds."""
    each = [list(read(workdir, split)[1].values()) for workdir in workdirs]
    names = dict.fromkeys(name for runs in each for run in runs for name in run)
    cell = lambda runs, name: _spread([run[name] for run in runs]) if name in runs[0] else ""  # noqa: E731
    rows = [(name, *(cell(runs, name) for runs in each)) for name in names]
    return Table(f"{split}, side by side", ("metric", *map(str, workdirs)), rows)


def _paired(workdir: str | Path, against: str | Path, split: str) -> Table | None:
    """Returns a t-test a metric; None where the runs share fewer than two seeds or folds."""
    (kind, ours), (other, theirs) = read(workdir, split), read(against, split)
    shared = [name for name in ours if name in theirs]
    if kind != other or len(shared) < 2:
        return None
    rows = []
    for name in (n for n in ours[shared[0]] if n in theirs[shared[0]]):
        a, b = ([run[key][name] for key in shared] for run in (ours, theirs))
        t, p = metrics.paired_t_test(a, b)
        rows.append((name, _spread(a), _spread(b), _number(t), _number(p)))
    title = f"{split}, {kind} {', '.join(shared)}; p of a paired t-test, two-sided"
    return Table(title, ("metric", str(workdir), str(against), "t", "p"), rows)


def _spread(values: Sequence[float]) -> str:
    summary: Mapping[str, Any] = metrics.over_seeds([{"x": v} for v in values])
    return _with_deviation(*(_number(summary[key]["x"]) for key in ("mean", "std")))


def _number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def last_words(workdir: str | Path, result: Mapping[str, Any]) -> list[str]:
    """Returns the lines that a training ends with: how good it is, the page, and what to type next.

    The first process of a run writes the page; where that fails a warning says so, and the run is
    as good as before.

    Args:
      workdir: of a finished run.
      result: of eval/test.json.
    """
    lines = [metrics.line(result)]
    for standing in baselines.standings(workdir):
        lines += standing.lines()
    if jax.process_index() == 0:
        try:
            lines.append(f"page: {write(workdir)}")
        except Exception as error:  # the run is finished, whatever a picture of it fails in
            logging.warning("no page: %s", error)
    if base.MAIN not in base.evaluated_data_sets(Workdir(workdir).config()):
        return lines
    inputs = saved_inputs.load(run_page.folders(workdir)[0])
    features = {kind.kind for kind in inputs.kinds.values()} == {"features"}
    what = "FOLDER_OF_FEATURES" if features else "CLIP"
    lines += ["next:", f"  affectjax predict {what} --checkpoint={workdir}"]
    return [*lines, f"  affectjax report --workdir={workdir} --against=ANOTHER_RUN"]


# ---- concepts -----------------------------------------------------------------------------------


def concept_folders(workdir: str | Path) -> dict[str, Path]:
    """Returns the folders of the concepts that a run learned, by fold and seed, as in "3-0".

    One of a single seed and no folds is "".

    Args:
      workdir: of a run.
    """
    config, workdir = Workdir(workdir).config(), Path(workdir)
    seeds = [str(seed) for seed in configs.seeds(config)]
    several = seeds if len(seeds) > 1 else [""]
    runs = {fold: workdir / "folds" / fold for fold in folds.fold_names(config)} or {"": workdir}
    places = {
        "-".join(filter(None, (fold, seed))): run / seed / "concepts"
        for fold, run in runs.items()
        for seed in several
    }
    return {name: place for name, place in places.items() if place.is_dir()}


def describe_concepts(folder: str | Path, path: Path) -> dict[str, Any]:
    """Draws the shared space of a run's concepts, and returns its numbers and those of the bank.

    Args:
      folder: of the concepts.
      path: of the PNG.

    Returns:
      `silhouettes` (see `affectjax.reports.embeddings.silhouettes`), `pools`: by modality and
      class the `count` of concepts and the least confidence among them, `threshold`, NaN of an
      empty pool; `top` and `correct_only` as in `affectjax.tasks.supramodal.concept_bank.select`.

    Raises:
      InputError: a file is missing or damaged.
    """
    from affectjax.reports import embeddings, figures  # Matplotlib and scikit-learn take seconds

    bank, numbers = concept_bank.load(folder), embeddings.silhouettes(folder)
    some = embeddings.sample(embeddings.load(folder), "three")
    value = lambda kind, group: numbers["three"][kind][group]["value"]  # noqa: E731
    figures.clouds(
        {COLUMNS[kind]: embeddings.embed(x) for kind, x in some.features.items()},
        {group: getattr(some, group) for group in embeddings.GROUPS},
        {
            (COLUMNS[kind], group): f"silhouette {_number(value(kind, group), 3)}"
            for kind in embeddings.KINDS
            for group in embeddings.GROUPS
        },
        path,
    )
    return {
        "silhouettes": numbers,
        "pools": {
            m: {
                name: {"count": count, "threshold": float(least)}
                for (name, count), least in zip(pools.items(), bank.thresholds[m], strict=True)
            }
            for m, pools in bank.counts.items()
        },
        "top": bank.top,
        "correct_only": bank.correct_only,
    }


def _silhouette_table(numbers: Mapping[str, Any]) -> Table:
    """Returns a row for each scheme and group, a column for each kind of feature."""
    rows, notes = [], {}
    for scheme, own in numbers.items():
        what = f"{', '.join(own['examples']) or 'no modality'} in {scheme} classes"
        for group in ("emotion", "modality"):
            found = [own[kind][group] for kind in COLUMNS]
            rows.append((f"by {group}: {what}", *(_number(f["value"], 3) for f in found)))
            notes |= {f"{what}: {f['reason']}": None for f in found if f["reason"]}
    return Table("; ".join(["Silhouettes", *notes]), ("examples", *COLUMNS.values()), rows)


def _pool_table(pools: Mapping[str, Any]) -> Table:
    """Returns a row for each class, a column for each modality."""
    classes = dict.fromkeys(name for own in pools.values() for name in own)
    cell = lambda pool: f"{pool['count']} ({_number(pool['threshold'], 2)})" if pool else ""  # noqa: E731
    rows = [(name, *(cell(own.get(name)) for own in pools.values())) for name in classes]
    return Table(_ABOUT_POOLS, ("class", *pools), rows)


# ---- the page -----------------------------------------------------------------------------------


def write(
    workdir: str | Path,
    split: str = "test",
    against: str | Path | Sequence[str | Path] | None = None,
) -> Path:
    """Writes report/ of a run, and returns the path of its page.

    Args:
      workdir: of a finished run.
      split: as in eval/<split>.json.
      against: another run or several, see `comparison`.

    Raises:
      InputError: see `table`, `comparison` and `describe_concepts`; or nothing can be written.
    """
    folder = Path(workdir) / "report"
    result, standings = _load(workdir, split), baselines.standings(workdir, split)
    _, each = _per_run(result, workdir)
    known = next(iter(each.values()))
    judged = next((n for names in metrics.MAIN.values() for n in names if n in known), None)
    parts = run_page.headline(standings, result)
    parts += [html.heading("Metrics"), _by_data_set(workdir, split).html()]
    if standings:
        parts += [html.heading("Against simple baselines"), html.paragraph(_ABOUT_BASELINES)]
        parts += [own.html() for own in standing_tables(workdir, split)]
    shown = missing_table(workdir, split)
    if shown:
        parts += [html.heading("When modalities are missing"), shown.html()]
        values, name = _by_subset(workdir)
        parts += [run_page.subsets(values, name)]
    parts += run_page.curves(workdir, judged)
    parts += run_page.errors(workdir, split, result)
    parts += run_page.prompts(workdir)
    if against:
        tables = _comparisons(workdir, against, split)
        parts += [html.heading("Against other runs"), *(table.html() for table in tables)]
    try:
        folder.mkdir(exist_ok=True)
        for name, place in concept_folders(workdir).items():
            stem = f"concepts-{name}" if name else "concepts"
            found = describe_concepts(place, folder / f"{stem}.png")
            write_json(folder / f"{stem}.json", found)
            parts += _concept_parts(name, found, folder / f"{stem}.png")
        parts += run_page.origin(workdir)
        path = folder / "index.html"
        path.write_text(html.page(str(workdir), parts), encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error}") from error
    return path


def _concept_parts(name: str, found: Mapping[str, Any], figure: Path) -> list[str]:
    """Returns what the page says about the concepts of a seed or fold."""
    of = f", {name}" if name else ""
    says = "t-SNE of the features in three columns, coloured by emotion and by modality"
    return [
        html.heading(f"Shared space{of}"),
        html.paragraph(_ABOUT_SPACE),
        html.image(figure, says),
        _silhouette_table(found["silhouettes"]).html(),
        html.heading(f"Pools of concepts{of}"),
        _pool_table(found["pools"]).html(),
    ]
