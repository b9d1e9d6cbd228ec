"""Sub-center ArcFace (Deng et al. 2020, ECCV, section 3.2): several weights an identity."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from faceidx.losses.arcface import ArcFaceHead


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
        super().__init__(
            dim,
            classes,
            scale=scale,
            margin=margin,
            label_smoothing=label_smoothing,
            centers=centers,
        )

    def scores(self, embeddings: torch.Tensor, rows: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """(N, D) embeddings and the `weight` of some classes to (N, those classes) cosines."""
        weight = rows["weight"]
        each = super().scores(embeddings, {"weight": weight.flatten(0, 1)})
        return each.unflatten(1, weight.shape[:2]).amax(2)
