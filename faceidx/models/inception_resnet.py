"""Inception-ResNet-v1 (Szegedy et al. 2016, arXiv:1602.07261, figures 10 to 14) for faces.

The variant of FaceNet's TensorFlow port, which facenet-pytorch took over: residuals are scaled by
0.17, 0.10 and 0.20 (section 3.3), the last block is neither scaled nor rectified, and the embedding
is a bias-free projection of the pooled features behind a norm. Names of the parameters are those of
facenet-pytorch, so that its weights fit.
"""

from __future__ import annotations

import torch
from torch import nn

_BN_EPS = 1e-3  # TensorFlow's
# Below this side nothing is left for the last reduction.
SMALLEST_SIDE = 75

Size = int | tuple[int, int]


class _Conv(nn.Module):
    """Convolution, norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: Size, stride: int = 1, pad: Size = 0):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, pad, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=_BN_EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.bn(self.conv(x)))


class _Residual(nn.Module):
    """Branches side by side, joined by a 1x1 convolution and added to what they came from."""

    def __init__(self, channels: int, joined: int, scale: float, *branches: nn.Module) -> None:
        super().__init__()
        for number, branch in enumerate(branches):
            self.add_module(f"branch{number}", branch)
        self.conv2d = nn.Conv2d(joined, channels, 1)
        self.scale = scale
        self.rectified = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branches = (branch for name, branch in self.named_children() if name != "conv2d")
        x = x + self.scale * self.conv2d(torch.cat([branch(x) for branch in branches], 1))
        return torch.relu(x) if self.rectified else x


class _Reduction(nn.Module):
    """Branches side by side, each halving the side."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        for number, branch in enumerate(branches):
            self.add_module(f"branch{number}", branch)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self.children()], 1)


def _block35() -> _Residual:
    return _Residual(
        256,
        96,
        0.17,
        _Conv(256, 32, 1),
        nn.Sequential(_Conv(256, 32, 1), _Conv(32, 32, 3, pad=1)),
        nn.Sequential(_Conv(256, 32, 1), _Conv(32, 32, 3, pad=1), _Conv(32, 32, 3, pad=1)),
    )


def _block17() -> _Residual:
    return _Residual(
        896,
        256,
        0.10,
        _Conv(896, 128, 1),
        nn.Sequential(
            _Conv(896, 128, 1),
            _Conv(128, 128, (1, 7), pad=(0, 3)),
            _Conv(128, 128, (7, 1), pad=(3, 0)),
        ),
    )


def _block8(scale: float) -> _Residual:
    return _Residual(
        1792,
        384,
        scale,
        _Conv(1792, 192, 1),
        nn.Sequential(
            _Conv(1792, 192, 1),
            _Conv(192, 192, (1, 3), pad=(0, 1)),
            _Conv(192, 192, (3, 1), pad=(1, 0)),
        ),
    )


class InceptionResnetV1(nn.Module):
    """(N, 3, H, W) normalised pictures to (N, D) embeddings, not yet of unit length."""

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        self.conv2d_1a = _Conv(3, 32, 3, stride=2)
        self.conv2d_2a = _Conv(32, 32, 3)
        self.conv2d_2b = _Conv(32, 64, 3, pad=1)
        self.maxpool_3a = nn.MaxPool2d(3, stride=2)
        self.conv2d_3b = _Conv(64, 80, 1)
        self.conv2d_4a = _Conv(80, 192, 3)
        self.conv2d_4b = _Conv(192, 256, 3, stride=2)
        self.repeat_1 = nn.Sequential(*(_block35() for _ in range(5)))
        self.mixed_6a = _Reduction(
            _Conv(256, 384, 3, stride=2),
            nn.Sequential(_Conv(256, 192, 1), _Conv(192, 192, 3, pad=1), _Conv(192, 256, 3, 2)),
            nn.MaxPool2d(3, stride=2),
        )
        self.repeat_2 = nn.Sequential(*(_block17() for _ in range(10)))
        self.mixed_7a = _Reduction(
            nn.Sequential(_Conv(896, 256, 1), _Conv(256, 384, 3, 2)),
            nn.Sequential(_Conv(896, 256, 1), _Conv(256, 256, 3, 2)),
            nn.Sequential(_Conv(896, 256, 1), _Conv(256, 256, 3, pad=1), _Conv(256, 256, 3, 2)),
            nn.MaxPool2d(3, stride=2),
        )
        self.repeat_3 = nn.Sequential(*(_block8(0.20) for _ in range(5)))
        self.block8 = _block8(1.0)
        self.block8.rectified = False
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.last_linear = nn.Linear(1792, embedding_dim, bias=False)
        self.last_bn = nn.BatchNorm1d(embedding_dim, eps=_BN_EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(x)))
        x = self.conv2d_4b(self.conv2d_4a(self.conv2d_3b(self.maxpool_3a(x))))
        x = self.repeat_2(self.mixed_6a(self.repeat_1(x)))
        x = self.block8(self.repeat_3(self.mixed_7a(x)))
        embedding: torch.Tensor = self.last_bn(self.last_linear(self.pool(x).flatten(1)))
        return embedding
