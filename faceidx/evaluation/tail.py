"""How many scores lie at or beyond a score, told by some ten points for each power of ten.

A threshold file keeps these points in place of the scores: a few dozen numbers say of any later
score how rare it is, exactly where it is rarest and to about a quarter elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from faceidx.evaluation.roc import SortedScores, at_or_above

_A_DECADE = 10


@dataclass(frozen=True, slots=True)
class TailPoint:
    """A score that occurs, and how many of its class score as high (or, at the low end, as low)."""

    score: float
    count: int


def upper_tail(rising: SortedScores) -> tuple[TailPoint, ...]:
    """The scores at ranks 1, 2, 3, 4, 5, 6, 8, 10, 13, ... from the top, down to the lowest.

    Counts are exact, ties are taken whole: fewer points may come out than there are ranks.

    Args:
        rising: (S,) sorted scores; of none no point comes out.
    """
    scores = rising[len(rising) - _ranks(len(rising))]
    return _points(scores, at_or_above(rising, scores))


def lower_tail(rising: SortedScores) -> tuple[TailPoint, ...]:
    """The same from the bottom up: how many score at or below."""
    scores = rising[_ranks(len(rising)) - 1]
    return _points(scores, rising.searchsorted(scores, side="right"))


def most_at_or_above(tail: Sequence[TailPoint], score: float) -> int:
    """At most so many score at or above `score`: the count at the next point of an upper tail.

    It is 0 where all scores lie below. The tail must not be empty.
    """
    if score > tail[0].score:
        return 0
    return next((point.count for point in tail if point.score <= score), tail[-1].count)


def most_at_or_below(tail: Sequence[TailPoint], score: float) -> int:
    """At most so many score at or below `score`, by a lower tail; 0 where all lie above."""
    return most_at_or_above([TailPoint(-point.score, point.count) for point in tail], -score)


def _ranks(number: int) -> np.ndarray:
    """Whole numbers from 1 to `number`, both included, evenly spaced on a scale of logarithms."""
    if number == 0:
        return np.empty(0, dtype=np.int64)
    steps = np.arange(math.ceil(math.log10(number) * _A_DECADE) + 1)
    ranks = np.rint(10 ** (steps / _A_DECADE)).astype(np.int64)
    return np.unique(np.minimum(ranks, number))


def _points(scores: np.ndarray, counts: np.ndarray) -> tuple[TailPoint, ...]:
    distinct, first = np.unique(counts, return_index=True)
    return tuple(
        TailPoint(float(score), int(count))
        for score, count in zip(scores[first], distinct, strict=True)
    )
