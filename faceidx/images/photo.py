"""Photos of any size, decoded in no more detail than what is looked at needs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from faceidx.images.decode import (
    DEFAULT_MAX_PIXELS,
    DRAFTED,
    PictureError,
    open_bytes,
    opened_picture,
    orientation,
    upright_rgb,
)
from faceidx.images.plain_jpeg import decode_plain


class Part(NamedTuple):
    """A rectangle of a photo, in some of its detail."""

    pixels: np.ndarray
    """(h, w, 3) uint8 RGB."""
    left: int
    """Column of the photo where it begins."""
    top: int
    factor: int
    """Sides of the photo's pixels that one pixel of this part covers."""


class Photo:
    """A picture of which parts are looked at, decoded in no more detail than they need.

    A large JPEG is decoded reduced at first, which takes a fraction of the time, and whole only
    when a part is wanted in more detail.

    Args:
        data: the bytes of the picture, or its file.
        overview: the longer side of the reduced picture stays at least this long.
        max_pixels: larger pictures are refused, before anything is decoded.

    Raises:
        PictureError: as `decode`.
    """

    size: tuple[int, int]
    """Height and width of the whole photo, upright."""

    def __init__(
        self, data: bytes | Path, *, overview: int, max_pixels: int = DEFAULT_MAX_PIXELS
    ) -> None:
        self._data, self._max_pixels = data, max_pixels
        self._whole: Image.Image | None = None
        with open_bytes(data) as file:
            plain = decode_plain(file, max_pixels=max_pixels, at_least=overview)
        if plain is not None:
            self._pixels, self._factor = plain, 1
            self.size = plain.shape[:2]
            return
        with opened_picture(data, max_pixels) as image:
            width, height = image.size
            drafted = image.format in DRAFTED
            turned = drafted and orientation(image) != 1
            self._factor = _reduction(width, height, overview, cut=not turned) if drafted else 1
            if self._factor > 1:
                image.draft(None, (width // self._factor, height // self._factor))
            image.load()
            self._pixels = np.asarray(upright_rgb(image))
        rows, columns = self._pixels.shape[:2]
        self.size = (rows * self._factor, columns * self._factor)
        if self._factor > 1 and not turned:
            # The last row and column of a reduced picture may reach beyond the photo.
            self.size = (height, width)
            self._pixels = self._pixels[: height // self._factor, : width // self._factor]

    def part(
        self, left: float, top: float, right: float, bottom: float, *, detail: float
    ) -> Part | None:
        """The pixels of a rectangle, as far as it lies in the photo.

        Args:
            detail: pixels that are needed for one of the photo's; the part may have more.

        Returns:
            A part that covers at least the rectangle (its last pixels may be missing where the
            photo's sides are no multiple of the factor); None where nothing of it lies within.
        """
        factor = self._factor if self._factor * detail <= 1 else 1
        height, width = (side // factor for side in self.size)
        x0, y0 = (max(0, math.floor(edge / factor)) for edge in (left, top))
        x1 = min(width, math.ceil(right / factor))
        y1 = min(height, math.ceil(bottom / factor))
        if x0 >= x1 or y0 >= y1:
            return None
        if factor == self._factor:
            pixels = self._pixels[y0:y1, x0:x1]
        else:
            pixels = np.array(self._decoded_whole().crop((x0, y0, x1, y1)))
        return Part(pixels, x0 * factor, y0 * factor, factor)

    def _decoded_whole(self) -> Image.Image:
        if self._whole is None:
            with opened_picture(self._data, self._max_pixels) as image:
                image.load()
                whole = upright_rgb(image)
            if whole.size[::-1] != self.size:
                raise PictureError("changed while it was read")
            self._whole = whole
        return self._whole


def _reduction(width: int, height: int, at_least: int, *, cut: bool) -> int:
    """By how much a JPEG can be decoded reduced, its longer side staying `at_least` long.

    Unless a last row and column may be `cut`, only what divides both sides.
    """
    return next(
        factor
        for factor in (8, 4, 2, 1)
        if factor == 1
        or (
            max(width, height) // factor >= at_least
            and min(width, height) >= factor
            and (cut or (width % factor == 0 and height % factor == 0))
        )
    )
