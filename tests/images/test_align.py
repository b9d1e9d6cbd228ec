from __future__ import annotations

import io
import math

import cv2
import numpy as np
import pytest
from PIL import Image

from faceidx.errors import InputError
from faceidx.images.align import scale_of, similarity, warp
from faceidx.images.decode import PictureError
from faceidx.images.photo import Photo
from faceidx.images.templates import TEMPLATES, template_for, template_points


def _photo(pixels: np.ndarray, *, overview: int = 10_000) -> Photo:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return Photo(file.getvalue(), overview=overview)


def _turned(
    points: np.ndarray, degrees: float, scale: float, move: tuple[float, float]
) -> np.ndarray:
    c, s = math.cos(math.radians(degrees)) * scale, math.sin(math.radians(degrees)) * scale
    return points @ np.array([[c, s], [-s, c]]) + move


@pytest.mark.parametrize("degrees", [-170, -30, 0, 45, 90])
@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_a_turned_scaled_and_moved_template_is_brought_back_exactly(
    degrees: float, scale: float
) -> None:
    points = template_points("arcface", (112, 112))
    matrix = similarity(_turned(points, degrees, scale, (70, -20)), points)
    back = _turned(points, degrees, scale, (70, -20)) @ matrix[:, :2].T + matrix[:, 2]
    assert back == pytest.approx(points, abs=1e-6)
    assert scale_of(matrix) == pytest.approx(1 / scale)


def test_no_other_similarity_is_closer() -> None:
    """The least-squares solution, found by another way: linear in a, b, tx, ty."""
    rng = np.random.default_rng(0)
    target = template_points("arcface", (112, 112))
    for _ in range(20):
        source = _turned(target, rng.uniform(-60, 60), rng.uniform(0.5, 3), (9, 4))
        source = source + rng.normal(0, 4, (5, 2))
        x, y = source.T
        one, none = np.ones(5), np.zeros(5)
        system = np.concatenate([np.stack([x, -y, one, none], 1), np.stack([y, x, none, one], 1)])
        a, b, tx, ty = np.linalg.lstsq(system, target.T.reshape(-1), rcond=None)[0]
        assert similarity(source, target) == pytest.approx(
            np.array([[a, -b, tx], [b, a, ty]]), abs=1e-9
        )


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        ([(5.0, 5.0)] * 5, "all in one place"),
        ([(0, 0), (10, 10), (20, 20), (30, 30), (40, 40)], "all on a line"),
        ([(30, 0), (0, 0), (15, 10), (30, 30), (0, 30)], "mirrored"),
        ([(0, 0), (30, 0), (math.nan, 10), (0, 30), (30, 30)], "not all are finite"),
        ([(0, 0), (30, 0), (math.inf, 10), (0, 30), (30, 30)], "not all are finite"),
    ],
)
def test_degenerate_landmarks_are_a_reason(points: list[tuple[float, float]], reason: str) -> None:
    with pytest.raises(PictureError, match=f"degenerate landmarks: {reason}"):
        similarity(np.array(points), template_points("arcface", (112, 112)))


def test_a_profile_is_not_degenerate() -> None:
    profile = np.array([(40, 40), (48, 40), (30, 60), (38, 80), (46, 81)], np.float64)
    assert scale_of(similarity(profile, template_points("arcface", (112, 112)))) > 0


def test_a_template_scales_with_the_height_and_stays_in_the_middle_of_the_width() -> None:
    square = template_points("arcface", (112, 112))
    # SphereFace's and CosFace's template for 112 rows and 96 columns.
    assert template_points("arcface", (112, 96)) == pytest.approx(square - (8, 0))
    assert template_points("arcface", (224, 224)) == pytest.approx(square * 2)


def test_a_record_without_template_takes_the_one_that_fits_its_size() -> None:
    assert template_for(None, (112, 112)) == template_for(None, (112, 96)) == "arcface"
    assert template_for(None, (160, 160)) == "facenet"
    assert template_for("arcface", (160, 160)) == "arcface"
    with pytest.raises(InputError, match=f"no alignment template 'x'.*{TEMPLATES[0]}"):
        template_for("x", (112, 112))


def test_each_landmark_lies_at_its_place_in_the_crop() -> None:
    """Dots at the landmarks of a turned face come to lie on the template's points."""
    points = template_points("arcface", (112, 112))
    landmarks = np.rint(_turned(points, 20, 4, (300, 100)))
    photo = np.zeros((900, 900, 3), np.uint8)
    for x, y in landmarks.astype(int):
        photo[y - 6 : y + 7, x - 6 : x + 7] = 255
    matrix = similarity(landmarks, points)
    crop = warp(_photo(photo), matrix, (112, 112))[..., 0].astype(float)
    for (x, y), expected in zip(landmarks, points, strict=True):
        expected = matrix[:, :2] @ (x, y) + matrix[:, 2]
        near = tuple(slice(max(0, round(v) - 4), round(v) + 5) for v in expected[::-1])
        rows, columns = np.mgrid[near]
        weight = crop[near]
        middle = ((columns * weight).sum() / weight.sum(), (rows * weight).sum() / weight.sum())
        assert middle == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize("shrink", [3, 8, 20])
def test_a_face_much_larger_than_the_crop_is_averaged_and_not_sampled(shrink: int) -> None:
    """A board of black and white, finer than the crop, is grey in it."""
    rows, columns = np.indices((112 * shrink, 112 * shrink))
    board = np.where((rows + columns) % 2, 255, 0).astype(np.uint8)[..., None].repeat(3, 2)
    matrix = np.array([[1 / shrink, 0, 0], [0, 1 / shrink, 0]])
    crop = warp(_photo(board), matrix, (112, 112))[4:-4, 4:-4]
    assert abs(crop.astype(float) - 127.5).max() < 40
    assert abs(crop.mean() - 127.5) < 2


def test_a_crop_of_the_same_scale_is_the_very_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (150, 160, 3), dtype=np.uint8)
    matrix = np.array([[1.0, 0, -20], [0, 1.0, -10]])
    assert (warp(_photo(pixels), matrix, (112, 96)) == pixels[10:122, 20:116]).all()


def test_beyond_the_photo_it_is_black() -> None:
    photo = _photo(np.full((50, 50, 3), 200, np.uint8))
    crop = warp(photo, np.array([[1.0, 0, 60], [0, 1.0, 0]]), (112, 112))
    assert crop[:, :58].max() == 0
    assert (crop[2:48, 62:108] == 200).all()
    with pytest.raises(PictureError, match="beyond the photo"):
        warp(photo, np.array([[1.0, 0, 500], [0, 1.0, 0]]), (112, 112))


def test_a_photo_decoded_reduced_gives_the_crop_of_the_whole_one() -> None:
    rows, columns = np.indices((1200, 1600))
    smooth = 128 + 100 * np.sin(rows / 90) * np.cos(columns / 70)
    file = io.BytesIO()
    Image.fromarray(smooth.astype(np.uint8)).convert("RGB").save(file, "JPEG", quality=98)
    matrix = similarity(
        _turned(template_points("arcface", (112, 112)), 15, 9, (300, 60)),
        template_points("arcface", (112, 112)),
    )
    crops = [
        warp(Photo(file.getvalue(), overview=overview), matrix, (112, 112)).astype(int)
        for overview in (300, 1600)
    ]
    inside = cv2.erode((crops[1] > 0).astype(np.uint8), np.ones((5, 5))) > 0
    assert inside.mean() > 0.6
    assert abs(crops[0] - crops[1])[4:-4, 4:-4][inside[4:-4, 4:-4]].max() <= 2
