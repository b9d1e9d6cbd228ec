"""What tells a good picture of a face from a bad one: size, sharpness, pose."""

from __future__ import annotations

import math

import cv2
import numpy as np

# A mean head in millimetres, seen from the front: x to the right of the picture, y down, z towards
# the camera. Distances between the eyes and along the face are means of adults (63 mm between the
# pupils, Dodgson 2004; mouth 50 mm wide); the tip of the nose stands out by 25 mm or so.
_HEAD = np.array(
    [[-31.5, -30, 0], [31.5, -30, 0], [0, 5, 25], [-25, 35, 0], [25, 35, 0]], np.float64
)
# What brings a head that was seen closest to it, by least squares.
_TO_CAMERA = np.linalg.pinv(_HEAD - _HEAD.mean(axis=0))


def pose_of(landmarks: np.ndarray) -> tuple[float, float, float]:
    """Yaw, pitch and roll of a head in degrees, by its five landmarks: a rough figure.

    The scaled orthographic camera that brings a mean head closest to them is found by least
    squares, and its nearest rotation taken apart.

    Args:
        landmarks: (5, 2) x, y.

    Returns:
        yaw: above 0 where the face is turned to the right of the picture.
        pitch: above 0 where it looks up.
        roll: above 0 where it is tilted clockwise.
    """
    seen = np.asarray(landmarks, np.float64) - np.mean(landmarks, axis=0)
    camera = (_TO_CAMERA @ seen).T
    u, _, vt = np.linalg.svd(camera, full_matrices=False)
    first, second = u @ vt
    # Third column of the rotation: where the nose points, from the front of the picture.
    right, down, front = first[2], second[2], first[0] * second[1] - first[1] * second[0]
    yaw = math.degrees(math.atan2(right, front))
    pitch = math.degrees(math.atan2(-down, math.hypot(right, front)))
    roll = math.degrees(math.atan2(second[0], first[0]))
    return yaw, pitch, roll


def sharpness_of(crop: np.ndarray) -> float:
    """How sharp a crop is: the variance of its second derivatives over that of its brightness.

    Neither brightness nor contrast matters. A crop enlarged from few pixels is as blurred as one
    out of focus. Only crops of one size compare.

    Args:
        crop: (H, W, 3) uint8 RGB.
    """
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    contrast = _variance(grey)
    if contrast == 0:
        return 0.0
    return _variance(cv2.Laplacian(grey, cv2.CV_32F)) / contrast


def _variance(grey: np.ndarray) -> float:
    _, deviation = cv2.meanStdDev(grey)
    return float(deviation[0, 0]) ** 2


def head_size_of(scale: float, size: tuple[int, int]) -> float:
    """Height of what a crop shows, in pixels of the photo.

    Args:
        scale: pixels of the crop for one of the photo.
        size: height and width of the crop.
    """
    return size[0] / scale
