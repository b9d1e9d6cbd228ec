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


def _hybrid(*, wide: bool) -> Builder:
    def build(embedding_dim: int, image_size: tuple[int, int]) -> nn.Module:
        from faceidx.models.hybrid import DIMS, NARROW, WIDE, HybridFace

        if not DIMS[0] <= embedding_dim <= DIMS[1]:
            raise InputError(
                f"an embedding of {embedding_dim} numbers: hybrids have from {DIMS[0]} to {DIMS[1]}"
            )
        return HybridFace(embedding_dim, image_size, WIDE if wide else NARROW)

    return build


def _torchvision(depth: int, *, with_fc: bool) -> Builder:
    def build(embedding_dim: int, image_size: tuple[int, int]) -> nn.Module:
        from faceidx.models.torchvision_resnet import TorchvisionResNet

        return TorchvisionResNet(depth, embedding_dim, with_fc=with_fc)

    return build


def _inception_resnet(embedding_dim: int, image_size: tuple[int, int]) -> nn.Module:
    from faceidx.models.inception_resnet import SMALLEST_SIDE, InceptionResnetV1

    if min(image_size) < SMALLEST_SIDE:
        raise InputError(
            f"pictures of {image_size} pixels are too small for inception_resnet_v1; "
            f"give {SMALLEST_SIDE} or more"
        )
    return InceptionResnetV1(embedding_dim)


def _mobilefacenet_relu6(embedding_dim: int, image_size: tuple[int, int]) -> nn.Module:
    from faceidx.models.mobilefacenet_relu6 import MobileFaceNetReLU6

    return MobileFaceNetReLU6(embedding_dim, image_size)


BACKBONES: dict[str, Builder] = {
    **{f"resnet{depth}": _resnet(depth) for depth in (10, 18, 34, 50, 101, 152)},
    **{f"iresnet{depth}": _iresnet(depth) for depth in (18, 34, 50, 100, 200)},
    "mobilefacenet": _mobilefacenet,
    "hybrid": _hybrid(wide=False),
    "hybrid_wide": _hybrid(wide=True),
}
# What other projects' weights are run as: there to be opened and trained on, not chosen by name.
FOREIGN_BACKBONES: dict[str, Builder] = {
    "inception_resnet_v1": _inception_resnet,
    "mobilefacenet_relu6": _mobilefacenet_relu6,
    **{f"torchvision_resnet{n}": _torchvision(n, with_fc=False) for n in (18, 34, 50, 101, 152)},
    **{f"torchvision_resnet{n}_fc": _torchvision(n, with_fc=True) for n in (18, 34, 50, 101, 152)},
}


def create_backbone(arch: str, *, embedding_dim: int, image_size: tuple[int, int]) -> nn.Module:
    """Build a freshly initialised backbone.

    Args:
        arch: one of `BACKBONES` or `FOREIGN_BACKBONES`.
        image_size: (height, width) of the pictures; the embedding layer depends on it.

    Returns:
        A module from (N, 3, height, width) normalised pictures to (N, embedding_dim) embeddings.

    Raises:
        InputError: no such architecture, or a size it cannot work on.
    """
    builder = BACKBONES.get(arch) or FOREIGN_BACKBONES.get(arch)
    if builder is None:
        raise InputError(f"no architecture named {arch!r}; there are {', '.join(BACKBONES)}")
    if min(image_size) < 16:
        raise InputError(f"pictures of {image_size} pixels are too small; give 16 or more")
    if embedding_dim < 1:
        raise InputError(f"an embedding of {embedding_dim} numbers is none; give 1 or more")
    return builder(embedding_dim, image_size)
