"""JPEGs with nothing odd about them, decoded by libjpeg-turbo alone: a third of Pillow's time.

The pixels are those that Pillow gives, which decodes with the same library. Whatever could need
more thought is left to it: EXIF and other profiles, several scans, damage, other colours.
"""

from __future__ import annotations

from typing import IO, NamedTuple

import numpy as np

try:
    import simplejpeg
except ImportError:  # where it has no wheel; all is left to Pillow then
    simplejpeg = None

_START = b"\xff\xd8"
# The header of a plain picture lies within the first of these bytes; of a larger picture the time
# goes into decoding, whoever does it.
_HEAD, _LARGEST = 1 << 16, 1 << 26

# Markers (ITU-T T.81, table B.1).
_BASELINE, _HUFFMAN, _SCAN, _QUANTIZATION, _RESTART, _JFIF, _COMMENT = (
    *(0xC0, 0xC4, 0xDA, 0xDB, 0xDD),
    *(0xE0, 0xFE),
)
_PASSED_OVER = {_HUFFMAN, _QUANTIZATION, _RESTART, _JFIF, _COMMENT}
_GREY, _COLOUR = 1, 3


def decode_plain(file: IO[bytes], *, max_pixels: int, at_least: int = 0) -> np.ndarray | None:
    """Decode a file that stands at its beginning to (H, W, 3) uint8 RGB.

    Args:
        at_least: as of `decode`.

    Returns:
        None where it is no plain JPEG, is too large, or would rather be decoded reduced. The file
        may then stand anywhere.
    """
    plain = None if simplejpeg is None else plain_data(file, max_pixels, at_least)
    if plain is None:
        return None
    try:
        pixels: np.ndarray = simplejpeg.decode_jpeg(plain.data)
    except (ValueError, MemoryError):  # damaged, truncated
        return None
    return pixels if pixels.shape == (*plain.size, 3) else None


class Plain(NamedTuple):
    """A plain JPEG."""

    data: bytes
    size: tuple[int, int]
    """Height and width."""


def plain_data(file: IO[bytes], max_pixels: int, at_least: int = 0) -> Plain | None:
    """All of a file that stands at its beginning; None as of `decode_plain`."""
    data = file.read(_HEAD)
    size = _size(data)
    if size is None or size[0] * size[1] > max_pixels or (at_least and min(size) >= 2 * at_least):
        return None
    if len(data) == _HEAD:
        data += file.read(_LARGEST)
    return Plain(data, size)


def _size(head: bytes) -> tuple[int, int] | None:
    """Height and width of a JPEG that is plain; None of any other file."""
    if head[:2] != _START:
        return None
    place, components, size = 2, 0, (0, 0)
    while place + 10 <= len(head) and head[place] == 0xFF:
        marker, length = head[place + 1], int.from_bytes(head[place + 2 : place + 4], "big")
        if marker == _BASELINE and not components:
            bits, components = head[place + 4], head[place + 9]
            size = (_number(head, place + 5), _number(head, place + 7))
            if bits != 8 or components not in (_GREY, _COLOUR) or 0 in size:
                return None
        elif marker == _SCAN:
            # One scan of all components; further ones would be passes over all pixels.
            return size if components and head[place + 4] == components else None
        elif marker not in _PASSED_OVER:
            return None
        place += 2 + length
    return None


def _number(data: bytes, place: int) -> int:
    return int.from_bytes(data[place : place + 2], "big")
