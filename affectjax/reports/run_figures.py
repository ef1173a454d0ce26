"""Figures of a run: its learning, its errors, its calibration and its prompts.

Letters: C classes, M modalities, N examples or prompts, K bins.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from affectjax.reports.figures import GRID, MODALITY_COLOURS, plain

_TRAIN, _VALID, _FAINT = "#E69F00", "#0072B2", 0.25
# By stage, and by the name of a line its values: one list a model, each a pair (epochs, values).
Lines = Mapping[str, Sequence[tuple[Sequence[float], Sequence[float]]]]


def _figure(width: float, height: float, columns: int = 1) -> tuple[Figure, list]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
    return figure, list(axes)


def curves(panels: Mapping[str, Lines], stages: Mapping[str, int]) -> Figure:
    """Draws how a run learned: a panel a metric, a line each for training and validation.

    Of several models the thick line is their mean.

    Args:
      panels: by metric, the lines "training" and "validation", or one of them.
      stages: by name, the epoch at which each begins, in order.
    """
    figure, axes = _figure(5.2 * len(panels), 3.6, len(panels))
    colours = {"training": _TRAIN, "validation": _VALID}
    for one, (metric, lines) in zip(axes, panels.items(), strict=True):
        for name, models in lines.items():
            for x, y in models if len(models) > 1 else ():
                one.plot(x, y, color=colours[name], alpha=_FAINT, linewidth=1)
            points: dict[float, list[float]] = {}
            for x, y in itertools.chain.from_iterable(zip(*model, strict=True) for model in models):
                points.setdefault(x, []).append(y)
            at = sorted(points)
            mean = [np.nanmean(points[x]) if np.isfinite(points[x]).any() else np.nan for x in at]
            style = "--" if name == "training" else "-"
            one.plot(at, mean, style, color=colours[name], linewidth=2, label=name)
        for name, start in list(stages.items())[1:]:
            one.axvline(start + 0.5, color="#888888", linewidth=1, linestyle=":")
            one.annotate(
                f" {plain(name)}", (start + 0.5, 1), xycoords=("data", "axes fraction"), va="top"
            )
        one.set_title(plain(metric), loc="left", fontweight="bold")
        one.set_xlabel("epoch")
        one.grid(color=GRID)
        one.legend(frameon=False)
    return figure


def confusion(counts: np.ndarray, classes: Sequence[str]) -> Figure:
    """Draws the confusion matrix, each row as shares of what is true, beside the recalls.

    Args:
      counts: `[C, C]`, true classes by predicted ones.
      classes: C names.
    """
    counts = np.asarray(counts, np.float64)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = 1.6 + 0.55 * len(classes)
    figure, (matrix, recall) = _figure(2 * side + 1, side, 2)
    matrix.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for i, j in itertools.product(range(len(classes)), repeat=2):
        if counts[i, j]:
            colour = "white" if shares[i, j] > 0.55 else "black"
            matrix.text(j, i, f"{shares[i, j]:.0%}", ha="center", va="center", color=colour)
    names = [plain(name) for name in classes]
    matrix.set_xticks(range(len(names)), names, rotation=45, ha="right")
    counted = [f"{n} ({int(c)})" for n, c in zip(names, counts.sum(1), strict=True)]
    matrix.set_yticks(range(len(names)), counted)
    matrix.set_xlabel("predicted")
    matrix.set_ylabel("true, with the number of examples")
    drawn = recall.barh(range(len(names)), np.diag(shares), color=_VALID)
    recall.bar_label(drawn, [f"{v:.0%}" for v in np.diag(shares)], padding=3)
    recall.axvline(1 / len(names), color="#888888", linestyle=":")
    recall.set_yticks(range(len(names)), names)
    recall.invert_yaxis()
    recall.set_xlim(0, 1.12)
    recall.set_xlabel("recall; dotted: chance")
    return figure


def reliability(error: float, table: np.ndarray) -> Figure:
    """Draws how often a model is right by how sure it is.

    Args:
      error: expected calibration error.
      table: `[K, 3]`, see `affectjax.training.calibration.expected_error`.
    """
    figure, (axes,) = _figure(4.6, 4)
    axes.plot([0, 1], [0, 1], color="#888888", linestyle=":")
    size = 20 + 300 * table[:, 2] / max(table[:, 2].max(initial=1), 1)
    axes.plot(table[:, 0], table[:, 1], color=_VALID)
    axes.scatter(table[:, 0], table[:, 1], s=size, color=_VALID, alpha=0.6)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="how sure it is", ylabel="how often it is right")
    axes.grid(color=GRID)
    axes.set_title(f"calibration error (ECE) {error:.3f}", loc="left", fontweight="bold")
    return figure


def scores(label: np.ndarray, prediction: np.ndarray) -> Figure:
    """Draws predicted scores `[N]` over the true ones."""
    figure, (axes,) = _figure(4.6, 4.2)
    both = np.concatenate([label, prediction])
    ends = [both.min(), both.max()]
    axes.plot(ends, ends, color="#888888", linestyle=":")
    axes.scatter(label, prediction, s=12, alpha=0.5, color=_VALID, edgecolors="none")
    axes.set(xlabel="true score", ylabel="predicted score")
    axes.grid(color=GRID)
    return figure


def subsets(values: Mapping[str, tuple[float, float]], metric: str) -> Figure:
    """Draws a metric for each subset of modalities that a model was shown.

    Args:
      values: by subset, as "text+audio", mean and deviation (NaN for none).
      metric: its name.
    """
    figure, (axes,) = _figure(6, 0.8 + 0.4 * len(values))
    names, mean = list(values), [value for value, _ in values.values()]
    spread = [0 if np.isnan(deviation) else deviation for _, deviation in values.values()]
    best = max(mean)
    colours = [_VALID if value == best else "#9db8cc" for value in mean]
    drawn = axes.barh(range(len(names)), mean, xerr=spread, color=colours, ecolor="#444444")
    axes.bar_label(drawn, [f"{value:.3f}" for value in mean], padding=4)
    axes.set_yticks(range(len(names)), [plain(name.replace("+", " + ")) for name in names])
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel(plain(metric))
    return figure


def prompts(share: np.ndarray, keys: np.ndarray, rows: Sequence[str], used: np.ndarray) -> Figure:
    """Draws which prompts served which modality, and how the keys lie by their two main axes.

    Args:
      share: `[M + 1, N]`, of each row's activations the part of each prompt.
      keys: `[N, D]`.
      rows: M modalities, and "several" at once.
      used: `[N]`, activations of each prompt.
    """
    figure, (heat, plane) = _figure(12, 1.6 + 0.5 * len(rows), 2)
    image = heat.imshow(share, aspect="auto", cmap="cividis", vmin=0)
    figure.colorbar(image, ax=heat, label="part of the activations")
    heat.set_yticks(range(len(rows)), rows)
    heat.set_xlabel("prompt")
    centred = keys - keys.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    xy = centred @ axes[:2].T
    xy = np.pad(xy, ((0, 0), (0, 2 - xy.shape[1])))  # of one prompt there is no second direction
    owner = share.argmax(0)
    size = 15 + 250 * used / max(used.max(initial=0), 1)
    for m, name in enumerate(rows):
        own = (owner == m) & (used > 0)
        if not own.any():
            continue
        colour = MODALITY_COLOURS.get(name, "#444444")
        plane.scatter(*xy[own].T, s=size[own], color=colour, alpha=0.7, label=name)
    never = used == 0
    plane.scatter(*xy[never].T, s=15, facecolors="none", edgecolors="#aaaaaa", label="never used")
    for n, (x, y) in enumerate(xy):
        plane.annotate(str(n), (x, y), fontsize=8, ha="center", va="center")
    plane.set(xticks=[], yticks=[])
    plane.set_title("keys, by the modality that each served most", loc="left")
    plane.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), markerscale=0.6)
    return figure
