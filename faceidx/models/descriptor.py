"""A face described without a network: Gabor energies and binary patterns of its regions, each
region projected to what tells people apart.

The projections are linear discriminants, found in closed form (`training/discriminant.py`): with a
few thousand pictures they tell strangers apart as well as a convolutional network trained on the
same pictures does, and err on other pairs, so that both together beat either.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import nn

from faceidx.images.preprocess import LUMA
from faceidx.models.binary_patterns import BinaryPatterns
from faceidx.models.gabor import CELLS, GaborEnergies

# (top, bottom, left, right) as shares of the folded face, whose right edge is the face's axis.
_REGIONS = (
    (0.0, 1.0, 0.0, 1.0),
    (0.0, 0.5, 0.0, 1.0),
    (0.25, 0.75, 0.0, 1.0),
    (0.5, 1.0, 0.0, 1.0),
    (0.15, 0.5, 0.0, 1.0),
    (0.3, 0.65, 0.0, 1.0),
    (0.0, 1.0, 0.5, 1.0),
)
# Side of the pictures; wavelengths and radii are in its pixels.
SIDE = 112
# Numbers that a region is projected to.
REGION_DIM = 60
LONGEST = 2 * len(_REGIONS) * REGION_DIM
"""The most numbers of a description: those of all regions, of both kinds."""


class Descriptor(nn.Module):
    """(N, 3, 112, 112) pictures in -1..1 to (N, dim) unit vectors, once its projections are fitted.

    The projections are parameters that no gradient reaches.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.energies = GaborEnergies(SIDE)
        self.patterns = BinaryPatterns((SIDE, SIDE))
        with torch.no_grad():
            parts = self.parts(self.maps(torch.zeros(1, 3, SIDE, SIDE)))
            lengths = [part.shape[1] for part in parts]
        self.regions = nn.ModuleList(nn.Linear(length, REGION_DIM) for length in lengths)
        self.merge = nn.Linear(REGION_DIM * len(lengths), dim, bias=False)
        self.requires_grad_(False)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.merge(self.project(self.parts(self.maps(pictures)))))

    def maps(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        """What there is around each place: a list of (N, channels, rows, columns), of all kinds."""
        luma = pictures.new_tensor(LUMA).view(1, 3, 1, 1)
        grey = (pictures * luma).sum(1, keepdim=True) / 2 + 0.5
        return [*self.energies(grey), *self.patterns(grey)]

    def parts(self, maps: list[torch.Tensor]) -> Iterator[torch.Tensor]:
        """The numbers of each kind and region, (N, D_region), cut out of `maps`."""
        first = len(CELLS)
        for kind in (maps[:first], maps[first:]):
            for region in _REGIONS:
                yield _cut(kind, region)

    def project(self, parts: Iterable[torch.Tensor]) -> torch.Tensor:
        """Each part projected and of unit length, side by side: (N, parts * 60)."""
        rows = [F.normalize(region(part)) for region, part in zip(self.regions, parts, strict=True)]
        return torch.cat(rows, dim=1)


def _cut(maps: list[torch.Tensor], region: tuple[float, float, float, float]) -> torch.Tensor:
    """The cells of all maps that a region touches, as (N, numbers)."""
    top, bottom, left, right = region
    cut = []
    for cells in maps:
        height, width = cells.shape[2:]
        rows = slice(_floor(top * height), _ceil(bottom * height))
        columns = slice(_floor(left * width), _ceil(right * width))
        cut.append(cells[:, :, rows, columns].flatten(1))
    return torch.cat(cut, dim=1)


def _floor(value: float) -> int:
    return math.floor(value + 1e-6)


def _ceil(value: float) -> int:
    return math.ceil(value - 1e-6)
