"""A face detector on one picture: YuNet, or any ONNX file with the same inputs and outputs.

YuNet is what OpenCV's `FaceDetectorYN` runs (Wu, Peng, Yu: YuNet, Machine Intelligence Research
2023). Here the network runs on onnxruntime, which takes half of OpenCV's time for it; the tests
compare what comes out with `FaceDetectorYN`.
"""

from __future__ import annotations

import functools
import hashlib
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from faceidx.errors import InputError
from faceidx.images.detector_graph import PLACES, SCORES, STRIDES, ready

# Sides of the input must be multiples of the largest stride.
_GRID = max(STRIDES)
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
    np.empty((0, 4), np.float32),
    np.empty((0, 5, 2), np.float32),
    np.empty(0, np.float32),
)


@dataclass(frozen=True, kw_only=True)
class Detector:
    """A detector file, whole: small, and sent to the processes that decode."""

    name: str
    sha256: str
    graph: bytes = field(repr=False)
    """The network, for pictures of any size and number."""
    path: Path | None = field(default=None, compare=False)
    """Where it was read from."""

    def find(self, picture: np.ndarray, min_score: float) -> Detections:
        """Find faces of some 10 to 500 pixels, as `FaceDetectorYN.detect` does.

        Args:
            picture: (H, W, 3) uint8 RGB.
        """
        return self.find_in_each(picture[None], min_score)[0]

    def find_in_each(
        self, pictures: np.ndarray, min_score: float, *, apart: bool = True
    ) -> list[Detections]:
        """Find faces in pictures of one size.

        Args:
            pictures: (n, H, W, 3) uint8 RGB.
            apart: keep one detection of a face; else all of them, those that are no numbers too.
        """
        count, height, width = pictures.shape[:3]
        rows, columns = (-(-side // _GRID) * _GRID for side in (height, width))
        blob = np.zeros((count, 3, rows, columns), np.float32)
        for plane, channel in enumerate((2, 1, 0)):  # the network takes BGR, as it is
            blob[:, plane, :height, :width] = pictures[..., channel]
        network = _network(self.graph)
        scores, places = network.run(blob)
        cells = _cells(rows, columns)
        each = [_decoded(cells, scores[row], places[row], min_score) for row in range(count)]
        return [_of_one_face_each(found) for found in each] if apart else each


def open_detector(path: Path) -> Detector:
    """Read a detector file and make sure that it is one.

    Raises:
        InputError: the file is missing, is no ONNX file, or its outputs are not those of YuNet.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe can wait for ever
            raise InputError(f"the detector file {path} is no file")
        if path.stat().st_size > _LARGEST_FILE:
            raise InputError(f"{path} is no face detector: it is larger than 256 MiB")
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"the detector file {path} cannot be read: {why}") from None
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        graph = ready(content)
        detector = Detector(name=path.name, sha256=sha256, graph=graph, path=path)
        detector.find(np.zeros((_GRID, _GRID, 3), np.uint8), 0.5)
    except Exception as error:  # onnx and onnxruntime raise nearly anything
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"{path} (SHA-256 {sha256}) is no face detector with YuNet's outputs: {why}; "
            "`faceidx models get yunet` fetches one"
        ) from None
    return detector


def merge(parts: list[Detections]) -> Detections:
    """Put what was found in several places together, keeping the surest of what is one face."""
    parts = [part for part in parts if len(part.scores)]
    if len(parts) < 2:
        return parts[0] if parts else NO_DETECTIONS
    return _of_one_face_each(Detections(*map(np.concatenate, zip(*parts, strict=True))))


def _of_one_face_each(found: Detections) -> Detections:
    """The surest of those detections that are of one face, without those that are no numbers."""
    if not len(found.scores):
        return found
    usable = np.isfinite(found.boxes).all(axis=1) & np.isfinite(found.landmarks).all(axis=(1, 2))
    order = np.argsort(-found.scores, kind="stable")
    return _suppressed(found.take(order[usable[order]][:_MOST]))


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


# --- the network -------------------------------------------------------------------------------


def _decoded(
    cells: np.ndarray, certain: np.ndarray, places: np.ndarray, min_score: float
) -> Detections:
    """The faces that the cells of a picture stand for (OpenCV's face_detect.cpp, postProcess).

    Args:
        cells: (c, 3) column, row and stride of each.
        certain: (c, 2) that it is a face, and that it is an object.
        places: (c, 14) box and points.
    """
    # The root of the product is a score; nearly all cells are left out before anything is computed.
    rows = np.flatnonzero(np.minimum(certain[:, 0], certain[:, 1]) >= min_score**2)
    if not len(rows):
        return NO_DETECTIONS
    scores = np.sqrt(certain[rows].clip(0, 1).prod(axis=1))
    rows, scores = rows[scores >= min_score], scores[scores >= min_score]
    corners, strides, place = cells[rows, :2], cells[rows, 2:], places[rows]
    sides = np.exp(place[:, 2:4]) * strides
    middles = (corners + place[:, :2]) * strides
    landmarks = (corners[:, None] + place[:, 4:].reshape(-1, 5, 2)) * strides[:, None]
    boxes = np.concatenate([middles - sides / 2, sides], axis=1)
    return Detections(boxes, landmarks, scores)


@functools.lru_cache(maxsize=64)
def _cells(rows: int, columns: int) -> np.ndarray:
    """(c, 3) float32 column, row and stride of each cell of a picture, in the outputs' order."""
    grids = []
    for stride in STRIDES:
        row, column = np.divmod(np.arange(rows * columns // stride**2), columns // stride)
        grids.append(np.stack([column, row, np.full_like(row, stride)], axis=1))
    return np.concatenate(grids).astype(np.float32)


class _Network(NamedTuple):
    """The network ready to run."""

    session: Any
    source: str
    """Name of its input."""
    takes_many: bool
    """Whether it takes several pictures at once."""

    def run(self, blob: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores (n, c, 2) and places (n, c, 14)."""
        if self.takes_many or len(blob) == 1:
            return self._run(blob)
        each = [self._run(blob[row : row + 1]) for row in range(len(blob))]
        scores, places = (np.concatenate(of_kind) for of_kind in zip(*each, strict=True))
        return scores, places

    def _run(self, blob: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores, places = self.session.run([SCORES, PLACES], {self.source: blob})
        return scores, places


@functools.lru_cache(maxsize=2)
def _network(graph: bytes) -> _Network:
    """The network, once a process, on one thread: each worker has its own core."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0].name
    two = np.zeros((2, 3, _GRID, _GRID), np.float32)
    try:
        found = session.run([SCORES], {source: two})[0]
        return _Network(session, source, len(found) == 2)
    except Exception:  # onnxruntime raises nearly anything
        return _Network(session, source, False)
