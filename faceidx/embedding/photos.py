"""What to say where pictures look like photos, and the model wants faces cut out of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from faceidx.embedding.pipeline import Embedded, PipelineOptions, embed_pictures
from faceidx.images.sources import Picture
from faceidx.models.face_model import FaceModel
from faceidx.progress import ProgressCallback

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


def embed_or_warn(
    pictures: Sequence[Picture],
    model: FaceModel,
    options: PipelineOptions,
    progress: ProgressCallback,
) -> Embedded:
    """As `embed_pictures`, with a warning where many were embedded whole and look like photos."""
    embedded = embed_pictures(pictures, model, options, progress)
    if warning := photo_warning(embedded.far, embedded.pictures, model):
        logger.warning(warning)
    return embedded
