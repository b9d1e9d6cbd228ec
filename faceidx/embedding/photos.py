"""What to say where pictures look like photos, and the model wants faces cut out of them."""

from __future__ import annotations

import logging

from faceidx.embedding.pipeline import Embedded
from faceidx.models.face_model import FaceModel

logger = logging.getLogger(__name__)

# Share of pictures far from the model's shape that draws a warning.
_FAR_SHARE = 0.1


def photo_warning(far: int, embedded: int, model: FaceModel) -> str | None:
    """What to say where many pictures are far from the model's shape; None where few are."""
    if far <= _FAR_SHARE * embedded:
        return None
    height, width = model.preprocessing.image_size
    return (
        f"{far} of {embedded} pictures are far from the model's shape ({width} x {height}): it "
        "expects faces cut out and aligned as in its training; --detect finds them in photos"
    )


def warn_of_photos(embedded: Embedded, model: FaceModel) -> None:
    """Warn where many of these pictures were embedded whole and look like photos."""
    if warning := photo_warning(embedded.far, embedded.pictures, model):
        logger.warning(warning)
