"""Figures of predictions and of features, drawn without a display."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

DOTS = 150  # pixels an inch
_FAINT, _CLEAR, GRID = 0.55, 0.8, "#dddddd"
_MARKED = 40  # more windows than this are a line without points
_TITLE = 50  # characters of an id
# Okabe and Ito's colours, which the colour-blind tell apart; no row of a figure repeats another's.
_COLOURS = {
    "negative": "#D55E00",
    "neutral": "#8C8C8C",
    "positive": "#0072B2",
    "text": "#CC79A7",
    "audio": "#E69F00",
    "vision": "#009E73",
}
MODALITY_COLOURS = {m: _COLOURS[m] for m in ("text", "audio", "vision")}
_SHAPES = {"text": "o", "audio": "^", "vision": "s"}


def timeline(prediction: Mapping[str, Any], classes: Sequence[str]) -> Figure:
    """Draws how the probability of each class goes over a clip.

    A point stands in the middle of its window; where nothing was to see or hear, the lines have a
    gap. The band below says which class wins when; the class of the whole clip is in the title.

    Args:
      prediction: with `id`, `prediction`, `probability` and `timeline`, see
        `affectjax.inference.Recognizer`.
      classes: the order of the legend and of the colours.
    """
    entries = prediction["timeline"]
    starts, ends = (np.array([entry[key] for entry in entries]) for key in ("start", "end"))
    values = np.array(
        [[np.nan if (p := e["probability"]) is None else p[c] for c in classes] for e in entries]
    )
    colours = dict(zip(classes, _colours(len(classes)), strict=True))
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    lines, band = figure.subplots(2, 1, sharex=True, height_ratios=(12, 1))
    _lines(lines, (starts + ends) / 2, values, colours, prediction["prediction"])
    _band(band, starts, ends, values, list(colours.values()))
    lines.set_xlim(starts[0], ends[-1])
    shares, winner = prediction["probability"], prediction["prediction"]
    title = f"{_short(prediction['id'])}: {winner}"
    lines.set_title(plain(title), loc="left", fontweight="bold")
    handles = [
        Patch(color=colour, label=plain(f"{name} {shares[name]:.0%}"))
        for name, colour in colours.items()
    ]
    legend = figure.legend(
        handles=handles, loc="outside right upper", frameon=False, title="whole clip"
    )
    if winner in classes:  # of tasks several may be likely
        legend.get_texts()[list(classes).index(winner)].set_fontweight("bold")
    return figure


def bars(prediction: Mapping[str, Any]) -> Figure:
    """Draws the probability of each class as a bar.

    Args:
      prediction: with `id`, `prediction` and `probability`, see `affectjax.inference.Recognizer`.
    """
    names, values = zip(*prediction["probability"].items(), strict=True)
    figure = Figure(figsize=(6, 0.6 + 0.35 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    drawn = axes.barh(range(len(names)), values, color=_colours(len(names)))
    axes.bar_label(drawn, [f"{value:.0%}" for value in values], padding=3)
    axes.set_yticks(range(len(names)), [plain(name) for name in names])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.1)
    axes.set_xlabel("probability")
    axes.spines[["top", "right"]].set_visible(False)
    title = f"{_short(prediction['id'])}: {prediction['prediction']}"
    axes.set_title(plain(title), loc="left", fontweight="bold")
    return figure


def clouds(
    points: Mapping[str, np.ndarray],
    groups: Mapping[str, np.ndarray],
    titles: Mapping[tuple[str, str], str],
    path: Path,
) -> None:
    """Draws features as points of a plane, as a PNG: a column a kind, a row what colours it.

    The shape of a point says its modality, in every row.

    Args:
      points: by the title of a column `[N, 2]`.
      groups: "emotion" (negative, neutral, positive) and "modality", `[N]` names each.
      titles: by column and row, what stands above a plane.
      path: of the PNG.
    """
    size = (3.6 * len(points) + 1.6, 3.9 * len(groups))
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(groups), len(points), squeeze=False)
    shapes = groups["modality"]
    dot = float(np.clip(13000 / max(len(shapes), 1), 8, 40))
    shuffled = np.random.default_rng(0).permutation(len(shapes))  # no class hides another
    for i, (what, names) in enumerate(groups.items()):
        row = grid[i]
        for axes, (column, xy) in zip(row, points.items(), strict=True):
            for m, shape in _SHAPES.items():
                own = shuffled[shapes[shuffled] == m]
                colour = [_COLOURS[name] for name in names[own]]
                style = {"marker": shape, "s": dot, "edgecolors": "white", "linewidths": 0.3}
                axes.scatter(*xy[own].T, c=colour, alpha=_CLEAR, **style)
            axes.set_title(f"{column}\n" * (i == 0) + titles[column, what], fontsize=11)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_color(GRID)
        row[0].set_ylabel(f"coloured by {what}", fontsize=11)
        row[-1].legend(
            handles=_keys(names, shapes),
            loc="upper left",
            bbox_to_anchor=(1.02, 1.0),
            frameon=False,
        )
    figure.savefig(path, dpi=DOTS)


def _keys(names: np.ndarray, modalities: np.ndarray) -> list[Line2D]:
    """Returns the legend of a row: its colours, and the shapes where colours do not say them."""
    style = {"linestyle": "", "markersize": 8}
    shown = [name for name in _COLOURS if name in names]
    if set(shown) <= set(_SHAPES):
        return [
            Line2D([], [], color=_COLOURS[n], marker=_SHAPES[n], label=n, **style) for n in shown
        ]
    colours = [Patch(color=_COLOURS[n], label=n) for n in shown]
    shapes = [
        Line2D([], [], color="#444444", marker=shape, label=m, **style)
        for m, shape in _SHAPES.items()
        if m in modalities
    ]
    return [*colours, *shapes]


def _lines(
    axes: Axes, time: np.ndarray, values: np.ndarray, colours: Mapping[str, Any], winner: str
) -> None:
    """Draws a line a class; that of the whole clip stands out."""
    marker = "o" if len(time) <= _MARKED else ""
    for (name, colour), value in zip(colours.items(), values.T, strict=True):
        wins = name == winner
        axes.plot(
            time,
            value,
            color=colour,
            linewidth=3 if wins else 1.5,
            alpha=1 if wins else _FAINT,
            marker=marker,
            markersize=5 if wins else 3,
            zorder=3 if wins else 2,
        )
    axes.set_ylim(0, 1)
    axes.set_ylabel("probability")
    axes.grid(color=GRID)
    axes.spines[["top", "right"]].set_visible(False)


def _band(
    axes: Axes, starts: np.ndarray, ends: np.ndarray, values: np.ndarray, colours: Sequence[Any]
) -> None:
    """Fills the time nearest to the middle of each window with the colour of what wins in it."""
    middles = (starts + ends) / 2
    edges = np.concatenate([starts[:1], (middles[1:] + middles[:-1]) / 2, ends[-1:]])
    for left, right, row in zip(edges, edges[1:], values, strict=False):
        if not np.isnan(row).any():
            axes.axvspan(left, right, color=colours[int(row.argmax())], linewidth=0)
    axes.set_yticks([])
    axes.set_ylabel("wins", rotation=0, ha="right", va="center")
    axes.set_xlabel("time (seconds)")
    axes.spines[:].set_visible(False)


def _colours(count: int) -> list[Any]:
    """Returns so many colours, the first ten far apart, then ten paler ones, then these again."""
    pairs = matplotlib.colormaps["tab20"].colors
    return list(itertools.islice(itertools.cycle(pairs[::2] + pairs[1::2]), count))


def _short(name: str) -> str:
    """Returns a name with an ellipsis in its middle where it is long."""
    half = _TITLE // 2
    return name if len(name) <= _TITLE else f"{name[:half]}…{name[-half:]}"


def plain(text: str) -> str:
    """Returns text in which Matplotlib sees no formula, and no bytes that are no text."""
    return text.encode("utf-8", "replace").decode().replace("$", r"\$")
