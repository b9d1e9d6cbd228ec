"""`verify-pairs --compare`: several systems on the same pairs, and whether they differ."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from faceidx.errors import InputError
from faceidx.evaluation.bootstrap import BootstrapDraws, Units
from faceidx.evaluation.figures import Figures, doubts, figures_of_curve
from faceidx.evaluation.folds import Folds, assign_folds, decided_rightly, fold_accuracy
from faceidx.evaluation.intervals import drawn_intervals, figure_draws, naive_intervals
from faceidx.evaluation.lists import read_list
from faceidx.evaluation.lists.pairs import ScoreList
from faceidx.evaluation.matching import has_names, match_pairs, short_names
from faceidx.evaluation.paired_tests import (
    Difference,
    Disagreement,
    delong_difference,
    drawn_difference,
    mcnemar,
)
from faceidx.evaluation.report_folder import check_pictures, check_report
from faceidx.evaluation.roc import Roc, roc_curve
from faceidx.evaluation.verdict import DEFAULT_TARGETS
from faceidx.evaluation.verification import named_units, require_rate
from faceidx.files import refuse_existing, require_parent


@dataclass(kw_only=True)
class CompareOptions:
    """What `verify-pairs --compare` is asked for."""

    scores: list[Path]
    """Two or more files of scores of the same pairs; each is compared with the first."""
    format: str = "auto"
    fmr: tuple[float, ...] = DEFAULT_TARGETS
    """False match rates at which TAR is reported."""
    folds: Folds = "auto"
    """Of all systems; `auto` takes those of the first file."""
    report: Path | None = None
    pictures: Path | None = None
    """Folder of the pictures, for the faces in the report."""
    overwrite: bool = False
    seed: int = 0
    """Of the stratified folds and the bootstrap."""


@dataclass(frozen=True, kw_only=True)
class System:
    """One file of scores and what can be said about it."""

    name: str
    path: Path
    scores: np.ndarray
    """(P,) float64, in the order of the first file."""
    roc: Roc
    figures: Figures
    right: np.ndarray | None
    """(P,) bool, decided rightly at the thresholds of the other folds; None without folds."""
    draws: BootstrapDraws | None
    """Figures of each draw of people; None where the bootstrap does not fit."""


@dataclass(frozen=True, kw_only=True)
class SystemDifference:
    """How much higher the figures of a system are than those of the first."""

    auc: Difference
    auc_delong: Difference
    """Under independent pairs."""
    eer: Difference
    accuracy: Difference | None
    """None without folds."""
    decisions: Disagreement | None
    """`only_first` counts the pairs that the first system alone decides rightly."""
    tar: list[Difference]
    """One a target."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Systems side by side."""

    listed: ScoreList
    """The pairs, as the first file lists them."""
    systems: list[System]
    differences: list[SystemDifference]
    """Of the second system, the third, and so on, to the first."""
    matched_by: Literal["names", "rows"]
    method: str
    """How the intervals were made, such as `bootstrap-identities` or `delong`."""
    warnings: list[str] = field(default_factory=list)

    def names(self, pair: int) -> tuple[str, str]:
        """Both pictures of a pair, empty where they have no names."""
        if self.listed.left is None or self.listed.right is None:
            return "", ""
        return self.listed.left[pair], self.listed.right[pair]

    def as_json(self) -> dict[str, Any]:
        """The fields of `--json`."""
        genuine = int(np.count_nonzero(self.listed.genuine))
        return {
            "pairs": len(self.listed.genuine),
            "genuine": genuine,
            "impostor": len(self.listed.genuine) - genuine,
            "matched_by": self.matched_by,
            "method": self.method,
            "systems": [
                {"name": s.name, "path": str(s.path), **s.figures.as_json()} for s in self.systems
            ],
            "differences": [
                _difference_as_json(system, self.systems[0], difference)
                for system, difference in zip(self.systems[1:], self.differences, strict=True)
            ],
            "warnings": self.warnings,
        }


def compare_systems(options: CompareOptions) -> Comparison:
    """Match the pairs of all files, judge each system and each difference, write the report.

    Raises:
        InputError: the files do not hold scores of the same pairs, the figures cannot be computed,
            or the report exists.
    """
    _check(options)
    first, *others = [_read(path, options.format) for path in options.scores]
    named = [has_names(first) and has_names(other) for other in others]
    aligned = [first.scores, *(other.scores[match_pairs(first, other)] for other in others)]
    del others  # their names may take more memory than all that follows

    units = named_units(first)
    systems = _judge(first, aligned, units, options)
    drawn = systems[0].draws is not None
    comparison = Comparison(
        listed=first,
        systems=systems,
        differences=[_difference(systems[0], other, first.genuine) for other in systems[1:]],
        matched_by="names" if all(named) else "rows",
        method=f"bootstrap-{units.kind}" if units and drawn else "delong",
        warnings=_warnings(systems, first, matched=all(named), drawn=drawn),
    )
    if options.report is not None:
        from faceidx.evaluation.comparison_report import write_comparison  # loads matplotlib

        write_comparison(options.report, comparison, options)
    return comparison


def _check(options: CompareOptions) -> None:
    """Refuse wrong options before any work is done."""
    if len(options.scores) < 2:
        raise InputError("one system alone cannot be compared; give two files of scores or more")
    places = [path.resolve() for path in options.scores]
    for path, place in zip(options.scores, places, strict=True):
        if places.count(place) > 1:
            raise InputError(f"{path} is given twice; give a file of scores for each system")
    for target in options.fmr:
        require_rate(target, str(target), "--fmr")
    check_pictures(options.pictures, options.report)
    if options.report is not None:
        refuse_existing(options.report, overwrite=options.overwrite)
        require_parent(options.report)
        check_report(options.report, options.scores)


def _read(path: Path, name: str) -> ScoreList:
    listed = read_list(path, format=name)
    if not isinstance(listed, ScoreList):
        raise InputError(
            f"{path} is a list of pairs ({listed.format}) without scores; score it first, with "
            "--scores FILE.csv, and compare these files"
        )
    return listed


def _judge(
    listed: ScoreList, aligned: list[np.ndarray], units: Units | None, options: CompareOptions
) -> list[System]:
    """Compute the figures of every system, all with the same folds and the same draws."""
    genuine, systems = listed.genuine, []
    names = short_names(options.scores)
    try:
        curves = [roc_curve(scores, genuine) for scores in aligned]
        folds = assign_folds(genuine, options.folds, listed.folds, options.seed)
    except InputError as error:
        raise InputError(f"{listed.path}: {error}") from None
    for name, path, scores, roc in zip(names, options.scores, aligned, curves, strict=True):
        by_fold = None if folds is None else fold_accuracy(roc, scores, genuine, folds)
        draws = figure_draws(scores, genuine, units, options.fmr, folds=folds, seed=options.seed)
        intervals = naive_intervals(roc, options.fmr, by_fold.mean if by_fold else None)
        if units and draws:
            intervals = drawn_intervals(intervals, draws, units.kind)
        systems.append(
            System(
                name=name,
                path=path,
                scores=scores,
                roc=roc,
                figures=figures_of_curve(roc, intervals, targets=options.fmr, by_fold=by_fold),
                right=None
                if by_fold is None or folds is None
                else decided_rightly(by_fold, scores, genuine, folds),
                draws=draws,
            )
        )
    return systems


def _difference(first: System, other: System, genuine: np.ndarray) -> SystemDifference:
    ours, theirs = first.figures, other.figures
    delong = delong_difference(first.roc, other.roc, (first.scores, other.scores), genuine)
    points = zip(ours.points, theirs.points, strict=True)
    tar = [point.tar - before.tar for before, point in points]
    accuracy = (
        None
        if ours.accuracy is None or theirs.accuracy is None
        else theirs.accuracy - ours.accuracy
    )
    drawn = first.draws and other.draws and (first.draws, other.draws)

    def judged(difference: float, figure: str, column: int | None = None) -> Difference:
        if not drawn:
            return Difference(difference=difference, interval=None, p=None)
        values = [getattr(draws, figure) for draws in drawn]
        if column is not None:
            values = [of_targets[:, column] for of_targets in values]
        return drawn_difference(difference, *values)

    return SystemDifference(
        auc=judged(delong.difference, "auc") if drawn else delong,
        auc_delong=delong,
        eer=judged(theirs.eer - ours.eer, "eer"),
        accuracy=None if accuracy is None else judged(accuracy, "accuracy"),
        decisions=None
        if first.right is None or other.right is None
        else mcnemar(first.right, other.right),
        tar=[judged(value, "tar", column) for column, value in enumerate(tar)],
    )


def _warnings(systems: list[System], listed: ScoreList, *, matched: bool, drawn: bool) -> list[str]:
    warnings = []
    if not matched:
        warnings.append(
            "not all files name their pictures: rows are taken to be the same pairs in the same "
            "order, of which only the labels could be checked"
        )
    if not drawn and has_names(listed):
        warnings.append(
            "there are too many pairs, or too few people, to draw people: only the AUC and the "
            "decisions are tested, as if pairs were independent, which sees differences too easily"
        )
    elif not drawn:
        warnings.append(
            "without names it is unknown which pairs share people: only the AUC and the decisions "
            "are tested, as if pairs were independent, which sees differences too easily"
        )
    for system in systems:
        warnings += doubts(system.figures, system.roc, of=system.name)
    if systems[0].right is None:
        warnings.append("a class has fewer than two pairs: accuracy by folds cannot be computed")
    return list(dict.fromkeys(warnings))  # what the pairs cannot measure is told once


def _difference_as_json(
    system: System, first: System, difference: SystemDifference
) -> dict[str, Any]:
    delong, decisions = difference.auc_delong, difference.decisions
    return {
        "system": system.name,
        "to": first.name,
        "auc": {
            **_as_json(difference.auc),
            "delong_ci": None if delong.interval is None else list(delong.interval),
            "delong_p": delong.p,
        },
        "eer": _as_json(difference.eer),
        "accuracy": None
        if difference.accuracy is None
        else {
            **_as_json(difference.accuracy),
            "mcnemar": decisions
            and {"n10": decisions.only_first, "n01": decisions.only_second, "p": decisions.p},
        },
        "tar_at_far": [
            {"target": point.target, **_as_json(tar)}
            for point, tar in zip(first.figures.points, difference.tar, strict=True)
        ],
    }


def _as_json(difference: Difference) -> dict[str, Any]:
    interval = difference.interval
    return {
        "difference": difference.difference,
        "ci": None if interval is None else list(interval),
        "p": difference.p,
    }
