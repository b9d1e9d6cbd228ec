"""Photos with a real face at known places, and a detector that needs no weights."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

MARK = (255, 0, 0)
"""The colour that `write_toy_detector` takes for a face."""


@dataclass(frozen=True)
class Portrait:
    """A picture of one person, with the face where OpenCV's own `FaceDetectorYN` finds it."""

    pixels: np.ndarray
    box: np.ndarray
    landmarks: np.ndarray

    @property
    def length(self) -> float:
        return float(self.box[3])


@dataclass(frozen=True)
class Placed:
    """A face pasted into a photo."""

    box: np.ndarray
    landmarks: np.ndarray

    def distance(self, landmarks: np.ndarray) -> float:
        """Mean distance to found landmarks, as a share of the face's length."""
        away = np.linalg.norm(landmarks - self.landmarks, axis=1)
        return float(away.mean() / self.box[3])


def portrait(file: Path, detector: Path) -> Portrait:
    pixels = np.array(Image.open(file).convert("RGB"))
    network = cv2.FaceDetectorYN.create(str(detector), "", pixels.shape[1::-1], 0.6)
    _, found = network.detect(np.ascontiguousarray(pixels[..., ::-1]))
    row = found[found[:, 2].argmax()]
    return Portrait(pixels, row[:4], row[4:14].reshape(5, 2))


def background(height: int, width: int) -> np.ndarray:
    """Soft grey noise, in which there is no face."""
    noise = np.random.default_rng(0).integers(60, 190, (height // 16 + 1, width // 16 + 1, 3))
    grown = cv2.resize(noise.astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(grown)


def paste(photo: np.ndarray, person: Portrait, *, length: float, at: tuple[float, float]) -> Placed:
    """Scale a portrait so that the face has a length, and paste it with the face's middle there.

    What stands out over the photo is cut off.

    Args:
        at: x, y.
    """
    scale = length / person.length
    side = round(person.pixels.shape[0] * scale)
    scale = side / person.pixels.shape[0]
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    small = cv2.resize(person.pixels, (side, side), interpolation=kind)
    middle = (person.box[:2] + person.box[2:] / 2) * scale
    left, top = (round(place - own) for place, own in zip(at, middle, strict=True))
    height, width = photo.shape[:2]
    x0, y0, x1, y1 = max(0, left), max(0, top), min(width, left + side), min(height, top + side)
    photo[y0:y1, x0:x1] = small[y0 - top : y1 - top, x0 - left : x1 - left]
    corner = np.array([left, top])
    return Placed(
        np.concatenate([person.box[:2] * scale + corner, person.box[2:] * scale]),
        person.landmarks * scale + corner,
    )


def as_jpeg(photo: np.ndarray, *, orientation: int = 1) -> bytes:
    """The photo as a camera held another way stores it: turned, and with the tag that says so."""
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    image = Image.fromarray(photo)
    if orientation != 1:
        image = image.transpose(back[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95, exif=exif)
    return file.getvalue()


def draw_marked(path: Path, *cells: tuple[int, int]) -> None:
    """Write a photo of 160 x 120 with a mark at each of these cells of 8 pixels (column, row)."""
    photo = np.full((120, 160, 3), 90, np.uint8)
    for column, row in cells:
        photo[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = MARK
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo).save(path)


def write_toy_detector(path: Path, *, on_a_line: bool = False) -> None:
    """An ONNX file with YuNet's outputs that takes each cell of 8 x 8 pixels of `MARK` for a face.

    The face is a square of 20 pixels about the middle of the cell, whatever the scale.

    Args:
        on_a_line: its landmarks are degenerate.
    """
    sums = np.zeros((1, 3, 1, 1), np.float32)
    sums[0, :, 0, 0] = np.array([-1, -1, 1]) / 255  # of BGR
    values = {"sums": sums, "none": np.float32(0.0), "one": np.float32(1.0)}
    nodes = [helper.make_node("Conv", ["input", "sums"], ["red"])]
    outputs = []
    points = np.arange(10, dtype=np.float32) / 8 if on_a_line else _TOY_POINTS
    for stride in (8, 16, 32):
        cells = f"cells_{stride}"
        nodes.append(
            helper.make_node(
                "AveragePool",
                ["red"],
                [cells],
                kernel_shape=[stride, stride],
                strides=[stride, stride],
            )
        )
        values[f"bias_{stride}"] = np.float32(0.05 if stride == 8 else 2.0)
        nodes.append(helper.make_node("Sub", [cells, f"bias_{stride}"], [f"score_{stride}"]))
        for kind, places in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            name = f"{kind}_{stride}"
            values[f"shape_{name}"] = np.array([1, -1, places], np.int64)
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
            if places == 1:
                nodes.append(
                    helper.make_node("Reshape", [f"score_{stride}", f"shape_{name}"], [name])
                )
                continue
            values[f"what_{name}"] = _TOY_BOX if kind == "bbox" else points
            nodes += [
                helper.make_node("Mul", [cells, "none"], [f"zero_{name}"]),
                helper.make_node("Reshape", [f"zero_{name}", "column"], [f"rows_{name}"]),
                helper.make_node("Add", [f"rows_{name}", f"what_{name}"], [name]),
            ]
    values["column"] = np.array([1, -1, 1], np.int64)
    picture = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 640, 640])
    graph = helper.make_graph(
        nodes,
        "toy",
        [picture],
        outputs,
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(path))


# In cells of 8 pixels, from the cell's corner: the middle, and the logarithms of the sides.
_TOY_BOX = np.array([0.5, 0.5, np.log(2.5), np.log(2.5)], np.float32)
_TOY_POINTS = np.array([-0.1, -0.1, 1.1, -0.1, 0.5, 0.5, 0, 1.2, 1, 1.2], np.float32)
