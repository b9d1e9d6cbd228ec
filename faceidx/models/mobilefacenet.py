"""MobileFaceNet (Chen et al. 2018, arXiv:1804.07573, table 1): about a million parameters."""

from __future__ import annotations

import torch
from torch import nn

# Table 1: expansion t, output channels c, repeats n, stride s of each run of bottlenecks.
BOTTLENECKS = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))
LAST_CHANNELS = 512


class _ConvNorm(nn.Sequential):
    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, groups: int, active: bool = True
    ) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        super().__init__(*layers, *([nn.PReLU(outputs)] if active else []))


class _Bottleneck(nn.Module):
    """Inverted residual of MobileNetV2: expand, depthwise, project without activation."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.body = nn.Sequential(
            _ConvNorm(inputs, middle, 1, 1, 1),
            _ConvNorm(middle, middle, 3, stride, middle),
            _ConvNorm(middle, outputs, 1, 1, 1, active=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.body(x)
        return x + out if self.residual else out


class _EmbeddingLayer(nn.Module):
    """(N, C, h, w) feature map to (N, D) embedding: a learned spatial weighting, then a projection.

    The global depthwise convolution of section 3.2: unlike average pooling it can give the corner
    of an eye more weight than the background, at a cost that does not grow with D.
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


class MobileFaceNet(nn.Module):
    """(N, 3, H, W) normalised pictures to (N, D) embeddings, not yet of unit length."""

    def __init__(self, embedding_dim: int, image_size: tuple[int, int]) -> None:
        super().__init__()
        layers: list[nn.Module] = [_ConvNorm(3, 64, 3, 2, 1), _ConvNorm(64, 64, 3, 1, 64)]
        channels = 64
        for expansion, outputs, repeats, stride in BOTTLENECKS:
            for i in range(repeats):
                layers.append(_Bottleneck(channels, outputs, stride if i == 0 else 1, expansion))
                channels = outputs
        layers.append(_ConvNorm(channels, LAST_CHANNELS, 1, 1, 1))
        self.features = nn.Sequential(*layers)
        height, width = (-(-side // 16) for side in image_size)
        self.embedding = _EmbeddingLayer(LAST_CHANNELS, (height, width), embedding_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        embedding: torch.Tensor = self.embedding(self.features(x))
        return embedding
