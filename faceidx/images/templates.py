"""Where five landmarks belong in the crops that models are trained on.

The template of ArcFace is that of deepinsight/insightface (python-package/insightface/utils/
face_align.py, `arcface_dst`); with 96 columns it is that of SphereFace and CosFace. The template
`facenet` stands for the crops of davidsandberg/facenet: a detected box with a margin of 32 of 160
pixels. They were not aligned, so it holds the mean places of the landmarks in such crops, measured
on real faces found by YuNet, with one scale for both directions.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from faceidx.errors import InputError

# Template -> (height and width that the points are for, the points).
_TEMPLATES = {
    "arcface": (
        (112, 112),
        (
            (38.2946, 51.6963),
            (73.5318, 51.5014),
            (56.0252, 71.7366),
            (41.5493, 92.3655),
            (70.7299, 92.2041),
        ),
    ),
    "facenet": (
        (160, 160),
        ((54.32, 61.06), (105.68, 61.06), (80.0, 90.29), (58.17, 113.2), (101.83, 113.2)),
    ),
}
TEMPLATES = tuple(_TEMPLATES)


RECORD = "align.json"
"""File of a folder of aligned faces that says how they were aligned."""


def recorded_template(folder: Path) -> str | None:
    """The template of a folder of faces that says it; None where it does not.

    Raises:
        InputError: what it says cannot be read.
    """
    record = folder / RECORD
    if not record.is_file():
        return None
    try:
        template = json.loads(record.read_text("utf-8"))["template"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{record} is damaged ({error!r}); remove it or align anew") from None
    return template_for(str(template), (0, 0))


def template_for(template: str | None, size: tuple[int, int]) -> str:
    """The template of a model whose record may not say it: `facenet` at 160 x 160, else `arcface`.

    Raises:
        InputError: there is no template of that name.
    """
    if template is None:
        return "facenet" if size == (160, 160) else "arcface"
    if template not in _TEMPLATES:
        raise InputError(f"no alignment template {template!r}; there are {', '.join(TEMPLATES)}")
    return template


def template_points(template: str, size: tuple[int, int]) -> np.ndarray:
    """Where the landmarks belong in a crop: (5, 2) float64 x, y.

    Points are scaled by the height and stay in the middle of the width.

    Args:
        size: height and width of the crop.
    """
    (height, width), points = _TEMPLATES[template]
    scale = size[0] / height
    return (np.array(points) - (width / 2, 0)) * scale + (size[1] / 2, 0)
