"""ResNet (He et al. 2016, arXiv:1512.03385): torchvision's, with a stem fitted to small faces.

The original stem (7x7 of stride 2, then a pool of stride 2) was made for 224 pixels; at 112 or 56
it throws the face away before the first block. Here the stem is a 3x3 convolution of stride 1 and
the first stage does the halving, as in ArcFace's networks (Deng et al. 2019, arXiv:1801.07698).
"""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

BLOCKS: dict[int, tuple[type[BasicBlock | Bottleneck], list[int]]] = {
    10: (BasicBlock, [1, 1, 1, 1]),
    18: (BasicBlock, [2, 2, 2, 2]),
    34: (BasicBlock, [3, 4, 6, 3]),
    50: (Bottleneck, [3, 4, 6, 3]),
    101: (Bottleneck, [3, 4, 23, 3]),
    152: (Bottleneck, [3, 8, 36, 3]),
}
# Up to the first side the first stage does not halve either; above the second the original stem
# is kept.
_TINY, _SMALL = 40, 128


def depth_of(layers: list[int], *, bottleneck: bool) -> int | None:
    """The depth that has these numbers of blocks, None where there is none."""
    wanted = (Bottleneck if bottleneck else BasicBlock, layers)
    return next((depth for depth, blocks in BLOCKS.items() if blocks == wanted), None)


class FaceResNet(nn.Module):
    """(N, 3, H, W) normalised pictures to (N, D) embeddings, not yet of unit length."""

    def __init__(self, depth: int, embedding_dim: int, image_size: tuple[int, int]) -> None:
        super().__init__()
        block, layers = BLOCKS[depth]
        net = _SmallFaceResNet(block, layers, max(image_size))
        self.stem = net.stem
        self.layer1, self.layer2 = net.layer1, net.layer2
        self.layer3, self.layer4 = net.layer3, net.layer4
        self.pool = net.avgpool
        channels = 512 * block.expansion
        # As many numbers as there are channels need no projection: the pooled features themselves
        # are the embedding, and that learns faster.
        self.project: nn.Module = nn.Identity()
        if embedding_dim != channels:
            self.project = nn.Linear(channels, embedding_dim, bias=False)
        self.out = nn.BatchNorm1d(embedding_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        embedding: torch.Tensor = self.out(self.project(self.pool(x).flatten(1)))
        return embedding


class _SmallFaceResNet(ResNet):
    """torchvision's ResNet, of which the stem and the first stage are made anew for small sides."""

    stem: nn.Module

    def __init__(self, block: type[BasicBlock | Bottleneck], layers: list[int], side: int) -> None:
        super().__init__(block, layers)
        if side > _SMALL:
            self.stem = nn.Sequential(self.conv1, self.bn1, self.relu, self.maxpool)
            return
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), self.bn1, self.relu)
        self.inplanes = 64
        self.layer1 = self._make_layer(block, 64, layers[0], stride=1 if side <= _TINY else 2)
        for part in (self.stem, self.layer1):
            for module in part.modules():
                if isinstance(module, nn.Conv2d):  # as torchvision has it
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
