"""A closer look at faces that were found: how they are turned, and where their landmarks lie."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np

from faceidx.images.align import warp
from faceidx.images.detect import Detections, Detector
from faceidx.images.photo import Photo

# Upright faces are seen surer than this (303 of 305 of LFW), and none that lies on its side (0.87)
# or its head (0.908, at most). All others are looked at in eight directions.
DOUBTFUL = 0.91
# At this length in this square the detector is surest of the direction that is nearest, whatever
# the tilt, and of faces of 18 pixels, blurred, dark, noisy or half hidden.
_TURN_LENGTH, _TURN_SIDE = 64, 128
_DIRECTIONS = [(tilt, quarters) for tilt in (0.0, 45.0) for quarters in range(4)]
# By so much more it must be surer of one that is farther from how the face was found.
_LIKELY = 0.02
# Length of a face, and sides of the square that is looked at for its tilt. Only where a face is
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


def looked_at_again(
    photo: Photo, detector: Detector, found: Detections, quarters: int
) -> Detections:
    """Detections with boxes and landmarks of a closer look at each face.

    The places that the detector gives shift by some hundredths of the face with its scale, and are
    drawn towards those of an upright face, the more so the smaller it is; a face on its head gets
    those of one that is not. So it is first found out how a face is turned. Then it is cut out
    upright, scaled to the length where places are steadiest, and looked at together with its mirror
    image: the mean of the two is taken.

    Args:
        quarters: by which the photo seems to be turned clockwise. A face that is not seen surely
            may be turned otherwise.
    """
    doubtful = found.scores < DOUBTFUL
    boxes, landmarks = found.boxes.copy(), found.landmarks.copy()
    for row, box in enumerate(found.boxes):
        tilt, there = 90.0 * quarters, box
        if doubtful[row]:
            tilt, there = _turned(photo, detector, box, tilt)
        tilt = _tilt(photo, detector, there, tilt)
        square = _square(photo, there, tilt, _PLACE_LENGTH, _PLACE_SIDE)
        looks = _looks(detector, square, mirrored=True)
        if looks:
            boxes[row] = np.mean([look[0] for look in looks], axis=0)
            landmarks[row] = np.mean([look[1] for look in looks], axis=0)
    return found._replace(boxes=boxes, landmarks=landmarks)


def _turned(
    photo: Photo, detector: Detector, box: np.ndarray, likely: float
) -> tuple[float, np.ndarray]:
    """About how far a face is tilted clockwise, in degrees, and its box when it is turned back.

    Args:
        likely: the tilt by which it was found, in whole quarters.
    """
    squares = {
        tilt: _square(photo, box, tilt, _TURN_LENGTH, _TURN_SIDE)
        for tilt in {tilt for tilt, _ in _DIRECTIONS}
    }
    pictures = [np.rot90(squares[tilt].pixels, quarters) for tilt, quarters in _DIRECTIONS]
    seen = detector.find_in_each(np.stack(pictures), _LOOK_SCORE, apart=False)
    surest, there, best = 0.0, box, likely
    for (tilt, quarters), found in zip(_DIRECTIONS, seen, strict=True):
        square, direction = squares[tilt], tilt + 90 * quarters
        row = _surest(found, square.expected)
        if row is None:
            continue
        score = float(found.scores[row])
        if abs(math.remainder(direction - likely, 360)) <= 45:
            score += _LIKELY
        if score <= surest:
            continue
        surest, best = score, direction
        place, sides = found.boxes[row, :2], found.boxes[row, 2:]
        middle = turned_back(place + sides / 2, quarters, (_TURN_SIDE, _TURN_SIDE))
        middle, sides = square.back[:, :2] @ middle + square.back[:, 2], sides / square.scale
        there = np.concatenate([middle - sides / 2, sides])
    # Of a face that was found lying the box may be beside it.
    return best, box if best == likely else there


def turned_back(points: np.ndarray, quarters: int, size: tuple[int, int]) -> np.ndarray:
    """Places in a picture of that height and width, from those after turning it by `np.rot90`."""
    height, width = size
    x, y = points[..., 0], points[..., 1]
    places = ((x, y), (width - y, x), (width - x, height - y), (y, height - x))
    return np.stack(places[quarters], axis=-1)


def _tilt(photo: Photo, detector: Detector, box: np.ndarray, tilt: float) -> float:
    """How far a face is tilted clockwise, in degrees, from what is known of it."""
    for side in _TILT_SIDES if tilt == 0 else _TILT_SIDES[1:]:
        square = _square(photo, box, tilt, _TILT_LENGTH, side)
        looks = _looks(detector, square, mirrored=False)
        if not looks:
            continue  # more of it may be needed
        points = looks[0][1]
        across = points[_RIGHT].mean(axis=0) - points[_LEFT].mean(axis=0)
        before, tilt = tilt, math.degrees(math.atan2(across[1], across[0]))
        if abs(math.remainder(tilt - before, 360)) < _TILTED:
            break
    return tilt


class _Square(NamedTuple):
    """A face cut out in a square, turned back and scaled."""

    pixels: np.ndarray
    """(side, side, 3) uint8 RGB."""
    expected: np.ndarray
    """(4,) box of the face in it."""
    scale: float
    """Pixels of the square for one of the photo."""
    back: np.ndarray
    """(2, 3) from its places to those of the photo."""


def _square(photo: Photo, box: np.ndarray, tilt: float, length: int, side: int) -> _Square:
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
    pixels = warp(photo, matrix, (side, side), detail=_LOOK_DETAIL)
    scaled = box[2:] * scale
    return _Square(pixels, np.concatenate([side / 2 - scaled / 2, scaled]), scale, back)


def _looks(
    detector: Detector, square: _Square, *, mirrored: bool
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Box and landmarks of the face in a square, and in its mirror image, where it is seen."""
    pixels = square.pixels
    pictures = np.stack([pixels, cv2.flip(pixels, 1)] if mirrored else [pixels])
    seen = detector.find_in_each(pictures, _LOOK_SCORE, apart=False)
    seen[1:] = [_unmirrored(found, pixels.shape[1]) for found in seen[1:]]
    looks = []
    for found in seen:
        best = _surest(found, square.expected)
        if best is not None:
            left_top, sides = found.boxes[best, :2], found.boxes[best, 2:]
            points = np.concatenate([[left_top + sides / 2], found.landmarks[best]])
            points = points @ square.back[:, :2].T + square.back[:, 2]
            sides = sides / square.scale
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
