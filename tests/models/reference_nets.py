"""Networks of other projects, written here from their published structure and names of weights.

Nothing of faceidx is used: its own are held against these. Each gives embeddings before they are
normalised, and `randomize` gives every weight and statistic a value that matters.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def randomize(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give a network random weights under which signals neither vanish nor explode."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(like: torch.Tensor, low: float, high: float) -> torch.Tensor:
        return torch.rand(like.shape, generator=generator) * (high - low) + low

    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.running_mean.copy_(uniform(module.running_mean, -0.2, 0.2))
                module.running_var.copy_(uniform(module.running_var, 0.5, 1.5))
                if module.affine:
                    module.weight.copy_(uniform(module.weight, 0.5, 1.0))
                    module.bias.copy_(uniform(module.bias, -0.2, 0.2))
            elif isinstance(module, (nn.Conv2d, nn.Linear)):
                bound = (3 / module.weight[0].numel()) ** 0.5
                module.weight.copy_(uniform(module.weight, -bound, bound))
                if module.bias is not None:
                    module.bias.copy_(uniform(module.bias, -0.1, 0.1))
            elif isinstance(module, nn.PReLU):
                module.weight.copy_(uniform(module.weight, 0.1, 0.4))
    return network.eval()


# --- InsightFace, recognition/arcface_torch/backbones/iresnet.py ---------------------------------


class _IBasicBlock(nn.Module):
    def __init__(self, a: int, b: int, stride: int, first: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(a)
        self.conv1 = nn.Conv2d(a, b, 3, padding=1, bias=False)
        self.bn2, self.prelu = nn.BatchNorm2d(b), nn.PReLU(b)
        self.conv2 = nn.Conv2d(b, b, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(b)
        if first:
            self.downsample = nn.Sequential(
                nn.Conv2d(a, b, 1, stride, bias=False), nn.BatchNorm2d(b)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        return y + (self.downsample(x) if hasattr(self, "downsample") else x)


class InsightFaceNet(nn.Module):
    def __init__(self, layers: list[int], dim: int, side: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1, self.prelu = nn.BatchNorm2d(64), nn.PReLU(64)
        a = 64
        for number, (b, count) in enumerate(zip((64, 128, 256, 512), layers, strict=True), 1):
            blocks = [_IBasicBlock(a, b, 2, True)]
            blocks += [_IBasicBlock(b, b, 1, False) for _ in range(count - 1)]
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
            a = b
        self.bn2 = nn.BatchNorm2d(512)
        self.fc = nn.Linear(512 * side * side, dim)
        self.features = nn.BatchNorm1d(dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.prelu(self.bn1(self.conv1(x)))
        for number in range(1, 5):
            x = getattr(self, f"layer{number}")(x)
        return self.features(self.fc(torch.flatten(self.bn2(x), 1)))


# --- AdaFace, net.py, and face.evoLVe, backbone/model_irse.py (no norm within a block) -----------


class _IRBlock(nn.Module):
    def __init__(self, a: int, b: int, stride: int, norm: bool) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module
        if a == b:
            self.shortcut_layer = nn.MaxPool2d(1, stride)
        else:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(a, b, 1, stride, bias=False), nn.BatchNorm2d(b)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(a),
            nn.Conv2d(a, b, 3, 1, 1, bias=False),
            *([nn.BatchNorm2d(b)] if norm else []),
            nn.PReLU(b),
            nn.Conv2d(b, b, 3, stride, 1, bias=False),
            nn.BatchNorm2d(b),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.res_layer(x) + self.shortcut_layer(x)


class IRNet(nn.Module):
    def __init__(self, layers: list[int], dim: int, side: int, *, norm: bool = True) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64)
        )
        blocks, a = [], 64
        for b, count in zip((64, 128, 256, 512), layers, strict=True):
            for i in range(count):
                blocks.append(_IRBlock(a, b, 1 if i else 2, norm))
                a = b
        self.body = nn.Sequential(*blocks)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512),
            nn.Dropout(0.4),
            nn.Flatten(),
            nn.Linear(512 * side * side, dim),
            nn.BatchNorm1d(dim, affine=not norm),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.output_layer(self.body(self.input_layer(x)))


# --- facenet-pytorch, models/inception_resnet_v1.py ----------------------------------------------


def _unit(a: int, b: int, kernel: Any, stride: int = 1, padding: Any = 0) -> nn.Sequential:
    unit = nn.Sequential()
    unit.add_module("conv", nn.Conv2d(a, b, kernel, stride, padding, bias=False))
    unit.add_module("bn", nn.BatchNorm2d(b, eps=0.001))
    unit.add_module("relu", nn.ReLU())
    return unit


class _Branches(nn.Module):
    """Branches joined; with `back`, added to the input through a 1x1 convolution."""

    def __init__(
        self, *branches: nn.Module, back: tuple[int, int] | None = None, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.count, self.scale = len(branches), scale
        for i, branch in enumerate(branches):
            setattr(self, f"branch{i}", branch)
        if back:
            self.conv2d = nn.Conv2d(*back, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        joined = torch.cat([getattr(self, f"branch{i}")(x) for i in range(self.count)], 1)
        return self.conv2d(joined) * self.scale + x if hasattr(self, "conv2d") else joined


def _repeat(count: int, make: Any) -> nn.Sequential:
    """Blocks with a ReLU after each, under the numbers that they have without."""
    return nn.Sequential(*(make() for _ in range(count)))


class FaceNet(nn.Module):
    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.conv2d_1a, self.conv2d_2a = _unit(3, 32, 3, 2), _unit(32, 32, 3)
        self.conv2d_2b, self.conv2d_3b = _unit(32, 64, 3, 1, 1), _unit(64, 80, 1)
        self.conv2d_4a, self.conv2d_4b = _unit(80, 192, 3), _unit(192, 256, 3, 2)
        self.repeat_1 = _repeat(
            5,
            lambda: _Branches(
                _unit(256, 32, 1),
                nn.Sequential(_unit(256, 32, 1), _unit(32, 32, 3, 1, 1)),
                nn.Sequential(_unit(256, 32, 1), _unit(32, 32, 3, 1, 1), _unit(32, 32, 3, 1, 1)),
                back=(96, 256),
                scale=0.17,
            ),
        )
        self.mixed_6a = _Branches(
            _unit(256, 384, 3, 2),
            nn.Sequential(_unit(256, 192, 1), _unit(192, 192, 3, 1, 1), _unit(192, 256, 3, 2)),
            nn.MaxPool2d(3, 2),
        )
        self.repeat_2 = _repeat(
            10,
            lambda: _Branches(
                _unit(896, 128, 1),
                nn.Sequential(
                    _unit(896, 128, 1),
                    _unit(128, 128, (1, 7), 1, (0, 3)),
                    _unit(128, 128, (7, 1), 1, (3, 0)),
                ),
                back=(256, 896),
                scale=0.1,
            ),
        )
        self.mixed_7a = _Branches(
            nn.Sequential(_unit(896, 256, 1), _unit(256, 384, 3, 2)),
            nn.Sequential(_unit(896, 256, 1), _unit(256, 256, 3, 2)),
            nn.Sequential(_unit(896, 256, 1), _unit(256, 256, 3, 1, 1), _unit(256, 256, 3, 2)),
            nn.MaxPool2d(3, 2),
        )
        self.repeat_3 = _repeat(5, lambda: self._block8(0.2))
        self.block8 = self._block8(1.0)
        self.last_linear = nn.Linear(1792, dim, bias=False)
        self.last_bn = nn.BatchNorm1d(dim, eps=0.001)
        self.logits = nn.Linear(dim, classes)

    @staticmethod
    def _block8(scale: float) -> nn.Module:
        return _Branches(
            _unit(1792, 192, 1),
            nn.Sequential(
                _unit(1792, 192, 1),
                _unit(192, 192, (1, 3), 1, (0, 1)),
                _unit(192, 192, (3, 1), 1, (1, 0)),
            ),
            back=(384, 1792),
            scale=scale,
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(x)))
        x = nn.functional.max_pool2d(x, 3, 2)
        x = self.conv2d_4b(self.conv2d_4a(self.conv2d_3b(x)))
        for block in self.repeat_1:
            x = block(x).relu()
        x = self.mixed_6a(x)
        for block in self.repeat_2:
            x = block(x).relu()
        x = self.mixed_7a(x)
        for block in self.repeat_3:
            x = block(x).relu()
        return self.last_bn(self.last_linear(self.block8(x).mean((2, 3))))


# --- foamliu/MobileFaceNet, mobilefacenet.py ------------------------------------------------------


def _relu6(a: int, b: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(a, b, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(b),
        nn.ReLU6(),
    )


class _Inverted(nn.Module):
    def __init__(self, a: int, b: int, stride: int, times: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _relu6(a, a * times, 1),
            _relu6(a * times, a * times, 3, stride, a * times),
            nn.Conv2d(a * times, b, 1, bias=False),
            nn.BatchNorm2d(b),
        )
        self.added = stride == 1 and a == b

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.added else self.conv(x)


class FoamliuNet(nn.Module):
    def __init__(self, dim: int, side: int) -> None:
        super().__init__()
        self.conv1 = _relu6(3, 64, 3, 2)
        self.dw_conv = nn.Module()
        self.dw_conv.depthwise = nn.Conv2d(64, 64, 3, padding=1, groups=64, bias=False)
        self.dw_conv.pointwise = nn.Conv2d(64, 64, 1, bias=False)
        self.dw_conv.bn1, self.dw_conv.bn2 = nn.BatchNorm2d(64), nn.BatchNorm2d(64)
        settings = [(2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1)]
        blocks, a = [], 64
        for times, b, count, stride in settings:
            for i in range(count):
                blocks.append(_Inverted(a, b, 1 if i else stride, times))
                a = b
        self.features = nn.Sequential(*blocks)
        self.conv2 = _relu6(128, 512, 1)
        self.gdconv = nn.Module()
        self.gdconv.depthwise = nn.Conv2d(512, 512, side, groups=512, bias=False)
        self.gdconv.bn = nn.BatchNorm2d(512)
        self.conv3, self.bn = nn.Conv2d(512, dim, 1), nn.BatchNorm2d(dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, dw = self.conv1(x), self.dw_conv
        x = dw.bn2(dw.pointwise(dw.bn1(dw.depthwise(x)).relu())).relu()
        x = self.conv2(self.features(x))
        x = self.bn(self.conv3(self.gdconv.bn(self.gdconv.depthwise(x))))
        return x.view(x.size(0), -1)
