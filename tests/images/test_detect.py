from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from faceidx.errors import InputError
from faceidx.images.detect import Detections, merge, open_detector
from tests.images.photos import MARK, write_toy_detector


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("toy") / "toy.onnx"
    write_toy_detector(path)
    return path


def test_a_cell_of_the_network_is_a_face_at_its_place(toy: Path) -> None:
    detector = open_detector(toy)
    picture = np.zeros((72, 100, 3), np.uint8)
    picture[40:48, 24:32] = MARK
    found = detector.find(picture, 0.7)
    assert found.scores == pytest.approx([0.95], abs=1e-4)
    assert found.boxes[0] == pytest.approx([28 - 10, 44 - 10, 20, 20], abs=1e-3)
    assert found.landmarks[0, 2] == pytest.approx([28, 44], abs=1e-3)


def test_any_onnx_file_with_the_same_outputs_is_a_detector(toy: Path) -> None:
    detector = open_detector(toy)
    assert detector.sha256 == hashlib.sha256(toy.read_bytes()).hexdigest()
    assert detector.name == "toy.onnx"


def test_a_file_that_is_no_detector_is_refused_with_its_hash(tmp_path: Path) -> None:
    file = tmp_path / "wrong.onnx"
    file.write_bytes(b"no network")
    digest = hashlib.sha256(b"no network").hexdigest()
    with pytest.raises(InputError, match=rf"wrong\.onnx.*{digest}.*faceidx models get yunet"):
        open_detector(file)


def test_a_model_of_another_kind_is_no_detector(shared_data: Path) -> None:
    with pytest.raises(InputError, match=r"no face detector.*it has no output cls_8"):
        open_detector(shared_data / "weights" / "mobilefacenet_foamliu.onnx")


def test_a_missing_detector_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"detector file .*none\.onnx cannot be read: No such"):
        open_detector(tmp_path / "none.onnx")
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(InputError, match=r"detector file .*pipe\.onnx is no file"):
        open_detector(tmp_path / "pipe.onnx")
    with pytest.raises(InputError, match="is no file"):
        open_detector(tmp_path)


def _boxes(*rows: tuple[float, float, float, float, float]) -> Detections:
    table = np.array(rows, np.float32)
    landmarks = np.zeros((len(rows), 5, 2), np.float32)
    return Detections(table[:, :4], landmarks, table[:, 4])


def test_of_boxes_that_share_much_the_surest_stays() -> None:
    one, other = _boxes((0, 0, 10, 10, 0.8)), _boxes((1, 1, 10, 10, 0.9), (30, 0, 10, 10, 0.7))
    assert merge([one, other]).boxes.tolist() == [[1, 1, 10, 10], [30, 0, 10, 10]]


def test_a_part_of_a_large_face_is_no_face_of_its_own() -> None:
    found = merge(
        [_boxes((0, 0, 100, 100, 0.9), (10, 10, 20, 20, 0.8)), _boxes((95, 0, 20, 20, 0.8))]
    )
    assert found.boxes[:, 2].tolist() == [100, 20]
    assert found.boxes[1, 0] == 95


def test_what_is_not_finite_is_no_face() -> None:
    assert len(merge([_boxes((np.nan, 0, 1, 1, 0.9)), _boxes((0, 0, np.inf, 1, 0.9))]).scores) == 0
