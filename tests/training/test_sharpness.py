"""Blur and low resolution against torchvision, picture by picture."""

from __future__ import annotations

import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from faceidx.training.sharpness import soften


def _pictures() -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 3, 40, 30), generator=rng).float()


def test_a_blur_is_torchvisions_with_a_sigma_of_its_own_for_each_picture() -> None:
    pictures = torch.rand(3, 3, 40, 40) * 255
    sigma = torch.tensor([0.0, 0.02, 0.05])
    soft = soften(pictures, sigma, torch.ones(3))
    assert torch.allclose(soft[0], pictures[0])
    for picture, changed, pixels in zip(pictures[1:], soft[1:], (0.8, 2.0), strict=True):
        expected = tv.gaussian_blur(picture, [2 * int(3 * pixels) + 1] * 2, [pixels] * 2)
        assert torch.allclose(changed, expected, atol=1e-2)


def test_a_low_resolution_is_torchvisions_resize_down_and_up() -> None:
    pictures = _pictures()
    soft = soften(pictures, torch.zeros(3), torch.tensor([1.0, 0.5, 0.2]))
    assert torch.equal(soft[0], pictures[0])
    for picture, changed, size in zip(pictures[1:], soft[1:], ([20, 15], [8, 6]), strict=True):
        small = tv.resize(picture, size, InterpolationMode.BILINEAR, antialias=True)
        expected = tv.resize(small, [40, 30], InterpolationMode.BILINEAR, antialias=True)
        assert torch.allclose(changed, expected, atol=1e-2)


def test_softening_keeps_the_range_and_what_is_even() -> None:
    soft = soften(_pictures(), torch.full((3,), 0.04), torch.full((3,), 0.3))
    assert float(soft.min()) >= 0 and float(soft.max()) <= 255
    even = torch.full((2, 3, 16, 16), 77.0)
    assert torch.allclose(soften(even, torch.full((2,), 0.1), torch.full((2,), 0.3)), even)
