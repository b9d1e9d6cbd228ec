"""Faces in photos of any size: the detector over a photo at several scales, in tiles.

The detector finds faces of some 24 to 500 pixels. A photo is looked at small, where large faces
are found, and then in more and more detail as far as small ones are wanted. What lies in the
overlap of two tiles, or is seen at two scales, is one face.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import cv2
import numpy as np

from faceidx.images.align import warp
from faceidx.images.detect import NO_DETECTIONS, Detections, Detector, merge
from faceidx.images.photo import Photo

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

# The second look: length of a face, and sides of the square that is looked at. Only where a face is
# large does the detector see how far it is tilted: of 20 degrees it tells 17 at a length of 256
# pixels, and 3 at 64 to 96. The middle of the face is enough for that, unless it is tilted far.
_TILT_LENGTH, _TILT_SIDES = 256, (160, 320, 320)
# Degrees that a face is tilted further than it was turned back, from which on it is looked at once
# more.
_TILTED = 6.0
# Places are steadiest at this length, once a face is upright.
_PLACE_LENGTH = _PLACE_SIDE = 96
# Pixels of the photo that are enough for one of a look.
_LOOK_DETAIL = 0.5
_LOOK_SCORE, _LOOK_OVERLAP = 0.5, 0.3
# The order of the landmarks in the mirror.
_MIRRORED = [1, 0, 2, 4, 3]
_LEFT, _RIGHT = [0, 3], [1, 4]


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
    found = found.take(np.flatnonzero(found.boxes[:, 2:].max(axis=1, initial=0) >= min_face))
    order = np.lexsort((-found.scores, -_worth(found, photo.size, mode)))
    found = found.take(order if mode == "all" else order[:1])
    return _looked_at_again(photo, detector, found)


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
    photo: Photo, detector: Detector, scale: float, overlap: int, min_score: float
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


# --- the second look ---------------------------------------------------------------------------


def _looked_at_again(photo: Photo, detector: Detector, found: Detections) -> Detections:
    """Detections with boxes and landmarks of a closer look at each face.

    The places that the detector gives shift by some hundredths of the face with its scale, and are
    drawn towards those of an upright face, the more so the smaller it is. So it is first found out
    how far a face is tilted. Then it is cut out upright, scaled to the length where places are
    steadiest, and looked at together with its mirror image: the mean of the two is taken.
    """
    boxes, landmarks = found.boxes.copy(), found.landmarks.copy()
    for row, box in enumerate(found.boxes):
        tilt = _tilt(photo, detector, box)
        looks = _looks(photo, detector, box, tilt, _PLACE_LENGTH, _PLACE_SIDE, mirrored=True)
        if looks:
            boxes[row] = np.mean([look[0] for look in looks], axis=0)
            landmarks[row] = np.mean([look[1] for look in looks], axis=0)
    return found._replace(boxes=boxes, landmarks=landmarks)


def _tilt(photo: Photo, detector: Detector, box: np.ndarray) -> float:
    """How far a face is tilted clockwise, in degrees."""
    tilt = 0.0
    for side in _TILT_SIDES:
        looks = _looks(photo, detector, box, tilt, _TILT_LENGTH, side, mirrored=False)
        if not looks:
            continue  # more of it may be needed
        points = looks[0][1]
        across = points[_RIGHT].mean(axis=0) - points[_LEFT].mean(axis=0)
        before, tilt = tilt, math.degrees(math.atan2(across[1], across[0]))
        if abs(tilt - before) < _TILTED:
            break
    return tilt


def _looks(
    photo: Photo,
    detector: Detector,
    box: np.ndarray,
    tilt: float,
    length: int,
    side: int,
    *,
    mirrored: bool,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Box and landmarks of a face, turned back by its tilt and scaled to a length in a square."""
    scale = length / float(max(box[2:]))
    cosine, sine = (scale * f(math.radians(tilt)) for f in (math.cos, math.sin))
    x, y = (box[:2] + box[2:] / 2).tolist()
    matrix = np.array(
        [
            [cosine, sine, side / 2 - cosine * x - sine * y],
            [-sine, cosine, side / 2 + sine * x - cosine * y],
        ]
    )
    back = cv2.invertAffineTransform(matrix)
    # Places count from the corner of a pixel here, and from its middle there.
    matrix[:, 2] += matrix[:, :2].sum(axis=1) / 2 - 0.5
    square = warp(photo, matrix, (side, side), detail=_LOOK_DETAIL)
    scaled = box[2:] * scale
    expected = np.concatenate([side / 2 - scaled / 2, scaled])
    pictures = np.stack([square, cv2.flip(square, 1)] if mirrored else [square])
    seen = detector.find_in_each(pictures, _LOOK_SCORE, apart=False)
    seen[1:] = [_unmirrored(found, side) for found in seen[1:]]
    looks = []
    for found in seen:
        best = _surest(found, expected)
        if best is not None:
            left_top, sides = found.boxes[best, :2], found.boxes[best, 2:]
            points = np.concatenate([[left_top + sides / 2], found.landmarks[best]])
            points = points @ back[:, :2].T + back[:, 2]
            sides = sides / scale
            looks.append((np.concatenate([points[0] - sides / 2, sides]), points[1:]))
    return looks


def _unmirrored(found: Detections, width: int) -> Detections:
    boxes, landmarks = found.boxes.copy(), found.landmarks[:, _MIRRORED].copy()
    boxes[:, 0] = width - boxes[:, 0] - boxes[:, 2]
    landmarks[..., 0] = width - landmarks[..., 0]
    return found._replace(boxes=boxes, landmarks=landmarks)


def _surest(found: Detections, expected: np.ndarray) -> int | None:
    """The surest row that shares much with a box; None where there is none."""
    if not len(found.scores):
        return None
    near = np.maximum(found.boxes[:, :2], expected[:2])
    far = np.minimum(found.boxes[:, :2] + found.boxes[:, 2:], expected[:2] + expected[2:])
    shared = np.maximum(far - near, 0).prod(axis=1)
    together = found.boxes[:, 2:].prod(axis=1) + expected[2:].prod() - shared
    scores = np.where(shared > _LOOK_OVERLAP * together, found.scores, 0)
    best = int(scores.argmax())
    return best if scores[best] > 0 and np.isfinite(found.landmarks[best]).all() else None
