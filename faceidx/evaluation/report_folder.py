"""A report's folder: whether it may be written, and what every report holds."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from faceidx.errors import InputError
from faceidx.evaluation.markup import image, page
from faceidx.versions import version_of

PAGE, FIGURES, SCORES = "index.html", "figures.json", "scores.csv"
_VERSIONS = ("faceidx", "numpy", "h5py", "matplotlib", "pillow")


def check_report(report: Path, others: Iterable[Path]) -> None:
    """Raise `InputError` where more would be lost than an earlier report.

    A report takes the place of its whole folder.

    Args:
        others: files that are read, or written as well.
    """
    for other in others:
        if report.resolve() in other.resolve().parents:
            raise InputError(f"{other} lies in the report's folder {report}; give another folder")
    if not report.exists():
        return
    if not report.is_dir():
        raise InputError(f"{report} is a file; give a folder for the report")
    known = (report / PAGE).is_file() and (report / FIGURES).is_file()
    if not known and any(report.iterdir()):
        raise InputError(f"{report} is not empty and no report of ours; give another folder")


def check_pictures(pictures: Path | None, report: Path | None) -> None:
    """Raise `InputError` where pictures are given that no report can show."""
    if pictures is None:
        return
    if report is None:
        raise InputError("--pictures shows faces in the report; give --report DIR as well")
    if not pictures.is_dir():
        raise InputError(f"--pictures: {pictures} is no folder")


def write_contents(folder: Path, *, figures: Mapping[str, Any], title: str, body: str) -> None:
    """Write `figures.json`, and `index.html` with a body that is HTML."""
    text = json.dumps(figures, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / FIGURES).write_text(text + "\n", "utf-8", "surrogateescape")
    (folder / PAGE).write_text(page(title=title, body=body), "utf-8", "xmlcharrefreplace")


def plot_figures(folder: Path, plots: Mapping[str, str]) -> str:
    """Build the HTML of plots that lie in a folder as SVG: name to what it shows."""
    images = (
        image(f"{what}.", (folder / f"{name}.svg").read_bytes()) for name, what in plots.items()
    )
    return "\n".join(f'<figure class="plot">{image}</figure>' for image in images)


def making_facts(command: str) -> Sequence[tuple[str, str]]:
    """Say with what, when and how a report was made, as rows of a table."""
    return (
        ("Versions", ", ".join(_versions())),
        ("Written", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")),
        ("Command", command),
    )


def _versions() -> Iterable[str]:
    yield f"Python {platform.python_version()}"
    for package in _VERSIONS:
        yield f"{package} {version_of(package) or '(not installed)'}"
