"""JPEGs decoded on a GPU, many in one call: torchcodec hands them to nvJPEG.

As all decoders this runs in a process of its own (`worker.py`), so that a picture that kills it
fails alone. Its pixels are not quite libjpeg-turbo's: a file is made by one of them throughout.
"""

from __future__ import annotations

import importlib.util
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from faceidx.images.decode import PictureError, open_bytes
from faceidx.images.plain_jpeg import plain_data

logger = logging.getLogger(__name__)


def is_installed() -> bool:
    """Whether there is a torchcodec here."""
    return importlib.util.find_spec("torchcodec") is not None


def can_decode(device: str) -> bool:
    """Whether a device decodes JPEGs here: it needs torchcodec, and nvJPEG behind it."""
    if not is_installed():
        return False
    jpeg = io.BytesIO()
    Image.new("RGB", (16, 16)).save(jpeg, "JPEG")
    try:
        return decode_on_card([jpeg.getvalue()], device, max_pixels=256)[0] is not None
    except Exception as error:  # whatever loading libraries may bring
        logger.debug("torchcodec does not decode on %s: %s", device, error)
        return False


def decode_on_card(
    pictures: Sequence[Path | bytes], device: str, *, max_pixels: int, at_least: int = 0
) -> list[np.ndarray | None]:
    """Decode plain JPEGs together to (H, W, 3) uint8 RGB each.

    Args:
        device: as torch names it. The CPU will do too.
        max_pixels: as of `decode`.
        at_least: as of `decode`.

    Returns:
        None for whatever is no plain JPEG, would rather be decoded reduced, or is more than nvJPEG
        can make out: `decode` knows what to do with it.

    Raises:
        RuntimeError: the GPU is of no more use to this process.
    """
    decoded: list[np.ndarray | None] = [None] * len(pictures)
    plain = {
        row: data
        for row, picture in enumerate(pictures)
        if (data := _plain(picture, max_pixels, at_least)) is not None
    }
    for row, pixels in zip(plain, _together([*plain.values()], device), strict=True):
        decoded[row] = pixels
    return decoded


def _plain(picture: Path | bytes, max_pixels: int, at_least: int) -> bytes | None:
    try:
        with open_bytes(picture) as file:
            found = plain_data(file, max_pixels, at_least)
    except PictureError:
        return None
    return None if found is None else found.data


def _together(jpegs: list[bytes], device: str) -> list[np.ndarray | None]:
    from torchcodec.decoders import decode_jpeg

    if not jpegs:
        return []
    try:
        pictures: Any = decode_jpeg(jpegs, mode="RGB", device=device)
        return [*_on_host(pictures)]
    except RuntimeError:
        _require_whole(device)
    if len(jpegs) == 1:
        return [None]
    # Which of them it is shows alone. The others come out as they would in any company.
    return [pixels for jpeg in jpegs for pixels in _together([jpeg], device)]


def _on_host(pictures: list[Any]) -> list[np.ndarray]:
    """From (3, H, W) tensors on a device; those of one size, as faces mostly are, in one go."""
    import torch

    if len({picture.shape for picture in pictures}) > 1:
        return [picture.permute(1, 2, 0).contiguous().cpu().numpy() for picture in pictures]
    return [*torch.stack(pictures).permute(0, 2, 3, 1).contiguous().cpu().numpy()]


def _require_whole(device: str) -> None:
    """Raise `RuntimeError` where an error has made a GPU useless to this process."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
