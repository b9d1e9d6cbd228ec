"""Is the difference of two systems on the same pairs more than chance?

Both systems judge the same pairs, so their figures rise and fall together; a test that knows this
sees smaller differences than two intervals side by side do. The bootstrap draws people, and knows
as well that pairs share them. DeLong's and McNemar's tests take the pairs for independent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from faceidx.evaluation.intervals import Interval, Z, middle
from faceidx.evaluation.roc import Roc, auc


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How much higher a figure is than the other's, and how sure that is."""

    difference: float
    interval: Interval | None
    """95 %; None where it cannot be had."""
    p: float | None
    """Two-sided: how often so large a difference would come about by chance if there was none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """Pairs that one of two systems decides rightly and the other wrongly."""

    only_first: int
    only_second: int
    p: float


def drawn_difference(difference: float, first: np.ndarray, second: np.ndarray) -> Difference:
    """Judge second - first by the bootstrap.

    The interval reaches from the 2.5 % to the 97.5 % quantile of the draws' differences. The p
    value asks how far into the draws zero lies: twice the smaller share of differences on either
    side of it, ties on both, the observed one counted in, so that it is never 0 (Davison and
    Hinkley, "Bootstrap Methods and their Application", 1997, sections 4.4 and 5.3).

    Args:
        difference: of the figures of all pairs.
        first: (R,) the figure in each draw, NaN where a draw has none.
        second: (R,) of the same draws.
    """
    differences = second - first
    differences = differences[np.isfinite(differences)]
    below, above = (int(np.count_nonzero(side)) for side in (differences <= 0, differences >= 0))
    return Difference(
        difference=difference,
        interval=middle(differences),
        p=min(1.0, 2 * (min(below, above) + 1) / (len(differences) + 1)),
    )


def delong_difference(
    first: Roc, second: Roc, scores: tuple[np.ndarray, np.ndarray], genuine: np.ndarray
) -> Difference:
    """Judge the AUC of the second curve minus that of the first, the pairs taken for independent.

    DeLong, DeLong and Clarke-Pearson, "Comparing the areas under two or more correlated receiver
    operating characteristic curves", Biometrics 44, 1988, equations 4 to 7 with the contrast
    (-1, 1): the variance of the difference is that of the differences of placement values, over
    the genuine pairs divided by their number, plus the same over the impostors. A pair's placement
    value is the share of the other class that it beats, ties counting half; it is looked up in the
    sorted scores of that class, in O(P log P).

    Args:
        scores: (P,) of the first and of the second system.
        genuine: (P,) bool.

    Returns:
        Without interval and p where a class has fewer than two pairs; without p where the areas
        differ, but no placement value varies.
    """
    area = auc(second) - auc(first)
    variance = 0.0
    for of_class in (genuine, ~genuine):
        moved = _placements(second, scores[1][of_class], impostor=of_class is not genuine)
        moved -= _placements(first, scores[0][of_class], impostor=of_class is not genuine)
        if len(moved) < 2:
            return Difference(difference=area, interval=None, p=None)
        variance += float(np.var(moved, ddof=1)) / len(moved)
    margin = Z * math.sqrt(variance)
    return Difference(
        difference=area,
        interval=Interval(area - margin, area + margin),
        p=_both_tails(area, variance),
    )


def _both_tails(difference: float, variance: float) -> float | None:
    """Probability that a normal variable of mean 0 lies as far out; None where nothing varies."""
    if variance == 0:
        return 1.0 if difference == 0 else None
    return math.erfc(abs(difference) / math.sqrt(2 * variance))


def mcnemar(first: np.ndarray, second: np.ndarray) -> Disagreement:
    """Count the pairs that only one system decides rightly, and test whether they are as many.

    McNemar, "Note on the sampling error of the difference between correlated proportions or
    percentages", Psychometrika 12, 1947, in its exact form: each such pair is a toss of a fair coin
    if both systems err as often.

    Args:
        first: (P,) bool, whether the first system decides rightly.
        second: (P,) bool.
    """
    only_first = int(np.count_nonzero(first & ~second))
    only_second = int(np.count_nonzero(second & ~first))
    tosses, fewer = only_first + only_second, min(only_first, only_second)
    return Disagreement(
        only_first=only_first, only_second=only_second, p=min(1.0, 2 * _heads(fewer, tosses))
    )


def _heads(most: int, tosses: int) -> float:
    """Probability of at most so many heads in tosses of a fair coin.

    Summed in logarithms: 2^-tosses is too small for a float from some thousand tosses on.
    """
    heads = np.arange(1, most + 1)
    ways = np.concatenate([[0.0], np.cumsum(np.log(tosses - heads + 1) - np.log(heads))])
    return math.fsum(np.exp(ways - tosses * math.log(2)))


def _placements(roc: Roc, scores: np.ndarray, *, impostor: bool) -> np.ndarray:
    """Share of the other class that each score is on the right side of, ties counting half."""
    others = roc.genuine_scores if impostor else roc.impostor_scores
    # Twice the number below, ties once.
    below = others.searchsorted(scores, side="left") + others.searchsorted(scores, side="right")
    share: np.ndarray = below / (2 * len(others))
    return 1 - share if impostor else share
