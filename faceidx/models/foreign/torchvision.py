"""ResNets under torchvision's names (torchvision/models/resnet.py), and our own built from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from faceidx.errors import InputError
from faceidx.models.foreign.recognised import Recognised, count_blocks, rows

if TYPE_CHECKING:
    import torch

ANCHOR = "layer1.0.conv1.weight"
ARCH = "torchvision_resnet"
"""What its networks are called here, with their depth behind it."""

# What a last layer gives is an embedding if it has one of these lengths, and ImageNet's 1,000
# classes if it has that many. Anything else may be either.
_EMBEDDINGS = (64, 128, 256, 512, 1024, 2048)
_IMAGENET_CLASSES = 1000


def convert(weights: dict[str, torch.Tensor], *, fc: str | None) -> Recognised:
    """A ResNet with its last layer, or without it where that is a classifier."""
    from faceidx.models.resnet import depth_of

    bottleneck = "layer1.0.conv3.weight" in weights
    depth = depth_of(count_blocks(weights), bottleneck=bottleneck)
    if depth is None:
        raise InputError(f"a ResNet with {count_blocks(weights)} blocks is not known")
    if "stem.0.weight" in weights:
        return Recognised(
            origin=f"resnet{depth} of faceidx",
            arch=f"resnet{depth}",
            embedding_dim=rows(weights, "out.weight"),
            weights=weights,
        )
    origin = f"resnet{depth} of torchvision"
    weights = _with_plain_fc(weights)
    if fc == "embedding" and "fc.weight" not in weights:
        raise InputError("--fc embedding: it has no fc that is one linear layer")
    if "fc.weight" in weights and _gives_embedding(rows(weights, "fc.weight"), fc):
        weights = dict(weights)
        weights.setdefault("fc.bias", weights["fc.weight"].new_zeros(len(weights["fc.weight"])))
        return Recognised(
            origin=f"{origin}, its fc taken for the embedding",
            arch=f"{ARCH}{depth}_fc",
            embedding_dim=len(weights["fc.weight"]),
            weights=weights,
        )
    classifier = [name for name in weights if name.startswith("fc.")]
    if classifier and "fc.weight" not in weights and fc is None:
        raise InputError(
            "its fc is of several layers, an embedding's or a classifier's, and cannot be run; "
            "--fc classifier leaves it out"
        )
    return Recognised(
        origin=f"{origin}, its pooled features taken for the embedding",
        arch=f"{ARCH}{depth}",
        embedding_dim=2048 if bottleneck else 512,
        weights={name: t for name, t in weights.items() if name not in classifier},
        left_out=["fc (taken for a classifier)"] if classifier else [],
    )


def _with_plain_fc(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights in which an fc of one linear layer, with dropout or the like beside it, is plain."""
    parts = {name for name in weights if name.startswith("fc.")}
    layers = {name.rpartition(".")[0] for name in parts}
    if len(layers) != 1 or (layer := layers.pop()) == "fc":
        return weights
    weight = weights.get(f"{layer}.weight")
    if parts - {f"{layer}.weight", f"{layer}.bias"} or weight is None or weight.ndim != 2:
        return weights
    return {
        f"fc.{name.rpartition('.')[2]}" if name in parts else name: t for name, t in weights.items()
    }


def _gives_embedding(length: int, fc: str | None) -> bool:
    """Whether a last layer gives an embedding rather than classes."""
    if fc is not None:
        return fc == "embedding"
    if length not in (*_EMBEDDINGS, _IMAGENET_CLASSES):
        raise InputError(
            f"its fc gives {length} numbers: an embedding, or classes? Say which by "
            "`faceidx models import --fc embedding|classifier`"
        )
    return length in _EMBEDDINGS
