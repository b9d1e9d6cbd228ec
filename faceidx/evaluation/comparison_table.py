"""A comparison as rows of tables and in words, for terminals and pages alike.

Names of systems are file names, and come out as they are: whoever shows them makes them safe.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from faceidx.evaluation.comparison import Comparison, System, SystemDifference
from faceidx.evaluation.intervals import Interval
from faceidx.evaluation.paired_tests import Difference, Disagreement

Row = tuple[str, ...]
DIFFERENCE_HEADER = ("", "Difference", "95 %", "p", "p of independent pairs")
_CERTAIN = 0.05
_LEAST_P = 1e-4
_UNKNOWN = "unknown"


class _Line(NamedTuple):
    """One figure's difference."""

    figure: str
    difference: Difference
    independent_p: float | None
    """Of a test that takes the pairs for independent; None where there is none."""
    rate: bool = True
    """Whether the figure is told in per cent."""


def system_rows(comparison: Comparison) -> list[Row]:
    """Return a row a figure, with a cell a system; the first row names the systems."""
    systems = comparison.systems
    rows: list[Row] = [
        ("", *(system.name for system in systems)),
        ("AUC", *(f"{system.figures.auc:.5f}" for system in systems)),
        ("AUC, 95 %", *(_auc_interval(system) for system in systems)),
        ("EER", *(f"{system.figures.eer:.3%}" for system in systems)),
        ("accuracy", *(_accuracy(system) for system in systems)),
    ]
    points = zip(*(system.figures.points for system in systems), strict=True)
    rows += [
        (f"TAR at FAR {of_target[0].target:g}", *(f"{point.tar:.3%}" for point in of_target))
        for of_target in points
    ]
    return rows


def difference_rows(comparison: Comparison, number: int) -> list[Row]:
    """Return a row a figure under `DIFFERENCE_HEADER`, of the difference of that number."""
    return [
        (
            line.figure,
            _signed(line.difference.difference, rate=line.rate),
            _interval(line.difference.interval, rate=line.rate),
            _p(line.difference.p),
            "" if line.independent_p is None else _p(line.independent_p),
        )
        for line in _lines(comparison, comparison.differences[number])
    ]


def difference_in_words(comparison: Comparison, number: int) -> Iterator[str]:
    """Yield a line a figure, and one on the decisions, of the difference of that number."""
    difference = comparison.differences[number]
    for line in _lines(comparison, difference):
        yield f"{line.figure} is {_more_or_less(line)} ({_how_sure(line)}){_verdict(line)}"
    if difference.decisions is not None:
        names = comparison.systems[0].name, comparison.systems[number + 1].name
        yield decisions_in_words(difference.decisions, *names)


def decisions_in_words(decisions: Disagreement, first: str, second: str) -> str:
    """Say which system alone decides how many pairs rightly."""
    return (
        f"{_pairs(decisions.only_first)} decided rightly by {first} alone, "
        f"{decisions.only_second:,} by {second} alone (p {_equals(decisions.p)} by McNemar)"
    )


def _lines(comparison: Comparison, difference: SystemDifference) -> Iterator[_Line]:
    yield _Line("AUC", difference.auc, difference.auc_delong.p, rate=False)
    yield _Line("EER", difference.eer, None)
    if difference.accuracy is not None:
        decisions = difference.decisions
        yield _Line("accuracy", difference.accuracy, decisions.p if decisions else None)
    points = comparison.systems[0].figures.points
    for point, tar in zip(points, difference.tar, strict=True):
        yield _Line(f"TAR at FAR {point.target:g}", tar, None)


def _auc_interval(system: System) -> str:
    of_auc = system.figures.intervals.auc
    low, high = of_auc.interval or of_auc.naive
    return f"{low:.5f} to {high:.5f}"


def _accuracy(system: System) -> str:
    figures = system.figures
    if figures.accuracy is None:
        return _UNKNOWN
    return f"{figures.accuracy:.3%} ± {figures.accuracy_std:.3%}"


def _more_or_less(line: _Line) -> str:
    difference = line.difference.difference
    size = f"{abs(100 * difference):.3f} points" if line.rate else f"{abs(difference):.5f}"
    return f"{size} {'higher' if difference > 0 else 'lower'}" if difference else "the same"


def _how_sure(line: _Line) -> str:
    if line.difference.interval is None:
        return "not tested"
    interval = _interval(line.difference.interval, rate=line.rate)
    independent = line.difference.p != line.independent_p and line.independent_p is not None
    return f"95 %: {interval}{' points' if line.rate else ''}; p {_equals(line.difference.p)}" + (
        f", {_equals(line.independent_p)} if pairs were independent" if independent else ""
    )


def _verdict(line: _Line) -> str:
    p = line.difference.p
    if p is None or line.difference.difference == 0:
        return ""
    return ": more than chance" if p < _CERTAIN else ": may be chance"


def _signed(value: float, *, rate: bool) -> str:
    return f"{100 * value:+.3f}" if rate else f"{value:+.5f}"


def _interval(interval: Interval | None, *, rate: bool) -> str:
    if interval is None:
        return "not tested"
    return f"{_signed(interval.low, rate=rate)} to {_signed(interval.high, rate=rate)}"


def _p(p: float | None) -> str:
    if p is None:
        return _UNKNOWN
    return f"{p:.2g}" if p >= _LEAST_P else f"< {_LEAST_P:.4f}"


def _equals(p: float | None) -> str:
    return _p(p) if p is not None and p < _LEAST_P else f"= {_p(p)}"


def _pairs(number: int) -> str:
    return f"{number:,} pair is" if number == 1 else f"{number:,} pairs are"
