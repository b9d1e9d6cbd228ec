"""IResNets as InsightFace's `arcface_torch` (backbones/iresnet.py) and its kin write them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from faceidx.errors import InputError
from faceidx.models.foreign.recognised import Recognised, add_scale, count_blocks, rows

if TYPE_CHECKING:
    import torch

ANCHOR = "layer1.0.prelu.weight"


def convert(weights: dict[str, torch.Tensor], *, fc: str | None) -> Recognised:
    """Ours bears the same names."""
    from faceidx.models.iresnet import LAYERS

    blocks = count_blocks(weights)
    depths = [depth for depth, layers in LAYERS.items() if layers == blocks]
    if not depths:
        raise InputError(
            f"an iresnet with {blocks} blocks is none of {', '.join(map(str, LAYERS))}"
        )
    weights = dict(weights)
    add_scale(weights, "features")
    return Recognised(
        origin=f"iresnet{depths[0]} of InsightFace",
        arch=f"iresnet{depths[0]}",
        embedding_dim=rows(weights, "fc.weight"),
        weights=weights,
    )
