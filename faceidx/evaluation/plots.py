"""ROC, DET and score histograms, as PNG and SVG."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, PercentFormatter

from faceidx.escape import for_terminal
from faceidx.evaluation.roc import OperatingPoint, Roc, det_points, eer, roc_points

# Of the eight colours that all kinds of colour vision tell apart (Okabe and Ito, "Color universal
# design", 2008), those that are seen on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_GENUINE, _IMPOSTOR = COLOURS[:2]
_STROKES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))  # told apart without colours
INK, _FAINT = "#22303c", "#d9dee3"
_LONGEST = 30  # characters of a name in a legend
_CURVES = {
    "roc": "ROC curve: true accept rate against false accept rate, logarithmic",
    "det": "DET curve: false non-match rate against false match rate, both logarithmic",
}
_FEWEST_BINS, _MOST_BINS = 20, 80
# Beyond so many points a curve is drawn by those nearest to so many places along each of its axes.
_MANY_POINTS, _POINTS_AN_AXIS = 50_000, 2_000
STYLE: dict[Any, Any] = {
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "font.size": 10,
    "grid.color": _FAINT,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.hashsalt": "faceidx",  # the same figure gives the same bytes
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


class Curve(NamedTuple):
    """A curve to be drawn."""

    roc: Roc
    points: Sequence[OperatingPoint] = ()
    """Operating points to mark on it."""
    name: str = ""
    """Of the system, where there are several."""


def write_plots(
    folder: Path, roc: Roc, points: Sequence[OperatingPoint], threshold: float
) -> dict[str, str]:
    """Write `roc`, `det` and `histogram` as `.png` and `.svg` into a folder.

    Args:
        points: operating points to mark on the curves.
        threshold: marked in the histogram.

    Returns:
        Name of each plot to what it shows, for readers who cannot see it.
    """
    with mpl.rc_context(STYLE):
        figures = {
            "roc": roc_plot([Curve(roc, points)]),
            "det": det_plot([Curve(roc, points)]),
            "histogram": histogram_plot(roc, threshold),
        }
        save_plots(folder, figures)
    return {**_CURVES, "histogram": "Histograms of the scores of genuine and impostor pairs"}


def write_overlaid_plots(folder: Path, curves: Sequence[Curve]) -> dict[str, str]:
    """Write `roc` and `det` of several systems as `write_plots` does, each in one plot."""
    with mpl.rc_context(STYLE):
        save_plots(folder, {"roc": roc_plot(curves), "det": det_plot(curves)})
    names = ", ".join(curve.name for curve in curves)
    return {plot: f"{what}, of {names}" for plot, what in _CURVES.items()}


def save_plots(folder: Path, figures: dict[str, Figure]) -> None:
    """Write each figure as `.png` and `.svg` under its name."""
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=160)
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})


def roc_plot(curves: Sequence[Curve]) -> Figure:
    """TAR over FAR. What lies left of one false match is drawn at half a false match."""
    figure, axes = new_axes("ROC", "false accept rate", "true accept rate")
    least = min(0.5 / curve.roc.impostor for curve in curves)
    lowest = 1.0
    for curve, style in zip(curves, _styles(), strict=False):
        far, tar = roc_points(_drawn(curve.roc))
        axes.plot(np.maximum(far, least), tar, **style)
        _mark(axes, [(max(p.fmr, least), p.tar) for p in curve.points])
        lowest = min(lowest, float(tar[far <= least][-1]))
    _name(axes, curves, "lower right")
    axes.set_xscale("log")
    axes.set_xlim(least, 1)
    axes.set_ylim(max(0.0, lowest - 0.1 * (1 - lowest) - 0.01), 1.005)
    axes.xaxis.set_major_formatter(FuncFormatter(_rate))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    return figure


def det_plot(
    curves: Sequence[Curve],
    rates: tuple[str, str] = ("false match rate", "false non-match rate"),
) -> Figure:
    """FNMR over FMR, both logarithmic; where no pair errs, half an error is drawn.

    Args:
        rates: what the two are called.
    """
    figure, axes = new_axes("DET", *rates)
    least_fmr = min(0.5 / curve.roc.impostor for curve in curves)
    least_fnmr = min(0.5 / curve.roc.genuine for curve in curves)
    axes.plot([1e-12, 1], [1e-12, 1], color="#8b98a5", linewidth=1, linestyle=(0, (4, 4)))
    for curve, style in zip(curves, _styles(), strict=False):
        fmr, fnmr = det_points(_drawn(curve.roc))
        axes.plot(np.maximum(fmr, least_fmr), np.maximum(fnmr, least_fnmr), **style)
        _mark(axes, [(max(p.fmr, least_fmr), max(p.fnmr, least_fnmr)) for p in curve.points])
        equal = eer(curve.roc)
        if equal > max(least_fmr, least_fnmr):
            axes.plot([equal], [equal], marker="D", markersize=5, color=INK)
            if len(curves) == 1:
                axes.annotate(
                    f"EER {equal:.2%}",
                    (equal, equal),
                    (8, 8),
                    textcoords="offset points",
                    fontsize=9,
                )
    _name(axes, curves, "upper right")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(least_fmr, 1)
    axes.set_ylim(least_fnmr, 1)
    axes.xaxis.set_major_formatter(FuncFormatter(_rate))
    axes.yaxis.set_major_formatter(FuncFormatter(_rate))
    return figure


def histogram_plot(
    roc: Roc, threshold: float, names: tuple[str, str] = ("impostor", "genuine")
) -> Figure:
    """Share of each class in each bin of score, and a threshold."""
    figure, axes = new_axes("Scores", "score", "share of the class")
    classes = [
        (scores, colour, name)
        for scores, colour, name in (
            (roc.impostor_scores, _IMPOSTOR, names[0]),
            (roc.genuine_scores, _GENUINE, names[1]),
        )
        if len(scores)  # all pairs of a class may be rejected
    ]
    low = float(min(scores[0] for scores, *_ in classes))
    high = float(max(scores[-1] for scores, *_ in classes))
    bins = int(np.clip(2 * math.sqrt(min(roc.genuine, roc.impostor)), _FEWEST_BINS, _MOST_BINS))
    edges = np.linspace(low, high, bins + 1) if low < high else np.array([low - 0.5, low + 0.5])
    for scores, colour, name in classes:
        # From sorted scores: the counts below each edge; the last bin holds the highest score.
        below = scores.searchsorted(edges.astype(scores.dtype), side="left")
        below[0], below[-1] = 0, len(scores)
        share = np.diff(below) / len(scores)
        axes.stairs(share, edges, fill=True, color=colour, alpha=0.35)
        axes.stairs(share, edges, color=colour, linewidth=1.5, label=f"{name} ({len(scores):,})")
    axes.axvline(threshold, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.annotate(
        f"{threshold:.3f}",
        (threshold, 1),
        (5, -12),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        fontsize=9,
    )
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes.legend(loc="upper right")
    return figure


def _drawn(roc: Roc) -> Roc:
    """Leave out the points of a long curve that no eye could tell from their neighbours."""
    if len(roc.thresholds) <= _MANY_POINTS:
        return roc
    parts = np.linspace(0, 1, _POINTS_AN_AXIS)
    wanted = [
        roc.false_matches.searchsorted(roc.impostor**parts),
        roc.true_matches.searchsorted(roc.genuine * parts),
        roc.true_matches.searchsorted(roc.genuine - roc.genuine**parts),
    ]
    after = np.clip(np.concatenate([*wanted, [0, len(roc.thresholds)]]), 1, len(roc.thresholds) - 1)
    kept = np.unique([after - 1, after])  # both ends of each line that is met
    return replace(
        roc,
        thresholds=roc.thresholds[kept],
        true_matches=roc.true_matches[kept],
        false_matches=roc.false_matches[kept],
    )


def new_axes(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    """An empty plot in the style of all; to be called within `STYLE`."""
    figure = Figure(figsize=(5.0, 3.7), layout="constrained")
    axes = figure.add_subplot()
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(visible=True)
    axes.set_axisbelow(True)
    return figure, axes


def _styles() -> Iterator[dict[str, Any]]:
    """Yield a style for each curve, as many as are asked for."""
    for number in itertools.count():
        yield {
            "color": COLOURS[number % len(COLOURS)],
            "linestyle": _STROKES[number % len(_STROKES)],
            "linewidth": 2,
        }


def _name(
    axes: Axes, curves: Sequence[Curve], place: Literal["lower right", "upper right"]
) -> None:
    """Name the curves where there are several; their names are hostile."""
    if len(curves) == 1:
        return
    names = [for_terminal(curve.name) for curve in curves]
    names = [name if len(name) <= _LONGEST else f"...{name[-_LONGEST:]}" for name in names]
    lines = [Line2D([], [], **style) for _, style in zip(curves, _styles(), strict=False)]
    # A label that begins with `_` would be left out, and `$` would begin a formula.
    for text in axes.legend(lines, [f" {name}" for name in names], loc=place).get_texts():
        text.set_parse_math(False)


def _mark(axes: Axes, places: Sequence[tuple[float, float]]) -> None:
    if places:
        x, y = zip(*places, strict=True)
        axes.plot(x, y, linestyle="", marker="o", markersize=6, color=INK, markeredgecolor="white")


def _rate(value: float, _: object) -> str:
    """A rate as people write it: 10%, 0.1%, and 1e-5 where zeros would pile up."""
    return f"{value:.12g}" if value < 1e-4 else f"{100 * value:.12g}%"
