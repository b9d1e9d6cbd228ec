"""ROC, DET and score histograms of one verification, as PNG and SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from faceidx.evaluation.roc import OperatingPoint, Roc, det_points, eer, roc_points

# Two of the eight colours that all kinds of colour vision tell apart (Okabe and Ito, "Color
# universal design", 2008).
_GENUINE, _IMPOSTOR = "#0072B2", "#D55E00"
_INK, _FAINT = "#22303c", "#d9dee3"
_FEWEST_BINS, _MOST_BINS = 20, 80
_STYLE: dict[Any, Any] = {
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
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
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


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
    with mpl.rc_context(_STYLE):
        figures = {
            "roc": roc_plot(roc, points),
            "det": det_plot(roc, points),
            "histogram": histogram_plot(roc, threshold),
        }
        for name, figure in figures.items():
            figure.savefig(folder / f"{name}.png", dpi=160)
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    return {
        "roc": "ROC curve: true accept rate against false accept rate, logarithmic",
        "det": "DET curve: false non-match rate against false match rate, both logarithmic",
        "histogram": "Histograms of the scores of genuine and impostor pairs",
    }


def roc_plot(roc: Roc, points: Sequence[OperatingPoint]) -> Figure:
    """TAR over FAR. What lies left of one false match is drawn at half a false match."""
    figure, axes = _axes("ROC", "false accept rate", "true accept rate")
    far, tar = roc_points(roc)
    least = 0.5 / roc.impostor
    axes.plot(np.maximum(far, least), tar, color=_GENUINE, linewidth=2)
    marked = [(max(p.fmr, least), p.tar) for p in points]
    _mark(axes, marked)
    axes.set_xscale("log")
    axes.set_xlim(least, 1)
    lowest = float(tar[far <= least][-1])
    axes.set_ylim(max(0.0, lowest - 0.1 * (1 - lowest) - 0.01), 1.005)
    axes.xaxis.set_major_formatter(FuncFormatter(_rate))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    return figure


def det_plot(roc: Roc, points: Sequence[OperatingPoint]) -> Figure:
    """FNMR over FMR, both logarithmic; where no pair errs, half an error is drawn."""
    figure, axes = _axes("DET", "false match rate", "false non-match rate")
    fmr, fnmr = det_points(roc)
    least_fmr, least_fnmr = 0.5 / roc.impostor, 0.5 / roc.genuine
    axes.plot([1e-12, 1], [1e-12, 1], color="#8b98a5", linewidth=1, linestyle=(0, (4, 4)))
    axes.plot(
        np.maximum(fmr, least_fmr), np.maximum(fnmr, least_fnmr), color=_IMPOSTOR, linewidth=2
    )
    _mark(axes, [(max(p.fmr, least_fmr), max(p.fnmr, least_fnmr)) for p in points])
    equal = eer(roc)
    if equal > max(least_fmr, least_fnmr):
        axes.annotate(
            f"EER {equal:.2%}", (equal, equal), (8, 8), textcoords="offset points", fontsize=9
        )
        axes.plot([equal], [equal], marker="D", markersize=5, color=_INK)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(least_fmr, 1)
    axes.set_ylim(least_fnmr, 1)
    axes.xaxis.set_major_formatter(FuncFormatter(_rate))
    axes.yaxis.set_major_formatter(FuncFormatter(_rate))
    return figure


def histogram_plot(roc: Roc, threshold: float) -> Figure:
    """Share of each class in each bin of score, and the threshold of best accuracy."""
    figure, axes = _axes("Scores", "score", "share of the class")
    low = float(min(roc.genuine_scores[0], roc.impostor_scores[0]))
    high = float(max(roc.genuine_scores[-1], roc.impostor_scores[-1]))
    bins = int(np.clip(2 * math.sqrt(min(roc.genuine, roc.impostor)), _FEWEST_BINS, _MOST_BINS))
    edges = np.linspace(low, high, bins + 1) if low < high else np.array([low - 0.5, low + 0.5])
    for scores, colour, name in (
        (roc.impostor_scores, _IMPOSTOR, "impostor"),
        (roc.genuine_scores, _GENUINE, "genuine"),
    ):
        # From sorted scores: the counts below each edge; the last bin holds the highest score.
        below = np.searchsorted(scores, edges.astype(scores.dtype), side="left")
        below[0], below[-1] = 0, len(scores)
        share = np.diff(below) / len(scores)
        axes.stairs(share, edges, fill=True, color=colour, alpha=0.35)
        axes.stairs(share, edges, color=colour, linewidth=1.5, label=f"{name} ({len(scores):,})")
    axes.axvline(threshold, color=_INK, linewidth=1.2, linestyle=(0, (4, 3)))
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


def _axes(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.0, 3.7), layout="constrained")
    axes = figure.add_subplot()
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(visible=True)
    axes.set_axisbelow(True)
    return figure, axes


def _mark(axes: Axes, places: Sequence[tuple[float, float]]) -> None:
    if places:
        x, y = zip(*places, strict=True)
        axes.plot(x, y, linestyle="", marker="o", markersize=6, color=_INK, markeredgecolor="white")


def _rate(value: float, _: object) -> str:
    """A rate as people write it: 10%, 0.1%, and 1e-5 where zeros would pile up."""
    return f"{value:.12g}" if value < 1e-4 else f"{100 * value:.12g}%"
