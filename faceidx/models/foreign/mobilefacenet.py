"""MobileFaceNet of foamliu (mobilefacenet.py), with ReLU6 where the paper has PReLU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from faceidx.models.foreign.recognised import Recognised, rows

if TYPE_CHECKING:
    import torch

ANCHOR = "gdconv.depthwise.weight"


def convert(weights: dict[str, torch.Tensor], *, fc: str | None) -> Recognised:
    """Ours bears the same names."""
    return Recognised(
        origin="MobileFaceNet of foamliu",
        arch="mobilefacenet_relu6",
        embedding_dim=rows(weights, "conv3.weight"),
        weights=weights,
    )
