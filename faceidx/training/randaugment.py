"""RandAugment (Cubuk et al. 2019, arXiv:1909.13719), with torchvision's operations and magnitudes.

torchvision's own class draws from the generator of the whole process, which others draw from at the
same time, and changes picture by picture. Here the choices are given, and all pictures of one
choice are changed at once by torchvision's functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torchvision.transforms.v2 import functional as F

# torchvision's defaults: magnitude 9 of 0..30.
_MAGNITUDE = 9 / 30

Change = Callable[[torch.Tensor, float], torch.Tensor]


def _affine(batch: torch.Tensor, *, shift: tuple[int, int] = (0, 0)) -> torch.Tensor:
    return F.affine(batch, angle=0.0, translate=list(shift), scale=1.0, shear=[0.0, 0.0])


def _sheared(batch: torch.Tensor, x: float = 0.0, y: float = 0.0) -> torch.Tensor:
    angles = [math.degrees(math.atan(x)), math.degrees(math.atan(y))]
    return F.affine(batch, angle=0.0, translate=[0, 0], scale=1.0, shear=angles, center=[0.0, 0.0])


def _shift(side: int, sign: float) -> int:
    return int(sign * _MAGNITUDE * 150 / 331 * side)


_FACTOR = 0.9 * _MAGNITUDE
OPERATIONS: dict[str, Change] = {
    "Identity": lambda batch, _: batch,
    "ShearX": lambda batch, sign: _sheared(batch, x=sign * 0.3 * _MAGNITUDE),
    "ShearY": lambda batch, sign: _sheared(batch, y=sign * 0.3 * _MAGNITUDE),
    "TranslateX": lambda batch, sign: _affine(batch, shift=(_shift(batch.shape[3], sign), 0)),
    "TranslateY": lambda batch, sign: _affine(batch, shift=(0, _shift(batch.shape[2], sign))),
    "Rotate": lambda batch, sign: F.rotate(batch, sign * 30 * _MAGNITUDE),
    "Brightness": lambda batch, sign: F.adjust_brightness(batch, 1 + sign * _FACTOR),
    "Color": lambda batch, sign: F.adjust_saturation(batch, 1 + sign * _FACTOR),
    "Contrast": lambda batch, sign: F.adjust_contrast(batch, 1 + sign * _FACTOR),
    "Sharpness": lambda batch, sign: F.adjust_sharpness(batch, 1 + sign * _FACTOR),
    "Posterize": lambda batch, _: F.posterize(batch, round(8 - 4 * _MAGNITUDE)),
    "Solarize": lambda batch, _: F.solarize(batch, 255 * (1 - _MAGNITUDE)),
    "AutoContrast": lambda batch, _: F.autocontrast(batch),
    "Equalize": lambda batch, _: F.equalize(batch),
}
"""Each is called with (n, 3, H, W) uint8 and a sign, 1 or -1, and gives the same shape."""


def rand_augment(
    batch: torch.Tensor, operations: torch.Tensor, signs: torch.Tensor
) -> torch.Tensor:
    """Apply to each picture its operations, one after another.

    Args:
        batch: (n, 3, H, W) uint8.
        operations: (n, k) numbers of `OPERATIONS`.
        signs: (n, k) bool, whether the operation goes the other way, where it has two.
    """
    changes = list(OPERATIONS.values())
    for number, negative in zip(operations.unbind(1), signs.unbind(1), strict=True):
        before, batch = batch, batch.clone()
        choice = 2 * number + negative
        for chosen in choice.unique().tolist():
            rows = (choice == chosen).nonzero()[:, 0].to(batch.device)
            batch[rows] = changes[chosen // 2](before[rows], -1.0 if chosen % 2 else 1.0)
    return batch
