"""Decoding many JPEGs in one call, on the CPU in place of a GPU: all but where the pixels lie."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceidx.images import card_jpeg
from faceidx.images.card_jpeg import can_decode, decode_on_card
from faceidx.images.decode import decode
from faceidx.images.pictures import Picture
from faceidx.images.prepare import Prepared, WholePicture
from faceidx.images.workers import Workers, survives

torchcodec = pytest.importorskip("torchcodec", reason="torchcodec is not there")


def _jpeg(
    seed: int, size: tuple[int, int] = (20, 16), mode: str = "RGB", **options: object
) -> bytes:
    shape = (*size, 3) if mode == "RGB" else size
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", **options)
    return content.getvalue()


def _decoded(pictures: list[bytes | Path], at_least: int = 0) -> list[np.ndarray | None]:
    return decode_on_card(pictures, "cpu", max_pixels=10_000, at_least=at_least)


@pytest.mark.parametrize("sizes", [[(20, 16)] * 5, [(20, 16), (8, 8), (33, 17)]])
def test_pixels_are_those_of_the_usual_decoder(sizes: list[tuple[int, int]]) -> None:
    jpegs: list[bytes | Path] = [_jpeg(seed, size) for seed, size in enumerate(sizes)]
    for pixels, jpeg in zip(_decoded(jpegs), jpegs, strict=True):
        assert pixels is not None
        np.testing.assert_array_equal(pixels, decode(jpeg))


def test_grey_ones_come_out_in_colour() -> None:
    jpeg = _jpeg(0, mode="L")
    (pixels,) = _decoded([jpeg])
    assert pixels is not None
    np.testing.assert_array_equal(pixels, decode(jpeg))


def test_what_is_not_plain_is_left_to_the_usual_decoder(tmp_path: Path) -> None:
    png = io.BytesIO()
    Image.new("RGB", (16, 16)).save(png, "PNG")
    others: list[bytes | Path] = [
        png.getvalue(),
        b"",
        b"no picture",
        tmp_path / "missing.jpg",
        tmp_path,
        _jpeg(1, progressive=True),
        _jpeg(2, (200, 60)),  # more pixels than are let in
    ]
    plain = tmp_path / "plain.jpg"
    plain.write_bytes(_jpeg(3))
    *left, last = _decoded([*others, plain])
    assert left == [None] * len(others)
    assert last is not None
    assert _decoded([plain], at_least=8) == [None]  # it may come out reduced


def test_a_damaged_one_is_left_and_the_others_come_out_as_in_any_company() -> None:
    whole = [_jpeg(seed) for seed in range(4)]
    cut = _jpeg(9)[:-200]
    left, *decoded = _decoded([cut, *whole])
    assert left is None
    for pixels, jpeg in zip(decoded, whole, strict=True):
        assert pixels is not None
        np.testing.assert_array_equal(pixels, decode(jpeg))


def test_whether_a_device_decodes_is_tried(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert can_decode("cpu")
    with caplog.at_level(logging.DEBUG):
        assert not can_decode("cuda:77")
    assert "cuda:77" in caplog.text
    monkeypatch.setattr(card_jpeg.importlib.util, "find_spec", lambda _: None)
    assert not can_decode("cpu")


def test_where_the_gpu_kills_the_decoder_the_cores_decode(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(_jpeg(0, (16, 16)))
    pictures = [Picture("a.jpg", "", tmp_path / "a.jpg")]
    whole = WholePicture(size=(16, 16), card="cuda:77")
    assert not survives(pictures, whole)
    with Workers(1) as workers:
        made = workers.prepare(((0, p) for p in pictures), whole, ahead=2, total=1)
        ((_, _, result),) = made
    assert isinstance(result, Prepared)


def test_workers_give_the_same_whoever_decodes(tmp_path: Path) -> None:
    pictures = []
    for seed in range(40):
        path = tmp_path / f"{seed}.jpg"
        path.write_bytes(_jpeg(seed, (16, 16) if seed % 5 else (24, 18)))
        pictures.append(Picture(path.name, "", path))
    (tmp_path / "0.jpg").write_bytes(b"no picture")
    Image.new("RGB", (16, 16)).save(tmp_path / "1.jpg", "PNG")
    pictures.append(Picture("gone.jpg", "", tmp_path / "gone.jpg"))
    results = []
    for card in ("", "cpu"):
        whole = WholePicture(size=(16, 16), card=card)
        with Workers(2, at_once=16) as workers:
            made = workers.prepare(((0, p) for p in pictures), whole, ahead=64, total=41)
            results.append([result for _, _, result in made])
    for usual, found in zip(*results, strict=True):
        if isinstance(usual, Prepared):
            assert isinstance(found, Prepared)
            np.testing.assert_array_equal(found.crops, usual.crops)
            assert found.far == usual.far
        else:
            assert found == usual
    assert [r for r in results[1] if isinstance(r, str)] == [results[1][0], "no such file"]
