"""Faces cut out upright: a similarity transform from five landmarks to a template."""

from __future__ import annotations

import math

import cv2
import numpy as np

from faceidx.images.decode import PictureError
from faceidx.images.photo import Photo

# Samples across a pixel of the crop, at most.
_FINEST = 16
# Landmarks closer together than this (root of their mean squared distance from their middle, in
# pixels of the photo) say nothing about where a face lies.
_LEAST_SPREAD = 1.0
# A line rather than a face: the spread across is less than this share of that along.
_LEAST_WIDTH = 0.03


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The similarity transform that brings points closest to others (Umeyama 1991, eqs. 40-42).

    Args:
        source: (n, 2).
        target: (n, 2).

    Returns:
        (2, 3) float64: scale times rotation, and translation.

    Raises:
        PictureError: the points are degenerate: not finite, in one place, on a line, or mirrored,
            so that no turning and scaling makes them a face.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    if not np.isfinite(source).all():
        raise PictureError("degenerate landmarks: not all are finite")
    middle, aim = source.mean(axis=0), target.mean(axis=0)
    a, b = source - middle, target - aim
    spread = a.T @ a / len(a)
    square, longer = np.trace(spread), math.hypot(spread[0, 0] - spread[1, 1], 2 * spread[0, 1])
    if square < _LEAST_SPREAD**2:
        raise PictureError("degenerate landmarks: all in one place")
    if square - longer < _LEAST_WIDTH**2 * (square + longer):
        raise PictureError("degenerate landmarks: all on a line")
    across = b.T @ a / len(a)
    if across[0, 0] * across[1, 1] < across[0, 1] * across[1, 0]:
        raise PictureError("degenerate landmarks: mirrored")
    # In a plane the product of the singular vectors is the rotation nearest to the covariance, and
    # the sum of the singular values its length: no decomposition is needed.
    cosine, sine = across[0, 0] + across[1, 1], across[1, 0] - across[0, 1]
    linear = np.array([[cosine, -sine], [sine, cosine]]) / square
    return np.concatenate([linear, (aim - linear @ middle)[:, None]], axis=1)


def scale_of(matrix: np.ndarray) -> float:
    """Pixels of the crop for one of the photo."""
    return float(math.hypot(matrix[0, 0], matrix[1, 0]))


def warp(
    photo: Photo, matrix: np.ndarray, size: tuple[int, int], *, detail: float = 2.0
) -> np.ndarray:
    """Cut a face out of a photo, in one step from its pixels.

    Where many of the photo's pixels fall into one of the crop, they are averaged: the warp makes a
    larger crop, with a sample for each pixel of the photo, which is then reduced. What lies beyond
    the photo is black.

    Args:
        matrix: (2, 3) from the photo to the crop.
        size: height and width of the crop.
        detail: pixels of the photo that are wanted across one of the crop, as far as it has them.
            With two, a photo decoded reduced gives the same crop as a whole one.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        PictureError: the face lies beyond the photo.
    """
    height, width = size
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], np.float64)
    inverse = cv2.invertAffineTransform(matrix)
    reached = corners @ inverse[:, :2].T + inverse[:, 2]
    (left, top), (right, bottom) = reached.min(axis=0) - 2, reached.max(axis=0) + 2
    part = photo.part(left, top, right, bottom, detail=detail * scale_of(matrix))
    if part is None:
        raise PictureError("the face lies beyond the photo")
    # From the part to the photo (pixel centres at whole numbers), then to the finer crop.
    factor = part.factor
    offset = np.array([part.left, part.top]) + (factor - 1) / 2
    linear = matrix[:, :2] * factor
    samples = min(max(1, round(1 / scale_of(linear))), _FINEST)
    shift = (matrix[:, :2] @ offset + matrix[:, 2]) * samples + (samples - 1) / 2
    finer = np.concatenate([linear * samples, shift[:, None]], axis=1)
    crop = cv2.warpAffine(
        part.pixels, finer, (width * samples, height * samples), flags=cv2.INTER_LINEAR
    )
    if samples > 1:
        crop = cv2.resize(crop, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(crop)
