"""HTML of which every page of ours is built: its frame, and what stands in it more than once.

Pages are self-contained, allow no scripts at all, and share one frame and
stylesheet (`frame.html`). Texts given here are plain: each is escaped where it is placed.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from faceidx.evaluation.thumbnails import find_picture, thumbnail
from faceidx.images.decode import PictureError


def page(*, title: str, body: str) -> str:
    """Build a whole page.

    Args:
        title: shown by the browser, not in the page.
        body: what the page says, as HTML, headings included.
    """
    frame = Template((files("faceidx.evaluation") / "frame.html").read_text("utf-8"))
    return frame.substitute(title=escape(title), body=body.strip())


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = False) -> str:
    """Build a table; an empty header leaves the head out.

    Args:
        rows: the first cell of each names the row.
        numbers: whether the other cells are numbers, set to the right, instead of text.
    """
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


def card(name: str, value: str, more: str) -> str:
    """Build a figure in large type with its name above and a remark below."""
    return (
        f'<div class="card"><dt>{escape(name)}</dt><dd class="value">{escape(value)}</dd>'
        f'<dd class="more">{escape(more)}</dd></div>'
    )


def notes(warnings: Sequence[str]) -> str:
    """Build a box with a sentence for each warning; empty where there is none."""
    if not warnings:
        return ""
    lines = "".join(f"<p>{escape(warning[:1].upper() + warning[1:])}.</p>" for warning in warnings)
    return f'<div class="notes">{lines}</div>'


def image(what: str, svg: bytes) -> str:
    """Build a picture from an SVG document; `what` is for readers who cannot see it."""
    # As a picture, not as a part of the page: whatever an SVG holds, it is inert there.
    data = base64.b64encode(svg).decode("ascii")
    return f'<img src="data:image/svg+xml;base64,{data}" alt="{escape(what)}">'


def face(source: str | bytes | Path, what: str, root: Path | None = None) -> str:
    """Build the small picture of a face; where it cannot be shown, the reason stands in its place.

    Args:
        source: a file, the bytes of one, or a key below `root`.
        what: whose face it is, for readers who cannot see it.
    """
    try:
        if isinstance(source, str):
            if root is None:
                raise PictureError("no folder of pictures was given")
            source = find_picture(root, source)
        address = thumbnail(source)
    except PictureError as error:
        return f'<div class="none">{escape(str(error))}</div>'
    return f'<img src="{address}" alt="{escape(what)}">'


def pair_figure(
    faces: Sequence[str],
    *,
    score: str,
    tag: str,
    lines: Sequence[str],
    wrong: bool,
    scale: str = "",
) -> str:
    """Build two faces with their score, the verdict on it and some lines of text below.

    Args:
        faces: as `face` builds them; none where only names are shown.
        wrong: whether the verdict is an error, to be marked as one.
        scale: HTML below the score.
    """
    shown = f'<div class="faces">{"".join(faces)}</div>' if faces else ""
    told = "".join(f"<div>{escape(line)}</div>" for line in lines)
    return (
        f'<figure class="pair{" error" if wrong else ""}">{shown}<figcaption><div class="score">'
        f'{escape(score)} <span class="tag">{escape(tag)}</span></div>{scale}{told}'
        "</figcaption></figure>"
    )


def share(value: float | None, decimals: int = 3) -> str:
    """Write a share in per cent; None is unknown."""
    return "unknown" if value is None else f"{value:.{decimals}%}"


def plural(number: int, one: str, many: str) -> str:
    """Write a count with the noun's form that fits it."""
    return f"{number:,} {one if number == 1 else many}"
