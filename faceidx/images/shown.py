"""Faces for people to look at: crops as files, boxes and names on photos, a sheet of crops."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from faceidx.escape import for_terminal
from faceidx.files import FILE_MODE
from faceidx.images.decode import PictureError, decode
from faceidx.images.keys import is_crop_renamed, unescape_key

SHEET_CELLS = 400
"""Faces on a contact sheet, at most."""

_QUALITY: dict[str, dict[str, int]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True},
}
# Longer side of an annotated photo, so that it can be looked at.
_ANNOTATED_SIDE = 1600
_MATCHED, _OTHER, _WRITING = (60, 200, 90), (240, 180, 40), (255, 255, 255)
_TAKEN = (errno.EISDIR, errno.ENOTDIR, errno.EEXIST)
# Folders inside one another; a name in a tar shard can hold so many that making them ends Python.
_MOST_FOLDERS = 200
_CELL, _LABEL, _MOST_COLUMNS = 112, 18, 20
_LONGEST_LABEL = 60


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A face in a photo, and what is written at it."""

    box: np.ndarray
    """(4,) left, top, width, height in the upright photo."""
    landmarks: np.ndarray
    """(5, 2); NaN where they are not known."""
    text: str
    sure: bool = True


def crop_path(key: str, number: int | None = None) -> Path:
    """Where a crop lies below its folder: under its picture's key, where lists find it.

    Args:
        key: of the picture, escaped.
        number: of the face, where a picture can have several: `a.jpg` gives `a#1.jpg`.

    Raises:
        PictureError: the key leads out of the folder, or too deep into it.
    """
    *folders, name = os.fsdecode(unescape_key(key)).split("/")
    if any(part in ("", ".", "..") for part in (*folders, name)):
        raise PictureError("its name leads out of the folder")
    if len(folders) > _MOST_FOLDERS:
        raise PictureError(f"it lies in more than {_MOST_FOLDERS} folders inside one another")
    stem, dot, extension = name.rpartition(".")
    if not dot:
        stem, extension = name, ""
    mark = "" if number is None else f"#{number}"
    behind = f"{extension}.png".lstrip(".") if is_crop_renamed(name) else extension
    return Path(*folders, f"{stem}{mark}.{behind}")


def write_crop(path: Path, crop: np.ndarray) -> None:
    """Write a crop in the format that its name says, in one step.

    Raises:
        PictureError: its name is too long for the file system, or something else has it: pictures
            in a folder `a.pgm.png` and one named `a.pgm` beside it cannot both have crops.
    """
    temporary = path.with_name(f".{secrets.token_hex(6)}.part")
    kind = Image.registered_extensions()[path.suffix.lower()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
        with os.fdopen(descriptor, "wb") as file:
            Image.fromarray(crop).save(file, kind, **_QUALITY.get(kind, {}))
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        if error.errno == errno.ENAMETOOLONG:
            raise PictureError("its name is too long for a crop's") from None
        if error.errno in _TAKEN:
            raise PictureError("a folder has the name of another picture's crop") from None
        raise


def annotated(data: bytes | Path, marks: Sequence[Mark], *, max_pixels: int) -> Image.Image:
    """A photo, reduced for looking at, with boxes, landmarks and what is written at them.

    Raises:
        PictureError: as `decode`.
    """
    pixels = decode(data, max_pixels=max_pixels)
    scale = min(1.0, _ANNOTATED_SIDE / max(pixels.shape[:2]))
    shape = tuple(max(1, round(side * scale)) for side in pixels.shape[1::-1])
    image = Image.fromarray(pixels).resize((shape[0], shape[1]), Image.Resampling.BOX)
    draw = ImageDraw.Draw(image)
    width = max(1, round(max(shape) / 500))
    font = ImageFont.load_default(max(11, round(max(shape) / 60)))
    for mark in marks:
        colour = _MATCHED if mark.sure else _OTHER
        left, top, wide, high = (float(value) * scale for value in mark.box)
        draw.rectangle((left, top, left + wide, top + high), outline=colour, width=width)
        for x, y in mark.landmarks[np.isfinite(mark.landmarks).all(axis=1)] * scale:
            draw.ellipse((x - width, y - width, x + width, y + width), fill=colour)
        _write(draw, (left, top + high), _label(mark.text), font, image.size)
    return image


def contact_sheet(faces: Iterable[tuple[np.ndarray, str]]) -> Image.Image:
    """Crops side by side in rows, with a line under each.

    Args:
        faces: (H, W, 3) uint8 RGB and the line; `SHEET_CELLS` at most.
    """
    cells = list(faces)[:SHEET_CELLS]
    columns = min(_MOST_COLUMNS, max(1, round((1.5 * len(cells)) ** 0.5)))
    rows = max(1, -(-len(cells) // columns))
    sheet = Image.new("RGB", (columns * (_CELL + 4), rows * (_CELL + _LABEL)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for number, (crop, text) in enumerate(cells):
        x, y = (number % columns) * (_CELL + 4), (number // columns) * (_CELL + _LABEL)
        image = Image.fromarray(crop)
        image.thumbnail((_CELL, _CELL))
        sheet.paste(image, (x + 2, y + 2))
        line = _label(text)
        while line and draw.textlength(line, font=font) > _CELL:
            line = line[:-1]
        draw.text((x + 3, y + _CELL + 3), line, fill="black", font=font)
    return sheet


def _write(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    size: tuple[int, int],
) -> None:
    """Write on a dark ground, moved so far that it lies within the picture."""
    _, _, wide, high = draw.textbbox((0, 0), text, font=font)
    x = max(0, min(at[0], size[0] - wide - 4))
    y = max(0, min(at[1], size[1] - high - 4))
    draw.rectangle((x, y, x + wide + 4, y + high + 4), fill=(0, 0, 0))
    draw.text((x + 2, y + 1), text, fill=_WRITING, font=font)


def _label(text: str) -> str:
    return for_terminal(text)[:_LONGEST_LABEL]


def least_sure(scores: np.ndarray) -> Iterator[int]:
    """Rows of the faces that a contact sheet shows: the least sure first."""
    yield from (int(row) for row in np.argsort(scores, kind="stable")[:SHEET_CELLS])
