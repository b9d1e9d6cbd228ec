"""Random changes of pictures while training, on whole batches and on the device.

One affine warp a picture covers mirror, shift, scale and rotation in one resampling; light is a
gain and an offset a picture; occlusion is a grey rectangle (random erasing, Zhong et al. 2017,
arXiv:1708.04896).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from faceidx.errors import InputError


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


STRENGTHS = {
    "none": Strength(mirror=0.0),
    "light": Strength(),
    "medium": Strength(
        shift=0.05, scale=0.08, rotation=0.1, contrast=0.25, brightness=0.12, grey=0.1
    ),
    "strong": Strength(
        shift=0.08, scale=0.15, rotation=0.2, contrast=0.4, brightness=0.2, grey=0.2, erase=0.5
    ),
}
# Sides of the erased rectangle, as shares of the picture's.
_ERASED = (0.15, 0.45)
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's mode L


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
        part: which of them are this process's.
    """

    def __init__(self, seed: int, total: int, part: slice) -> None:
        self._rng = torch.Generator().manual_seed(seed)
        self._total, self._part = total, part

    def uniform(self, columns: int = 1) -> torch.Tensor:
        """(n, columns) in 0..1, or (n,) for one column."""
        drawn = torch.rand(self._total, columns, generator=self._rng)[self._part]
        return drawn[:, 0] if columns == 1 else drawn

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
    batch = pictures.permute(0, 3, 1, 2).float()
    if strength != STRENGTHS["none"]:
        batch = _warp(batch, strength, chance)
        batch = _relight(batch, strength, chance)
        batch = _erase(batch, strength, chance)
    return batch.permute(0, 2, 3, 1)


def _warp(batch: torch.Tensor, s: Strength, chance: Chance) -> torch.Tensor:
    n = len(batch)
    mirror = 1 - 2 * (chance.uniform() < s.mirror).float()
    angle = chance.symmetric(s.rotation)
    zoom = 1 + chance.symmetric(s.scale)
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    # The grid's unit is half a side, so a shift of one side is 2.
    dx, dy = 2 * chance.symmetric(s.shift), 2 * chance.symmetric(s.shift)
    rows = torch.stack([cos * mirror, -sin, dx, sin * mirror, cos, dy], dim=1)
    if s == STRENGTHS["light"]:  # nothing but mirrors: exact, and cheaper than resampling
        mirrored = (mirror < 0).to(batch.device)[:, None, None, None]
        return torch.where(mirrored, batch.flip(3), batch)
    grid = F.affine_grid(rows.view(n, 2, 3).to(batch.device), list(batch.shape), False)
    return F.grid_sample(batch, grid, padding_mode="reflection", align_corners=False)


def _relight(batch: torch.Tensor, s: Strength, chance: Chance) -> torch.Tensor:
    shape = (-1, 1, 1, 1)
    gain = (1 + chance.symmetric(s.contrast)).view(shape).to(batch.device)
    offset = (255 * chance.symmetric(s.brightness)).view(shape).to(batch.device)
    grey = (chance.uniform() < s.grey).view(shape).to(batch.device)
    luma = torch.tensor(_LUMA, device=batch.device).view(1, 3, 1, 1)
    batch = torch.where(grey, (batch * luma).sum(1, keepdim=True), batch)
    mean = batch.mean((1, 2, 3), keepdim=True)
    return ((batch - mean) * gain + mean + offset).clamp(0, 255)


def _erase(batch: torch.Tensor, s: Strength, chance: Chance) -> torch.Tensor:
    if not s.erase:
        return batch
    height, width = batch.shape[2:]
    draw = chance.uniform(5)
    low, high = _ERASED
    sides = low + (high - low) * draw[:, :2]
    top, left = (draw[:, 2] * (1 - sides[:, 0])), (draw[:, 3] * (1 - sides[:, 1]))
    y = torch.arange(height)[None] / height
    x = torch.arange(width)[None] / width
    in_rows = (y >= top[:, None]) & (y < (top + sides[:, 0])[:, None])
    in_columns = (x >= left[:, None]) & (x < (left + sides[:, 1])[:, None])
    hit = in_rows[:, :, None] & in_columns[:, None] & (draw[:, 4] < s.erase)[:, None, None]
    return batch.masked_fill(hit[:, None].to(batch.device), 127.5)
