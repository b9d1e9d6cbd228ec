from __future__ import annotations

import math
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import pytest

from faceidx.images.detect import NO_DETECTIONS, Detections, Detector, open_detector
from faceidx.images.photo import Photo
from faceidx.images.search import OVERVIEW, find_faces
from faceidx.images.second_look import turned_back
from tests.images.photos import Placed, Portrait, as_jpeg, background, paste, portrait

# Mean distance of the landmarks to where they were pasted, as a share of the face's length: what
# the detector itself shifts by when a face is scaled.
_NEAR = 0.05


@pytest.fixture(scope="module")
def weights(shared_data: Path) -> Path:
    return shared_data / "weights" / "face_detection_yunet_2023mar.onnx"


@pytest.fixture(scope="module")
def detector(weights: Path) -> Detector:
    return open_detector(weights)


@pytest.fixture(scope="module")
def person(shared_data: Path, weights: Path) -> Portrait:
    folder = shared_data / "lfw-raw" / "Aleksander_Kwasniewski"
    return portrait(folder / "Aleksander_Kwasniewski_0001.jpg", weights)


def _find(
    photo: np.ndarray | bytes, detector: Detector, mode: str = "all", min_face: int = 16
) -> Detections:
    data = photo if isinstance(photo, bytes) else as_jpeg(photo)
    opened = Photo(data, overview=OVERVIEW)
    return find_faces(opened, detector, mode=mode, min_face=min_face, min_score=0.7)


def _only(found: Detections, truth: Placed, near: float = _NEAR) -> None:
    assert len(found.scores) == 1
    assert truth.distance(found.landmarks[0]) < near
    assert abs(found.boxes[0] - truth.box).max() < 0.15 * truth.box[3]


def test_detections_are_those_of_opencv(
    shared_data: Path, weights: Path, detector: Detector
) -> None:
    files = sorted((shared_data / "lfw-raw").glob("*/*.jpg"))[::15]
    for file in files:
        picture = cv2.imread(str(file))
        network = cv2.FaceDetectorYN.create(str(weights), "", picture.shape[1::-1], 0.6)
        _, expected = network.detect(picture)
        found = detector.find(picture[..., ::-1], 0.6)
        ours = np.concatenate(
            [found.boxes, found.landmarks.reshape(-1, 10), found.scores[:, None]], axis=1
        )
        assert ours == pytest.approx(expected, abs=1e-2)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(360, 480), (1999, 1501), (2000, 1504)])
def test_a_photo_that_is_stored_turned_gives_places_in_the_upright_one(
    person: Portrait, detector: Detector, orientation: int, size: tuple[int, int]
) -> None:
    photo = background(*size)
    truth = paste(photo, person, length=size[1] / 6, at=(size[1] / 3, size[0] / 3))
    _only(_find(as_jpeg(photo, orientation=orientation), detector, "largest"), truth)


def test_a_grey_photo(person: Portrait, detector: Detector) -> None:
    photo = background(600, 800)
    truth = paste(photo, person, length=120, at=(300, 250))
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    _only(_find(as_jpeg(grey), detector), truth)


def test_faces_of_a_photo_of_12_megapixels_are_found_once_each_whatever_their_size(
    person: Portrait, detector: Detector
) -> None:
    photo = background(3000, 4000)
    lengths = {1200: (900, 1000), 400: (2200, 600), 150: (3000, 2000), 60: (3600, 400)}
    lengths[24] = (2600, 2700)
    truths = [paste(photo, person, length=n, at=at) for n, at in lengths.items()]
    found = _find(photo, detector)
    assert len(found.scores) == len(truths)
    for row, truth in enumerate(truths):  # the largest first
        assert truth.distance(found.landmarks[row]) < (_NEAR if truth.box[3] > 30 else 0.1)


def test_a_face_that_fills_a_photo_of_24_megapixels(person: Portrait, detector: Detector) -> None:
    photo = background(4000, 6000)
    truth = paste(photo, person, length=3900, at=(3000, 2000))
    for mode in ("largest", "central", "all"):
        _only(_find(photo, detector, mode), truth)


@pytest.mark.parametrize("at", [(1152, 700), (1216, 1152), (1280, 1280), (1090, 1216)])
def test_a_face_across_the_borders_of_tiles_is_found_whole_and_once(
    person: Portrait, detector: Detector, at: tuple[int, int]
) -> None:
    photo = background(2400, 2400)
    truth = paste(photo, person, length=60, at=at)
    _only(_find(photo, detector), truth)


@pytest.mark.parametrize("at", [(35, 240), (445, 240), (240, 40), (240, 430)])
def test_a_face_at_the_edge(person: Portrait, detector: Detector, at: tuple[int, int]) -> None:
    photo = background(480, 480)
    truth = paste(photo, person, length=100, at=at)
    _only(_find(photo, detector), truth, near=0.08)


def test_no_face(detector: Detector) -> None:
    for size in ((40, 50), (480, 640), (2000, 3000)):
        for mode in ("largest", "central", "all"):
            assert len(_find(background(*size), detector, mode).scores) == 0


def test_the_largest_the_central_and_all(person: Portrait, detector: Detector) -> None:
    photo = background(1000, 1600)
    large = paste(photo, person, length=300, at=(250, 500))
    central = paste(photo, person, length=140, at=(850, 480))
    small = paste(photo, person, length=60, at=(1400, 200))
    _only(_find(photo, detector, "largest"), large)
    _only(_find(photo, detector, "central"), central)
    found = _find(photo, detector, "all")
    for truth, landmarks in zip((large, central, small), found.landmarks, strict=True):
        assert truth.distance(landmarks) < _NEAR


def test_the_largest_face_is_looked_for_until_none_can_be_larger(
    person: Portrait, detector: Detector
) -> None:
    photo = background(3000, 4000)
    truth = paste(photo, person, length=40, at=(3300, 2700))
    _only(_find(photo, detector, "largest"), truth)


def test_faces_below_the_least_size_are_passed_over(person: Portrait, detector: Detector) -> None:
    photo = background(480, 640)
    truth = paste(photo, person, length=120, at=(200, 200))
    paste(photo, person, length=60, at=(500, 300))
    _only(_find(photo, detector, min_face=90), truth)


def test_the_second_look_makes_places_steadier(person: Portrait, detector: Detector) -> None:
    """How far single detections and ours scatter when the same face is scaled."""
    ours, single = [], []
    for length in np.linspace(60, 220, 17):
        photo = background(480, 480)
        truth = paste(photo, person, length=length, at=(240, 240))
        first = detector.find(photo, 0.7)
        again = _find(photo, detector)
        for seen, found in ((single, first), (ours, again)):
            seen.append((found.landmarks[0] - truth.landmarks) / truth.box[3])
    assert np.std(ours, axis=0).mean() < 0.7 * np.std(single, axis=0).mean()


@pytest.mark.parametrize(
    ("length", "tilt"),
    [
        *((45, tilt) for tilt in (-25, 25, 90, 180)),
        *((120, tilt) for tilt in (-120, -90, -40, -25, 40, 60, 90, 180)),
        *((400, tilt) for tilt in (-25, 25, 40, 135, 180)),
    ],
)
def test_a_tilted_face_is_found_with_its_tilt(
    person: Portrait, detector: Detector, length: float, tilt: int
) -> None:
    """The detector by itself takes those that it sees small for nearly upright."""
    side = round(4 * length)
    photo = np.full((side, side, 3), 128, np.uint8)
    truth = paste(photo, person, length=length, at=(side / 2, side / 2))
    turn = cv2.getRotationMatrix2D((side / 2 - 0.5, side / 2 - 0.5), -tilt, 1)
    turned = cv2.warpAffine(photo, turn, (side, side), borderValue=(128, 128, 128))
    straight, found = _find(photo, detector, "central"), _find(turned, detector, "central")
    assert truth.distance(straight.landmarks[0]) < _NEAR
    expected = straight.landmarks[0] @ turn[:, :2].T + turn[:, 2]
    away = np.linalg.norm(found.landmarks[0] - expected, axis=1).mean()
    assert away < 0.06 * length
    more = _tilt(found.landmarks[0]) - _tilt(straight.landmarks[0]) - tilt
    assert abs(math.remainder(more, 360)) < 7.5


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_all_faces_of_a_photo_that_lies_on_its_side_or_head(
    person: Portrait, detector: Detector, quarters: int
) -> None:
    photo = background(600, 900)
    for length, at in ((200, (200, 300)), (110, (500, 200)), (60, (750, 400))):
        paste(photo, person, length=length, at=at)
    upright = _find(photo, detector)
    found = _find(np.ascontiguousarray(np.rot90(photo, quarters)), detector)
    assert len(found.scores) == len(upright.scores) == 3
    expected = turned_back(found.landmarks, quarters, photo.shape[:2])
    for places, wanted, box in zip(expected, upright.landmarks, upright.boxes, strict=True):
        assert np.linalg.norm(places - wanted, axis=1).mean() < 0.03 * box[3]


class _OfTwo:
    """Sees a large face unsurely, and a small one surely and, turned, as well; upright is green."""

    def find(self, picture: np.ndarray, min_score: float) -> Detections:
        length = picture.shape[0] / 8
        large, small = (
            (length, length, 4 * length, 4 * length),
            (6 * length, length, length, length),
        )
        faces = [(large, 0.8), (small, 0.95)] if picture[2, 2, 1] > 200 else [(small, 0.85)]
        boxes, scores = zip(*faces, strict=True)
        return Detections(
            np.array(boxes, np.float32),
            np.zeros((len(faces), 5, 2), np.float32),
            np.array(scores, np.float32),
        )

    def find_in_each(
        self, pictures: np.ndarray, min_score: float, *, apart: bool = True
    ) -> list[Detections]:
        return [NO_DETECTIONS] * len(pictures)


def test_an_unsure_face_beside_a_sure_one_makes_no_photo_that_lies() -> None:
    photo = np.zeros((400, 400, 3), np.uint8)
    photo[:40, :40, 1] = 255
    found = find_faces(
        Photo(as_jpeg(photo), overview=OVERVIEW),
        cast(Detector, _OfTwo()),
        mode="largest",
        min_face=16,
        min_score=0.7,
    )
    assert found.scores.tolist() == pytest.approx([0.8])
    assert found.boxes[0] == pytest.approx([50, 50, 200, 200])


def test_places_are_turned_back_as_pictures_are() -> None:
    picture = np.zeros((4, 6))
    picture[1, 4] = 1
    for quarters in range(4):
        rows, columns = np.nonzero(np.rot90(picture, quarters))
        middle = np.array([columns[0] + 0.5, rows[0] + 0.5])
        assert turned_back(middle, quarters, (4, 6)).tolist() == [4.5, 1.5]


def _tilt(landmarks: np.ndarray) -> float:
    """Of the line between the eyes, clockwise, in degrees."""
    across = landmarks[1] - landmarks[0]
    return float(np.degrees(np.arctan2(across[1], across[0])))
