"""What a score is worth as evidence: Cllr, its minimum, and the line to a likelihood ratio.

The likelihood ratio (LR) of a score says how many times likelier it is for two pictures of one
person than for two people. Cllr is the mean cost, in bits, of believing LRs: 0 where they are
certain and right, 1 where they say nothing (LR 1 for every pair), more where they mislead.

Brümmer and du Preez, "Application-independent evaluation of speaker detection", Computer Speech &
Language 20, 2006:

    Cllr = (mean over genuine of log2(1 + 1 / LR) + mean over impostors of log2(1 + LR)) / 2
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from faceidx.evaluation.counted import CountedScores
from faceidx.evaluation.roc import Roc, SortedScores

# Where |x| is larger than this, ln(1 + e^x) is the straight line 0 or x, to 1e-13.
_CURVED = 30.0
# Scores are gathered in runs of this width in ln LR, and two points with the mean and the variance
# of a run stand for it. They miss its third moment, 0.0963 h^3 at most, and so its cost by this
# times f'''/6, where f(x) = ln(1 + e^x) has |f'''| <= 0.0963: by 1e-10 at most.
_RUN = 4e-3
_EDGES = np.linspace(-_CURVED, _CURVED, round(2 * _CURVED / _RUN) + 1)
# A line may differ from the one that the runs were made by in so far that they are this much wider,
# and that what was straight is this much nearer to what is curved (e^-26 is 5e-12).
_WIDER, _NEARER = 1.1, 4.0
_FEW = 1 << 15  # so many scores of a class are taken one by one
_SAMPLE = 1 << 12
_BLOCK = 1 << 16
_CLOSE, _STEEPEST, _ROUNDING = 1e-12, 1e300, 1e-12
_REFINEMENTS, _STEPS, _HALVINGS = 20, 200, 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The line from scores to ln LR that has the least Cllr on the pairs it was fitted on."""

    slope: float
    """0 or more."""
    intercept: float
    cllr: float
    """Of these LRs on those pairs, in bits."""


def log_likelihood_ratio(calibration: Calibration, score: float) -> float:
    """Natural logarithm of how many times likelier a score is for one person than for two."""
    return calibration.slope * score + calibration.intercept


def min_cllr(roc: Roc) -> float | None:
    """Cllr, in bits, of the best LRs that never fall with the score: what their order is worth.

    Pairs without a score have no LR and take no part; None where a class has no other pairs.

    Pooling adjacent violators gives them. They are the slopes of the upper convex hull of the ROC
    curve (Fawcett and Niculescu-Mizil, "PAV and the ROC convex hull", Machine Learning 68, 2007):
    on an edge that gains the share p of the genuine pairs and q of the impostors, LR is p / q.
    """
    if not (len(roc.genuine_scores) and len(roc.impostor_scores)):
        return None
    false_matches, true_matches = _upper_hull(roc.false_matches, roc.true_matches)
    p, q = np.diff(true_matches) / true_matches[-1], np.diff(false_matches) / false_matches[-1]
    bits = 0.0
    for share in (p, q):
        some = share > 0  # a class without pairs on an edge costs nothing there
        bits += float(np.sum(share[some] * np.log2((p + q)[some] / share[some])))
    return bits / 2


@np.errstate(all="ignore")  # what overflows gives None
def fit_calibration(roc: Roc) -> Calibration | None:
    """Fit the line by logistic regression in which each class weighs half: it minimises Cllr.

    The line never falls. Where genuine pairs do not score higher on average, the best one is
    level: LR is 1 for every score. So `min_cllr` <= `cllr` <= 1.

    Returns:
        None where no genuine pair scores below an impostor: the steeper the line the better,
        without end, so that the scores do not say how far an LR can be trusted. None, too, where
        a class has no scores, or where the line is beyond what floating point holds.
    """
    genuine, impostor = roc.genuine_scores, roc.impostor_scores
    if not (len(genuine) and len(impostor)):
        return None
    largest = max(abs(float(rising[end])) for rising in (genuine, impostor) for end in (0, -1))
    if _mean(genuine) - _mean(impostor) <= _ROUNDING * largest:
        # At no slope, cost changes with slope by just this difference.
        return Calibration(slope=0.0, intercept=0.0, cllr=1.0)
    if genuine[0] >= impostor[-1]:
        return None
    line = _start(roc, largest)
    line = _best_line(_points(roc, line, _sampled)).after(line)
    for _ in range(_REFINEMENTS):
        if not 0 < abs(line.slope) < _STEEPEST:  # which NaN is not, either
            break
        points = _points(roc, line, _gathered)
        moved = _best_line(points)
        line = moved.after(line)
        if moved.is_slight():
            return Calibration(
                slope=max(0.0, float(line.slope)),
                intercept=float(line.intercept),
                cllr=float(_cost(points, moved)[0]) / math.log(2),
            )
    return None


def _upper_hull(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the upper convex hull of a curve that rises from left to right, int64."""
    before = 2 * len(x)
    while len(x) < 0.9 * before:  # passes over the whole curve soon leave little to the loop below
        before = len(x)
        dx, dy = np.diff(x), np.diff(y)
        above_chord = dy[:-1] * dx[1:] > dy[1:] * dx[:-1]
        kept = np.concatenate([[True], above_chord, [True]])
        x, y = x[kept], y[kept]
    corners: list[tuple[int, int]] = []
    for x2, y2 in zip(x.tolist(), y.tolist(), strict=True):
        while len(corners) > 1:
            (x0, y0), (x1, y1) = corners[-2:]
            if (y1 - y0) * (x2 - x1) > (y2 - y1) * (x1 - x0):
                break
            corners.pop()
        corners.append((x2, y2))
    hull = np.array(corners, dtype=np.int64)
    return hull[:, 0], hull[:, 1]


class _Line(NamedTuple):
    slope: float
    intercept: float

    def at(self, scores: np.ndarray) -> np.ndarray:
        return self.slope * scores.astype(np.float64) + self.intercept

    def after(self, first: _Line) -> _Line:
        """The line that leads through another line, then through this one."""
        return _Line(self.slope * first.slope, self.slope * first.intercept + self.intercept)

    def plus(self, step: _Line, share: float) -> _Line:
        return _Line(self.slope + share * step.slope, self.intercept + share * step.intercept)

    def is_slight(self) -> bool:
        """Whether runs made before this line was applied still serve after it."""
        nearest = self.slope * _CURVED - abs(self.intercept)
        return self.slope <= _WIDER and nearest >= _CURVED - _NEARER


_NO_CHANGE = _Line(1.0, 0.0)


class _Points(NamedTuple):
    """What stands for the scores, seen through a line."""

    x: np.ndarray
    """(K,) float64, ln LR."""
    signs: np.ndarray
    """(K,) float64: -1 for genuine pairs, 1 for impostor pairs."""
    weights: np.ndarray
    """(K,) float64: those of a class add up to 1/2."""


def _start(roc: Roc, largest: float) -> _Line:
    """A line to begin with: one that fits the middle half of each class, or one that fits all.

    With scores far off (say, -1e9 for a failure) Newton's method finds the way from the first where
    they are on the right side, and from the second where they are not. The cheaper one is taken.
    """
    classes = roc.genuine_scores, roc.impostor_scores
    low, middle, high = (
        np.array([rising[(len(rising) - 1) * quarter // 4] for rising in classes], np.float64)
        for quarter in (1, 2, 3)
    )
    spread = float(max(*(high - low), abs(middle[0] - middle[1])))
    steep, flat = (1 / max(width, sys.float_info.min) for width in (spread or largest, largest))
    lines = _Line(steep, -steep * float(np.mean(middle))), _Line(flat, 0.0)
    return min(lines, key=lambda line: _cost(_points(roc, line, _sampled), _NO_CHANGE)[0])


def _points(
    roc: Roc, line: _Line, of_class: Callable[[SortedScores, _Line], tuple[np.ndarray, np.ndarray]]
) -> _Points:
    genuine, genuine_weights = of_class(roc.genuine_scores, line)
    impostor, impostor_weights = of_class(roc.impostor_scores, line)
    return _Points(
        np.concatenate([genuine, impostor]),
        np.repeat([-1.0, 1.0], [len(genuine), len(impostor)]),
        np.concatenate([genuine_weights, impostor_weights]) / 2,
    )


def _sampled(rising: SortedScores, line: _Line) -> tuple[np.ndarray, np.ndarray]:
    """Evenly spaced scores of a class, the lowest and the highest among them, and weights."""
    number = min(len(rising), _SAMPLE)
    chosen = np.linspace(0, len(rising) - 1, number).round().astype(np.int64)
    return line.at(rising[chosen]), np.full(number, 1 / number)


def _gathered(rising: SortedScores, line: _Line) -> tuple[np.ndarray, np.ndarray]:
    """Points that have the cost of all scores of a class, and weights."""
    if len(rising) <= _FEW:
        return line.at(rising[np.arange(len(rising))]), np.full(len(rising), 1 / len(rising))
    values = rising.values if isinstance(rising, CountedScores) else rising
    starts = _run_starts(values, line)
    counts = _number_of_scores(rising, np.append(starts, len(values)))
    sums, squares = np.empty(len(counts)), np.empty(len(counts))
    of_block = np.searchsorted(starts, np.arange(0, len(values) + _BLOCK, _BLOCK))
    for first, last in pairwise(of_block):
        begin = starts[first]
        x = line.at(values[begin : begin + _BLOCK])
        summands = x
        if values is not rising:
            summands = x * _number_of_scores(rising, np.arange(begin, begin + len(x) + 1))
        np.add.reduceat(summands, starts[first:last] - begin, out=sums[first:last])
        np.add.reduceat(summands * x, starts[first:last] - begin, out=squares[first:last])
    means = sums / counts
    curved = np.abs(means) < _CURVED  # elsewhere the mean says all
    spread = np.sqrt(np.maximum(squares / counts - means * means, 0)) * curved
    weights = counts / (2 * len(rising))
    return np.concatenate([means - spread, means + spread]), np.concatenate([weights, weights])


def _run_starts(values: np.ndarray, line: _Line) -> np.ndarray:
    """Where runs of nearly equal scores begin, int64; each block begins a run, too."""
    edges = (_EDGES - line.intercept) / line.slope
    within = np.clip(edges, float(values[0]), float(values[-1])).astype(values.dtype)
    blocks = np.arange(0, len(values), _BLOCK)
    return np.unique(np.concatenate([blocks, np.searchsorted(values, within)]))


def _number_of_scores(rising: SortedScores, places: np.ndarray) -> np.ndarray:
    """Number of scores between successive places among the values."""
    return np.diff(rising.below(places) if isinstance(rising, CountedScores) else places)


def _cost(points: _Points, line: _Line) -> tuple[float, np.ndarray]:
    """Cllr in nats, and the slope of ln(1 + e^t) at each point, (K,)."""
    t = points.signs * line.at(points.x)
    costs = np.logaddexp(0, t)
    return np.sum(points.weights * costs), np.exp(t - costs)


def _best_line(points: _Points) -> _Line:
    """Find the line of least cost by Newton's method, from the one that changes nothing.

    A step is halved until it costs less. When none does, floating point knows no better line.
    """
    line = _NO_CHANGE
    cost, shares = _cost(points, line)
    for _ in range(_STEPS):
        step, gain = _newton_step(points, shares)
        for halved in range(_HALVINGS):
            tried = line.plus(step, 0.5**halved)
            if gain < _CLOSE:  # the next step would be as good as none
                return tried
            lower, shares_there = _cost(points, tried)
            if lower < cost:
                line, cost, shares = tried, lower, shares_there
                break
        else:
            return line if math.isfinite(gain) else _Line(math.nan, math.nan)
    return line


def _newton_step(points: _Points, shares: np.ndarray) -> tuple[_Line, float]:
    """What to add to a line, and twice the cost that this is expected to save."""
    first, second = points.weights * points.signs * shares, points.weights * shares * (1 - shares)
    pull, stiffness = np.sum(first), np.sum(second)
    centre = np.sum(second * points.x) / stiffness
    arms = points.x - centre  # about the centre, turning and lifting do not mix
    torque = np.sum(first * arms)
    turn, lift = -torque / np.sum(second * arms * arms), -pull / stiffness
    return _Line(turn, lift - turn * centre), -turn * torque - lift * pull


def _mean(scores: SortedScores) -> float:
    if isinstance(scores, CountedScores):
        return scores.moments()[0]
    return float(np.mean(scores, dtype=np.float64))
