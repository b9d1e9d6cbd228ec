"""Which threshold lets through no more than a wanted share of strangers, and how sure that is.

The sample are people, not searches: searches with pictures of one person depend on each other. A
stranger is one person more of the same kind, so that his rank among the gallery's people is any
one of N + 1 with equal chance. The threshold is the smallest score for which

    (W + 1) / (N + 1) <= target,

where W is the weight of the searches that reach it, all searches of one person weighing 1. This
keeps the expected rate whatever the scores' distribution (conformal prediction with groups: Lee,
Barber and Willett, "Distribution-free inference with hierarchical data", 2023, section 3).

The gallery's people are searched against one person fewer than a stranger is; false positives grow
about in proportion to the people, so the target is first multiplied by (N - 1) / N.

People with a picture each find each other, and the two most alike share the highest score. Of a
stranger and N such people those two are any two: he is one of them with the chance 2 / (N + 1). So
min(W + 2, W') / (N + 1) must not be above the target either, where W' is W with the searches that
share the next lower score. With more pictures a shared score weighs less, and changes nothing.

With fewer than about 1 / target people no score can be shown to be high enough. The threshold is
then extrapolated through the highest 30 % of the people's scores. The chance of a stranger within a
small distance falls as a power of it, the local dimension (Levina and Bickel, "Maximum likelihood
estimation of intrinsic dimension", NIPS 2004); 1 - cosine is half the squared distance, so that
x = -log(1 - score) has an exponential tail. Its scale is uncertain too, and the predictive
distribution is used: with m people of mean excess y above the start of the tail, a stranger who
lies in it exceeds x with chance (1 + x / (m y)) ** -m. People are no more than their different
scores, as two who share one show one likeness; the tail begins below a shared score, never within.
Where all scores are the same, as of two people with a picture each, there is no tail: the threshold
lies just above them, and W is 0.

docs/galleries.md has what this gives on real faces.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from faceidx.evaluation.clustered import interval_by_people
from faceidx.evaluation.intervals import Interval
from faceidx.evaluation.roc import allowed_matches

COUNTED, EXTRAPOLATED = "counted", "extrapolated"
_TAIL = 0.3
# Two people who are alike find each other: one likeness is an error of both.
_BOTH = 2.0
_DRAWS = 20_000
_NEAREST = 1e-7  # of a cosine to 1, as far as float32 tells
_LONGEST = 100.0  # of exponents that are still told apart
_SLACK = 1e-9  # of sums of weights such as 1/3
_TIE = 1e-6  # scores as close as this are one: a product of two pictures, taken either way round


class OpenSetThreshold(NamedTuple):
    """A threshold and what is to be expected of it."""

    value: float
    """A float32 number."""
    method: str
    """`counted`, or `extrapolated` where the people are too few to count."""
    expected: float
    """The expected share of strangers at or above it."""
    interval: Interval
    """95 %, of the share of strangers at or above it."""
    people_needed: int
    """The fewest people like these from whom it can be counted."""


def open_set_threshold(scores: np.ndarray, people: np.ndarray, fpir: float) -> OpenSetThreshold:
    """Choose the threshold; at most the share `fpir` of the searches reaches it in any case.

    Args:
        scores: (T,) float32, best scores of searches without the own person.
        people: (T,) whole numbers, whose picture was searched; two people or more.
        fpir: wanted share of strangers that are taken for somebody, between 0 and 1.
    """
    searched = _Searches(scores, people)
    least = searched.above(allowed_matches(fpir, len(scores)))
    place = searched.lowest(fpir)
    needed = people_needed(fpir, searched.shared)
    if place is not None or searched.highest == len(scores):
        value = max(least, searched.above(place or 0))
        method = EXTRAPOLATED if place is None else COUNTED
        rate, interval = searched.rate(value), searched.interval(value)
        return OpenSetThreshold(value, method, rate, interval, needed)
    tail = _Tail(searched)
    value = max(least, _float32(tail.threshold(fpir)))
    return OpenSetThreshold(value, EXTRAPOLATED, tail.rate(value), tail.interval(value), needed)


def people_needed(fpir: float, shared: float = 1.0) -> int:
    """The fewest people from whom a threshold for an FPIR can be counted.

    Args:
        shared: weight of the searches that share the highest score: 2 of people with a picture
            each.
    """
    people = max(2, int(min(max(shared, 1.0), _BOTH) / fpir) - 2)
    while _reaching(0.0, shared, people) > fpir * (people + 1):
        people += 1
    return people


def _reaching(above: Any, below: Any, number: int) -> Any:
    """Weight of those who reach a threshold, the stranger too, as many as he and the people are.

    Args:
        above: of the people's searches that reach it.
        below: of these and of those that share the next lower score.
        number: of the people.
    """
    return np.maximum((above + 1) * number / (number - 1), np.minimum(above + _BOTH, below))


class _Searches:
    """Searches from the highest score down."""

    def __init__(self, scores: np.ndarray, people: np.ndarray) -> None:
        distinct, self._person = np.unique(people, return_inverse=True)
        self.number = len(distinct)
        self._trials = np.bincount(self._person)
        self.order = np.argsort(-scores, kind="stable")
        self.falling = scores[self.order]
        self.weights = 1 / self._trials[self._person[self.order]]
        self.weight = np.cumsum(self.weights)
        """Weight of the searches down to each, one for a person."""
        # How many searches reach the score of each, or nearly.
        self._ends = np.searchsorted(-self.falling, _TIE - self.falling, side="right")
        self.highest = int(self._ends[0])
        """How many searches share the highest score."""
        self.shared = float(self.weight[self.highest - 1])
        """Their weight."""
        above = np.concatenate([[0.0], self.weight[:-1]])
        self._reaching = _reaching(above, self.weight[self._ends - 1], self.number)

    def lowest(self, fpir: float) -> int | None:
        """The last search above which the share `fpir` of strangers score, or less.

        None where more do even above the highest.
        """
        wanted = fpir * (self.number + 1) + _SLACK
        places = int(np.searchsorted(self._reaching, wanted, side="right"))
        return places - 1 if places else None

    def tail(self) -> int:
        """How many searches lie in the tail: not all, and all or none of those of one score."""
        weight = max(_TAIL * self.number, 1.0) + _SLACK
        inside = max(int(np.searchsorted(self.weight, weight, side="right")), self.highest)
        inside = int(self._ends[inside - 1])
        if inside < len(self.falling):
            return inside
        return int(np.searchsorted(-self.falling, -self.falling[-1] - _TIE))

    def above(self, place: int) -> float:
        """The smallest number that the search at a place does not reach."""
        if place >= len(self.falling):
            return float(self.falling[-1])
        return float(np.nextafter(self.falling[place], np.float32(np.inf)))

    def rate(self, value: float) -> float:
        """The expected share of strangers at or above a number that not all searches reach."""
        return self.rate_above(int(np.count_nonzero(self.falling.astype(np.float64) >= value)))

    def rate_above(self, place: int) -> float:
        """The expected share of strangers above the search at a place."""
        return min(1.0, float(self._reaching[place]) / (self.number + 1))

    def likenesses(self, places: int) -> int:
        """How many different scores the first searches have."""
        return len(np.unique(self._ends[:places]))

    def interval(self, value: float) -> Interval:
        """Of the share of strangers, by what the people show."""
        wrong = self.falling.astype(np.float64) >= value
        person = self._person[self.order]
        errors = np.bincount(person, weights=wrong)
        low, high = interval_by_people(errors, self._trials, shared=_BOTH)
        return Interval(_of_all(low, self.number), _of_all(high, self.number))


class _Tail:
    """The exponential tail of -log(1 - score) through the highest scores."""

    def __init__(self, searched: _Searches) -> None:
        self._number = searched.number
        inside = searched.tail()
        weight = float(searched.weight[inside - 1])
        self._start = float(_depth(searched.falling[inside]))
        self._people = min(weight, searched.likenesses(inside))
        excess = _depth(searched.falling[:inside]) - self._start
        self._sum = float(np.dot(searched.weights[:inside], excess)) * self._people / weight
        """m y: the excess of all people of the tail together."""
        self._share = searched.rate_above(inside)

    def threshold(self, target: float) -> float:
        """The score that the share `target` of strangers is expected to reach."""
        if self._share <= target:
            return -math.expm1(-self._start)
        power = math.log(self._share / target) / self._people
        excess = self._sum * math.expm1(min(power, _LONGEST))
        return -math.expm1(-self._start - excess)

    def rate(self, value: float) -> float:
        """The expected share of strangers at or above a score of the tail."""
        excess = max(0.0, float(_depth(value)) - self._start)
        return self._share * float((1 + excess / self._sum) ** -self._people)

    def interval(self, value: float) -> Interval:
        """95 % of the share, from the distributions of the tail's weight and of its scale.

        Below, the tail may end: nothing there is certain.
        """
        chance = np.random.default_rng(0)
        evidence = max(self._people / _BOTH, 0.5)
        others = max((self._number - self._people) / _BOTH, 0.5)
        scale = self._sum / _BOTH / chance.gamma(evidence, size=_DRAWS)
        share = chance.beta(evidence, others, size=_DRAWS)
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            rates = share * np.exp(-max(0.0, float(_depth(value)) - self._start) / scale)
        high = float(np.quantile(np.nan_to_num(rates), 0.975))
        # Of two people the mean may lie beyond: it is made by few, far draws.
        return Interval(0.0, max(_of_all(high, self._number), self.rate(value)))


def _depth(scores: np.ndarray | float) -> np.ndarray:
    """-log(1 - score), float64."""
    return -np.log(np.maximum(1 - np.asarray(scores, dtype=np.float64), _NEAREST))


def _of_all(rate: float, number: int) -> float:
    """A rate against one person fewer, as it is against all."""
    return min(1.0, rate * number / (number - 1))


def _float32(value: float) -> float:
    """The smallest float32 number that is not below a value."""
    near = np.float32(min(value, 2.0))
    return float(near if float(near) >= value else np.nextafter(near, np.float32(np.inf)))
