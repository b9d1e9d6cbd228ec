"""Random changes of pictures while training, on whole batches and on the device.

One affine warp a picture covers mirror, shift, scale, rotation and crop in one resampling; light is
a gain and an offset a picture; occlusion is a grey rectangle (random erasing, Zhong et al. 2017,
arXiv:1708.04896). Colours are in `colour.py`, blur and low resolution in `sharpness.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from faceidx.errors import InputError
from faceidx.training.colour import drain, relight, saturate, turn_hue
from faceidx.training.randaugment import OPERATIONS, rand_augment
from faceidx.training.sharpness import soften


@dataclass(frozen=True, kw_only=True)
class Strength:
    """Largest changes; each picture draws its own uniformly between none and these."""

    shift: float = 0.0
    """Share of the side."""
    scale: float = 0.0
    """Relative."""
    rotation: float = 0.0
    """Radians."""
    contrast: float = 0.0
    brightness: float = 0.0
    """Share of the pixel range."""
    grey: float = 0.0
    """Probability of losing the colour."""
    erase: float = 0.0
    """Probability of a grey rectangle."""
    mirror: float = 0.5
    """Probability of being mirrored."""
    crop: float = 0.0
    """Share of the side that a crop, anywhere in the picture, leaves away."""
    saturation: float = 0.0
    hue: float = 0.0
    """In whole turns of the circle of colours, up to 0.5."""
    blur: float = 0.0
    """Probability of a Gaussian blur."""
    sigma: float = 0.02
    """Of the blur, as share of the side."""
    coarse: float = 0.0
    """Probability of low resolution: shrunk, and enlarged again."""
    coarsest: float = 0.25
    """Smallest share of the side that a coarse picture is shrunk to."""
    operations: int = 0
    """RandAugment's operations a picture, before all others."""


STRENGTHS = {
    "none": Strength(mirror=0.0),
    "light": Strength(),
    "medium": Strength(
        shift=0.05, scale=0.08, rotation=0.1, contrast=0.25, brightness=0.12, grey=0.1
    ),
    "strong": Strength(
        shift=0.08, scale=0.15, rotation=0.2, contrast=0.4, brightness=0.2, grey=0.2, erase=0.5
    ),
    "randaugment": Strength(operations=2),  # as torchvision's default, and mirrored
}
# Sides of the erased rectangle, as shares of the picture's.
_ERASED = (0.15, 0.45)


def strength_named(name: str) -> Strength:
    """Look a strength up.

    Raises:
        InputError: there is none of that name.
    """
    if name not in STRENGTHS:
        raise InputError(f"no augmentation named {name!r}; there are {', '.join(STRENGTHS)}")
    return STRENGTHS[name]


class Chance:
    """Random numbers for one batch, a row a picture.

    They are drawn on the CPU and for the whole batch, of which a process keeps the rows of its own
    pictures: so neither the device nor the number of processes changes what happens to a picture.

    Args:
        seed: of this batch.
        total: pictures of the whole batch, over all processes.
        part: which of them are this process's, a slice or (n,) places.
    """

    def __init__(self, seed: int, total: int, part: slice | torch.Tensor) -> None:
        self._rng = torch.Generator().manual_seed(seed)
        self._total, self._part = total, part

    def table(self, columns: int) -> torch.Tensor:
        """(n, columns) in 0..1."""
        return torch.rand(self._total, columns, generator=self._rng)[self._part]

    def uniform(self) -> torch.Tensor:
        """(n,) in 0..1."""
        return self.table(1)[:, 0]

    def symmetric(self, largest: float) -> torch.Tensor:
        """(n,) in -largest..largest."""
        return (self.uniform() * 2 - 1) * largest


def augment(pictures: torch.Tensor, strength: Strength, chance: Chance) -> torch.Tensor:
    """Change each picture of a batch in its own random way.

    Args:
        pictures: (n, H, W, 3) uint8 RGB, on any device.
        chance: made for these n pictures.

    Returns:
        (n, H, W, 3) float32 in 0..255.
    """
    batch = pictures.permute(0, 3, 1, 2)
    if strength.operations:
        drawn = chance.table(2 * strength.operations)
        numbers, signs = drawn.chunk(2, dim=1)
        batch = rand_augment(batch, (numbers * len(OPERATIONS)).long(), signs <= 0.5)
    batch = batch.float().contiguous()  # resampling takes planes twice as fast
    if strength != STRENGTHS["none"]:
        batch = _warp(batch, strength, chance)
        batch = _recolour(batch, strength, chance)
        batch = _soften(batch, strength, chance)
        batch = _erase(batch, strength, chance)
    return batch.permute(0, 2, 3, 1)


def _warp(batch: torch.Tensor, s: Strength, chance: Chance) -> torch.Tensor:
    n = len(batch)
    mirror = 1 - 2 * (chance.uniform() < s.mirror).float()
    if not (s.shift or s.scale or s.rotation or s.crop):  # exact, and cheaper than resampling
        mirrored = (mirror < 0).to(batch.device)[:, None, None, None]
        return torch.where(mirrored, batch.flip(3), batch)
    angle = chance.symmetric(s.rotation)
    zoom = 1 + chance.symmetric(s.scale)
    # The grid's unit is half a side, so a shift of one side is 2.
    dx, dy = 2 * chance.symmetric(s.shift), 2 * chance.symmetric(s.shift)
    if s.crop:
        left = 1 - s.crop * chance.uniform()
        zoom = zoom * left
        dx, dy = (d + (1 - left) * chance.symmetric(1) for d in (dx, dy))
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    rows = torch.stack([cos * mirror, -sin, dx, sin * mirror, cos, dy], dim=1)
    grid = F.affine_grid(rows.view(n, 2, 3).to(batch.device), list(batch.shape), False)
    return F.grid_sample(batch, grid, padding_mode="reflection", align_corners=False)


def _recolour(batch: torch.Tensor, s: Strength, chance: Chance) -> torch.Tensor:
    if s.saturation:
        batch = saturate(batch, 1 + chance.symmetric(s.saturation))
    if s.hue:
        batch = turn_hue(batch, chance.symmetric(s.hue))
    gain, offset = 1 + chance.symmetric(s.contrast), 255 * chance.symmetric(s.brightness)
    grey = chance.uniform() < s.grey
    if s.grey:
        batch = drain(batch, grey)
    if s.contrast or s.brightness:
        batch = relight(batch, gain, offset)
    return batch


def _soften(batch: torch.Tensor, s: Strength, chance: Chance) -> torch.Tensor:
    if not (s.blur or s.coarse):
        return batch
    blurred, sigma, coarse, share = chance.table(4).unbind(1)
    sigma = torch.where(blurred < s.blur, s.sigma * sigma, 0.0)
    share = torch.where(coarse < s.coarse, s.coarsest + (1 - s.coarsest) * share, 1.0)
    touched = ((sigma > 0) | (share < 1)).nonzero()[:, 0]
    rows = touched.to(batch.device)
    return batch.index_copy(0, rows, soften(batch[rows], sigma[touched], share[touched]))


def _erase(batch: torch.Tensor, s: Strength, chance: Chance) -> torch.Tensor:
    if not s.erase:
        return batch
    height, width = batch.shape[2:]
    draw = chance.table(5)
    low, high = _ERASED
    sides = low + (high - low) * draw[:, :2]
    top, left = (draw[:, 2] * (1 - sides[:, 0])), (draw[:, 3] * (1 - sides[:, 1]))
    # On the device, as what there is by pixels is as large as a picture.
    draw, top, left, sides = (part.to(batch.device) for part in (draw, top, left, sides))
    y = torch.arange(height, device=batch.device)[None] / height
    x = torch.arange(width, device=batch.device)[None] / width
    in_rows = (y >= top[:, None]) & (y < (top + sides[:, 0])[:, None])
    in_columns = (x >= left[:, None]) & (x < (left + sides[:, 1])[:, None])
    hit = in_rows[:, :, None] & in_columns[:, None] & (draw[:, 4] < s.erase)[:, None, None]
    return batch.masked_fill(hit[:, None], 127.5)
