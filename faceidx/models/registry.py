"""The names of the backbones, and the one door to them: `create_backbone`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from faceidx.errors import InputError

if TYPE_CHECKING:
    from torch import nn

Builder = Callable[[int, tuple[int, int]], "nn.Module"]


def _resnet(depth: int) -> Builder:
    def build(embedding_dim: int, image_size: tuple[int, int]) -> nn.Module:
        from faceidx.models.resnet import FaceResNet

        return FaceResNet(depth, embedding_dim, image_size)

    return build


def _iresnet(depth: int) -> Builder:
    def build(embedding_dim: int, image_size: tuple[int, int]) -> nn.Module:
        from faceidx.models.iresnet import IResNet

        return IResNet(depth, embedding_dim, image_size)

    return build


def _mobilefacenet(embedding_dim: int, image_size: tuple[int, int]) -> nn.Module:
    from faceidx.models.mobilefacenet import MobileFaceNet

    return MobileFaceNet(embedding_dim, image_size)


BACKBONES: dict[str, Builder] = {
    **{f"resnet{depth}": _resnet(depth) for depth in (10, 18, 34, 50, 101, 152)},
    **{f"iresnet{depth}": _iresnet(depth) for depth in (18, 34, 50, 100, 200)},
    "mobilefacenet": _mobilefacenet,
}


def create_backbone(arch: str, *, embedding_dim: int, image_size: tuple[int, int]) -> nn.Module:
    """Build a freshly initialised backbone.

    Args:
        arch: one of `BACKBONES`.
        image_size: (height, width) of the pictures; the embedding layer depends on it.

    Returns:
        A module from (N, 3, height, width) normalised pictures to (N, embedding_dim) embeddings.

    Raises:
        InputError: no such architecture, or a size it cannot work on.
    """
    if arch not in BACKBONES:
        raise InputError(f"no architecture named {arch!r}; there are {', '.join(BACKBONES)}")
    if min(image_size) < 16:
        raise InputError(f"pictures of {image_size} pixels are too small; give 16 or more")
    if embedding_dim < 1:
        raise InputError(f"an embedding of {embedding_dim} numbers is none; give 1 or more")
    return BACKBONES[arch](embedding_dim, image_size)
