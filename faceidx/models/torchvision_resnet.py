"""torchvision's ResNet as it is, its pooled features or its last layer taken for the embedding."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models.resnet import ResNet

from faceidx.models.resnet import BLOCKS


class TorchvisionResNet(ResNet):
    """(N, 3, H, W) normalised pictures to (N, D) embeddings, not yet of unit length."""

    def __init__(self, depth: int, embedding_dim: int, *, with_fc: bool) -> None:
        block, layers = BLOCKS[depth]
        super().__init__(block, layers)
        channels = 512 * block.expansion
        self.fc = nn.Linear(channels, embedding_dim) if with_fc else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        embedding: torch.Tensor = super().forward(x)
        return embedding
