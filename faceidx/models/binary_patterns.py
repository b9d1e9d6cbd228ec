"""Local binary patterns: which neighbours of a pixel are brighter than it (Ojala et al. 2002,
IEEE TPAMI 24(7)), counted in cells over a face (Ahonen et al. 2006, IEEE TPAMI 28(12)).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

# Of the eight neighbours, one after another around the pixel: (dy, dx).
_AROUND = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))
# Distances of the neighbours in pixels; the wider ones look at a smoothed picture.
_RADII = (1, 2, 3, 5)
_CELLS = (10, 10, 10, 8)  # a side, for each distance


class BinaryPatterns(nn.Module):
    """(N, 1, H, W) grey pictures to a map of (N, 59, cells, half the cells) a distance.

    Each cell holds the square roots of how often the 58 uniform patterns (at most two changes
    around the circle) and all others together come, as shares. The right half of the face is
    counted mirrored, into the cells of the left half.
    """

    CHANNELS = 59

    bins: torch.Tensor
    turned: torch.Tensor

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self._size = size
        bins, mirrored = _uniform_bins()
        width = size[1]
        right = (torch.arange(width) >= width / 2).expand(size)
        for number, cells in enumerate(_CELLS):
            cell = _folded_cells(size, cells)
            # One look-up gives cell and bin: a table a half of the face.
            self.register_buffer(f"places{number}", cell * self.CHANNELS, persistent=False)
            pixels = torch.zeros(cells * cells // 2).index_add_(
                0, cell.flatten(), torch.ones(cell.numel())
            )
            pixels = pixels.view(cells, cells // 2, 1)
            self.register_buffer(f"pixels{number}", pixels, persistent=False)
        self.register_buffer("bins", torch.cat([bins, mirrored]), persistent=False)
        self.register_buffer("turned", right.long() * len(bins), persistent=False)

    def forward(self, grey: torch.Tensor) -> list[torch.Tensor]:
        return [self._map(grey, number) for number in range(len(_RADII))]

    def _map(self, grey: torch.Tensor, number: int) -> torch.Tensor:
        radius, cells = _RADII[number], _CELLS[number]
        reach = radius // 2
        smooth = F.avg_pool2d(grey, 2 * reach + 1, 1, reach, count_include_pad=False)
        code = self._codes(smooth[:, 0], radius)
        places: torch.Tensor = getattr(self, f"places{number}")
        pixels: torch.Tensor = getattr(self, f"pixels{number}")
        place = (self.bins[code + self.turned] + places).flatten(1)
        counts = grey.new_zeros(grey.shape[0], cells * cells // 2 * self.CHANNELS)
        counts = counts.scatter_add(1, place, torch.ones_like(place, dtype=counts.dtype))
        shares = (counts.unflatten(1, (cells, cells // 2, self.CHANNELS)) / pixels).sqrt()
        return shares.permute(0, 3, 1, 2)

    def _codes(self, grey: torch.Tensor, radius: int) -> torch.Tensor:
        """(N, H, W) to the same in 0..255: bit k says whether neighbour k is brighter."""
        height, width = self._size
        padded = F.pad(grey[:, None], [radius] * 4, mode="replicate")[:, 0]
        code = torch.zeros_like(grey, dtype=torch.int64)
        for bit, (dy, dx) in enumerate(_AROUND):
            top, left = radius + dy * radius, radius + dx * radius
            neighbour = padded[:, top : top + height, left : left + width]
            code += (neighbour > grey).long() << bit
        return code


def _uniform_bins() -> tuple[torch.Tensor, torch.Tensor]:
    """(256,) the bin of each code, and of each code as it would be in a mirrored picture."""
    seen: dict[int, int] = {}
    for code in range(256):
        ring = [code >> k & 1 for k in range(8)]
        if sum(ring[k] != ring[k - 1] for k in range(8)) <= 2:
            seen[code] = len(seen)
    bins = [seen.get(code, len(seen)) for code in range(256)]
    source = [_AROUND.index((dy, -dx)) for dy, dx in _AROUND]
    turned = [sum((code >> source[k] & 1) << k for k in range(8)) for code in range(256)]
    return torch.tensor(bins), torch.tensor([bins[code] for code in turned])


def _folded_cells(size: tuple[int, int], cells: int) -> torch.Tensor:
    """(H, W) number of the cell that each pixel is counted in."""
    height, width = size
    row = torch.arange(height) * cells // height
    column = torch.arange(width)
    folded = torch.minimum(column, width - 1 - column)
    return row[:, None] * (cells // 2) + folded * cells // width
