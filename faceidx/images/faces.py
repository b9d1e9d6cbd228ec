"""Photos in, aligned faces out: what the processes that decode do with `--detect`."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from faceidx.errors import InputError
from faceidx.images.decode import DEFAULT_MAX_PIXELS
from faceidx.images.detect import Detections, Detector
from faceidx.images.photo import Photo
from faceidx.images.prepare import FACE, Prepared, WholePicture
from faceidx.images.templates import template_points

MODES = ("largest", "central", "all")
MIN_FACE, MIN_SCORE = 16, 0.7


@dataclass(frozen=True, kw_only=True)
class DetectedFaces:
    """Faces are found in each photo and cut out, upright, at the model's size.

    Raises:
        InputError: the least score is none.
    """

    detector: Detector
    mode: str
    """`largest`, `central` or `all` (`search.find_faces`)."""
    size: tuple[int, int]
    """Height and width that the model wants."""
    template: str
    """See `templates.TEMPLATES`."""
    min_face: int = MIN_FACE
    """Smaller faces are passed over; in pixels of the photo, of the longer side of the box."""
    min_score: float = MIN_SCORE
    """Less sure faces are passed over."""
    max_pixels: int = DEFAULT_MAX_PIXELS

    def __post_init__(self) -> None:
        if not 0 <= self.min_score <= 1:  # NaN, which would find no face at all
            raise InputError(f"--min-score {self.min_score} is no score; give one from 0.1 to 1")

    def __call__(self, data: Path | bytes) -> Prepared:
        _one_thread()
        from faceidx.images.search import OVERVIEW, find_faces

        photo = Photo(data, overview=OVERVIEW, max_pixels=self.max_pixels)
        found = find_faces(
            photo,
            self.detector,
            mode=self.mode,
            min_face=self.min_face,
            min_score=self.min_score,
        )
        return cut_out(photo, found, self.template, self.size)

    def facts(self) -> dict[str, Any]:
        """What is recorded of it in every file made with it."""
        return {
            "detect": self.mode,
            "detector": self.detector.sha256,
            "detect_template": self.template,
            "min_face": self.min_face,
            "min_score": self.min_score,
        }


@dataclass(frozen=True, kw_only=True)
class FacesOfPhotos:
    """Faces are found in pictures that look like photos; others are taken as faces already."""

    whole: WholePicture
    detected: DetectedFaces

    @property
    def size(self) -> tuple[int, int]:
        return self.whole.size

    def __call__(self, data: Path | bytes) -> Prepared:
        taken = self.whole(data)
        if taken.far:
            return self.detected(data)
        face = np.zeros(1, FACE)
        for name in ("landmarks", "detection_scores", "poses"):
            face[name] = np.nan
        return Prepared(taken.crops, face)


def cut_out(photo: Photo, found: Detections, template: str, size: tuple[int, int]) -> Prepared:
    """Cut faces out of a photo.

    Raises:
        PictureError: the landmarks of one are degenerate.
    """
    from faceidx.images.align import scale_of, similarity, warp
    from faceidx.images.quality import head_size_of, pose_of, sharpness_of

    count = len(found.scores)
    crops = np.empty((count, *size, 3), np.uint8)
    faces = np.empty(count, FACE)
    points = template_points(template, size)
    for row in range(count):
        matrix = similarity(found.landmarks[row], points)
        crops[row] = warp(photo, matrix, size)
        faces[row] = (
            found.boxes[row],
            found.landmarks[row],
            found.scores[row],
            head_size_of(scale_of(matrix), size),
            sharpness_of(crops[row]),
            pose_of(found.landmarks[row]),
        )
    return Prepared(crops, faces)


@functools.cache
def _one_thread() -> None:
    """Keep OpenCV to one thread: each process that decodes has a core to itself."""
    import cv2

    cv2.setNumThreads(1)
