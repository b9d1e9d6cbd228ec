"""The figures of groups as people read them: rows of text, and a section of the report."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from faceidx.evaluation.group_figures import GroupErrors, GroupFigures, Rate, spread_of
from faceidx.evaluation.markup import plural, table

HEADER = ("Group", "FNMR (95 %)", "Errors", "Ratio", "FMR (95 %)", "Errors", "Ratio")
"""Each ratio is to the rate over all pairs."""


def group_rows(figures: GroupFigures) -> list[tuple[str, ...]]:
    """Build the rows under `HEADER`: groups by name, pairs that belong to none, all pairs."""
    rows = [*figures.groups.items(), ("between groups", figures.mixed)]
    if figures.ungrouped_names:
        rows.append(("in no group", figures.ungrouped))
    rows.append(("all pairs", figures.overall))
    return [_row(name, errors, figures.overall) for name, errors in rows]


def group_facts(figures: GroupFigures) -> Iterator[tuple[str, str]]:
    """Yield names and texts of what holds for all groups."""
    yield (
        "groups",
        f"{figures.file}, at threshold {figures.threshold:.6f} (FMR over all pairs at most "
        f"{figures.target:g})",
    )
    for name, rates in (("FNMR ratio", figures.fnmr), ("FMR ratio", figures.fmr)):
        spread = spread_of(rates)
        if spread.ratio is not None:
            yield name, f"{spread.ratio:.3g}  (highest {spread.highest}, lowest {spread.lowest})"
    if figures.ungrouped_names:
        names = plural(len(figures.ungrouped_names), "name", "names")
        yield "in no group", f"{names}, the first {figures.ungrouped_names[0]} (all with --json)"


def groups_section(figures: GroupFigures | None) -> str:
    """Build the report's section, empty where no groups were asked for."""
    if figures is None:
        return ""
    note = (
        "One threshold for all. A genuine pair counts for the group of its person, an impostor "
        "pair for the group of its two people. The intervals take the pairs for independent; "
        "ratios are to the rate over all pairs."
    )
    facts = [(name[:1].upper() + name[1:], text) for name, text in group_facts(figures)]
    return (
        f'<h2>Groups</h2>\n<p class="soft">{escape(note)}</p>\n'
        f'<div class="panel">\n{table(HEADER, group_rows(figures), numbers=True)}\n</div>\n'
        f'<div class="panel">\n{table((), facts)}\n</div>'
    )


def _row(name: str, errors: GroupErrors, overall: GroupErrors) -> tuple[str, ...]:
    return (
        name,
        *_cells(errors.fnmr, overall.fnmr, ".2%"),
        *_cells(errors.fmr, overall.fmr, ".3g"),
    )


def _cells(rate: Rate, overall: Rate, style: str) -> tuple[str, str, str]:
    """Rate with interval, counts, ratio."""
    if rate.value is None or rate.interval is None:
        return "", "no pairs", ""
    low, high = rate.interval
    ratio = rate.ratio_to(overall)
    return (
        f"{rate.value:{style}} ({low:{style}} to {high:{style}})",
        f"{rate.errors:,} of {rate.trials:,}",
        "" if ratio is None else f"{ratio:.2f}",
    )
