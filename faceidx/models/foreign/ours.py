"""Backbones of our own whose weights were saved bare, by `torch.save` of a state_dict.

IResNets need no word here: their names are InsightFace's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from faceidx.models.foreign.recognised import Recognised, rows

if TYPE_CHECKING:
    import torch

ANCHOR = "embedding.spatial.weight"


def convert(weights: dict[str, torch.Tensor], *, fc: str | None) -> Recognised:
    """A MobileFaceNet of ours."""
    return Recognised(
        origin="mobilefacenet of faceidx",
        arch="mobilefacenet",
        embedding_dim=rows(weights, "embedding.out.weight"),
        weights=weights,
    )
