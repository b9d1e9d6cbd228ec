"""The report of `verify-pairs --compare`: all systems on one page, and where they disagree.

Whatever comes from names of files, pictures or people is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

import numpy as np

from faceidx.evaluation.command_line import command_of
from faceidx.evaluation.comparison import CompareOptions, Comparison, System
from faceidx.evaluation.comparison_table import (
    DIFFERENCE_HEADER,
    Row,
    decisions_in_words,
    difference_rows,
    system_rows,
)
from faceidx.evaluation.markup import face, notes, pair_figure, table
from faceidx.evaluation.plots import Curve, write_overlaid_plots
from faceidx.evaluation.report_folder import making_facts, plot_figures, write_contents
from faceidx.files import together, whole_folder

_SHOWN = 12


def write_comparison(folder: Path, comparison: Comparison, options: CompareOptions) -> None:
    """Write `index.html`, `figures.json` and the overlaid plots as PNG and SVG.

    With `options.pictures` the pairs on which systems disagree are shown as faces, else by name.
    """
    with together(folder), whole_folder(folder) as temporary:
        plots = write_overlaid_plots(
            temporary, [Curve(s.roc, s.figures.points, s.name) for s in comparison.systems]
        )
        write_contents(
            temporary,
            figures=comparison.as_json(),
            title=f"Comparison of {_all_names(comparison)}",
            body=_body(comparison, options, plot_figures(temporary, plots)),
        )


def disagreements(first: System, other: System, number: int = _SHOWN) -> list[int]:
    """Return the pairs that only `other` decides rightly, the ranks furthest apart first.

    Scores of two systems need not be alike; the share of all pairs that score lower is.
    """
    if first.right is None or other.right is None:
        return []
    rows = np.flatnonzero(other.right & ~first.right)
    apart = np.abs(_ranks(other, rows) - _ranks(first, rows))
    return [int(row) for row in rows[np.argsort(-apart, kind="stable")][:number]]


def _ranks(system: System, rows: np.ndarray) -> np.ndarray:
    """Share of all pairs that score lower than each of some rows, ties counting half; (n,)."""
    scores, roc = system.scores[rows], system.roc
    below = sum(
        rising.searchsorted(scores, side="left") + rising.searchsorted(scores, side="right")
        for rising in (roc.genuine_scores, roc.impostor_scores)
    )
    ranks: np.ndarray = below / (2 * len(system.scores))
    return ranks


def _body(comparison: Comparison, options: CompareOptions, plots: str) -> str:
    template = Template((files("faceidx.evaluation") / "comparison.html").read_text("utf-8"))
    genuine = int(np.count_nonzero(comparison.listed.genuine))
    pairs = len(comparison.listed.genuine)
    header, *rows = _capitalised(system_rows(comparison))
    return template.substitute(
        subtitle=escape(
            f"{_all_names(comparison)}: {pairs:,} pairs, {genuine:,} of one person and "
            f"{pairs - genuine:,} of two"
        ),
        notes=notes(comparison.warnings),
        systems=table(header, rows, numbers=True),
        plots=plots,
        differences="\n".join(
            _difference(comparison, number, options.pictures)
            for number in range(len(comparison.differences))
        ),
        made=_made(comparison, options),
    )


def _difference(comparison: Comparison, number: int, root: Path | None) -> str:
    first, other = comparison.systems[0], comparison.systems[number + 1]
    decisions = comparison.differences[number].decisions
    rows = _capitalised(difference_rows(comparison, number))
    parts = [
        f"<h2>{escape(other.name)} against {escape(first.name)}</h2>",
        f'<p class="soft">How much higher the figure of {escape(other.name)} is; of rates in '
        "percentage points. A small p says that chance alone would seldom part the two so far. The "
        "last column takes pairs that share people for independent: by DeLong for the AUC, by "
        "McNemar for the accuracy.</p>",
        f'<div class="panel">{table(DIFFERENCE_HEADER, rows, numbers=True)}</div>',
    ]
    if decisions is not None:
        words = decisions_in_words(decisions, first.name, other.name)
        parts.append(f"<h3>Where they disagree most</h3><p>{escape(words)}.</p>")
        parts += _disagreed(comparison, first, other, root)
    return "\n".join(parts)


def _disagreed(
    comparison: Comparison, first: System, other: System, root: Path | None
) -> Iterator[str]:
    for wrong, right in ((first, other), (other, first)):
        rows = disagreements(wrong, right)
        if rows:
            yield f'<p class="soft">Decided rightly by {escape(right.name)} alone:</p>'
            shown = "\n".join(_pair(comparison, row, first, other, root) for row in rows)
            yield f'<div class="pairs">\n{shown}\n</div>'


def _pair(comparison: Comparison, row: int, first: System, other: System, root: Path | None) -> str:
    names = comparison.names(row)
    faces = [face(name, name, root) for name in names] if root is not None and any(names) else []
    return pair_figure(
        faces,
        score=f"{first.scores[row]:.4f} \N{RIGHTWARDS ARROW} {other.scores[row]:.4f}",
        tag="one person" if comparison.listed.genuine[row] else "two people",
        lines=[name for name in names if name] or [f"line {comparison.listed.lines[row]}"],
        wrong=False,
    )


def _made(comparison: Comparison, options: CompareOptions) -> str:
    rows = [(system.name, str(system.path)) for system in comparison.systems]
    rows += [
        ("Pairs matched by", comparison.matched_by),
        ("Intervals", comparison.method),
        ("Seed", str(options.seed)),
        *making_facts(_command_line(options)),
    ]
    return table((), rows)


def _command_line(options: CompareOptions) -> str:
    """Return the command that was run, every option that is not its default included."""
    return command_of(["verify-pairs", "--compare"], options.scores, options, given={"scores"})


def _capitalised(rows: Iterable[Row]) -> list[Row]:
    return [(row[0][:1].upper() + row[0][1:], *row[1:]) for row in rows]


def _all_names(comparison: Comparison) -> str:
    return ", ".join(system.name for system in comparison.systems)
