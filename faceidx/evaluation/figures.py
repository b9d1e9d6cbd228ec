"""All figures of one set of scores, as the JSON of `verify-pairs` names them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from faceidx.evaluation.bootstrap import Units
from faceidx.evaluation.calibration import Calibration, fit_calibration, min_cllr
from faceidx.evaluation.folds import FoldAccuracy, Folds, assign_folds, fold_accuracy
from faceidx.evaluation.intervals import (
    FigureIntervals,
    Interval,
    figure_intervals,
    naive_intervals,
)
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
_FIELDS = (
    *("auc", "auc_ci", "auc_ci_method", "auc_ci_delong", "eer", "eer_ci", "eer_ci_naive"),
    *("accuracy", "accuracy_std", "accuracy_ci", "accuracy_ci_naive", "folds", "threshold"),
    *("confusion", "precision", "f1", "tar_at_far", "d_prime", "min_cllr", "cllr", "calibration"),
)
_OF_POINT = ("far", "tar", "threshold", "false_matches", "tar_ci", "tar_ci_naive")


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What can be said about a set of scored pairs."""

    auc: float
    intervals: FigureIntervals
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
    min_cllr: float | None
    """Of the pairs that have a score; None where a class has none."""
    calibration: Calibration | None
    """Of the same pairs; None where no line can be fitted."""

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
        of, fitted = self.intervals, self.calibration
        return {
            "auc": self.auc,
            "auc_ci": _ends(of.auc.interval or of.auc.naive),
            "auc_ci_method": of.method or "delong",
            "auc_ci_delong": _ends(of.auc.naive),
            "eer": self.eer,
            "eer_ci": _ends(of.eer.interval),
            "eer_ci_naive": _ends(of.eer.naive),
            "accuracy": self.accuracy,
            "accuracy_std": self.accuracy_std,
            "accuracy_ci": _ends(of.accuracy.interval if of.accuracy else None),
            "accuracy_ci_naive": _ends(of.accuracy.naive if of.accuracy else None),
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
                    "tar_ci": _ends(tar.interval),
                    "tar_ci_naive": _ends(tar.naive),
                }
                for point, tar in zip(self.points, of.tar, strict=True)
            ],
            "d_prime": self.d_prime,
            "min_cllr": self.min_cllr,
            "cllr": fitted.cllr if fitted else None,
            "calibration": (
                {"slope": fitted.slope, "intercept": fitted.intercept} if fitted else None
            ),
        }


def no_figures(targets: Sequence[float]) -> dict[str, Any]:
    """The fields of `Figures.as_json` where none can be computed."""
    return {
        **dict.fromkeys(_FIELDS),
        "tar_at_far": [{"target": target, **dict.fromkeys(_OF_POINT)} for target in targets],
    }


def figures_of(
    scores: np.ndarray,
    genuine: np.ndarray,
    *,
    targets: Sequence[float],
    folds: Folds = "auto",
    own_folds: np.ndarray | None = None,
    units: Units | None = None,
    rejected: np.ndarray | None = None,
    seed: int = 0,
) -> tuple[Figures, Roc]:
    """Compute every figure, and the curve they are read off.

    Args:
        scores: (P,) similarities.
        genuine: (P,) bool.
        targets: false match rates, each from 0 to 1.
        own_folds: (P,) the list's own folds.
        units: who stands on each side of each pair, for the confidence intervals.
        rejected: (P,) bool, pairs that count as non-matches at any threshold.

    Raises:
        InputError: one class only, scores that are no finite numbers, or folds that cannot be made.
    """
    roc = roc_curve(scores, genuine, rejected=rejected)
    of_fold = assign_folds(genuine, folds, own_folds, seed)
    by_fold = fold_accuracy(roc, scores, genuine, of_fold) if of_fold is not None else None
    intervals = figure_intervals(
        naive_intervals(roc, targets, by_fold.mean if by_fold else None),
        scores,
        genuine,
        units,
        targets,
        folds=of_fold,
        rejected=rejected,
        seed=seed,
    )
    return figures_of_curve(roc, intervals, targets=targets, by_fold=by_fold), roc


def figures_of_curve(
    roc: Roc,
    intervals: FigureIntervals,
    *,
    targets: Sequence[float],
    by_fold: FoldAccuracy | None = None,
) -> Figures:
    """Compute every figure that the curve alone gives, and add those it does not give.

    Args:
        targets: false match rates, each from 0 to 1.
        by_fold: None where there are no folds.
    """
    threshold, _ = best_accuracy(roc)
    return Figures(
        auc=auc(roc),
        intervals=intervals,
        eer=eer(roc),
        accuracy=by_fold.mean if by_fold else None,
        accuracy_std=by_fold.std if by_fold else None,
        folds=len(by_fold.accuracies) if by_fold else None,
        threshold=threshold,
        confusion=confusion(roc, threshold),
        points=tar_at_far(roc, targets),
        d_prime=d_prime(roc.genuine_scores, roc.impostor_scores),
        min_cllr=min_cllr(roc),
        calibration=fit_calibration(roc),
    )


def doubts(figures: Figures, roc: Roc, *, of: str = "", also: Sequence[float] = ()) -> list[str]:
    """What to be told before the figures are quoted: how little some of them rest on.

    Args:
        of: the system that they are of, where there are several.
        also: false match rates, beside those of the figures, that a threshold is chosen for.
    """
    told, whose = [], f" of {of}" if of else ""
    if figures.intervals.auc.naive.high < 0.5:
        told.append(
            f"genuine pairs{whose} score lower than impostor pairs (AUC {figures.auc:.3f}); are "
            "the labels the wrong way round, or are the scores distances? Negate them then"
        )
    if weak := _weak_figures(figures, roc):
        told.append(
            f"fewer than {ENOUGH_ERRORS} errors{whose} stand behind {', '.join(weak)}; take these "
            "figures as rough"
        )
    targets = dict.fromkeys([*(point.target for point in figures.points), *also])
    if finer := [f"{target:g}" for target in targets if 0 < target * roc.impostor < 1]:
        told.append(
            f"{roc.impostor:,} impostor pair{'' if roc.impostor == 1 else 's'} cannot measure a "
            f"FAR of {', '.join(finer)}: the smallest above 0 is {1 / roc.impostor:.3g}, so the "
            "threshold lies above all of them"
        )
    return told


def _weak_figures(figures: Figures, roc: Roc) -> list[str]:
    """Name the figures that rest on fewer than 30 errors, each with its errors."""
    weak = ["AUC (no pair out of order)"] if figures.auc == 1 else []
    for point in figures.points:
        if point.false_matches < ENOUGH_ERRORS:
            weak.append(f"TAR at FAR {point.target:g} ({_count(point.false_matches, 'match')})")
        elif point.genuine - point.true_matches < ENOUGH_ERRORS:
            missed = point.genuine - point.true_matches
            weak.append(f"TAR at FAR {point.target:g} ({_count(missed, 'non-match')})")
    rarer = roc.impostor < roc.genuine
    fewer, kind = (roc.impostor, "match") if rarer else (roc.genuine, "non-match")
    if figures.eer * fewer < ENOUGH_ERRORS:
        weak.append(f"EER ({_count(round(figures.eer * fewer), kind)})")
    errors = figures.confusion.fp + figures.confusion.fn
    if errors < ENOUGH_ERRORS:
        weak.append(f"accuracy ({errors} error{'' if errors == 1 else 's'})")
    return weak


def _ends(interval: Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)


def _count(number: int, what: str) -> str:
    return f"{number} false {what}{'' if number == 1 else 'es'}"
