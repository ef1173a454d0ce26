"""Figures of predictions, drawn without a display."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

_DOTS = 150  # pixels an inch
_FAINT, _GRID = 0.55, "#dddddd"
_MARKED = 40  # more windows than this are a line without points
_TITLE = 50  # characters of an id


def timeline(prediction: Mapping[str, Any], classes: Sequence[str], path: Path) -> None:
    """Draws how the probability of each class goes over a clip, as a PNG.

    A point stands in the middle of its window; where nothing was to see or hear, the lines have a
    gap. The band below says which class wins when; the class of the whole clip is in the title.

    Args:
      prediction: with `id`, `prediction`, `probability` and `timeline`, see
        `affectjax.recognize.Recognizer`.
      classes: the order of the legend and of the colours.
      path: of the PNG.
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
    lines.set_title(_plain(title), loc="left", fontweight="bold")
    handles = [
        Patch(color=colour, label=_plain(f"{name} {shares[name]:.0%}"))
        for name, colour in colours.items()
    ]
    legend = figure.legend(
        handles=handles, loc="outside right upper", frameon=False, title="whole clip"
    )
    legend.get_texts()[list(classes).index(winner)].set_fontweight("bold")
    figure.savefig(path, dpi=_DOTS)


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
    axes.grid(color=_GRID)
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


def _plain(text: str) -> str:
    """Returns text in which Matplotlib sees no formula, and no bytes that are no text."""
    return text.encode("utf-8", "replace").decode().replace("$", r"\$")
