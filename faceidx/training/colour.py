"""Changes of colour, each picture by its own measure, a whole batch at once."""

from __future__ import annotations

import torch

from faceidx.images.preprocess import LUMA


def luma(batch: torch.Tensor) -> torch.Tensor:
    """(n, 3, H, W) to the grey of it, (n, 1, H, W)."""
    weights = torch.tensor(LUMA, device=batch.device).view(1, 3, 1, 1)
    return (batch * weights).sum(1, keepdim=True)


def saturate(batch: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Move colours away from grey (factor above 1) or towards it (below), as torchvision does.

    Args:
        batch: (n, 3, H, W) in 0..255.
        factor: (n,); 1 changes nothing, 0 leaves grey.
    """
    grey = luma(batch)
    return (grey + (batch - grey) * _column(factor, batch)).clamp(0, 255)


def turn_hue(batch: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """Turn the hue of the HSV model, keeping saturation and value, as torchvision's `adjust_hue`.

    Args:
        batch: (n, 3, H, W) in 0..255.
        turn: (n,) in whole turns: -0.5..0.5.
    """
    top, bottom = batch.amax(1, keepdim=True), batch.amin(1, keepdim=True)
    spread = top - bottom
    red, green, blue = batch.split(1, dim=1)
    safe = torch.where(spread > 0, spread, torch.ones_like(spread))
    # Sixths of a turn, from red over green and blue.
    sixth = torch.where(
        red == top,
        (green - blue) / safe,
        torch.where(green == top, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    sixth = sixth + 6 * _column(turn, batch)
    # A channel is full within a sixth and a half of its own hue, and gone beyond two sixths and so.
    own = torch.tensor([5.0, 3.0, 1.0], device=batch.device).view(1, 3, 1, 1)
    k = (own + sixth) % 6
    return top - spread * torch.minimum(k, 4 - k).clamp(0, 1)


def relight(batch: torch.Tensor, gain: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """Change contrast around each picture's mean, and brightness.

    Args:
        batch: (n, 3, H, W) in 0..255.
        gain, offset: (n,) factor of the contrast, and what is added to all pixels.
    """
    mean = batch.mean((1, 2, 3), keepdim=True)
    return ((batch - mean) * _column(gain, batch) + mean + _column(offset, batch)).clamp(0, 255)


def drain(batch: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Take the colour of the chosen pictures, (n,) bool, away."""
    return torch.where(_column(chosen, batch), luma(batch), batch)


def _column(values: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
    return values.view(-1, 1, 1, 1).to(batch.device)
