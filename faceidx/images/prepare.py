"""What is made of one picture before a model sees it: faces at the model's size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from faceidx.images.decode import DEFAULT_MAX_PIXELS, decode
from faceidx.images.preprocess import far_from_shape, fit

FACE = np.dtype(
    [
        ("boxes", np.float32, (4,)),
        ("landmarks", np.float32, (5, 2)),
        ("detection_scores", np.float32),
        ("head_sizes", np.float32),
        ("sharpness", np.float32),
        ("poses", np.float32, (3,)),
    ]
)
"""Where and how a face was found; the names are those of the datasets (docs/file-formats.md)."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """The faces of one picture."""

    crops: np.ndarray
    """(k, height, width, 3) uint8 RGB; k is 0 where no face was found."""
    faces: np.ndarray | None = None
    """(k,) `FACE`; None without detection."""
    far: bool = False
    """Without detection: whether the picture looks like a whole photo rather than a face."""


class Prepare(Protocol):
    """How faces are made of a picture: small, and sent to the processes that decode."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the faces."""
        ...

    def __call__(self, data: Path | bytes) -> Prepared:
        """Make the faces of a picture given by its file or its bytes.

        Raises:
            PictureError: it cannot be used; the text says why.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class WholePicture:
    """Every picture is taken as one face that was cut out already."""

    size: tuple[int, int]
    """Height and width that the model wants."""
    max_pixels: int = DEFAULT_MAX_PIXELS
    card: str = ""
    """The GPU that decodes plain JPEGs; none where this is empty."""

    @property
    def at_least(self) -> int:
        """How long both sides of a reduced JPEG must stay.

        With more than twice the size the scaling that follows shows no difference, and a picture
        far from the model's shape stays recognisable as such.
        """
        return 2 * max(self.size) + 1

    def __call__(self, data: Path | bytes) -> Prepared:
        return self.of_pixels(decode(data, at_least=self.at_least, max_pixels=self.max_pixels))

    def of_pixels(self, pixels: np.ndarray) -> Prepared:
        """Make the face of a decoded picture, (H, W, 3) uint8 RGB."""
        far = far_from_shape(pixels.shape[0], pixels.shape[1], self.size)
        return Prepared(fit(pixels, self.size)[None], far=far)
