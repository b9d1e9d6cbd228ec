"""The exact ROC curve of verification scores, and the figures read off it.

A pair is accepted at score >= threshold. Nothing is binned: every distinct score is a possible
threshold, ties are taken whole, and counts are int64.

Genuine and impostor scores are sorted apart, in their own precision. The curve keeps only its
vertices: between two neighbouring scores of the smaller class only one of the two counts changes,
so what lies between is a straight line. A curve over 15 million impostors and 20 thousand genuine
pairs thus has some 40 thousand points, and loses nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from faceidx.errors import InputError
from faceidx.evaluation.counted import CountedScores

SortedScores = np.ndarray | CountedScores
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Roc:
    """An exact ROC curve: its vertices from rejecting all to accepting all that have a score."""

    thresholds: np.ndarray
    """(V,) falling, of the scores' dtype; all but the first are scores that occur. The first lies
    just above the highest score: nothing is accepted there."""
    true_matches: np.ndarray
    """(V,) int64, genuine pairs accepted at each threshold."""
    false_matches: np.ndarray
    """(V,) int64, impostor pairs accepted at each threshold."""
    genuine_scores: SortedScores
    """Rising; of the genuine pairs that are not rejected."""
    impostor_scores: SortedScores
    """Rising; of the impostor pairs that are not rejected."""
    rejected_genuine: int = 0
    """Genuine pairs without a score, which no threshold accepts."""
    rejected_impostor: int = 0
    """Impostor pairs without a score, which no threshold accepts."""

    @property
    def genuine(self) -> int:
        """Number of genuine pairs, the rejected included."""
        return len(self.genuine_scores) + self.rejected_genuine

    @property
    def impostor(self) -> int:
        """Number of impostor pairs, the rejected included."""
        return len(self.impostor_scores) + self.rejected_impostor


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """The four counts at one threshold; genuine pairs are the positives."""

    tp: int
    fp: int
    tn: int
    fn: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """A threshold chosen for a false match rate, and both errors there."""

    target: float
    """The false match rate that was asked for; `fmr` is never above it."""
    threshold: float
    false_matches: int
    true_matches: int
    genuine: int
    impostor: int

    @property
    def fmr(self) -> float:
        """False match rate reached, also called FAR."""
        return self.false_matches / self.impostor

    @property
    def tar(self) -> float:
        """True accept rate, also called TMR."""
        return self.true_matches / self.genuine

    @property
    def fnmr(self) -> float:
        """False non-match rate, 1 - TAR."""
        return (self.genuine - self.true_matches) / self.genuine


def roc_curve(
    scores: np.ndarray,
    genuine: np.ndarray,
    *,
    rejected: np.ndarray | None = None,
    full: bool = False,
) -> Roc:
    """Build the exact curve.

    Args:
        scores: (P,) similarities, higher is more alike; float32 is kept as it is.
        genuine: (P,) bool, True where both pictures show one person.
        rejected: (P,) bool, pairs that count as non-matches at any threshold; their scores are
            not looked at.
        full: keep a point for every distinct score rather than the vertices alone.

    Raises:
        InputError: there is no pair, only one class, or a score that is no finite number.
    """
    scores = np.asarray(scores)
    if scores.dtype not in (np.float32, np.float64):
        scores = scores.astype(np.float32 if scores.dtype == np.float16 else np.float64)
    genuine = np.asarray(genuine, dtype=bool)
    if scores.shape != genuine.shape or scores.ndim != 1:
        raise InputError(f"{scores.shape} scores do not fit {genuine.shape} labels")
    number = int(np.count_nonzero(genuine))
    _require_both(number, len(genuine))
    of_ours, of_others = genuine, ~genuine
    if rejected is not None:
        of_ours, of_others = of_ours & ~rejected, of_others & ~rejected
        if rejected.all():
            raise InputError("no pair has a score")
    ours, others = _sorted(scores[of_ours]), _sorted(scores[of_others])
    return replace(
        _curve(ours, others, _distinct(ours, others) if full else _vertices(ours, others)),
        rejected_genuine=number - len(ours),
        rejected_impostor=len(genuine) - number - len(others),
    )


def counted_curve(genuine: CountedScores, impostor: CountedScores) -> Roc:
    """Build the exact curve of scores that were counted by value, both of one dtype.

    Raises:
        InputError: there is no pair, or only one class.
    """
    _require_both(len(genuine), len(genuine) + len(impostor))
    return _curve(genuine, impostor, _vertices(genuine, impostor))


def auc(roc: Roc) -> float:
    """Area under the curve by the trapezoid rule on the integer counts.

    Equal to the Mann-Whitney statistic: the share of (genuine, impostor) couples in which the
    genuine pair scores higher, ties counting half. Rejected pairs tie below all others.
    """
    true_matches, false_matches = closed_counts(roc)
    widths = np.diff(false_matches)
    heights = true_matches[1:] + true_matches[:-1]
    twice = 2 * roc.genuine * roc.impostor
    if twice < 2**63:
        return int(np.dot(widths, heights)) / twice
    return math.fsum(widths.astype(np.float64) * heights) / twice


def eer(roc: Roc) -> float:
    """Equal error rate: where FMR = FNMR on the straight lines between the curve's points.

    Where rejected pairs keep FNMR above FMR at every threshold, it lies on the line to the corner
    where all are accepted.
    """
    true_matches, false_matches = closed_counts(roc)
    fmr, fnmr = false_matches / roc.impostor, (roc.genuine - true_matches) / roc.genuine
    after = int(np.argmax(fmr >= fnmr))  # the first point has FMR 0 and FNMR 1, so after >= 1
    before = after - 1
    gap_before = fnmr[before] - fmr[before]
    gap_after = fmr[after] - fnmr[after]
    share = gap_before / (gap_before + gap_after)
    return float(fmr[before] + share * (fmr[after] - fmr[before]))


def tar_at_far(roc: Roc, targets: Sequence[float]) -> list[OperatingPoint]:
    """Find the operating point of each false match rate; the rate reached is never above it.

    The threshold is the lowest score that occurs and lets through no more impostors than the
    target allows. Where none does (the highest score of all is an impostor's and no false match is
    allowed), it is the next floating-point number above the highest score, and TAR is 0.
    """
    return [_operating_point(roc, target) for target in targets]


def roc_points(roc: Roc) -> tuple[np.ndarray, np.ndarray]:
    """False and true accept rates of the curve's points, (V,) float64 each."""
    return roc.false_matches / roc.impostor, roc.true_matches / roc.genuine


def det_points(roc: Roc) -> tuple[np.ndarray, np.ndarray]:
    """FMR and FNMR of the curve's points, (V,) float64 each."""
    return roc.false_matches / roc.impostor, (roc.genuine - roc.true_matches) / roc.genuine


def closed_counts(roc: Roc) -> tuple[np.ndarray, np.ndarray]:
    """Accepted genuine and impostor pairs at the curve's points, up to where all are accepted.

    Rejected pairs keep every threshold from that corner; for an area, the line to it has to be
    drawn all the same, as if they tied below all others.
    """
    if not roc.rejected_genuine and not roc.rejected_impostor:
        return roc.true_matches, roc.false_matches
    return np.append(roc.true_matches, roc.genuine), np.append(roc.false_matches, roc.impostor)


def best_accuracy(roc: Roc) -> tuple[float, float]:
    """Threshold of the highest accuracy and that accuracy; of equals, the highest threshold."""
    right = roc.true_matches + (roc.impostor - roc.false_matches)
    best = int(np.argmax(right))
    return float(roc.thresholds[best]), int(right[best]) / (roc.genuine + roc.impostor)


def confusion(roc: Roc, threshold: float) -> Confusion:
    """Count the four outcomes at a threshold."""
    exact = in_precision(threshold, roc.thresholds.dtype)
    tp = int(at_or_above(roc.genuine_scores, exact))
    fp = int(at_or_above(roc.impostor_scores, exact))
    return Confusion(tp=tp, fp=fp, tn=roc.impostor - fp, fn=roc.genuine - tp)


def d_prime(genuine_scores: SortedScores, impostor_scores: SortedScores) -> float | None:
    """Distance of the two means in units of the pooled standard deviation.

    None where there is no spread, where all pairs of a class are rejected, or where scores are so
    large that their squares are infinite.

    Daugman, "Biometric decision landscapes", 2000: |m1 - m2| / sqrt((s1^2 + s2^2) / 2).
    """
    if not len(genuine_scores) or not len(impostor_scores):
        return None
    mean1, variance1 = _moments(genuine_scores)
    mean2, variance2 = _moments(impostor_scores)
    spread = math.sqrt((variance1 + variance2) / 2)
    return abs(mean1 - mean2) / spread if 0 < spread < math.inf else None


def _require_both(genuine: int, pairs: int) -> None:
    if pairs == 0:
        raise InputError("there is no pair to judge")
    if genuine in (0, pairs):
        found, lacking = ("impostor", "genuine") if genuine == 0 else ("genuine", "impostor")
        raise InputError(
            f"all {pairs} pairs are {found} pairs; the figures need {lacking} pairs as well"
        )


def _sorted(scores: np.ndarray) -> np.ndarray:
    """Sort a copy in place; NaN and infinities end up at the ends, where they are seen at once."""
    scores.sort()
    if len(scores) and not (math.isfinite(scores[0]) and math.isfinite(scores[-1])):
        bad = len(scores) - int(np.count_nonzero(np.isfinite(scores)))
        raise InputError(f"{bad} scores are no finite numbers (NaN or infinite)")
    return scores


def _curve(ours: SortedScores, others: SortedScores, thresholds: np.ndarray) -> Roc:
    return Roc(
        thresholds=thresholds,
        true_matches=at_or_above(ours, thresholds),
        false_matches=at_or_above(others, thresholds),
        genuine_scores=ours,
        impostor_scores=others,
    )


def _vertices(ours: SortedScores, others: SortedScores) -> np.ndarray:
    """Thresholds of the curve's corners, falling.

    They are the scores of the smaller class, and for each the lowest score of the larger class
    above it: on the way down from there to it, both counts may change at once; elsewhere one does.
    """
    minor, major = (ours, others) if len(ours) <= len(others) else (others, ours)
    pivots = _values(minor)
    above = major.searchsorted(pivots, side="right")
    corners = np.concatenate([pivots, major[above[above < len(major)]], [major[0]]])
    return _falling(np.unique(corners), ours, others)


def _distinct(ours: np.ndarray, others: np.ndarray) -> np.ndarray:
    return _falling(np.unique(np.concatenate([ours, others])), ours, others)


def _values(rising: SortedScores) -> np.ndarray:
    if isinstance(rising, CountedScores):
        return rising.values
    return rising[np.flatnonzero(np.diff(rising, prepend=np.nan) != 0)]


def _falling(rising: np.ndarray, ours: SortedScores, others: SortedScores) -> np.ndarray:
    return np.concatenate([rising, [_just_above(ours, others)]], dtype=rising.dtype)[::-1]


def _just_above(ours: SortedScores, others: SortedScores) -> np.floating:
    """The next floating-point number above the highest score: rejects all."""
    highest = max(rising[-1] for rising in (ours, others) if len(rising))
    return np.nextafter(highest, ours.dtype.type(np.inf))


def in_precision(threshold: float, dtype: np.dtype) -> np.floating:
    """Return the lowest number of `dtype` not below a threshold: it parts the same scores."""
    near = dtype.type(threshold)
    return near if float(near) >= threshold else np.nextafter(near, dtype.type(np.inf))


def at_or_above(rising: SortedScores, thresholds: np.ndarray | np.floating) -> np.ndarray:
    """Count the scores at or above each threshold, int64; both should be of one dtype.

    (Of two dtypes NumPy would convert all scores to the wider one.)
    """
    return len(rising) - rising.searchsorted(thresholds, side="left").astype(np.int64)


def _operating_point(roc: Roc, target: float) -> OperatingPoint:
    allowed = allowed_matches(target, roc.impostor)
    if allowed >= len(roc.impostor_scores):
        threshold = roc.thresholds[-1]  # the lowest score of all
    else:
        refused = roc.impostor_scores[len(roc.impostor_scores) - 1 - allowed]
        threshold = _lowest_above(refused, roc)
    counts = confusion(roc, float(threshold))
    return OperatingPoint(
        target=target,
        threshold=float(threshold),
        false_matches=counts.fp,
        true_matches=counts.tp,
        genuine=roc.genuine,
        impostor=roc.impostor,
    )


def allowed_matches(target: float, impostor: int) -> int:
    """The largest count whose rate, computed as it is reported, does not exceed the target."""
    allowed = min(impostor, math.floor(target * impostor) + 1)
    while allowed / impostor > target:
        allowed -= 1
    return allowed


def _lowest_above(score: np.floating, roc: Roc) -> np.floating:
    candidates = []
    for rising in (roc.genuine_scores, roc.impostor_scores):
        index = rising.searchsorted(score, side="right")
        if index < len(rising):
            candidates.append(rising[index])
    return min(candidates, default=_just_above(roc.genuine_scores, roc.impostor_scores))


def _moments(scores: SortedScores) -> tuple[float, float]:
    """Mean and variance in double precision, block by block: no second copy of all scores."""
    if isinstance(scores, CountedScores):
        return scores.moments()
    blocks = [scores[i : i + _BLOCK] for i in range(0, len(scores), _BLOCK)]
    with np.errstate(over="ignore", invalid="ignore"):
        try:
            mean = math.fsum(float(np.sum(b, dtype=np.float64)) for b in blocks) / len(scores)
            squares = math.fsum(float(np.sum(np.square(b - np.float64(mean)))) for b in blocks)
        except OverflowError:
            return math.inf, math.inf
    return mean, squares / len(scores)
