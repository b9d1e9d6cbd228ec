"""CMC, DET and score histograms of identification, as PNG and SVG."""

from __future__ import annotations

import itertools
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from faceidx.evaluation.identification import IdentificationFigures, Rate
from faceidx.evaluation.plots import (
    COLOURS,
    STYLE,
    Curve,
    det_plot,
    histogram_plot,
    new_axes,
    save_plots,
)


def write_identification_plots(folder: Path, figures: IdentificationFigures) -> dict[str, str]:
    """Write `cmc`, `det` and `histogram`, as far as the probes allow.

    Returns:
        Name of each plot to what it shows, for readers who cannot see it.
    """
    plots: dict[str, Figure] = {}
    told: dict[str, str] = {}
    curve, cmc = figures.curve(), figures.cmc()
    with mpl.rc_context(STYLE):
        if cmc:
            plots["cmc"] = cmc_plot(cmc)
            told["cmc"] = "CMC curve: share of mated probes with their person among the nearest"
        if curve is not None:
            points = [found.point for found in figures.at_targets()]
            plots["det"] = det_plot([Curve(curve, points)], ("FPIR", "FNIR"))
            told["det"] = "DET curve: FNIR against FPIR, both logarithmic"
            plots["histogram"] = histogram_plot(
                curve, figures.threshold, ("strangers", "own person nearest")
            )
            told["histogram"] = "Histograms of the score of the nearest person"
        save_plots(folder, plots)
    return told


def cmc_plot(cmc: list[Rate]) -> Figure:
    """Share of mated probes whose person is among the k nearest, over k, with its 95 % interval."""
    figure, axes = new_axes("CMC", "rank", "share of mated probes")
    ranks = range(1, len(cmc) + 1)
    values = [rate.value or 0.0 for rate in cmc]
    bounds = [rate.interval or (value, value) for rate, value in zip(cmc, values, strict=True)]
    # What holds at least at one rank holds at the next one too.
    low = list(itertools.accumulate((bound[0] for bound in bounds), max))
    axes.fill_between(ranks, low, [bound[1] for bound in bounds], color=COLOURS[0], alpha=0.15)
    axes.plot(ranks, values, color=COLOURS[0], linewidth=2, marker="o", markersize=4)
    axes.set_ylim(max(0.0, low[0] - 0.02), 1.005)
    axes.set_xlim(0.5, max(len(cmc), 5) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    return figure
