"""The report of `verify-pairs`: a folder with one self-contained page, and what it is made of.

Whatever comes from names of pictures or people is escaped; the page allows no scripts at all.
"""

from __future__ import annotations

import base64
import json
import platform
import shlex
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from string import Template

import numpy as np

from faceidx.errors import InputError
from faceidx.evaluation.plots import write_plots
from faceidx.evaluation.thumbnails import find_picture, thumbnail
from faceidx.evaluation.verdict import Verification, VerifyOptions, write_scores
from faceidx.files import whole_folder
from faceidx.images.decode import PictureError

PAGE, FIGURES, SCORES = "index.html", "figures.json", "scores.csv"
_HARDEST = 12
_MISSING_SHOWN = 100
_VERSIONS = ("faceidx", "numpy", "h5py", "matplotlib", "pillow")


def write_report(folder: Path, verified: Verification, options: VerifyOptions) -> None:
    """Write `index.html`, `figures.json`, `scores.csv` and the plots as PNG and SVG.

    With `options.pictures` the hardest pairs are shown as faces, else by name.
    """
    with whole_folder(folder) as temporary:
        plots = write_plots(
            temporary, verified.roc, verified.figures.points, verified.figures.threshold
        )
        images = [
            _image(f"{what}.", (temporary / f"{name}.svg").read_bytes())
            for name, what in plots.items()
        ]
        figures = json.dumps(verified.as_json(), indent=2, ensure_ascii=False, allow_nan=False)
        (temporary / FIGURES).write_text(figures + "\n", "utf-8", "surrogateescape")
        write_scores(temporary / SCORES, verified)
        page = _page(verified, options, images)
        (temporary / PAGE).write_text(page, "utf-8", "xmlcharrefreplace")


def require_report(folder: Path) -> None:
    """Raise `InputError` unless a folder that is to be replaced is empty or a report of ours."""
    known = (folder / PAGE).is_file() and (folder / FIGURES).is_file()
    if not known and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty and no report of ours; give another folder")


def _page(verified: Verification, options: VerifyOptions, plots: Sequence[str]) -> str:
    template = Template((files("faceidx.evaluation") / "report.html").read_text("utf-8"))
    listed = verified.listed
    genuine = int(np.count_nonzero(listed.genuine))
    highest, lowest = hardest_pairs(verified, genuine=False), hardest_pairs(verified, genuine=True)
    return template.substitute(
        title=escape(f"Verification of {listed.path.name}"),
        subtitle=escape(
            f"{listed.path.name}: {len(listed.genuine):,} pairs, {genuine:,} of one person and "
            f"{len(listed.genuine) - genuine:,} of two"
            + (f", scored with {verified.origin.model}" if verified.origin else "")
        ),
        cards="\n".join(_cards(verified)),
        notes=_notes(verified.warnings),
        plots="\n".join(f'<figure class="plot">{image}</figure>' for image in plots),
        operating_points=_operating_points(verified),
        confusion=_confusion(verified),
        more_figures=_more_figures(verified),
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
    number = min(number + int(np.count_nonzero(judged.rejected)), len(rising))
    near = judged.scores <= rising[number - 1] if genuine else judged.scores >= rising[-number]
    rows = np.flatnonzero(of_class & near)
    order = np.argsort(judged.scores[rows] * (1 if genuine else -1), kind="stable")
    return [int(row) for row in rows[order][:_HARDEST]]


def _cards(verified: Verification) -> Iterable[str]:
    figures = verified.figures
    interval = figures.auc_interval
    yield _card(
        "Area under the ROC curve",
        f"{figures.auc:.4f}",
        f"95 %: {interval.interval.low:.4f} to {interval.interval.high:.4f}",
    )
    yield _card("Equal error rate", f"{figures.eer:.2%}", "where both errors are equal")
    if figures.accuracy is not None:
        yield _card(
            "Accuracy",
            f"{figures.accuracy:.2%}",
            f"± {figures.accuracy_std:.2%} over {figures.folds} folds",
        )
    strictest = min(figures.points, key=lambda point: point.target, default=None)
    if strictest is not None:
        yield _card(
            f"TAR at FAR {strictest.target:g}",
            f"{strictest.tar:.2%}",
            f"{_plural(strictest.false_matches, 'false match', 'false matches')}",
        )


def _card(name: str, value: str, more: str) -> str:
    return (
        f'<div class="card"><dt>{escape(name)}</dt><dd class="value">{escape(value)}</dd>'
        f'<dd class="more">{escape(more)}</dd></div>'
    )


def _notes(warnings: Sequence[str]) -> str:
    if not warnings:
        return ""
    lines = "".join(f"<p>{escape(warning[:1].upper() + warning[1:])}.</p>" for warning in warnings)
    return f'<div class="notes">{lines}</div>'


def _operating_points(verified: Verification) -> str:
    header = ("FAR wanted", "FAR reached", "False matches", "TAR", "FNMR", "Threshold")
    rows = [
        (
            f"{point.target:g}",
            f"{point.fmr:.3g}",
            f"{point.false_matches:,}",
            f"{point.tar:.3%}",
            f"{point.fnmr:.3%}",
            f"{point.threshold:.6f}",
        )
        for point in verified.figures.points
    ]
    return _table(header, rows, numbers=True)


def _confusion(verified: Verification) -> str:
    counts = verified.figures.confusion
    rows = [
        ("Same person", f"{counts.tp:,}", f"{counts.fn:,}"),
        ("Different people", f"{counts.fp:,}", f"{counts.tn:,}"),
    ]
    return _table(("", "Accepted", "Rejected"), rows, numbers=True)


def _more_figures(verified: Verification) -> str:
    figures = verified.figures
    delong = figures.auc_interval.delong
    rows = [
        ("Threshold", f"{figures.threshold:.6f}"),
        ("Precision", _share(figures.precision)),
        ("F1", f"{figures.f1:.4f}"),
        ("d′", "unknown" if figures.d_prime is None else f"{figures.d_prime:.3f}"),
        ("AUC, 95 % if pairs were independent", f"{delong.low:.4f} to {delong.high:.4f}"),
    ]
    return _table((), rows, numbers=True)


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
    tag = f'<span class="tag{" error" if wrong else ""}">{"accepted" if accepted else "rejected"}'
    names = verified.names(pair)
    faces = ""
    if root is not None or getattr(verified.listed, "pictures", None) is not None:
        shown = "".join(
            _face(source, name, root)
            for source, name in zip(verified.sources(pair), names, strict=True)
        )
        faces = f'<div class="faces">{shown}</div>'
    captions = "".join(f"<div>{escape(name)}</div>" for name in names if name)
    line = f"<div>line {int(verified.listed.lines[pair])}</div>" if not any(names) else ""
    return (
        f'<figure class="pair">{faces}<figcaption><div class="score">{score:.4f} {tag}</span></div>'
        f"{captions}{line}</figcaption></figure>"
    )


def _face(source: str | bytes, name: str, root: Path | None) -> str:
    try:
        if isinstance(source, str):
            if root is None:
                raise PictureError("no folder of pictures was given")
            address = thumbnail(find_picture(root, source))
        else:
            address = thumbnail(source)
    except PictureError as error:
        return f'<div class="none">{escape(str(error))}</div>'
    return f'<img src="{address}" alt="{escape(name)}">'


def _missing(verified: Verification) -> str:
    missing = verified.missing
    if not missing:
        return '<p class="soft">No pair: every pair of the list has a score.</p>'
    told = {
        "exclude": "They are left out of the figures.",
        "reject": "Each counts as a non-match, as a failure to enrol does in ISO/IEC 19795-1.",
    }
    text = f"{_plural(len(missing), 'pair has', 'pairs have')} no score. {told[verified.policy]}"
    if len(missing) > _MISSING_SHOWN:
        text += f" The first {_MISSING_SHOWN} are shown; {FIGURES} holds all."
    rows = [
        (f"{m.line}", m.left, m.right, "same" if m.genuine else "different", m.reason)
        for m in missing[:_MISSING_SHOWN]
    ]
    table = _table(("Line", "Left", "Right", "Person", "Why"), rows)
    return f'<p>{escape(text)}</p>{_other_policy(verified)}<div class="panel">{table}</div>'


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
            _share(fields["accuracy"]),
            *(f"{point['tar']:.3%}" for point in fields["tar_at_far"]),
        )
        for policy, fields in policies.items()
    ]
    header = ("Policy", "AUC", "EER", "Accuracy", *(f"TAR at FAR {target:g}" for target in targets))
    return f'<div class="panel">{_table(header, rows, numbers=True)}</div>'


def _made(verified: Verification, options: VerifyOptions) -> str:
    origin = verified.origin
    rows = [
        ("List", f"{options.pairs} ({verified.listed.format})"),
        ("Embeddings", str(options.embeddings) if options.embeddings else ""),
        ("Model", origin.model if origin else ""),
        ("Fingerprint", origin.fingerprint if origin else ""),
        ("Preprocessing", json.dumps(origin.preprocessing, sort_keys=True) if origin else ""),
        ("Missing pairs", options.missing),
        ("AUC interval", verified.figures.auc_interval.method),
        ("Seed", str(options.seed)),
        ("Versions", ", ".join(_versions())),
        ("Written", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")),
        ("Command", command_line(options)),
    ]
    return _table((), [row for row in rows if row[1]])


def _versions() -> Iterable[str]:
    yield f"Python {platform.python_version()}"
    for package in _VERSIONS:
        try:
            yield f"{package} {version(package)}"
        except PackageNotFoundError:  # a checkout that was never installed
            yield f"{package} (not installed)"


def command_line(options: VerifyOptions) -> str:
    """Return the command that computes the same figures again."""
    parts = ["faceidx", "verify-pairs", str(options.pairs)]
    if options.embeddings is not None:
        parts += ["--embeddings", str(options.embeddings)]
    if options.images is not None and options.model is not None:
        parts += ["--images", str(options.images), "--model", str(options.model.path)]
    parts += ["--format", options.format, "--fmr", ",".join(f"{rate:g}" for rate in options.fmr)]
    parts += ["--folds", str(options.folds), "--missing", options.missing]
    parts += ["--seed", str(options.seed)]
    if options.report is not None:
        parts += ["--report", str(options.report)]
    if options.pictures is not None:
        parts += ["--pictures", str(options.pictures)]
    return shlex.join(parts)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = False) -> str:
    """Build a table: the first column names the row; the others are numbers or text."""
    kind = "number" if numbers else "name"
    head = "".join(
        f'<th class="{kind if place else "first"}" scope="col">{escape(text)}</th>'
        for place, text in enumerate(header)
    )
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f'<td class="{kind}">{escape(cell)}</td>' for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f"<table>{f'<thead><tr>{head}</tr></thead>' if header else ''}<tbody>{body}</tbody></table>"
    )


def _image(what: str, svg: bytes) -> str:
    data = base64.b64encode(svg).decode("ascii")
    return f'<img src="data:image/svg+xml;base64,{data}" alt="{escape(what)}">'


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3%}"


def _plural(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"
