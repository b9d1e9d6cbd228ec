"""MobileFaceNet (Chen et al. 2018, arXiv:1804.07573) as foamliu trained it, built on MobileNetV2.

It differs from the paper's in its activations (ReLU6 and ReLU for PReLU), in a pointwise
convolution behind the second layer, and in the bias of the last one. Names of the parameters are
those of foamliu/MobileFaceNet, so that its weights fit.
"""

from __future__ import annotations

import torch
from torch import nn
from torchvision.ops.misc import Conv2dNormActivation

from faceidx.models.mobilefacenet import BOTTLENECKS, LAST_CHANNELS


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Module:
    return Conv2dNormActivation(
        inputs, outputs, kernel, stride, groups=groups, activation_layer=nn.ReLU6
    )


class _DepthwiseSeparable(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn1(self.depthwise(x)))
        return torch.relu(self.bn2(self.pointwise(x)))


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            _conv(inputs, middle, 1),
            _conv(middle, middle, 3, stride, middle),
            nn.Conv2d(middle, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.conv(x)
        return x + out if self.residual else out


class _GlobalDepthwise(nn.Module):
    def __init__(self, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, size, groups=channels, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.bn(self.depthwise(x))
        return out


class MobileFaceNetReLU6(nn.Module):
    """(N, 3, H, W) normalised pictures to (N, D) embeddings, not yet of unit length."""

    def __init__(self, embedding_dim: int, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.conv1 = _conv(3, 64, 3, stride=2)
        self.dw_conv = _DepthwiseSeparable(64)
        blocks, channels = [], 64
        for expansion, outputs, repeats, stride in BOTTLENECKS:
            for i in range(repeats):
                blocks.append(_Bottleneck(channels, outputs, stride if i == 0 else 1, expansion))
                channels = outputs
        self.features = nn.Sequential(*blocks)
        self.conv2 = _conv(channels, LAST_CHANNELS, 1)
        height, width = (-(-side // 16) for side in image_size)
        self.gdconv = _GlobalDepthwise(LAST_CHANNELS, (height, width))
        self.conv3 = nn.Conv2d(LAST_CHANNELS, embedding_dim, 1)
        self.bn = nn.BatchNorm2d(embedding_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv2(self.features(self.dw_conv(self.conv1(x))))
        embedding: torch.Tensor = self.bn(self.conv3(self.gdconv(x))).flatten(1)
        return embedding
