"""The report of `classify`: each probe beside its nearest faces, and the figures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from string import Template
from typing import Any

from faceidx.evaluation.identification import IdentificationFigures, Rate
from faceidx.evaluation.identification_plots import write_identification_plots
from faceidx.evaluation.markup import card, face, notes, plural, share, table
from faceidx.evaluation.report_folder import making_facts, plot_figures, write_contents
from faceidx.files import whole_folder
from faceidx.gallery.cases import ERRORS, Case
from faceidx.gallery.classify import Classified
from faceidx.gallery.folder import Gallery

_TITLES = {
    **dict.fromkeys(ERRORS, "Errors"),
    "cannot be searched": "Not searched",
}
_OTHERS = "Decided, the narrowest first"


def write_identification_report(
    folder: Path,
    gallery: Gallery,
    classified: Classified,
    *,
    probes: str,
    pictures: Path | None,
    gallery_pictures: Path | None,
    command: str,
    warnings: Sequence[str],
) -> None:
    """Write `index.html`, `figures.json` and the plots as PNG and SVG.

    Args:
        probes: the file or folder that the probes come from.
        pictures: folder of the probes' pictures; None shows names only.
        gallery_pictures: folder of the gallery's pictures.
    """
    with whole_folder(folder) as temporary:
        figures = classified.figures
        plots = write_identification_plots(temporary, figures) if figures else {}
        template = Template((files("faceidx.gallery") / "identification.html").read_text("utf-8"))
        summary = classified.summary
        body = template.substitute(
            subtitle=escape(
                f"{probes}: {plural(summary['probes'], 'probe', 'probes')} looked up among "
                f"{plural(len(gallery.people), 'person', 'people')} "
                f"({plural(gallery.count, 'picture', 'pictures')}) of {gallery.path.name}"
            ),
            cards="\n".join(_cards(classified)),
            notes=notes(warnings),
            figures=_figures(figures, plot_figures(temporary, plots)) if figures else "",
            probes_note=escape(_probes_note(classified, pictures)),
            cases=_cases(gallery, classified, pictures, gallery_pictures),
            made=_made(gallery, classified, probes, command),
        )
        told = {**summary, "out": str(summary["out"]) if summary["out"] else None}
        write_contents(temporary, figures=told, title=f"Identification of {probes}", body=body)


def _cards(classified: Classified) -> Iterable[str]:
    summary, decision, figures = classified.summary, classified.decision, classified.figures
    unknown = f"of {summary['probes']:,} probes, {summary['unknown']:,} unknown"
    yield card("Matched", f"{summary['matched']:,}", unknown)
    yield card("Threshold", f"{decision.threshold:.4f}", decision.source)
    if figures is None:
        return
    for name, rate in (
        ("Rank 1", figures.rank(1)),
        ("Rank 5", figures.rank(5)),
        ("FPIR", figures.fpir()),
        ("FNIR", figures.fnir()),
    ):
        yield card(name, share(rate.value, 1), _counts(rate))


def _counts(rate: Rate) -> str:
    if rate.interval is None:
        return "no such probes"
    low, high = rate.interval
    counted = rate.trials - rate.errors if rate.of_success else rate.errors
    return f"{counted:,} of {rate.trials:,}, 95 %: {low:.1%} to {high:.1%}"


def _figures(figures: IdentificationFigures, plots: str) -> str:
    rows = [
        (
            f"{found.point.target:g}",
            _rate(found.fpir),
            _rate(found.fnir),
            f"{found.point.threshold:.6f}",
        )
        for found in figures.at_targets()
    ]
    header = ("FPIR wanted", "FPIR reached", "FNIR", "Threshold")
    mated = int(figures.mated.sum())
    told = (
        f"{plural(mated, 'probe shows', 'probes show')} people of the gallery, "
        f"{len(figures.mated) - mated:,} strangers. Thresholds below are chosen on these probes; "
        "the intervals take people for the sample."
    )
    points = f'<div class="panel">{table(header, rows, numbers=True)}</div>' if rows else ""
    return f'<h2>Figures</h2><p class="soft">{escape(told)}</p><div class="plots">{plots}</div>' + (
        f"<h3>FNIR at FPIR</h3>{points}" if rows else ""
    )


def _rate(rate: Rate) -> str:
    if rate.interval is None:
        return "unknown"
    low, high = rate.interval
    return f"{rate.value:.2%} ({rate.errors:,} of {rate.trials:,}; {low:.1%} to {high:.1%})"


def _probes_note(classified: Classified, pictures: Path | None) -> str:
    shown, all_probes = len(classified.cases), classified.summary["probes"]
    note = "Each probe stands beside the nearest people, with their scores; the mark on a bar is "
    note += "the threshold."
    if shown < all_probes:
        note += f" {shown:,} of {all_probes:,} are shown, errors and narrow decisions first."
    if pictures is None:
        note += " Only names are shown: give --pictures ROOT to see the faces."
    return note


def _cases(
    gallery: Gallery, classified: Classified, pictures: Path | None, others: Path | None
) -> str:
    threshold = classified.decision.threshold
    sections = []
    for title, cases in groupby(classified.cases, lambda case: _TITLES.get(case.verdict, _OTHERS)):
        figures = [_case(gallery, case, threshold, pictures, others) for case in cases]
        count = f'<span class="count">{len(figures):,}</span>'
        sections.append(
            f'<h3>{escape(title)} {count}</h3>\n<div class="probes">\n' + "\n".join(figures)
        )
        sections[-1] += "\n</div>"
    return "\n".join(sections)


def _case(
    gallery: Gallery, case: Case, threshold: float, pictures: Path | None, others: Path | None
) -> str:
    wrong = case.verdict in ERRORS
    shown = face(case.key, case.key, pictures) if pictures else ""
    named = f"<strong>{escape(case.identity)}</strong>" if case.identity else ""
    found = "".join(
        _candidate(
            gallery.paths[c.row],
            c.identity,
            c.score,
            threshold,
            others,
            c.identity == case.identity,
        )
        for c in case.candidates
    )
    return (
        f'<figure class="probe{" error" if wrong else ""}"><div class="asked">{shown}'
        f'<div class="told">{named}<span class="key">{escape(case.key)}</span>'
        f'<span class="tag">{escape(case.verdict)}</span></div></div>'
        f'<div class="found">{found}</div></figure>'
    )


def _candidate(
    key: str, identity: str, score: float, threshold: float, root: Path | None, own: bool
) -> str:
    shown = face(key, key, root) if root else ""
    below = "" if score >= threshold else " below"
    return (
        f'<div class="candidate{below}">{shown}<div class="score">{score:.3f}</div>'
        f'<div class="scale"><span style="width: {_percent(score)}"></span>'
        f'<i style="left: {_percent(threshold)}"></i></div>'
        f'<div class="name{" own" if own else ""}" title="{escape(key)}">{escape(identity)}</div>'
        "</div>"
    )


def _percent(score: float) -> str:
    return f"{min(max(score, 0.0), 1.0):.1%}"


def _made(gallery: Gallery, classified: Classified, probes: str, command: str) -> str:
    summary, decision = classified.summary, classified.decision
    rows: list[tuple[str, Any]] = [
        ("Probes", probes),
        ("Gallery", str(gallery.path)),
        ("Threshold", f"{decision.threshold:.9g}, {decision.source}"),
        ("Fusion", summary["fusion"]),
        ("Model", gallery.origin.model),
        ("Fingerprint", gallery.origin.fingerprint),
        ("Preprocessing", json.dumps(gallery.origin.preprocessing, sort_keys=True)),
        *making_facts(command),
    ]
    return table((), [row for row in rows if row[1]])
