"""Changes of colour against torchvision, picture by picture."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from faceidx.training.colour import drain, relight, saturate, turn_hue


@pytest.fixture
def pictures() -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (5, 3, 12, 10), generator=rng).float()


def test_saturation_is_torchvisions(pictures: torch.Tensor) -> None:
    factors = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0])
    changed = saturate(pictures, factors)
    for picture, ours, factor in zip(pictures, changed, factors.tolist(), strict=True):
        assert torch.allclose(ours, tv.adjust_saturation(picture / 255, factor) * 255, atol=0.1)


def test_hue_is_torchvisions_grey_and_equal_channels_included(pictures: torch.Tensor) -> None:
    pictures[:, :, 0] = 100.0
    pictures[:, 0, 1] = pictures[:, 1, 1]
    turns = torch.tensor([0.0, 0.1, -0.1, 0.5, -0.3])
    changed = turn_hue(pictures, turns)
    for picture, ours, turn in zip(pictures, changed, turns.tolist(), strict=True):
        assert torch.allclose(ours, tv.adjust_hue(picture / 255, turn) * 255, atol=0.05)


def test_chosen_pictures_lose_their_colour(pictures: torch.Tensor) -> None:
    changed = drain(pictures, torch.tensor([True, False, True, False, False]))
    for picture, ours, grey in zip(pictures, changed, (1, 0, 1, 0, 0), strict=True):
        expected = tv.rgb_to_grayscale(picture / 255, 3) * 255 if grey else picture
        assert torch.allclose(ours, expected, atol=0.1)


def test_contrast_turns_around_the_mean_and_brightness_moves_it(pictures: torch.Tensor) -> None:
    dim = pictures / 4 + 90  # far from both ends of the range
    changed = relight(dim, torch.full((5,), 0.5), torch.full((5,), 20.0))
    mean = dim.mean((1, 2, 3), keepdim=True)
    assert torch.allclose(changed, (dim - mean) * 0.5 + mean + 20, atol=1e-3)
