"""The names of heads and auxiliary losses, and the one door to each."""

from __future__ import annotations

from torch import nn

from faceidx.errors import InputError
from faceidx.losses.angle import AngleLoss
from faceidx.losses.center import CenterLoss
from faceidx.losses.softmax import SoftmaxHead

HEADS = ("softmax",)
AUXILIARIES = ("center", "angle")
# The weight of center loss is the paper's lambda (section 4.1); the angle loss is a cross-entropy
# like the head's own, so the two are added as they are.
AUXILIARY_WEIGHTS = {"center": 0.003, "angle": 1.0}


def create_head(loss: str, *, dim: int, classes: int, label_smoothing: float = 0.0) -> nn.Module:
    """Build a classification head: a module from (embeddings, labels) to (loss, logits).

    Raises:
        InputError: no such loss.
    """
    if loss == "softmax":
        return SoftmaxHead(dim, classes, label_smoothing)
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
