"""Small files that would keep a decoder busy for minutes, refused before anything is decoded.

The bound on pixels does not see them: their work is done again and again over the same pixels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO

from PIL import ImageFile

# Progressive pictures have some ten; libjpeg-turbo's fuzzers stop at 500. One of them costs a pass
# over all pixels and can take 31 bytes.
_MOST_SCANS = 100
# Rows that end early take two bytes each and Pillow fills them pixel by pixel, in Python.
_MOST_PIXELS_OF_RLE = 1 << 24
# For each comment among the numbers Pillow copies the megabyte around it.
_MOST_COMMENTS = 10_000
# Each costs some 5 us, and more where it is larger.
_MOST_TILES = 100_000

_CHUNK = 1 << 20
_SCAN = b"\xff\xda"
# What is no marker in a JPEG's coded data: a stuffed byte, a restart, fill bytes (T.81, B.1.1.5).
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
_END, _START_OF_SCAN = b"\xd9", b"\xda"
_WITHOUT_LENGTH = (b"\x01", b"\xd8")


def too_slow(image: ImageFile.ImageFile, file: IO[bytes]) -> str | None:
    """Why a picture whose header was read will take too long to decode; None where it will not."""
    pixels = image.size[0] * image.size[1]
    coder = image.tile[0][0] if image.tile else ""
    if image.format in ("JPEG", "MPO"):
        if _count(file, _SCAN) > _MOST_SCANS and (scans := _scans(file)) > _MOST_SCANS:
            return f"damaged: {scans} scans, more than {_MOST_SCANS}"
    elif coder == "bmp_rle" and pixels > _MOST_PIXELS_OF_RLE:
        width, height = image.size
        return f"oversized: {width} x {height} pixels, run-length encoded"
    elif coder == "ppm_plain" and _count(file, b"#") > _MOST_COMMENTS:
        return f"damaged: more than {_MOST_COMMENTS} comments"
    elif image.format == "TIFF":
        if len(image.tile) > _MOST_TILES:
            return f"damaged: {len(image.tile)} strips, more than {_MOST_TILES}"
        extents = [tile.extents or (0, 0, *image.size) for tile in image.tile]
        covered = sum((right - left) * (low - top) for left, top, right, low in extents)
        if covered > pixels * (len(image.getbands()) + 1):
            return "damaged: its strips hold it several times over"
    return None


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    return iter(lambda: file.read(_CHUNK), b"")


def _count(file: IO[bytes], wanted: bytes) -> int:
    """How often one or two bytes stand in a file, those across two chunks left out."""
    return sum(chunk.count(wanted) for chunk in _chunks(file))


def _scans(file: IO[bytes]) -> int:
    """The scans of a JPEG up to its end: what lies in its segments or behind it is none."""
    data = b"".join(_chunks(file))
    scans, place = 0, 0
    while (found := _MARKER.search(data, place)) and found[1] != _END:
        scans += found[1] == _START_OF_SCAN
        place = found.end()
        if found[1] not in _WITHOUT_LENGTH:
            place += int.from_bytes(data[place : place + 2], "big")
    return scans
