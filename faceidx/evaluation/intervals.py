"""How sure an AUC is: 95 % confidence intervals.

Pairs that share a person are not independent, so an interval that takes them for independent is
too narrow. The bootstrap here draws people (or pictures, where people are unknown) rather than
pairs; DeLong's interval, which does take the pairs for independent, stands beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from faceidx.evaluation.roc import Roc, auc

REPLICATES = 1000
_Z = 1.959963984540054  # the normal distribution's 97.5 % point
# Weights in all, replicates times pairs: some three seconds on one core.
_MOST_WORK = 100_000_000
_BLOCK = 4_000_000


class Interval(NamedTuple):
    """Both ends of a confidence interval."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AucInterval:
    """The interval to quote, and the naive one beside it."""

    interval: Interval
    method: str
    """`bootstrap-identities`, `bootstrap-pictures`, `bootstrap-templates` or `delong`."""
    delong: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """What is drawn in the bootstrap: the person, or else the picture, on each side of a pair."""

    left: np.ndarray
    """(P,) int64, from 0."""
    right: np.ndarray
    """(P,) int64."""
    kind: str
    """`identities`, `pictures` or `templates`."""


def auc_interval(
    roc: Roc,
    scores: np.ndarray,
    genuine: np.ndarray,
    units: Units | None,
    *,
    seed: int = 0,
    replicates: int = REPLICATES,
) -> AucInterval:
    """Return the bootstrap's interval, or DeLong's where no units are known or pairs are too many.

    Args:
        roc: the curve of these pairs.
        scores: (P,).
        genuine: (P,) bool.
        units: who or what stands on each side of each pair; None where unknown.
    """
    naive = delong_interval(roc)
    if units is None or not bootstrap_fits(len(scores), replicates):
        return AucInterval(interval=naive, method="delong", delong=naive)
    values = bootstrap_aucs(scores, genuine, units, seed=seed, replicates=replicates)
    if len(values) < replicates // 2:  # so few people that most draws lack a class
        return AucInterval(interval=naive, method="delong", delong=naive)
    low, high = np.quantile(values, [0.025, 0.975])
    bootstrap = Interval(float(low), float(high))
    return AucInterval(interval=bootstrap, method=f"bootstrap-{units.kind}", delong=naive)


def bootstrap_fits(pairs: int, replicates: int = REPLICATES) -> bool:
    """Whether so many pairs can be bootstrapped within seconds."""
    return replicates * pairs <= _MOST_WORK


def delong_interval(roc: Roc) -> Interval:
    """95 % interval of the AUC under independent pairs, from the curve's points alone.

    DeLong, DeLong and Clarke-Pearson, "Comparing the areas under two or more correlated receiver
    operating characteristic curves", Biometrics 44, 1988, equations 3 to 5: the variance of the
    placement values over the genuine pairs divided by their number, plus the same over the
    impostors. Between two points of the curve all placement values are equal, so that no pass over
    the scores is needed (compare Sun and Xu, IEEE Signal Processing Letters 21(11), 2014).
    """
    area = auc(roc)
    variance = _placement_variance(roc.true_matches, roc.false_matches, area)
    variance += _placement_variance(roc.false_matches, roc.true_matches, 1 - area)
    margin = _Z * math.sqrt(variance)
    return Interval(max(0.0, area - margin), min(1.0, area + margin))


def bootstrap_aucs(
    scores: np.ndarray, genuine: np.ndarray, units: Units, *, seed: int, replicates: int
) -> np.ndarray:
    """Compute the AUC of each bootstrap draw of the units.

    Units are drawn with replacement, and a pair counts as often as its two units make it: the
    product of their draws, or the draws of the one unit that stands on both sides. (Owen, "The
    pigeonhole bootstrap", Annals of Applied Statistics 1(2), 2007; for faces Bolle, Ratha and
    Pankanti, "Error analysis of pattern recognition systems", CVIU 93(1), 2004.)

    Returns:
        (replicates,) float64, fewer where a draw left no genuine or no impostor pair.
    """
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    starts = np.flatnonzero(np.diff(ranked, prepend=np.nan) != 0)  # of each run of equal scores
    ours = genuine[order]
    left, right = units.left[order], units.right[order]
    alone = left == right
    number = int(max(left.max(), right.max())) + 1
    rng = np.random.default_rng(seed)

    values = []
    at_once = max(1, min(replicates, _BLOCK // max(len(scores), number)))
    for first in range(0, replicates, at_once):
        draws = _draw(rng, min(at_once, replicates - first), number)
        weights = draws[:, left] * np.where(alone, 1, draws[:, right])
        values.append(_weighted_aucs(weights, ours, starts))
    found = np.concatenate(values)
    return found[np.isfinite(found)]


def units_of(left: Sequence[str], right: Sequence[str], kind: str) -> Units:
    """Number the names that stand on both sides of P pairs."""
    numbers: dict[str, int] = {}
    numbered = [
        np.array([numbers.setdefault(name, len(numbers)) for name in side], dtype=np.int64)
        for side in (left, right)
    ]
    return Units(left=numbered[0], right=numbered[1], kind=kind)


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


def _draw(rng: np.random.Generator, replicates: int, number: int) -> np.ndarray:
    """How often each of `number` units is drawn, drawing that many and replacing: (R, number)."""
    drawn = rng.integers(0, number, size=(replicates, number))
    drawn += np.arange(replicates)[:, None] * number
    return np.bincount(drawn.ravel(), minlength=replicates * number).reshape(replicates, number)


def _weighted_aucs(weights: np.ndarray, genuine: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """AUC of each row of pair weights (R, P), pairs by rising score; NaN where a class is empty."""
    ours = np.add.reduceat(np.where(genuine, weights, 0), starts, axis=1)
    others = np.add.reduceat(np.where(genuine, 0, weights), starts, axis=1)
    below = np.cumsum(others, axis=1) - others / 2
    total = ours.sum(axis=1) * others.sum(axis=1)
    wins = np.einsum("rs,rs->r", ours.astype(np.float64), below)
    return np.divide(wins, total, out=np.full(len(wins), np.nan), where=total > 0)
