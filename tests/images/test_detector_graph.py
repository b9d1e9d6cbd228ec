"""The network made ready beside the file as it is, both on onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from faceidx.images.detector_graph import PLACES, SCORES, STRIDES, ready
from tests.images.photos import write_toy_detector

_CELLS = sum((640 // stride) ** 2 for stride in STRIDES)


def _run(content: bytes, names: list[str], pictures: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return [np.asarray(found) for found in session.run(names, {"input": pictures})]


def _as_it_is(content: bytes, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    kinds = {}
    for kind, channels in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
        found = _run(content, [f"{kind}_{stride}" for stride in STRIDES], picture)
        kinds[kind] = np.concatenate([f.reshape(1, -1, channels) for f in found], axis=1)
    return (
        np.concatenate([kinds["cls"], kinds["obj"]], axis=2),
        np.concatenate([kinds["bbox"], kinds["kps"]], axis=2),
    )


@pytest.fixture(params=["yunet", "toy", "yunet of heads that differ"])
def content(request: pytest.FixtureRequest, tmp_path: Path, shared_data: Path) -> bytes:
    if request.param == "toy":
        write_toy_detector(tmp_path / "toy.onnx")
        return (tmp_path / "toy.onnx").read_bytes()
    yunet = (shared_data / "weights" / "face_detection_yunet_2023mar.onnx").read_bytes()
    return yunet if request.param == "yunet" else _with_a_wider_head(yunet)


def _with_a_wider_head(content: bytes) -> bytes:
    """YuNet with a head of 3 x 3 where the others have 1 x 1: it cannot be joined to them."""
    model = onnx.load_model_from_string(content)
    last = next(n for n in model.graph.node if n.op_type == "Transpose" and len(n.output) == 1)
    alone = next(n for n in model.graph.node if n.output[0] == last.input[0])
    across = next(n for n in model.graph.node if n.output[0] == alone.input[0])
    tensor = next(t for t in model.graph.initializer if t.name == across.input[1])
    narrow = numpy_helper.to_array(tensor)
    wide = np.random.default_rng(0).normal(0, 0.01, (*narrow.shape[:2], 3, 3))
    tensor.CopyFrom(numpy_helper.from_array(wide.astype(np.float32), tensor.name))
    del across.attribute[:]
    across.attribute.append(helper.make_attribute("kernel_shape", [3, 3]))
    across.attribute.append(helper.make_attribute("pads", [1, 1, 1, 1]))
    return bytes(model.SerializeToString())


def test_it_gives_what_the_file_gives(content: bytes) -> None:
    picture = np.random.default_rng(1).uniform(0, 255, (1, 3, 640, 640)).astype(np.float32)
    scores, places = _run(ready(content), [SCORES, PLACES], picture)
    their_scores, their_places = _as_it_is(content, picture)
    assert scores.shape == (1, _CELLS, 2)
    assert places.shape == (1, _CELLS, 14)
    np.testing.assert_allclose(scores, their_scores, atol=1e-5)
    np.testing.assert_allclose(places, their_places, atol=1e-4)


def test_the_heads_of_yunet_are_computed_side_by_side(shared_data: Path) -> None:
    content = (shared_data / "weights" / "face_detection_yunet_2023mar.onnx").read_bytes()
    before, after = (
        [node.op_type for node in onnx.load_model_from_string(c).graph.node].count("Conv")
        for c in (content, ready(content))
    )
    assert before - after == 18
    different = onnx.load_model_from_string(ready(_with_a_wider_head(content)))
    assert [node.op_type for node in different.graph.node].count("Conv") == before


def test_pictures_of_any_size_and_number_are_taken(content: bytes) -> None:
    pictures = np.random.default_rng(2).uniform(0, 255, (1, 3, 96, 64)).astype(np.float32)
    scores, places = _run(ready(content), [SCORES, PLACES], pictures)
    assert scores.shape == (1, 96 * 64 // 64 + 96 * 64 // 256 + 96 * 64 // 1024, 2)
    assert np.isfinite(places).all()


def test_yunet_takes_several_at_once(shared_data: Path) -> None:
    content = ready((shared_data / "weights" / "face_detection_yunet_2023mar.onnx").read_bytes())
    pictures = np.random.default_rng(3).uniform(0, 255, (2, 3, 96, 64)).astype(np.float32)
    together = _run(content, [SCORES, PLACES], pictures)
    alone = [_run(content, [SCORES, PLACES], pictures[row : row + 1]) for row in range(2)]
    for number, found in enumerate(together):
        np.testing.assert_allclose(found, np.concatenate([a[number] for a in alone]), atol=1e-4)
