"""The names of heads and auxiliary losses, and the one door to each."""

from __future__ import annotations

import math

from torch import nn

from faceidx.errors import InputError
from faceidx.losses.adaface import AdaFaceHead
from faceidx.losses.angle import AngleLoss
from faceidx.losses.arcface import ArcFaceHead
from faceidx.losses.center import CenterLoss
from faceidx.losses.cosface import CosFaceHead
from faceidx.losses.cosine import CosineHead
from faceidx.losses.softmax import SoftmaxHead
from faceidx.losses.sphereface import SphereFaceHead
from faceidx.losses.subcenter import SubCenterArcFaceHead

COSINE_HEADS: dict[str, tuple[type[CosineHead], float, float]] = {
    # Each with the scale and margin of its paper.
    "arcface": (ArcFaceHead, 64.0, 0.5),
    "cosface": (CosFaceHead, 64.0, 0.35),
    "adaface": (AdaFaceHead, 64.0, 0.4),
    "subcenter-arcface": (SubCenterArcFaceHead, 64.0, 0.5),
}
# Those whose margin is an angle, in radians.
_OF_ANGLES = ("arcface", "adaface", "subcenter-arcface")
# Those whose classes can be spread over processes and sampled.
SHARDED_HEADS = ("softmax", *COSINE_HEADS)
HEADS = (*SHARDED_HEADS, "sphereface")
AUXILIARIES = ("center", "angle")
# The weight of center loss is the paper's lambda (section 4.1); the angle loss is a cross-entropy
# like the head's own, so the two are added as they are.
AUXILIARY_WEIGHTS = {"center": 0.003, "angle": 1.0}


def create_head(
    loss: str,
    *,
    dim: int,
    classes: int,
    label_smoothing: float = 0.0,
    scale: float | None = None,
    margin: float | None = None,
) -> nn.Module:
    """Build a classification head: a module from (embeddings, labels) to (loss, logits).

    Args:
        scale: of the cosine logits; None takes the paper's.
        margin: None takes the paper's.

    Raises:
        InputError: no such loss, one that knows no scale, margin or label smoothing, or a margin
            that is no angle where it has to be one.
    """
    if loss in _OF_ANGLES and margin is not None and margin >= math.pi:
        raise InputError(
            f"--margin {margin:g}: that of {loss} is an angle in radians, below pi; "
            f"{margin:g} degrees are {math.radians(margin):.3g}"
        )
    if loss in COSINE_HEADS:
        head, usual_scale, usual_margin = COSINE_HEADS[loss]
        return head(
            dim,
            classes,
            scale=usual_scale if scale is None else scale,
            margin=usual_margin if margin is None else margin,
            label_smoothing=label_smoothing,
        )
    if scale is not None or margin is not None:
        raise InputError(
            f"--loss {loss} takes no --scale or --margin; {', '.join(COSINE_HEADS)} do"
        )
    if loss == "softmax":
        return SoftmaxHead(dim, classes, label_smoothing)
    if loss == "sphereface":
        if label_smoothing:
            raise InputError("--loss sphereface takes no --label-smoothing; the other losses do")
        return SphereFaceHead(dim, classes)
    raise InputError(f"no loss named {loss!r}; there are {', '.join(HEADS)}")


def create_auxiliary(name: str, *, dim: int, classes: int) -> nn.Module:
    """Build an auxiliary loss.

    Raises:
        InputError: no such auxiliary loss.
    """
    if name == "center":
        return CenterLoss(dim, classes)
    if name == "angle":
        return AngleLoss()
    raise InputError(f"no auxiliary loss named {name!r}; there are {', '.join(AUXILIARIES)}")
