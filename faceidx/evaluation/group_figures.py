"""Both errors of each group of people, at one threshold for all.

A genuine pair belongs to the group of its person, an impostor pair to the group of its two people.
Impostor pairs of two groups stand apart: people of one sex, age and origin are taken for each
other more often than any two strangers, so that rates over all strangers would hide what happens
within a group (Grother, Ngan and Hanaoka, "Face Recognition Vendor Test (FRVT) Part 3:
Demographic Effects", NIST IR 8280, 2019, who fix one threshold over all pairs as well). How
uncertain such figures are has to be said with them (ISO/IEC 19795-10:2024 has it in its scope):
hence the counts and the intervals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from faceidx.errors import InputError
from faceidx.evaluation.figures import ENOUGH_ERRORS
from faceidx.evaluation.groups import Members
from faceidx.evaluation.intervals import Interval, wilson_interval
from faceidx.evaluation.roc import OperatingPoint, in_precision

_BLOCK = 1 << 20  # pairs counted at once
_SHOWN = 5  # groups that a warning names


class Rate(NamedTuple):
    """An error rate by the counts behind it."""

    errors: int
    trials: int

    @property
    def value(self) -> float | None:
        """Errors a trial; None where nothing was tried."""
        return self.errors / self.trials if self.trials else None

    @property
    def interval(self) -> Interval | None:
        """Wilson's 95 % interval, which takes the pairs for independent."""
        return wilson_interval(self.errors, self.trials) if self.trials else None

    def ratio_to(self, other: Rate) -> float | None:
        """How many times the other rate this one is; None where that cannot be said."""
        return self.value / other.value if self.value is not None and other.value else None


@dataclass(frozen=True, kw_only=True)
class GroupErrors:
    """Both errors over some of the pairs."""

    fmr: Rate
    """Of the impostor pairs."""
    fnmr: Rate
    """Of the genuine pairs."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How far a rate differs between groups."""

    ratio: float | None
    """Highest by lowest; None where the lowest is 0, or where there are fewer than two groups."""
    highest: str | None
    """The group, the first of equals by name; None where there is none."""
    lowest: str | None


@dataclass(frozen=True, kw_only=True)
class GroupFigures:
    """The errors of each group, and of the pairs that belong to none."""

    file: Path
    target: float
    """The false match rate over all pairs that `threshold` keeps to."""
    threshold: float
    overall: GroupErrors
    """Over all judged pairs."""
    groups: dict[str, GroupErrors]
    """By name, sorted; every group of the file, with or without pairs."""
    mixed: GroupErrors
    """Pairs with sides of two groups: impostors between groups, and genuine pairs whose sides
    contradict each other."""
    ungrouped: GroupErrors
    """Pairs with a side in no group."""
    ungrouped_names: list[str]
    """The people, or pictures, of judged pairs that are in no group."""

    @property
    def fmr(self) -> dict[str, Rate]:
        """False match rate of each group that has impostor pairs."""
        return {name: e.fmr for name, e in self.groups.items() if e.fmr.trials}

    @property
    def fnmr(self) -> dict[str, Rate]:
        """False non-match rate of each group that has genuine pairs."""
        return {name: e.fnmr for name, e in self.groups.items() if e.fnmr.trials}

    def as_json(self) -> dict[str, Any]:
        """The fields of `groups` in JSON."""
        return {
            "file": str(self.file),
            "target": self.target,
            "threshold": self.threshold,
            "overall": _as_json(self.overall),
            "groups": [
                {
                    "group": group,
                    **_as_json(errors),
                    "fmr_ratio": errors.fmr.ratio_to(self.overall.fmr),
                    "fnmr_ratio": errors.fnmr.ratio_to(self.overall.fnmr),
                }
                for group, errors in self.groups.items()
            ],
            "between": _fmr_as_json(self.mixed.fmr),
            "mixed": _fnmr_as_json(self.mixed.fnmr),
            "ungrouped": _as_json(self.ungrouped),
            "ungrouped_names": self.ungrouped_names,
            **{f"fmr_{name}": value for name, value in asdict(spread_of(self.fmr)).items()},
            **{f"fnmr_{name}": value for name, value in asdict(spread_of(self.fnmr)).items()},
        }


def group_figures(
    members: Members,
    point: OperatingPoint,
    *,
    scores: np.ndarray,
    genuine: np.ndarray,
    index: np.ndarray,
    rejected: np.ndarray,
) -> GroupFigures:
    """Count the errors of each group at the threshold of an operating point over all pairs.

    Args:
        scores: (S,) similarities.
        genuine: (S,) bool.
        index: (S,) int64, the pair in the list.
        rejected: (S,) bool, pairs with a missing picture, which never match.

    Raises:
        InputError: no pair has both sides in a group.
    """
    number = len(members.groups)
    threshold = in_precision(point.threshold, scores.dtype)
    # By place (the groups, then `mixed`, then `ungrouped`), genuine and accepted.
    counts = np.zeros((number + 2, 2, 2), dtype=np.int64)
    met = np.zeros(len(members.names), dtype=bool)
    for first in range(0, len(scores), _BLOCK):
        block = slice(first, first + _BLOCK)
        sides = members.left[index[block]], members.right[index[block]]
        left, right = (members.group[side] for side in sides)
        place = np.where(left == right, left, number)
        place[(left < 0) | (right < 0)] = number + 1
        accepted = (scores[block] >= threshold) & ~rejected[block]
        cell = (place * 2 + genuine[block]) * 2 + accepted
        counts += np.bincount(cell, minlength=counts.size).reshape(counts.shape)
        for side in sides:
            met[side] = True
    if not counts[: number + 1].any():
        raise InputError(
            f"{members.table.path}: no pair has both sides in a group; the file names "
            f"{members.table.keys[0]!r} and the list {members.names[0]!r}: are they written alike?"
        )
    places = [_errors(cells) for cells in counts]
    unknown = np.flatnonzero(met & (members.group < 0))
    return GroupFigures(
        file=members.table.path,
        target=point.target,
        threshold=point.threshold,
        overall=_errors(counts.sum(axis=0)),
        groups=dict(zip(members.groups, places, strict=False)),
        mixed=places[number],
        ungrouped=places[number + 1],
        ungrouped_names=list(dict.fromkeys(members.names[i] for i in unknown)),
    )


def spread_of(rates: Mapping[str, Rate]) -> Spread:
    """Compare rates by group, each of them with trials."""
    values = {group: rate.errors / rate.trials for group, rate in rates.items()}
    if not values:
        return Spread(ratio=None, highest=None, lowest=None)
    highest, lowest = max(values, key=values.__getitem__), min(values, key=values.__getitem__)
    known = len(values) > 1 and values[lowest] > 0
    return Spread(
        ratio=values[highest] / values[lowest] if known else None, highest=highest, lowest=lowest
    )


def group_warnings(figures: GroupFigures) -> list[str]:
    """What has to be known before the figures of groups are quoted."""
    rates = {"FMR": figures.fmr, "FNMR": figures.fnmr}
    warnings = []
    few = {name: _where(of, range(ENOUGH_ERRORS)) for name, of in rates.items()}
    if any(few.values()):
        which = " and ".join(f"the {name} of {_told(g)}" for name, g in few.items() if g)
        warnings.append(
            f"fewer than {ENOUGH_ERRORS} errors stand behind {which}; take these as rough, and "
            "their ratios"
        )
    for name, of in rates.items():
        none = _where(of, range(1))
        if none and len(of) > 1:
            warnings.append(f"the {name}'s ratio is unknown: there is no error in {_told(none)}")
    contradicting = figures.mixed.fnmr.trials
    if contradicting:
        warnings.append(
            f"{contradicting} genuine pairs have their sides in two groups and count in neither; "
            f"correct {figures.file}"
        )
    return warnings


def _where(rates: Mapping[str, Rate], errors: range) -> list[str]:
    return [group for group, rate in rates.items() if rate.errors in errors]


def _told(groups: Sequence[str]) -> str:
    names = ", ".join(groups[:_SHOWN]) + (", ..." if len(groups) > _SHOWN else "")
    return f"the group {names}" if len(groups) == 1 else f"{len(groups)} groups ({names})"


def _errors(cells: np.ndarray) -> GroupErrors:
    """Errors from counts by genuine and accepted (2, 2)."""
    rejected_impostors, false_matches, false_non_matches, matches = cells.ravel().tolist()
    return GroupErrors(
        fmr=Rate(false_matches, false_matches + rejected_impostors),
        fnmr=Rate(false_non_matches, false_non_matches + matches),
    )


def _as_json(errors: GroupErrors) -> dict[str, Any]:
    return {**_fnmr_as_json(errors.fnmr), **_fmr_as_json(errors.fmr)}


def _fnmr_as_json(rate: Rate) -> dict[str, Any]:
    return {
        "genuine": rate.trials,
        "false_non_matches": rate.errors,
        "fnmr": rate.value,
        "fnmr_ci": None if rate.interval is None else list(rate.interval),
    }


def _fmr_as_json(rate: Rate) -> dict[str, Any]:
    return {
        "impostor": rate.trials,
        "false_matches": rate.errors,
        "fmr": rate.value,
        "fmr_ci": None if rate.interval is None else list(rate.interval),
    }
