"""The bootstrap of verification figures: people are drawn, not pairs.

Pairs that share a person are not independent. Drawing people (or pictures, where people are
unknown) and taking each pair as often as its people were drawn keeps that dependence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from faceidx.evaluation.counted import CountedScores
from faceidx.evaluation.folds import decided_rightly, fold_accuracy
from faceidx.evaluation.roc import Roc, allowed_matches, auc, eer, roc_curve

REPLICATES = 1000
# Weights in all, replicates times pairs: some two seconds on one core.
_MOST_WORK = 100_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """What is drawn in the bootstrap: the person, or else the picture, on each side of a pair."""

    left: np.ndarray
    """(P,) int32 or int64, from 0."""
    right: np.ndarray
    """(P,) int32 or int64."""
    kind: str
    """`identities`, `pictures` or `templates`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BootstrapDraws:
    """The figures of R draws, NaN in draws that left no genuine or no impostor pair."""

    auc: np.ndarray
    """(R,) float64."""
    eer: np.ndarray
    """(R,) float64."""
    tar: np.ndarray
    """(R, T) float64: TAR at FAR <= each target, the threshold chosen anew in each draw."""
    accuracy: np.ndarray
    """(R,) float64: by folds, at the thresholds that all pairs gave; NaN without folds."""


def bootstrap_figures(
    scores: np.ndarray,
    genuine: np.ndarray,
    units: Units,
    targets: Sequence[float],
    *,
    folds: np.ndarray | None = None,
    rejected: np.ndarray | None = None,
    seed: int = 0,
    replicates: int = REPLICATES,
) -> BootstrapDraws:
    """Compute the figures of each bootstrap draw of the units.

    What is drawn depends on the units and the seed alone: the scores that two systems give the
    same pairs get the same draws, so that their figures can be subtracted draw by draw.

    Args:
        scores: (P,) float32 or float64.
        genuine: (P,) bool.
        units: who or what stands on each side of each pair.
        targets: false match rates, each from 0 to 1.
        folds: (P,) integers from 0, as `assign_folds` gives them.
        rejected: (P,) bool, pairs that count as non-matches at any threshold.
    """
    draws = BootstrapDraws(
        auc=np.full(replicates, np.nan),
        eer=np.full(replicates, np.nan),
        tar=np.full((replicates, len(targets)), np.nan),
        accuracy=np.full(replicates, np.nan),
    )
    rejected = np.zeros(len(scores), dtype=bool) if rejected is None else rejected
    roc = roc_curve(scores, genuine, rejected=rejected)
    ours = _Class(scores, genuine, rejected, roc.true_matches)
    others = _Class(scores, ~genuine, rejected, roc.false_matches)
    fold_shares = None if folds is None else _fold_shares(roc, scores, genuine, folds)
    for i, weights in enumerate(pair_weights(units, seed=seed, replicates=replicates)):
        # A draw changes how often a pair counts, not its score: the curve keeps its vertices.
        drawn, other_drawn = ours.drawn(weights), others.drawn(weights)
        curve = Roc(
            thresholds=roc.thresholds,
            true_matches=drawn.matches,
            false_matches=other_drawn.matches,
            genuine_scores=drawn.scores,
            impostor_scores=other_drawn.scores,
            rejected_genuine=drawn.rejected,
            rejected_impostor=other_drawn.rejected,
        )
        if not curve.genuine or not curve.impostor:
            continue
        draws.auc[i] = auc(curve)
        draws.eer[i] = eer(curve)
        draws.tar[i] = [_tar(curve, target) for target in targets]
        if fold_shares is not None:
            share, right = fold_shares
            draws.accuracy[i] = np.dot(weights, right) / np.dot(weights, share)
    return draws


def pair_weights(units: Units, *, seed: int, replicates: int) -> Iterator[np.ndarray]:
    """Draw units with replacement, as many as there are, and yield how often each pair counts.

    A pair counts as often as its two units make it: the product of their draws, or the draws of
    the one unit that stands on both sides. (Owen, "The pigeonhole bootstrap", Annals of Applied
    Statistics 1(2), 2007; for faces Bolle, Ratha and Pankanti, "Error analysis of pattern
    recognition systems", CVIU 93(1), 2004.) The product triples the variance of what no other pair
    shares, so a unit that stands in one pair alone is not drawn for itself: the pair then counts as
    often as its other unit, and where neither stands elsewhere, pairs are drawn.

    Yields:
        (P,) int64, once a replicate.
    """
    left, right = _drawn_units(units.left, units.right)
    number = int(max(left.max(), right.max())) + 1
    other = np.where(left == right, number, right)
    times = np.ones(number + 1, dtype=np.int64)  # the last one stands for "no other unit"
    rng = np.random.default_rng(seed)
    for _ in range(replicates):
        times[:number] = np.bincount(rng.integers(0, number, size=number), minlength=number)
        yield times[left] * times[other]


def _drawn_units(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The unit that is drawn for each side, (P,) from 0: for one that stands alone, the other."""
    number = int(max(left.max(), right.max())) + 1
    pairs = np.bincount(left, minlength=number)
    pairs += np.bincount(right[right != left], minlength=number)
    alone, other_alone = pairs[left] == 1, pairs[right] == 1
    joined = (left != right) & (alone | other_alone)
    if not joined.any():
        return left, right
    kept = np.where(other_alone, left, right)
    sides = np.where(joined, kept, left), np.where(joined, kept, right)
    _, drawn = np.unique(np.concatenate(sides), return_inverse=True)
    return drawn[: len(left)], drawn[len(left) :]


def units_of(left: Sequence[str], right: Sequence[str], kind: str) -> Units:
    """Number the names that stand on both sides of P pairs."""
    numbers: dict[str, int] = {}
    numbered = [
        np.array([numbers.setdefault(name, len(numbers)) for name in side], dtype=np.int64)
        for side in (left, right)
    ]
    return Units(left=numbered[0], right=numbered[1], kind=kind)


def units_among(units: Units, pairs: np.ndarray) -> Units:
    """Who stands on each side of some pairs, numbered as they come: nobody else is drawn.

    Args:
        units: of all pairs.
        pairs: (n,) which of them.
    """
    sides = np.column_stack([units.left[pairs], units.right[pairs]])
    _, first, number = np.unique(sides, return_index=True, return_inverse=True)
    place = np.empty(len(first), dtype=np.int64)
    place[np.argsort(first)] = np.arange(len(first))
    left, right = place[number].reshape(-1, 2).T
    return Units(left=left, right=right, kind=units.kind)


def bootstrap_fits(pairs: int, replicates: int = REPLICATES) -> bool:
    """Whether so many pairs can be bootstrapped within seconds."""
    return replicates * pairs <= _MOST_WORK


def _tar(roc: Roc, target: float) -> float:
    """TAR at FAR <= target, as `tar_at_far` has it, but by the vertices: many times faster."""
    allowed = allowed_matches(target, roc.impostor)
    last = int(np.searchsorted(roc.false_matches, allowed, side="right")) - 1
    return int(roc.true_matches[last]) / roc.genuine


def _fold_shares(
    roc: Roc, scores: np.ndarray, genuine: np.ndarray, folds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What each pair adds to the mean accuracy of the folds: at most, and in fact; (P,) each."""
    by_fold = fold_accuracy(roc, scores, genuine, folds)
    names, place, sizes = np.unique(folds, return_inverse=True, return_counts=True)
    share = (1 / (len(names) * sizes))[place]
    return share, share * decided_rightly(by_fold, scores, genuine, folds)


class _Drawn(NamedTuple):
    """One class as a draw has it."""

    scores: CountedScores
    matches: np.ndarray
    """(V,) int64, accepted at each vertex."""
    rejected: int


class _Class:
    """The pairs of one class, ready to be counted with other weights."""

    def __init__(
        self, scores: np.ndarray, of_class: np.ndarray, rejected: np.ndarray, matches: np.ndarray
    ) -> None:
        """Put the pairs of the class in order.

        Args:
            scores: (P,).
            of_class: (P,) bool.
            rejected: (P,) bool.
            matches: (V,) int64, how many of the class are accepted at each vertex.
        """
        rows = np.flatnonzero(of_class & ~rejected)
        self._rows = rows[np.argsort(scores[rows], kind="stable")]
        self._values = scores[self._rows]
        self._below = len(rows) - matches
        self._rejected = np.flatnonzero(of_class & rejected)

    def drawn(self, weights: np.ndarray) -> _Drawn:
        """Count each pair as often as (P,) weights say."""
        scores = CountedScores(self._values, weights[self._rows])
        matches = len(scores) - scores.below(self._below)
        return _Drawn(scores, matches, int(weights[self._rejected].sum()))
