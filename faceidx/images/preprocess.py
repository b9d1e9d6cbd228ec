"""What is done to a picture before the model sees it, and the part of it done on the CPU: shape."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from faceidx.errors import InputError
from faceidx.images.decode import DEFAULT_MAX_PIXELS, decode

Color = Literal["rgb", "bgr"]
Triple = tuple[float, float, float]

# How much red, green and blue give to grey: ITU-R BT.601, as Pillow's mode L.
LUMA: Triple = (0.299, 0.587, 0.114)

# A picture is taken for a raw photo, rather than a crop of a face, when it must be scaled by more
# than the first in either direction, or is longer one way by more than the second than the model's
# shape. Crops of 224 for a model of 112, and of 92 x 112 for a square one, still pass.
_FAR_SCALE = 2.0
_FAR_ASPECT = 1.3


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How a model wants its input.

    Raises:
        InputError: a value makes no sense.
    """

    image_size: tuple[int, int]
    """Height and width."""
    color: Color
    mean: Triple
    """Subtracted from pixel values in [0, 1]; in the order of `color`."""
    std: Triple
    """Divides what is left; in the order of `color`."""

    def __post_init__(self) -> None:
        if len(self.image_size) != 2 or not all(
            type(side) is int and side > 0 for side in self.image_size
        ):
            raise InputError(f"image size {self.image_size} is no height and width above 0")
        if self.color not in ("rgb", "bgr"):
            raise InputError(f"colour order {self.color!r} is neither rgb nor bgr")
        if len(self.mean) != 3 or not all(math.isfinite(x) for x in self.mean):
            raise InputError(f"mean {self.mean} is not three numbers")
        if len(self.std) != 3 or not all(math.isfinite(x) and x > 0 for x in self.std):
            raise InputError(f"std {self.std} is not three numbers above 0")

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` reads, of JSON's types alone."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Read the record of a file, which may hold more than this.

        Raises:
            InputError: a value is missing or makes no sense.
        """
        try:
            height, width = values["image_size"]
            return cls(
                image_size=(height, width),
                color=values["color"],
                mean=_triple(values["mean"]),
                std=_triple(values["std"]),
            )
        except KeyError as error:
            raise InputError(f"the preprocessing lacks {error}") from None
        except (TypeError, ValueError) as error:
            raise InputError(f"the preprocessing makes no sense ({error})") from None


def _triple(values: Any) -> Triple:
    first, second, third = (float(value) for value in values)
    return first, second, third


@dataclass(frozen=True, kw_only=True)
class Preset:
    """What pictures go through in a project that others' models come from."""

    color: Color
    mean: Triple
    std: Triple
    image_size: tuple[int, int] | None
    """Height and width; None where models of that project differ."""
    template: str | None
    """Alignment of its faces (`templates.TEMPLATES`); None where the project aligns none."""


_HALF: Triple = (0.5, 0.5, 0.5)

PRESETS: dict[str, Preset] = {
    # pytorch/vision, references/classification/presets.py
    "imagenet": Preset(
        color="rgb",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        image_size=None,
        template=None,
    ),
    # deepinsight/insightface, recognition/arcface_torch/inference.py
    "insightface": Preset(
        color="rgb", mean=_HALF, std=_HALF, image_size=(112, 112), template="arcface"
    ),
    # mk-minchul/AdaFace, inference.py (to_input); face_alignment/align.py
    "adaface": Preset(
        color="bgr", mean=_HALF, std=_HALF, image_size=(112, 112), template="arcface"
    ),
    # timesler/facenet-pytorch, models/mtcnn.py (fixed_image_standardization): (x - 127.5) / 128
    "facenet": Preset(
        color="rgb",
        mean=_HALF,
        std=(128 / 255, 128 / 255, 128 / 255),
        image_size=(160, 160),
        template="facenet",
    ),
}


def fit(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale a picture so that it covers a shape, and cut away what stands out, evenly.

    Args:
        picture: (H, W, 3) uint8.
        size: height and width.

    Returns:
        (height, width, 3) uint8; the very picture where it has that size already.
    """
    height, width = picture.shape[:2]
    if (height, width) == size:
        return picture
    scale = max(size[0] / height, size[1] / width)
    part_height = min(size[0] / scale, height)
    part_width = min(size[1] / scale, width)
    left, top = (width - part_width) / 2, (height - part_height) / 2
    box = (left, top, min(left + part_width, width), min(top + part_height, height))
    image = Image.fromarray(picture)
    return np.array(image.resize((size[1], size[0]), Image.Resampling.BICUBIC, box=box))


def far_from_shape(height: int, width: int, size: tuple[int, int]) -> bool:
    """Whether a picture looks like a raw photo rather than a crop for a model of this size."""
    tall, wide = height / size[0], width / size[1]
    aspect = max(tall, wide) / min(tall, wide)
    return aspect > _FAR_ASPECT or max(tall, wide) > _FAR_SCALE or min(tall, wide) < 1 / _FAR_SCALE


def load(
    picture: Path | bytes, size: tuple[int, int], *, max_pixels: int = DEFAULT_MAX_PIXELS
) -> np.ndarray:
    """Decode a picture and fit it to a model: (height, width, 3) uint8 RGB.

    Raises:
        PictureError: as `decode`.
    """
    # Twice the size leaves the antialiased scaling enough to work with that the reduced JPEG shows
    # no difference (Pillow's `thumbnail` does the same: reducing_gap=2.0).
    return fit(decode(picture, at_least=2 * max(size), max_pixels=max_pixels), size)
