"""Faces in photos of any size: the detector over a photo at several scales, in tiles.

The detector finds faces of some 24 to 500 pixels. A photo is looked at small, where large faces
are found, and then in more and more detail as far as small ones are wanted. What lies in the
overlap of two tiles, or is seen at two scales, is one face.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

from faceidx.images.detect import NO_DETECTIONS, Detections, Detector, merge
from faceidx.images.photo import Photo
from faceidx.images.second_look import DOUBTFUL, looked_at_again, turned_back

OVERVIEW = 640
"""The longer side of a photo where it is looked at as a whole. Of faces that fill it 95 in 100 are
found, of faces of half its length all (measured on real ones, as are the bounds below)."""
_GLANCE, _NO_GLANCE = 192, 240
# The longer side for faces that fill the photo; photos no longer than the second need none.
_LEAST = 24
# Length of a face in pixels from which on the detector finds 97 in 100, and 100 from `_SURE` on.
_SURE = 32
_STEP = 4.0
# From one scale to the next at most. Tiles overlap by the largest face that is not found at the
# scale before, and some room, so that such a face lies whole in one of them.
_TILE, _ROOM = 1280, 16
# A box that ends so close to the border of a tile, in pixels, may be cut by it.
_CUT = 2.0


def find_faces(
    photo: Photo, detector: Detector, *, mode: str, min_face: int, min_score: float
) -> Detections:
    """Find the faces of a photo that are wanted.

    Args:
        mode: `largest`; `central`, which takes the distance of a face from the middle of the photo
            off its size (the largest of area - 2 * distance^2, as davidsandberg/facenet has it);
            or `all`.
        min_face: in pixels, of the longer side of its box.
        min_score: from 0 to 1.

    Returns:
        The faces, the largest first, in pixels of the upright photo.
    """
    wanted = _Wanted(mode=mode, min_face=min_face, min_score=min_score)
    found, quarters = _found(photo, detector, wanted), 0
    if _surest(found) < DOUBTFUL:
        # Photos on their side or head are looked at as a whole only, so that those without a face
        # take little longer.
        least = max(min_face, math.ceil(_LEAST * max(photo.size) / OVERVIEW))
        whole = wanted._replace(min_face=least)
        turned = {q: _found(photo, _Turned(detector, q), whole) for q in (1, 2, 3)}
        quarters, found = max({0: found, **turned}.items(), key=lambda each: _surest(each[1]))
    order = np.lexsort((-found.scores, -_worth(found, photo.size, mode)))
    found = found.take(order if mode == "all" else order[:1])
    return looked_at_again(photo, detector, found, quarters)


def _surest(found: Detections) -> float:
    return float(found.scores.max(initial=0))


class _Wanted(NamedTuple):
    """What `find_faces` is asked for."""

    mode: str
    min_face: int
    min_score: float


def _found(photo: Photo, detector: Detector | _Turned, wanted: _Wanted) -> Detections:
    """All faces that are seen until none that would be chosen can still be found, in no order."""
    mode, min_face, min_score = wanted
    found, before = NO_DETECTIONS, 1.0
    for scale in _scales(photo.size, min_face):
        overlap = math.ceil(_LEAST * scale / before) + _ROOM
        found = merge([found, *_at_scale(photo, detector, scale, overlap, min_score)])
        before = scale
        # Faces that are found at a later scale only are smaller than this.
        if (
            mode != "all"
            and max(_worth(found, photo.size, mode), default=0) >= (_SURE / scale) ** 2
        ):
            break
    return found.take(np.flatnonzero(found.boxes[:, 2:].max(axis=1, initial=0) >= min_face))


class _Turned(NamedTuple):
    """A detector that looks at pictures after they were turned counterclockwise."""

    detector: Detector
    quarters: int

    def find(self, picture: np.ndarray, min_score: float) -> Detections:
        """As `Detector.find`; boxes are those of upright faces about the middles of these."""
        turned = np.ascontiguousarray(np.rot90(picture, self.quarters))
        found = self.detector.find(turned, min_score)
        size, sides = picture.shape[:2], found.boxes[:, 2:]
        middles = turned_back(found.boxes[:, :2] + sides / 2, self.quarters, size)
        boxes = np.concatenate([middles - sides / 2, sides], axis=1)
        landmarks = turned_back(found.landmarks, self.quarters, size)
        return Detections(boxes, landmarks, found.scores)


def _worth(found: Detections, size: tuple[int, int], mode: str) -> np.ndarray:
    """(n,) what faces are ordered by."""
    left, top, width, height = found.boxes.T.astype(np.float64)
    if mode != "central":
        return width * height
    away = (left + width / 2 - size[1] / 2) ** 2 + (top + height / 2 - size[0] / 2) ** 2
    return width * height - 2 * away


# --- scales and tiles --------------------------------------------------------------------------


def _scales(size: tuple[int, int], min_face: int) -> Iterator[float]:
    """The scales that a photo is looked at, the smallest first."""
    longest = max(size)
    finest = min(1.0, _LEAST / min_face)
    whole = min(1.0, OVERVIEW / longest)
    if finest <= 1.25 * whole:
        whole = max(whole, finest)
    if longest > _NO_GLANCE:
        yield _GLANCE / longest
    yield whole
    if finest > whole:
        steps = math.ceil(math.log(finest / whole, _STEP))
        for step in range(1, steps + 1):
            yield whole * (finest / whole) ** (step / steps)


def _at_scale(
    photo: Photo, detector: Detector | _Turned, scale: float, overlap: int, min_score: float
) -> Iterator[Detections]:
    """The faces found in each tile of a photo at a scale, in the photo's pixels."""
    height, width = photo.size
    for top, bottom in _spans(height, scale, overlap):
        for left, right in _spans(width, scale, overlap):
            part = photo.part(left, top, right, bottom, detail=scale)
            if part is None:
                continue
            reach = [side * part.factor for side in part.pixels.shape[1::-1]]
            shape = tuple(max(1, round(side * scale)) for side in reach)
            found = detector.find(_resized(part.pixels, shape), min_score)
            per_pixel = np.array([reach[0] / shape[0], reach[1] / shape[1]], np.float32)
            found = _moved(found, per_pixel, np.array([part.left, part.top], np.float32))
            yield found.take(~_cut(found, (left, top, right, bottom), photo.size, _CUT / scale))


def _spans(length: int, scale: float, overlap: int) -> Iterator[tuple[float, float]]:
    """Begin and end of the tiles along one side, of equal length, in the photo's pixels."""
    scaled = length * scale
    count = max(1, math.ceil((scaled - overlap) / (_TILE - overlap)))
    tile = (scaled + (count - 1) * overlap) / count
    for number in range(count):
        begin = number * (tile - overlap)
        yield begin / scale, min(length, (begin + tile) / scale)


def _cut(
    found: Detections, tile: tuple[float, float, float, float], size: tuple[int, int], near: float
) -> np.ndarray:
    """(n,) whether a face may be cut by a border of its tile that is none of the photo."""
    left, top, width, height = found.boxes.T
    cut = np.zeros(len(left), bool)
    cut |= (tile[0] > 0) & (left < tile[0] + near)
    cut |= (tile[1] > 0) & (top < tile[1] + near)
    cut |= (tile[2] < size[1]) & (left + width > tile[2] - near)
    cut |= (tile[3] < size[0]) & (top + height > tile[3] - near)
    return cut


def _moved(found: Detections, per_pixel: np.ndarray, corner: np.ndarray) -> Detections:
    """Detections from the pixels of a scaled part to those of the photo."""
    places = found.boxes[:, :2] * per_pixel + corner
    sides = found.boxes[:, 2:] * per_pixel
    boxes = np.concatenate([places, sides], axis=1)
    return found._replace(boxes=boxes, landmarks=found.landmarks * per_pixel + corner)


def _resized(pixels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Scale to a width and height, averaging where a pixel stands for two or more across."""
    rows, columns = pixels.shape[:2]
    if (columns, rows) == shape:
        return pixels
    # Below that interpolating leaves out none, in a tenth of the time.
    averaging = columns >= 2 * shape[0] or rows >= 2 * shape[1]
    how = cv2.INTER_AREA if averaging else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, shape, interpolation=how))
