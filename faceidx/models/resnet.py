"""ResNet (He et al. 2016, arXiv:1512.03385): torchvision's, with a stem fitted to small faces.

The original stem (7x7 stride 2, then a pool of stride 2) was made for 224 pixels; at 112 or 56 it
throws the face away before the first block. The stem here is a 3x3 convolution whose stride lets
the first stage see about 28 to 56 pixels a side.
"""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from faceidx.models.embedding_layer import EmbeddingLayer

_BLOCKS: dict[int, tuple[type[BasicBlock | Bottleneck], list[int]]] = {
    10: (BasicBlock, [1, 1, 1, 1]),
    18: (BasicBlock, [2, 2, 2, 2]),
    34: (BasicBlock, [3, 4, 6, 3]),
    50: (Bottleneck, [3, 4, 6, 3]),
    101: (Bottleneck, [3, 4, 23, 3]),
    152: (Bottleneck, [3, 8, 36, 3]),
}
# Largest picture side for each stem stride; above the last, the original stem (stride 4) is kept.
_STEM_STRIDES = ((40, 1), (128, 2))


class FaceResNet(nn.Module):
    """(N, 3, H, W) normalised pictures to (N, D) embeddings, not yet of unit length."""

    def __init__(self, depth: int, embedding_dim: int, image_size: tuple[int, int]) -> None:
        super().__init__()
        block, layers = _BLOCKS[depth]
        net = ResNet(block, layers)
        stride = _stem_stride(max(image_size))
        self.stem: nn.Module
        if stride == 4:
            self.stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
        else:
            conv = nn.Conv2d(3, 64, 3, stride, 1, bias=False)
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            self.stem = nn.Sequential(conv, net.bn1, net.relu)
        self.layer1, self.layer2 = net.layer1, net.layer2
        self.layer3, self.layer4 = net.layer3, net.layer4
        size = (_halved(image_size[0], 8 * stride), _halved(image_size[1], 8 * stride))
        self.embedding = EmbeddingLayer(512 * block.expansion, size, embedding_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        embedding: torch.Tensor = self.embedding(x)
        return embedding


def _stem_stride(side: int) -> int:
    return next((stride for largest, stride in _STEM_STRIDES if side <= largest), 4)


def _halved(side: int, stride: int) -> int:
    """Side of the feature map after convolutions of this total stride, each rounding up."""
    return -(-side // stride)
