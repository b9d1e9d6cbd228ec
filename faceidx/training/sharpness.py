"""Softer pictures: blur and low resolution, each picture by its own measure, a whole batch at once.

Both are linear and act along rows and columns alike, so each is a matrix a picture: (side, side)
for the rows and one for the columns. Two products of matrices change a batch.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F

# Of a Gaussian, what lies farther out than this many sigma is 0.3 % and is left out.
_REACH = 3.0


def soften(batch: torch.Tensor, sigma: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Blur pictures, then make them as coarse as if they had been small.

    Args:
        batch: (n, C, H, W) float.
        sigma: (n,) of the Gaussian, as share of the side; 0 leaves a picture sharp.
        share: (n,) of the side that a picture is shrunk to, to be enlarged again; 1 leaves it.

    Returns:
        (n, C, H, W).
    """
    down, across = (
        (_coarse(side, share) @ _blur(side, sigma)).to(batch) for side in batch.shape[2:]
    )
    return down[:, None] @ batch @ across[:, None].transpose(2, 3)


def _blur(side: int, sigma: torch.Tensor) -> torch.Tensor:
    """(n, side, side) Gaussian blurs with reflected borders, as torchvision's `gaussian_blur`."""
    pixels = torch.arange(side, dtype=torch.float32)
    here, there = pixels[:, None], pixels[None]
    # A pixel is seen where it lies, and again in the mirrors before the first and behind the last.
    apart = torch.stack([here - there, here + there, here + there - 2 * (side - 1)])
    spread = (sigma * side).clamp(min=1e-6)[:, None, None, None]
    seen = torch.exp(-((apart / spread) ** 2) / 2) * (apart.abs() <= _REACH * spread)
    # The first and the last pixel lie in the mirrors themselves and are seen once.
    seen[:, 1, :, 0] = seen[:, 2, :, -1] = 0
    matrices = seen.sum(1)
    return matrices / matrices.sum(2, keepdim=True)


def _coarse(side: int, share: torch.Tensor) -> torch.Tensor:
    """(n, side, side) matrices that shrink to a share of the side and enlarge again."""
    sizes = (share * side).round().clamp(1, side).int().tolist()
    return torch.stack([_down_and_up(side, size) for size in sizes])


@lru_cache(maxsize=1024)
def _down_and_up(side: int, size: int) -> torch.Tensor:
    """(side, side): torchvision's bilinear `resize`, antialiased, to `size` pixels and back."""
    if size == side:
        return torch.eye(side)
    every = torch.eye(side)[None, None]  # a column is what becomes of one pixel
    small = F.interpolate(every, size=(size, side), mode="bilinear", antialias=True)
    return F.interpolate(small, size=(side, side), mode="bilinear", antialias=True)[0, 0]
