"""Plain JPEGs come out as Pillow decodes them, and whatever else there is, is left to Pillow."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from PIL import Image

from faceidx.images import plain_jpeg
from faceidx.images.decode import PictureError, decode
from faceidx.images.plain_jpeg import decode_plain


def _picture(height: int, width: int, seed: int = 0) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def _jpeg(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def _plain(data: bytes, *, at_least: int = 0, max_pixels: int = 10**6) -> np.ndarray | None:
    return decode_plain(io.BytesIO(data), at_least=at_least, max_pixels=max_pixels)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (112, 112), (37, 250), (129, 17)])
@pytest.mark.parametrize(
    "options",
    [{}, {"quality": 20}, {"optimize": True}, {"restart_marker_rows": 1}, {"comment": b"note"}],
)
def test_pixels_are_those_of_pillow(
    subsampling: int, height: int, width: int, options: dict[str, object]
) -> None:
    data = _jpeg(_picture(height, width), subsampling=subsampling, **options)
    plain = _plain(data)
    assert plain is not None
    np.testing.assert_array_equal(plain, np.array(Image.open(io.BytesIO(data)).convert("RGB")))


def test_grey_gives_three_equal_colours() -> None:
    data = _jpeg(_picture(40, 30).convert("L"))
    plain = _plain(data)
    assert plain is not None
    np.testing.assert_array_equal(plain, np.array(Image.open(io.BytesIO(data)).convert("RGB")))


def test_a_picture_of_many_bytes_is_read_to_its_end() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    data = _jpeg(Image.fromarray(noise), quality=95)
    assert len(data) > 2 * plain_jpeg._HEAD
    np.testing.assert_array_equal(_plain(data), np.array(Image.open(io.BytesIO(data))))


def _with_exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return _jpeg(_picture(20, 30), exif=exif)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(_with_exif(), id="EXIF"),
        pytest.param(_jpeg(_picture(20, 30), progressive=True), id="progressive"),
        pytest.param(_jpeg(_picture(20, 30).convert("CMYK")), id="CMYK"),
        pytest.param(_jpeg(_picture(20, 30), icc_profile=b"profile"), id="profile"),
        pytest.param(_jpeg(_picture(20, 30))[:-40], id="truncated"),
        pytest.param(_jpeg(_picture(20, 30))[:300], id="header cut short"),
        pytest.param(b"\xff\xd8", id="start alone"),
        pytest.param(b"", id="empty"),
        pytest.param(b"P6 1 1 255\n\0\0\0", id="another format"),
    ],
)
def test_what_is_not_plain_is_left_to_pillow(data: bytes) -> None:
    assert _plain(data) is None


def test_scans_one_after_another_are_left_to_pillow() -> None:
    """Each costs a pass over all pixels; the bound on them is where Pillow is called."""
    data = bytearray(_jpeg(_picture(20, 30)))
    scan = data.index(b"\xff\xda")
    assert data[scan + 4] == 3
    data[scan + 4] = 1
    assert _plain(bytes(data)) is None


def test_bounds_are_those_of_decode() -> None:
    data = _jpeg(_picture(100, 120))
    assert _plain(data, max_pixels=100 * 120 - 1) is None
    assert _plain(data, max_pixels=100 * 120) is not None
    assert _plain(data, at_least=50) is None  # could be decoded at half its size
    assert _plain(data, at_least=51) is not None


def test_without_the_library_pillow_does_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    data = _jpeg(_picture(50, 60))
    expected = decode(data)
    monkeypatch.setattr(plain_jpeg, "simplejpeg", None)
    assert _plain(data) is None
    np.testing.assert_array_equal(decode(data), expected)


def _outcome(data: bytes) -> np.ndarray | str:
    try:
        return decode(data)
    except PictureError as error:
        return str(error)


@pytest.mark.parametrize("seed", range(200))
def test_damaged_ones_come_out_as_without_it(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    data = bytearray(_jpeg(_picture(64, 48, seed), subsampling=seed % 3, quality=60))
    for _ in range(chance.choice([1, 1, 3, 30])):
        # Half of the harm is done where the header is.
        data[chance.randrange(chance.choice([700, len(data)]))] ^= 1 << chance.randrange(8)
    if chance.random() < 0.2:
        del data[chance.randrange(len(data)) :]
    result = _outcome(bytes(data))
    monkeypatch.setattr(plain_jpeg, "simplejpeg", None)
    np.testing.assert_array_equal(result, _outcome(bytes(data)))
