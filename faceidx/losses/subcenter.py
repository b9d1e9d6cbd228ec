"""Sub-center ArcFace (Deng et al. 2020, ECCV, section 3.2): several weights an identity."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from faceidx.losses.arcface import ArcFaceHead
from faceidx.losses.cosine import at_least_float32


class SubCenterArcFaceHead(ArcFaceHead):
    """ArcFace in which cos(theta_j) is the highest cosine to the K weights of class j.

    Pictures under a wrong name can gather around a weight of their own rather than bend that of
    the person.

    Args:
        centers: K, 3 in the paper.
    """

    def __init__(
        self,
        dim: int,
        classes: int,
        *,
        scale: float,
        margin: float,
        label_smoothing: float = 0.0,
        centers: int = 3,
    ) -> None:
        super().__init__(dim, classes, scale=scale, margin=margin, label_smoothing=label_smoothing)
        self.weight = nn.Parameter(torch.empty(classes, centers, dim))
        nn.init.normal_(self.weight, std=0.01)

    def cosines(self, embeddings: torch.Tensor) -> torch.Tensor:
        """(N, D) to (N, classes)."""
        weight = F.normalize(at_least_float32(self.weight), dim=2)
        each = F.linear(F.normalize(embeddings), weight.flatten(0, 1)).clamp(-1, 1)
        return each.unflatten(1, weight.shape[:2]).amax(2)
