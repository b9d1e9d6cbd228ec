from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from faceidx.images.quality import head_size_of, pose_of, sharpness_of

_HEAD = np.array([[-31.5, -30, 0], [31.5, -30, 0], [0, 5, 25], [-25, 35, 0], [25, 35, 0]])


def _seen(yaw: float, pitch: float, roll: float, scale: float = 2.0) -> np.ndarray:
    """The mean head turned (x right, y down, z to the camera) and seen from far away."""
    a, b, c = (math.radians(angle) for angle in (yaw, pitch, roll))
    about_y = np.array([[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, math.cos(b), -math.sin(b)], [0, math.sin(b), math.cos(b)]])
    about_z = np.array([[math.cos(c), -math.sin(c), 0], [math.sin(c), math.cos(c), 0], [0, 0, 1]])
    return scale * (_HEAD @ (about_z @ about_y @ about_x).T)[:, :2] + (300, 200)


@pytest.mark.parametrize(
    ("yaw", "pitch", "roll"), [(0, 0, 0), (30, 0, 0), (-45, 0, 0), (0, 20, 0), (0, -20, 0)]
)
def test_pose_is_that_of_the_head_seen(yaw: float, pitch: float, roll: float) -> None:
    found = pose_of(_seen(yaw, pitch, roll))
    assert found[0] == pytest.approx(yaw, abs=1e-6)
    assert abs(found[1]) == pytest.approx(abs(pitch), abs=1e-6)
    assert found[2] == pytest.approx(roll, abs=1e-6)


def test_the_signs_of_a_pose() -> None:
    front = _seen(0, 0, 0)
    right, up = front.copy(), front.copy()
    right[2, 0] += 20  # the nose, to the right of the picture
    up[2, 1] -= 20
    tilted = front @ np.array([[0.9, 0.436], [-0.436, 0.9]])  # clockwise as y runs down
    assert pose_of(right)[0] > 10
    assert pose_of(up)[1] > 10
    assert pose_of(tilted)[2] == pytest.approx(25.8, abs=0.5)


def test_the_mirror_turns_yaw_and_roll_round() -> None:
    points = _seen(20, 10, 15) + np.random.default_rng(0).normal(0, 1, (5, 2))
    mirrored = (points * (-1, 1))[[1, 0, 2, 4, 3]]
    yaw, pitch, roll = pose_of(points)
    assert pose_of(mirrored) == pytest.approx((-yaw, pitch, -roll))


def test_blur_and_enlarging_make_a_crop_less_sharp() -> None:
    crop = np.random.default_rng(0).integers(0, 256, (28, 28, 3), dtype=np.uint8)
    crop = cv2.resize(crop, (112, 112), interpolation=cv2.INTER_CUBIC)
    blurred = cv2.GaussianBlur(crop, (0, 0), 3)
    small = cv2.resize(crop[::4, ::4].copy(), (14, 14), interpolation=cv2.INTER_AREA)
    enlarged = cv2.resize(small, (112, 112), interpolation=cv2.INTER_CUBIC)
    assert sharpness_of(crop) > 2 * sharpness_of(blurred)
    assert sharpness_of(crop) > 2 * sharpness_of(enlarged)


def test_neither_contrast_nor_brightness_changes_sharpness() -> None:
    crop = np.random.default_rng(0).integers(0, 100, (112, 112, 3), dtype=np.uint8)
    assert sharpness_of(crop * 2 + 20) == pytest.approx(sharpness_of(crop), rel=0.02)
    assert sharpness_of(np.zeros((112, 112, 3), np.uint8)) == 0.0


def test_the_size_of_a_head_is_what_the_crop_shows_of_the_photo() -> None:
    assert head_size_of(0.5, (112, 96)) == 224
