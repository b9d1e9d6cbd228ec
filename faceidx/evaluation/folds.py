"""Accuracy by folds: the threshold is chosen on the other folds and judged on the held one.

The protocol of Huang et al., "Labeled Faces in the Wild", 2007, section IV, for any list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from faceidx.errors import InputError
from faceidx.evaluation.roc import Roc, at_or_above

DEFAULT_FOLDS = 10
Folds = Literal["auto"] | int


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldAccuracy:
    """Accuracy on each held fold, at the threshold that was best on the others."""

    accuracies: np.ndarray
    """(F,) float64."""
    thresholds: np.ndarray
    """(F,) float64."""

    @property
    def mean(self) -> float:
        return float(np.mean(self.accuracies))

    @property
    def std(self) -> float:
        """Standard deviation over the folds (divided by F, as is usual for these figures)."""
        return float(np.std(self.accuracies))


def assign_folds(
    genuine: np.ndarray, folds: Folds = "auto", own: np.ndarray | None = None, seed: int = 0
) -> np.ndarray | None:
    """Give each pair its fold.

    `auto` takes the list's own folds where it has two or more, else 10 stratified ones, and fewer
    where a class has fewer pairs than that. Stratified means that each fold holds the same number
    of genuine pairs and of impostor pairs, give or take one: every run of F successive pairs of a
    class is dealt to the F folds, beginning at a fold that the seed draws for the run.

    Args:
        genuine: (P,) bool.
        own: (P,) the list's own folds, small integers from 0.

    Returns:
        (P,) integers from 0; None where a class has fewer than two pairs.

    Raises:
        InputError: more folds are asked for than a class has pairs, or fewer than two.
    """
    if folds == "auto" and own is not None and np.count_nonzero(np.bincount(own)) > 1:
        return own
    of_class = np.count_nonzero(genuine)
    smaller = int(min(of_class, len(genuine) - of_class))
    if folds != "auto" and not 2 <= folds <= smaller:
        raise InputError(
            f"{folds} folds cannot be made: give 2 or more, and no more than the smaller class "
            f"has pairs ({smaller})"
        )
    number = min(DEFAULT_FOLDS, smaller) if folds == "auto" else folds
    return _stratified(genuine, number, seed) if number > 1 else None


def fold_accuracy(
    roc: Roc, scores: np.ndarray, genuine: np.ndarray, folds: np.ndarray
) -> FoldAccuracy:
    """Judge each fold at the threshold of best accuracy over the others (of equals, the highest).

    Args:
        roc: the curve of all these pairs.
        scores: (P,) float32 or float64.
        genuine: (P,) bool.
        folds: (P,) integers from 0, as `assign_folds` gives them.
    """
    names = np.flatnonzero(np.bincount(folds))
    cut = _lowest_useful(roc, genuine, scores, folds)
    ours = _by_fold(scores, genuine, folds, names, None)
    others = _by_fold(scores, ~genuine, folds, names, cut)
    impostors = np.bincount(folds, minlength=names[-1] + 1)[names] - [len(o) for o in ours]

    useful = roc.thresholds if cut is None else roc.thresholds[roc.thresholds >= cut]
    true_matches = roc.true_matches[: len(useful)]
    false_matches = roc.false_matches[: len(useful)]
    accuracies, thresholds = [], []
    for fold in range(len(names)):
        # What the other folds count at a threshold is what all count less what this one counts.
        right = true_matches - at_or_above(ours[fold], useful)
        right -= false_matches - at_or_above(others[fold], useful)
        vertex = useful[int(np.argmax(right))]
        threshold = _snap(
            vertex, ours[:fold] + ours[fold + 1 :], others[:fold] + others[fold + 1 :]
        )
        accepted = int(at_or_above(ours[fold], threshold))
        rejected = int(impostors[fold]) - int(at_or_above(others[fold], threshold))
        accuracies.append((accepted + rejected) / (len(ours[fold]) + int(impostors[fold])))
        thresholds.append(float(threshold))
    return FoldAccuracy(accuracies=np.array(accuracies), thresholds=np.array(thresholds))


def decided_rightly(
    by_fold: FoldAccuracy, scores: np.ndarray, genuine: np.ndarray, folds: np.ndarray
) -> np.ndarray:
    """Whether each pair is decided rightly at the threshold of its fold, (P,) bool.

    Args:
        by_fold: what `fold_accuracy` found for the same scores.
    """
    _, place = np.unique(folds, return_inverse=True)
    right: np.ndarray = (scores >= by_fold.thresholds[place]) == genuine
    return right


def _stratified(genuine: np.ndarray, number: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    folds = np.empty(len(genuine), dtype=np.uint8 if number <= 128 else np.int64)
    for of_class in (genuine, ~genuine):
        members = int(np.count_nonzero(of_class))
        runs = -(-members // number)
        starts = rng.integers(0, number, size=(runs, 1), dtype=folds.dtype)
        dealt = np.arange(number, dtype=folds.dtype) + starts
        folds[of_class] = (dealt % number).ravel()[:members]
    return folds


def _lowest_useful(
    roc: Roc, genuine: np.ndarray, scores: np.ndarray, folds: np.ndarray
) -> np.floating | None:
    """Return a score below which no threshold of best accuracy can lie; None where none is known.

    A threshold that lets through more impostors than there are genuine pairs is worse than
    rejecting all. With 800 impostors a genuine pair this spares the sorting of nearly all scores.
    """
    keep = 2 * roc.genuine
    while keep < len(roc.impostor_scores) // 2:
        cut = roc.impostor_scores[-keep]
        kept = folds[(scores >= cut) & ~genuine]
        if len(kept) - np.bincount(kept).max() > roc.genuine:
            return cut
        keep *= 2
    return None


def _by_fold(
    scores: np.ndarray,
    of_class: np.ndarray,
    folds: np.ndarray,
    names: np.ndarray,
    cut: np.floating | None,
) -> list[np.ndarray]:
    """Return the sorted scores of one class in each fold, those at `cut` or above."""
    chosen = of_class if cut is None else of_class & (scores >= cut)
    members, of_fold = scores[chosen], folds[chosen]
    return [np.sort(members[of_fold == name]) for name in names]


def _snap(vertex: np.floating, ours: list[np.ndarray], others: list[np.ndarray]) -> np.floating:
    """Move a threshold up to the lowest genuine score of the training folds.

    The curve's points are scores of all pairs: a score of the held fold must not choose the
    threshold it is judged at. Where no genuine pair of the training folds is accepted, the
    threshold lies just above their highest score.
    """
    found = [np.searchsorted(rising, vertex, side="left") for rising in ours]
    above = [rising[i] for rising, i in zip(ours, found, strict=True) if i < len(rising)]
    if above:
        return min(above)
    highest = max(rising[-1] for rising in ours + others if len(rising))
    return np.nextafter(highest, type(highest)(np.inf))
