"""InceptionResnetV1 of facenet-pytorch (models/inception_resnet_v1.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from faceidx.models.foreign.recognised import Recognised, rows

if TYPE_CHECKING:
    import torch

ANCHOR = "conv2d_1a.conv.weight"


def convert(weights: dict[str, torch.Tensor], *, fc: str | None) -> Recognised:
    """Ours bears the same names."""
    return Recognised(
        origin="InceptionResnetV1 of facenet-pytorch",
        arch="inception_resnet_v1",
        embedding_dim=rows(weights, "last_linear.weight"),
        weights=weights,
    )
