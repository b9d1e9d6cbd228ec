"""How sure the figures are: 95 % confidence intervals.

Pairs that share a person are not independent, so an interval that takes them for independent is
too narrow. The bootstrap here draws people (or pictures, where people are unknown) rather than
pairs; the naive intervals, which do take the pairs for independent, stand beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from faceidx.evaluation.bootstrap import (
    REPLICATES,
    BootstrapDraws,
    Units,
    bootstrap_figures,
    bootstrap_fits,
)
from faceidx.evaluation.roc import Roc, auc, closed_counts, eer, tar_at_far

Z = NormalDist().inv_cdf(0.975)
"""So many standard deviations to either side hold 95 % of a normal distribution."""


class Interval(NamedTuple):
    """Both ends of a confidence interval."""

    low: float
    high: float


class Intervals(NamedTuple):
    """The interval of a figure to quote, and the naive one beside it."""

    interval: Interval | None
    """People (or pictures, or templates) are drawn; None where they cannot be, or where all draws
    are alike."""
    naive: Interval
    """Pairs are taken for independent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureIntervals:
    """The intervals of all figures of a set of scores."""

    method: str | None
    """How the intervals to quote were made, `bootstrap-identities` for instance; None where there
    are none."""
    auc: Intervals
    """The naive one is DeLong's."""
    eer: Intervals
    """The naive one is Wilson's, as are all that follow."""
    accuracy: Intervals | None
    """Of the mean over the folds; None without folds."""
    tar: list[Intervals]
    """One a target."""


def figure_intervals(
    naive: FigureIntervals,
    scores: np.ndarray,
    genuine: np.ndarray,
    units: Units | None,
    targets: Sequence[float],
    *,
    folds: np.ndarray | None = None,
    rejected: np.ndarray | None = None,
    seed: int = 0,
    replicates: int = REPLICATES,
) -> FigureIntervals:
    """Put the bootstrap's intervals, where `figure_draws` has draws, beside the naive ones.

    Args:
        naive: as `naive_intervals` makes them of the same pairs.
        scores: (P,) float32 or float64.
        genuine: (P,) bool.
        units: who or what stands on each side of each pair; None where unknown.
        targets: false match rates, each from 0 to 1.
        folds: (P,) integers from 0, as `assign_folds` gives them.
        rejected: (P,) bool, pairs that count as non-matches at any threshold.
    """
    draws = figure_draws(
        scores,
        genuine,
        units,
        targets,
        folds=folds,
        rejected=rejected,
        seed=seed,
        replicates=replicates,
    )
    return drawn_intervals(naive, draws, units.kind) if units and draws else naive


def figure_draws(
    scores: np.ndarray,
    genuine: np.ndarray,
    units: Units | None,
    targets: Sequence[float],
    *,
    folds: np.ndarray | None = None,
    rejected: np.ndarray | None = None,
    seed: int = 0,
    replicates: int = REPLICATES,
) -> BootstrapDraws | None:
    """Draw people and compute the figures of each draw, as `bootstrap_figures` does.

    Returns:
        None where no units are known, pairs are too many, or people so few that most draws lack a
        class.
    """
    if units is None or not bootstrap_fits(len(scores), replicates):
        return None
    draws = bootstrap_figures(
        scores,
        genuine,
        units,
        targets,
        folds=folds,
        rejected=rejected,
        seed=seed,
        replicates=replicates,
    )
    return draws if np.count_nonzero(np.isfinite(draws.auc)) >= replicates // 2 else None


def drawn_intervals(naive: FigureIntervals, draws: BootstrapDraws, kind: str) -> FigureIntervals:
    """Put the intervals that draws give beside the naive ones.

    Args:
        kind: what was drawn, as in `Units`.
    """
    return FigureIntervals(
        method=f"bootstrap-{kind}",
        auc=Intervals(middle(draws.auc), naive.auc.naive),
        eer=_beside(naive.eer, draws.eer),
        accuracy=naive.accuracy and _beside(naive.accuracy, draws.accuracy),
        tar=[_beside(tar, draws.tar[:, i]) for i, tar in enumerate(naive.tar)],
    )


def _beside(naive: Intervals, values: np.ndarray) -> Intervals:
    """Add what the draws give; nothing where all are alike, as they are where no pair errs."""
    interval = middle(values)
    return naive._replace(interval=interval if interval.low < interval.high else None)


def middle(values: np.ndarray) -> Interval:
    """Return where the middle 95 % of the draws lie, from the 2.5 % to the 97.5 % quantile.

    (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.)

    Args:
        values: (R,) NaN in draws without the figure.
    """
    low, high = np.quantile(values[np.isfinite(values)], [0.025, 0.975])
    return Interval(float(low), float(high))


def naive_intervals(
    roc: Roc, targets: Sequence[float], accuracy: float | None = None
) -> FigureIntervals:
    """Return the intervals under independent pairs alone.

    Args:
        targets: false match rates, each from 0 to 1.
        accuracy: the mean over folds, where there are any.
    """
    pairs = roc.genuine + roc.impostor
    return FigureIntervals(
        method=None,
        auc=Intervals(None, delong_interval(roc)),
        eer=Intervals(None, _eer_interval(roc)),
        accuracy=None
        if accuracy is None
        else Intervals(None, wilson_interval(accuracy * pairs, pairs)),
        tar=[
            Intervals(None, wilson_interval(point.true_matches, point.genuine))
            for point in tar_at_far(roc, targets)
        ],
    )


def delong_interval(roc: Roc) -> Interval:
    """95 % interval of the AUC under independent pairs, from the curve's points alone.

    DeLong, DeLong and Clarke-Pearson, "Comparing the areas under two or more correlated receiver
    operating characteristic curves", Biometrics 44, 1988, equations 3 to 5: the variance of the
    placement values over the genuine pairs divided by their number, plus the same over the
    impostors. Between two points of the curve all placement values are equal, so that no pass over
    the scores is needed (compare Sun and Xu, IEEE Signal Processing Letters 21(11), 2014).
    """
    area = auc(roc)
    true_matches, false_matches = closed_counts(roc)
    variance = _placement_variance(true_matches, false_matches, area)
    variance += _placement_variance(false_matches, true_matches, 1 - area)
    return normal_interval(area, variance)


def normal_interval(area: float, variance: float) -> Interval:
    """95 % interval of an area of that variance, as if it were normally distributed."""
    margin = Z * math.sqrt(variance)
    return Interval(max(0.0, area - margin), min(1.0, area + margin))


def wilson_interval(errors: float, trials: float) -> Interval:
    """95 % interval of a rate by its counts, under independent trials; there must be some.

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22(158),
    1927. Unlike the normal approximation it says something where no trial failed, and its coverage
    stays near 95 % at small counts (Brown, Cai and DasGupta, "Interval estimation for a binomial
    proportion", Statistical Science 16(2), 2001).
    """
    square = Z * Z
    centre = errors + square / 2
    margin = Z * math.sqrt(errors * (trials - errors) / trials + square / 4)
    low, high = ((centre + sign * margin) / (trials + square) for sign in (-1, 1))
    return Interval(low if errors else 0.0, high if errors < trials else 1.0)


def _eer_interval(roc: Roc) -> Interval:
    """Wilson's interval of the EER, its threshold taken for fixed.

    Half the sum of two rates e over G genuine and I impostor pairs has the variance
    e (1 - e) (1/G + 1/I) / 4 (Bengio and Mariethoz, "A statistical significance test for person
    authentication", Odyssey 2004): that of one rate over 4 / (1/G + 1/I) trials.
    """
    trials = 4 / (1 / roc.genuine + 1 / roc.impostor)
    return wilson_interval(eer(roc) * trials, trials)


def _placement_variance(own: np.ndarray, other: np.ndarray, mean: float) -> float:
    """Variance of a class's placement values, divided by its number of pairs.

    `own` and `other` are the cumulative counts of the two classes along the curve. The members of
    `own` between two points beat those of `other` that come later, and tie with those between.
    """
    number, others = int(own[-1]), int(other[-1])
    if number < 2:
        return 0.0
    members = np.diff(own)
    beaten = 1 - (other[1:] + other[:-1]) / (2 * others)
    return float(np.dot(members, np.square(beaten - mean))) / (number - 1) / number
