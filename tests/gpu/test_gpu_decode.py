"""JPEGs decoded on a GPU: nearly the pixels of the usual decoder, damaged ones left to it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from faceidx.images.card_jpeg import can_decode, decode_on_card
from faceidx.images.decode import decode


def _jpeg(seed: int, size: tuple[int, int]) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(3)).save(content, "JPEG", quality=90)
    return content.getvalue()


@pytest.fixture(autouse=True)
def decoder() -> None:
    pytest.importorskip("torchcodec", reason="torchcodec is not there")
    if not can_decode("cuda"):
        pytest.skip("torchcodec has no nvJPEG here")


@pytest.mark.parametrize("sizes", [[(112, 112)] * 64, [(112, 112), (33, 17), (250, 250)]])
def test_pixels_are_nearly_those_of_the_usual_decoder(sizes: list[tuple[int, int]]) -> None:
    jpegs = [_jpeg(seed, size) for seed, size in enumerate(sizes)]
    for pixels, jpeg in zip(decode_on_card(jpegs, "cuda", max_pixels=10**6), jpegs, strict=True):
        assert pixels is not None
        wanted = decode(jpeg)
        assert pixels.shape == wanted.shape
        assert np.abs(pixels.astype(int) - wanted).mean() < 2


def test_a_damaged_one_changes_nothing_about_the_others() -> None:
    whole = [_jpeg(seed, (112, 112)) for seed in range(8)]
    alone = decode_on_card(whole, "cuda", max_pixels=10**6)
    cut, scan = len(whole[0]) // 2, whole[0].index(b"\xff\xda") + 20
    for damaged in (whole[0][:cut], whole[0][:scan] + bytes(99) + whole[0][scan + 99 :]):
        _, *others = decode_on_card([damaged, *whole], "cuda", max_pixels=10**6)
        np.testing.assert_array_equal(np.stack(others), np.stack(alone))  # type: ignore[arg-type]
