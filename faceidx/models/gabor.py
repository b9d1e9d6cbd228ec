"""Gabor energies: how much of each orientation and fineness there is around each place of a face.

A classic description of faces (Wiskott et al. 1997, "Face Recognition by Elastic Bunch Graph
Matching", IEEE TPAMI 19(7)) that needs no training, and hardly feels the light.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

ORIENTATIONS = 8
# Wavelengths in pixels; they return in each octave of an image pyramid.
_WAVELENGTHS = (4.0, 4.0 * math.sqrt(2))
# Cells a side in which the energies of each octave are averaged, finest octave first.
CELLS = (14, 14, 10, 7)
# Standard deviation of the envelope, in wavelengths: a bandwidth of one octave.
_ENVELOPE = 0.56
_CUT = 2.0  # where the envelope ends, in its standard deviations
# Energies below this (of a pixel range of 1) are noise, not contrast to be raised.
_FLOOR = 0.005


class GaborEnergies(nn.Module):
    """(N, 1, size, size) grey pictures in 0..1 to (N, 16, cells, half the cells) an octave.

    Energies are divided by those of all orientations and wavelengths nearby, so that neither light
    nor contrast counts, and the square root is taken (as of histograms). A face is all but
    symmetric: both halves are averaged, the right one mirrored, so that a mirrored picture is
    described all but alike.
    """

    mirrored: torch.Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        for number, wavelength in enumerate(_WAVELENGTHS):
            self.register_buffer(f"filters{number}", _filters(wavelength), persistent=False)
        for octave, cells in enumerate(CELLS):
            side = size // 2 ** max(1, octave)
            self.register_buffer(f"means{octave}", _cell_means(side, cells), persistent=False)
        # Mirrored, orientation o becomes that of -o.
        mirrored = [(ORIENTATIONS - o) % ORIENTATIONS for o in range(ORIENTATIONS)]
        both = [o + ORIENTATIONS * k for k in range(len(_WAVELENGTHS)) for o in mirrored]
        self.register_buffer("mirrored", torch.tensor(both), persistent=False)

    def forward(self, grey: torch.Tensor) -> list[torch.Tensor]:
        maps = []
        for octave, cells in enumerate(CELLS):
            energies = torch.cat([self._energies(grey, k, octave) for k in range(2)], dim=1)
            means: torch.Tensor = getattr(self, f"means{octave}")
            pooled = means @ energies @ means.T
            around = F.avg_pool2d(
                pooled.square().sum(1, keepdim=True), 3, 1, 1, count_include_pad=False
            )
            relative = (pooled / (around.sqrt() + _FLOOR)).sqrt()
            folded = (relative + relative.flip(3)[:, self.mirrored]) / 2
            maps.append(folded[..., : (cells + 1) // 2])
            grey = F.avg_pool2d(grey, 2)
        return maps

    def _energies(self, grey: torch.Tensor, number: int, octave: int) -> torch.Tensor:
        filters: torch.Tensor = getattr(self, f"filters{number}")
        margin = filters.shape[-1] // 2
        padded = F.pad(grey, [margin] * 4, mode="replicate")
        # The finest energies are smooth enough that every other place will do.
        waves = F.conv2d(padded, filters, stride=2 if octave == 0 else 1)
        even, odd = waves.chunk(2, dim=1)
        return (even.square() + odd.square()).sqrt()


def _cell_means(side: int, cells: int) -> torch.Tensor:
    """(cells, side): the means of `adaptive_avg_pool2d` as a matrix, which ONNX has a word for."""
    means = torch.zeros(cells, side)
    for cell in range(cells):
        first, last = cell * side // cells, -(-(cell + 1) * side // cells)
        means[cell, first:last] = 1 / (last - first)
    return means


def _filters(wavelength: float) -> torch.Tensor:
    """(16, 1, k, k): the even filters of all orientations, then the odd ones."""
    deviation = _ENVELOPE * wavelength
    reach = math.ceil(_CUT * deviation)
    y, x = torch.meshgrid(*[torch.arange(-reach, reach + 1.0)] * 2, indexing="ij")
    envelope = (-(x.square() + y.square()) / (2 * deviation**2)).exp()
    even, odd = [], []
    for number in range(ORIENTATIONS):
        angle = math.pi * number / ORIENTATIONS
        phase = 2 * math.pi * (x * math.cos(angle) + y * math.sin(angle)) / wavelength
        cosine, sine = phase.cos() * envelope, phase.sin() * envelope
        cosine -= envelope * cosine.sum() / envelope.sum()  # blind to the mean
        size = (cosine.square() + sine.square()).sqrt().sum()
        even.append(cosine / size)
        odd.append(sine / size)
    return torch.stack(even + odd)[:, None]
