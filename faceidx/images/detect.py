"""A face detector on one picture: YuNet, or any ONNX file with the same inputs and outputs.

YuNet is what OpenCV's `FaceDetectorYN` runs (Wu, Peng, Yu: YuNet, Machine Intelligence Research
2023). Here the network runs on onnxruntime, which takes half of OpenCV's time for it; the tests
compare what comes out with `FaceDetectorYN`.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from faceidx.errors import InputError

_STRIDES = (8, 16, 32)
_OUTPUTS = tuple(
    f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in _STRIDES
)
# Sides of the input must be multiples of the largest stride.
_GRID = max(_STRIDES)
_OVERLAP = 0.3
"""Detections whose boxes share more (intersection over union) are of one face: `FaceDetectorYN`'s
default."""
_INSIDE = 0.7
"""So are those of which more than this lies inside a stronger one: parts of a large face."""
_MOST = 5000
"""Candidates that are looked at, the strongest first: `FaceDetectorYN`'s default."""
_LARGEST_FILE = 1 << 28


class Detections(NamedTuple):
    """Faces found, the surest first."""

    boxes: np.ndarray
    """(n, 4) float32 left, top, width, height."""
    landmarks: np.ndarray
    """(n, 5, 2) float32 x, y of the eyes, the nose and the corners of the mouth, each pair in the
    order of the picture, left before right."""
    scores: np.ndarray
    """(n,) float32, from 0 to 1."""

    def take(self, rows: np.ndarray) -> Detections:
        return Detections(*(column[rows] for column in self))


NO_DETECTIONS = Detections(
    np.empty((0, 4), np.float32), np.empty((0, 5, 2), np.float32), np.empty(0, np.float32)
)


@dataclass(frozen=True, kw_only=True)
class Detector:
    """A detector file, whole: small, and sent to the processes that decode."""

    name: str
    sha256: str
    content: bytes = field(repr=False)

    def find(self, picture: np.ndarray, min_score: float) -> Detections:
        """Find faces of some 10 to 500 pixels, as `FaceDetectorYN.detect` does.

        Args:
            picture: (H, W, 3) uint8 RGB.
        """
        height, width = picture.shape[:2]
        rows, columns = (-(-side // _GRID) * _GRID for side in (height, width))
        blob = np.zeros((1, 3, rows, columns), np.float32)
        for plane, channel in enumerate((2, 1, 0)):  # the network takes BGR, as it is
            blob[0, plane, :height, :width] = picture[..., channel]
        session = _session(self.content)
        outputs = session.run(list(_OUTPUTS), {session.get_inputs()[0].name: blob})
        named = dict(zip(_OUTPUTS, outputs, strict=True))
        return merge([_decoded(named, stride, columns, min_score) for stride in _STRIDES])


def open_detector(path: Path) -> Detector:
    """Read a detector file and make sure that it is one.

    Raises:
        InputError: the file is missing, is no ONNX file, or its outputs are not those of YuNet.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise InputError(f"{path} is no face detector: it is larger than 256 MiB")
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"the detector file {path} cannot be read: {why}") from None
    sha256 = hashlib.sha256(content).hexdigest()
    detector = Detector(name=path.name, sha256=sha256, content=content)
    try:
        detector.find(np.zeros((_GRID, _GRID, 3), np.uint8), 0.5)
    except Exception as error:  # onnx and onnxruntime raise nearly anything
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"{path} (SHA-256 {sha256}) is no face detector with YuNet's outputs: {why}; "
            "`faceidx models get yunet` fetches one"
        ) from None
    return detector


def merge(parts: list[Detections]) -> Detections:
    """Put detections together, keeping the surest of those that are of one face."""
    parts = [part for part in parts if len(part.scores)]
    if not parts:
        return NO_DETECTIONS
    boxes, landmarks, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
    together = Detections(boxes, landmarks, scores)
    usable = np.isfinite(boxes).all(axis=1) & np.isfinite(landmarks).all(axis=(1, 2))
    order = np.argsort(-scores, kind="stable")
    return _suppressed(together.take(order[usable[order]][:_MOST]))


def _suppressed(found: Detections) -> Detections:
    x0, y0, width, height = found.boxes.T
    x1, y1, areas = x0 + width, y0 + height, width * height
    alive = np.ones(len(areas), bool)
    for row in range(len(areas)):
        if not alive[row]:
            continue
        across = np.minimum(x1[row], x1) - np.maximum(x0[row], x0)
        down = np.minimum(y1[row], y1) - np.maximum(y0[row], y0)
        shared = np.maximum(across, 0) * np.maximum(down, 0)
        same = shared > _OVERLAP * (areas[row] + areas - shared)
        same |= shared > _INSIDE * areas
        same[: row + 1] = False
        alive &= ~same
    return found.take(np.flatnonzero(alive))


def _decoded(
    outputs: Mapping[str, np.ndarray], stride: int, columns: int, min_score: float
) -> Detections:
    """The faces that the cells of one stride stand for (OpenCV's face_detect.cpp, postProcess)."""
    classes, objects = (outputs[f"{kind}_{stride}"].reshape(-1) for kind in ("cls", "obj"))
    # The root of the product is a score; nearly all cells are left out before anything is computed.
    cells = np.flatnonzero(np.minimum(classes, objects) >= min_score**2)
    scores = np.sqrt(classes[cells].clip(0, 1) * objects[cells].clip(0, 1))
    cells, scores = cells[scores >= min_score], scores[scores >= min_score]
    if not len(cells):
        return NO_DETECTIONS
    row, column = np.divmod(cells, columns // stride)
    corners = np.stack([column, row], axis=1).astype(np.float32)
    box = outputs[f"bbox_{stride}"].reshape(-1, 4)[cells]
    points = outputs[f"kps_{stride}"].reshape(-1, 5, 2)[cells]
    sides = np.exp(box[:, 2:]) * stride
    middles = (corners + box[:, :2]) * stride
    return Detections(
        np.concatenate([middles - sides / 2, sides], axis=1),
        (corners[:, None] + points) * stride,
        scores,
    )


@functools.lru_cache(maxsize=2)
def _session(content: bytes) -> Any:
    """The network ready to run, once a process, on one thread: each worker has its own core."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(
        _of_any_size(content), options, providers=["CPUExecutionProvider"]
    )


def _of_any_size(content: bytes) -> bytes:
    """The model with its input's height and width left open; YuNet's file fixes them at 640."""
    import onnx

    model = onnx.load_model_from_string(content)
    names = {output.name for output in model.graph.output}
    if missing := [name for name in _OUTPUTS if name not in names]:
        raise InputError(f"it has no output {missing[0]}")
    shape = model.graph.input[0].type.tensor_type.shape
    shape.dim[2].dim_param, shape.dim[3].dim_param = "height", "width"
    for output in model.graph.output:
        output.type.tensor_type.shape.ClearField("dim")
        output.type.ClearField("tensor_type")
        output.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    del model.graph.value_info[:]
    return bytes(model.SerializeToString())
