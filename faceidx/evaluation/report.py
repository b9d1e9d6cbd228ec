"""The report of `verify-pairs`: a folder with one self-contained page, and what it is made of.

Whatever comes from names of pictures or people is escaped; the page allows no scripts at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

import numpy as np

from faceidx.evaluation.calibration import Calibration
from faceidx.evaluation.command_line import command_of
from faceidx.evaluation.group_table import groups_section
from faceidx.evaluation.intervals import Interval, Intervals
from faceidx.evaluation.markup import card, face, notes, pair_figure, plural, share, table
from faceidx.evaluation.plots import write_plots
from faceidx.evaluation.report_folder import (
    FIGURES,
    SCORES,
    making_facts,
    plot_figures,
    write_contents,
)
from faceidx.evaluation.verdict import Verification, VerifyOptions, write_scores
from faceidx.files import whole_folder

_HARDEST = 12
_MISSING_SHOWN = 100


def write_report(folder: Path, verified: Verification, options: VerifyOptions) -> None:
    """Write `index.html`, `figures.json`, `scores.csv` and the plots as PNG and SVG.

    There is no `scores.csv` for all pairs of a file: nobody has seen all their scores at once.
    With `options.pictures` the hardest pairs are shown as faces, else by name.
    """
    with whole_folder(folder) as temporary:
        plots = write_plots(
            temporary, verified.roc, verified.figures.points, verified.figures.threshold
        )
        if not options.all_pairs:
            write_scores(temporary / SCORES, verified)
        write_contents(
            temporary,
            figures=verified.as_json(),
            title=f"Verification of {verified.listed.path.name}",
            body=_body(verified, options, plot_figures(temporary, plots)),
        )


def _body(verified: Verification, options: VerifyOptions, plots: str) -> str:
    template = Template((files("faceidx.evaluation") / "report.html").read_text("utf-8"))
    listed = verified.listed
    genuine, impostor = verified.counts()
    highest, lowest = hardest_pairs(verified, genuine=False), hardest_pairs(verified, genuine=True)
    return template.substitute(
        subtitle=escape(
            f"{listed.path.name}: {genuine + impostor:,} pairs, {genuine:,} of one person and "
            f"{impostor:,} of two"
            + (f", scored with {verified.origin.model}" if verified.origin else "")
        ),
        cards="\n".join(_cards(verified)),
        notes=notes(verified.warnings),
        plots=plots,
        operating_points=_operating_points(verified),
        confusion=_confusion(verified),
        more_figures=_more_figures(verified),
        groups=groups_section(verified.groups),
        pictures_note=_pictures_note(verified, options),
        hardest_impostors="\n".join(_pair(verified, pair, options.pictures) for pair in highest),
        hardest_genuine="\n".join(_pair(verified, pair, options.pictures) for pair in lowest),
        missing=_missing(verified),
        made=_made(verified, options),
    )


def hardest_pairs(verified: Verification, *, genuine: bool, number: int = _HARDEST) -> list[int]:
    """Return the genuine pairs of lowest, or the impostor pairs of highest score.

    Returns:
        Rows of `verified.judged`, the hardest first; pairs without a score are none of them.
    """
    judged, roc = verified.judged, verified.roc
    rising = roc.genuine_scores if genuine else roc.impostor_scores
    of_class = (judged.genuine == genuine) & ~judged.rejected
    number = min(number, len(rising))
    if number == 0:  # all pairs of the class are rejected
        return []
    near = judged.scores <= rising[number - 1] if genuine else judged.scores >= rising[-number]
    rows = np.flatnonzero(of_class & near)
    order = np.argsort(judged.scores[rows] * (1 if genuine else -1), kind="stable")
    return [int(row) for row in rows[order][:number]]


def _cards(verified: Verification) -> Iterable[str]:
    figures = verified.figures
    of = figures.intervals
    yield card("Area under the ROC curve", f"{figures.auc:.4f}", _sure(of.auc, ".4f"))
    yield card("Equal error rate", f"{figures.eer:.2%}", _sure(of.eer, ".2%"))
    if figures.accuracy is not None:
        yield card(
            "Accuracy",
            f"{figures.accuracy:.2%}",
            f"± {figures.accuracy_std:.2%} over {figures.folds} folds",
        )
    strictest = min(figures.points, key=lambda point: point.target, default=None)
    if strictest is not None:
        yield card(
            f"TAR at FAR {strictest.target:g}",
            f"{strictest.tar:.2%}",
            f"{plural(strictest.false_matches, 'false match', 'false matches')}",
        )


def _sure(both: Intervals, style: str) -> str:
    """The interval to quote, or the naive one where there is none."""
    low, high = both.interval or both.naive
    whose = "" if both.interval else " of independent pairs"
    return f"95 %{whose}: {low:{style}} to {high:{style}}"


def _operating_points(verified: Verification) -> str:
    figures = verified.figures
    header = (
        *("FAR wanted", "FAR reached", "False matches", "TAR", "95 %"),
        *("95 % of independent pairs", "FNMR", "Threshold"),
    )
    rows = [
        (
            f"{point.target:g}",
            f"{point.fmr:.3g}",
            f"{point.false_matches:,}",
            f"{point.tar:.3%}",
            _rates(tar.interval),
            _rates(tar.naive),
            f"{point.fnmr:.3%}",
            f"{point.threshold:.6f}",
        )
        for point, tar in zip(figures.points, figures.intervals.tar, strict=True)
    ]
    return table(header, rows, numbers=True)


def _confusion(verified: Verification) -> str:
    counts = verified.figures.confusion
    rows = [
        ("Same person", f"{counts.tp:,}", f"{counts.fn:,}"),
        ("Different people", f"{counts.fp:,}", f"{counts.tn:,}"),
    ]
    return table(("", "Accepted", "Rejected"), rows, numbers=True)


def _more_figures(verified: Verification) -> str:
    figures = verified.figures
    intervals = figures.intervals
    rows = [
        ("Threshold", f"{figures.threshold:.6f}"),
        ("Precision", share(figures.precision)),
        ("F1", f"{figures.f1:.4f}"),
        ("d′", "unknown" if figures.d_prime is None else f"{figures.d_prime:.3f}"),
        ("AUC, 95 % of independent pairs", "{:.4f} to {:.4f}".format(*intervals.auc.naive)),
        ("EER, 95 % of independent pairs", _rates(intervals.eer.naive)),
        *_accuracy_intervals(intervals.accuracy),
        ("Cllr at best", "unknown" if figures.min_cllr is None else f"{figures.min_cllr:.4f}"),
        *_calibration(figures.calibration),
    ]
    return table((), rows, numbers=True)


def _calibration(fitted: Calibration | None) -> list[tuple[str, str]]:
    if fitted is None:
        return [("Calibration", "cannot be fitted")]
    sign = "-" if fitted.intercept < 0 else "+"
    return [
        ("Cllr after calibration", f"{fitted.cllr:.4f}"),
        ("ln likelihood ratio", f"{fitted.slope:.5g} × score {sign} {abs(fitted.intercept):.5g}"),
    ]


def _accuracy_intervals(accuracy: Intervals | None) -> list[tuple[str, str]]:
    if accuracy is None:
        return []
    return [
        ("Accuracy, 95 %", _rates(accuracy.interval)),
        ("Accuracy, 95 % of independent pairs", _rates(accuracy.naive)),
    ]


def _rates(interval: Interval | None) -> str:
    return "unknown" if interval is None else f"{interval.low:.2%} to {interval.high:.2%}"


def _pictures_note(verified: Verification, options: VerifyOptions) -> str:
    note = "The errors to learn from; a label may also be wrong."
    carried = getattr(verified.listed, "pictures", None) is not None
    if options.pictures is None and not carried:
        note += " Only names are shown: give --pictures ROOT to see the faces."
    return escape(note)


def _pair(verified: Verification, row: int, root: Path | None) -> str:
    judged = verified.judged
    pair, score = int(judged.index[row]), float(judged.scores[row])
    accepted = score >= verified.figures.threshold
    wrong = accepted != bool(judged.genuine[row])
    names = verified.names(pair)
    faces: list[str] = []
    if root is not None or getattr(verified.listed, "pictures", None) is not None:
        sources = verified.sources(pair)
        faces = [face(source, name, root) for source, name in zip(sources, names, strict=True)]
    return pair_figure(
        faces,
        score=f"{score:.4f}",
        tag="accepted" if accepted else "rejected",
        lines=[name for name in names if name] or [f"line {int(verified.listed.lines[pair])}"],
        wrong=wrong,
    )


def _missing(verified: Verification) -> str:
    missing = verified.missing
    if not missing:
        return '<p class="soft">No pair: every pair of the list has a score.</p>'
    told = {
        "exclude": "They are left out of the figures.",
        "reject": "Each counts as a non-match, as a failure to enrol does in ISO/IEC 19795-1.",
    }
    text = f"{plural(len(missing), 'pair has', 'pairs have')} no score. {told[verified.policy]}"
    if len(missing) > _MISSING_SHOWN:
        text += f" The first {_MISSING_SHOWN} are shown; {FIGURES} holds all."
    rows = [
        (f"{m.line}", m.left, m.right, "same" if m.genuine else "different", m.reason)
        for m in missing[:_MISSING_SHOWN]
    ]
    listed = table(("Line", "Left", "Right", "Person", "Why"), rows)
    return f'<p>{escape(text)}</p>{_other_policy(verified)}<div class="panel">{listed}</div>'


def _other_policy(verified: Verification) -> str:
    other = verified.other_policy
    if other is None or other["auc"] is None:
        return ""
    policies = {
        verified.policy: verified.figures.as_json(),
        other["missing_policy"]: other,
    }
    targets = [point.target for point in verified.figures.points]
    rows = [
        (
            f"--missing {policy}",
            f"{fields['auc']:.5f}",
            f"{fields['eer']:.3%}",
            share(fields["accuracy"]),
            *(f"{point['tar']:.3%}" for point in fields["tar_at_far"]),
        )
        for policy, fields in policies.items()
    ]
    header = ("Policy", "AUC", "EER", "Accuracy", *(f"TAR at FAR {target:g}" for target in targets))
    return f'<div class="panel">{table(header, rows, numbers=True)}</div>'


def _made(verified: Verification, options: VerifyOptions) -> str:
    origin = verified.origin
    rows = [
        ("List", f"{options.pairs} ({verified.listed.format})"),
        ("Embeddings", str(options.embeddings) if options.embeddings else ""),
        ("Model", origin.model if origin else ""),
        ("Fingerprint", origin.fingerprint if origin else ""),
        ("Preprocessing", json.dumps(origin.preprocessing, sort_keys=True) if origin else ""),
        ("Missing pairs", options.missing),
        ("Intervals", verified.figures.intervals.method or "delong"),
        ("Seed", str(options.seed)),
        *making_facts(command_line(options)),
    ]
    return table((), [row for row in rows if row[1]])


def command_line(options: VerifyOptions) -> str:
    """Return the command that was run, every option that is not its default included."""
    given = {"pairs", "all_pairs"}
    if options.all_pairs:
        return command_of(["verify-pairs", "--all-pairs"], [], options, given=given)
    return command_of(["verify-pairs"], [options.pairs], options, given=given)
