from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from faceidx.models.binary_patterns import BinaryPatterns
from faceidx.models.descriptor import Descriptor
from faceidx.models.gabor import ORIENTATIONS, GaborEnergies, _cell_means


def _grey(seed: int = 0, *, smooth: bool = False) -> torch.Tensor:
    pixels = torch.rand(1, 1, 112, 112, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.avg_pool2d(pixels, 5, 1, 2) if smooth else pixels


@pytest.mark.parametrize("orientation", range(ORIENTATIONS))
def test_a_grating_answers_most_in_its_own_orientation(orientation: int) -> None:
    angle = math.pi * orientation / ORIENTATIONS
    y, x = torch.meshgrid(torch.arange(112.0), torch.arange(112.0), indexing="ij")
    x = torch.minimum(x, 111 - x)  # as symmetric as a face
    wave = (2 * math.pi * (x * math.cos(angle) + y * math.sin(angle)) / 4).sin()
    finest = GaborEnergies(112)((wave / 2 + 0.5)[None, None])[0][0]
    assert int(finest.mean((1, 2))[:ORIENTATIONS].argmax()) == orientation


def test_energies_do_not_feel_the_light_or_the_contrast() -> None:
    # Contrasts well above the floor.
    grey = (_grey(smooth=True) - 0.5) * 1.5 + 0.5
    energies = GaborEnergies(112)
    for one, other in zip(energies(grey), energies(grey * 0.5 + 0.4), strict=True):
        torch.testing.assert_close(one, other, atol=0.06, rtol=0.0)


@pytest.mark.parametrize(("side", "cells"), [(56, 14), (28, 10), (14, 7)])
def test_cells_are_those_of_adaptive_pooling(side: int, cells: int) -> None:
    values, means = torch.rand(2, 3, side, side), _cell_means(side, cells)
    expected = torch.nn.functional.adaptive_avg_pool2d(values, cells)
    torch.testing.assert_close(means @ values @ means.T, expected)


def _counted(grey: np.ndarray, radius: int, cells: int) -> np.ndarray:
    """Shares of the uniform patterns, pixel by pixel: (59, cells, cells / 2)."""
    side = len(grey)
    around = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))
    uniform = [
        code
        for code in range(256)
        if sum((code >> k & 1) != (code >> (k + 1) % 8 & 1) for k in range(8)) <= 2
    ]
    counts = np.zeros((59, cells, cells // 2))
    pixels = np.zeros((cells, cells // 2))
    for y in range(side):
        for x in range(side):
            turn = -1 if x >= side / 2 else 1  # the right half is looked at mirrored
            code = 0
            for bit, (dy, dx) in enumerate(around):
                row = min(max(y + radius * dy, 0), side - 1)
                column = min(max(x + radius * dx * turn, 0), side - 1)
                code |= int(grey[row, column] > grey[y, x]) << bit
            cell = y * cells // side, min(x, side - 1 - x) * cells // side
            counts[(uniform.index(code) if code in uniform else 58, *cell)] += 1
            pixels[cell] += 1
    return np.sqrt(counts / pixels)


def test_binary_patterns_are_those_counted_pixel_by_pixel() -> None:
    grey = _grey()
    found = BinaryPatterns((112, 112))(grey)[0][0].numpy()
    np.testing.assert_allclose(found, _counted(grey[0, 0].numpy(), 1, 10), atol=1e-6)


def test_a_mirrored_face_is_described_alike() -> None:
    descriptor = Descriptor(8)
    faces = _grey(smooth=True).expand(1, 3, -1, -1) * 2 - 1
    for one, other in zip(descriptor.maps(faces), descriptor.maps(faces.flip(3)), strict=True):
        scale = one.square().mean().sqrt()
        assert (one - other).square().mean().sqrt() < 0.05 * scale
    patterns = BinaryPatterns((112, 112))
    for one, other in zip(patterns(_grey()), patterns(_grey().flip(3)), strict=True):
        torch.testing.assert_close(one, other)


def test_what_is_described_is_a_unit_vector_that_no_gradient_reaches() -> None:
    descriptor = Descriptor(24)
    rows = descriptor(_grey().expand(2, 3, -1, -1))
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(2))
    assert not any(p.requires_grad for p in descriptor.parameters())
