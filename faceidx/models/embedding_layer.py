"""The layer that turns a feature map into the embedding."""

from __future__ import annotations

import torch
from torch import nn


class EmbeddingLayer(nn.Module):
    """(N, C, h, w) feature map to (N, D) embedding: a learned spatial weighting, then a projection.

    The global depthwise convolution of MobileFaceNet (Chen et al. 2018, arXiv:1804.07573, section
    3.2): unlike average pooling it can give the corner of an eye more weight than the background,
    at a cost that does not grow with D, as flattening would.
    """

    def __init__(self, channels: int, size: tuple[int, int], embedding_dim: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(channels, channels, size, groups=channels, bias=False)
        # Start as average pooling: every place counts the same until training says otherwise.
        nn.init.constant_(self.spatial.weight, 1.0 / (size[0] * size[1]))
        self.norm = nn.BatchNorm2d(channels)
        self.project = nn.Linear(channels, embedding_dim, bias=False)
        self.out = nn.BatchNorm1d(embedding_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.spatial(x)).flatten(1)
        embedding: torch.Tensor = self.out(self.project(x))
        return embedding
