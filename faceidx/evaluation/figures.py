"""All figures of one set of scores, as the JSON of `verify-pairs` names them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from faceidx.evaluation.folds import Folds, assign_folds, fold_accuracy
from faceidx.evaluation.intervals import AucInterval, Units, auc_interval
from faceidx.evaluation.roc import (
    Confusion,
    OperatingPoint,
    Roc,
    auc,
    best_accuracy,
    confusion,
    d_prime,
    eer,
    roc_curve,
    tar_at_far,
)

# Doddington et al., "The NIST speaker recognition evaluation", Speech Communication 31, 2000: with
# 30 errors the true rate lies within 30 % of the one found, with 90 % confidence.
ENOUGH_ERRORS = 30


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What can be said about a set of scored pairs."""

    auc: float
    auc_interval: AucInterval
    eer: float
    accuracy: float | None
    """Mean over the folds, the threshold chosen on the others; None where folds cannot be made."""
    accuracy_std: float | None
    folds: int | None
    threshold: float
    """The one of best accuracy over all pairs."""
    confusion: Confusion
    """The four counts at `threshold`."""
    points: list[OperatingPoint]
    d_prime: float | None

    @property
    def precision(self) -> float | None:
        """Share of the accepted pairs that are genuine, at `threshold`."""
        accepted = self.confusion.tp + self.confusion.fp
        return self.confusion.tp / accepted if accepted else None

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall, at `threshold`."""
        counts = self.confusion
        return 2 * counts.tp / (2 * counts.tp + counts.fp + counts.fn)

    def as_json(self) -> dict[str, Any]:
        """The fields by their names in JSON."""
        return {
            "auc": self.auc,
            "auc_ci": list(self.auc_interval.interval),
            "auc_ci_method": self.auc_interval.method,
            "auc_ci_delong": list(self.auc_interval.delong),
            "eer": self.eer,
            "accuracy": self.accuracy,
            "accuracy_std": self.accuracy_std,
            "folds": self.folds,
            "threshold": self.threshold,
            "confusion": asdict(self.confusion),
            "precision": self.precision,
            "f1": self.f1,
            "tar_at_far": [
                {
                    "target": point.target,
                    "far": point.fmr,
                    "tar": point.tar,
                    "threshold": point.threshold,
                    "false_matches": point.false_matches,
                }
                for point in self.points
            ],
            "d_prime": self.d_prime,
        }


def figures_of(
    scores: np.ndarray,
    genuine: np.ndarray,
    *,
    targets: Sequence[float],
    folds: Folds = "auto",
    own_folds: np.ndarray | None = None,
    units: Units | None = None,
    seed: int = 0,
) -> tuple[Figures, Roc]:
    """Compute every figure, and the curve they are read off.

    Args:
        scores: (P,) similarities.
        genuine: (P,) bool.
        targets: false match rates, each from 0 to 1.
        own_folds: (P,) the list's own folds.
        units: who stands on each side of each pair, for the confidence interval.

    Raises:
        InputError: one class only, scores that are no finite numbers, or folds that cannot be made.
    """
    roc = roc_curve(scores, genuine)
    of_fold = assign_folds(genuine, folds, own_folds, seed)
    by_fold = fold_accuracy(roc, scores, genuine, of_fold) if of_fold is not None else None
    threshold, _ = best_accuracy(roc)
    figures = Figures(
        auc=auc(roc),
        auc_interval=auc_interval(roc, scores, genuine, units, seed=seed),
        eer=eer(roc),
        accuracy=by_fold.mean if by_fold else None,
        accuracy_std=by_fold.std if by_fold else None,
        folds=len(by_fold.accuracies) if by_fold else None,
        threshold=threshold,
        confusion=confusion(roc, threshold),
        points=tar_at_far(roc, targets),
        d_prime=d_prime(roc.genuine_scores, roc.impostor_scores),
    )
    return figures, roc


def weak_figures(figures: Figures, genuine: int) -> list[str]:
    """Name the figures that rest on fewer than 30 errors, each with its errors."""
    weak = []
    for point in figures.points:
        if point.false_matches < ENOUGH_ERRORS:
            weak.append(f"TAR at FAR {point.target:g} ({_count(point.false_matches, 'match')})")
        elif point.genuine - point.true_matches < ENOUGH_ERRORS:
            missed = point.genuine - point.true_matches
            weak.append(f"TAR at FAR {point.target:g} ({_count(missed, 'non-match')})")
    if figures.eer * genuine < ENOUGH_ERRORS:
        weak.append(f"EER ({_count(round(figures.eer * genuine), 'non-match')})")
    errors = figures.confusion.fp + figures.confusion.fn
    if errors < ENOUGH_ERRORS:
        weak.append(f"accuracy ({errors} errors)")
    return weak


def _count(number: int, what: str) -> str:
    return f"{number} false {what}{'' if number == 1 else 'es'}"
