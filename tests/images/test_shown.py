from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceidx.images.decode import PictureError, decode
from faceidx.images.keys import escape_key
from faceidx.images.shown import Mark, annotated, contact_sheet, crop_path, least_sure, write_crop


@pytest.mark.parametrize(
    ("key", "number", "path"),
    [
        ("anna/1.jpg", None, "anna/1.jpg"),
        ("anna/1.JPG", 2, "anna/1#2.JPG"),
        ("x%231.jpg", 1, "x#1#1.jpg"),
        ("a.b/c.d.pgm", None, "a.b/c.d.pgm.png"),
        ("raw.heic", 1, "raw#1.heic.png"),
        ("7", None, "7.png"),
        ("c.pgm.png", None, "c.pgm.png.png"),
        ("c.pgm.png.png", None, "c.pgm.png.png.png"),
        ("c.jpg.png", None, "c.jpg.png"),
        ("caf%E9/100%25.png", None, "caf\udce9/100%.png"),
    ],
)
def test_a_crop_lies_under_the_name_of_its_picture(key: str, number: int | None, path: str) -> None:
    assert crop_path(key, number) == Path(path)


@pytest.mark.parametrize("key", ["../x.jpg", "a/../../x.jpg", "/etc/x.jpg", "a//x.jpg"])
def test_no_key_leads_out_of_the_folder(key: str) -> None:
    with pytest.raises(PictureError, match="leads out of the folder"):
        crop_path(key)


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.png", "a.bmp", "a.tif", "a.webp"])
def test_a_crop_is_written_as_its_name_says_for_its_owner_only(tmp_path: Path, name: str) -> None:
    pixels = np.zeros((112, 96, 3), np.uint8)
    pixels[20:60, 30:70] = (200, 40, 90)
    write_crop(tmp_path / "who" / name, pixels)
    file = tmp_path / "who" / name
    kind = {"jpg": "JPEG", "tif": "TIFF"}.get(name[2:].lower(), name[2:].upper())
    with Image.open(file) as image:
        assert image.format == kind
    assert abs(decode(file).astype(int) - pixels).mean() <= (0.5 if kind == "JPEG" else 0)
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(list(file.parent.iterdir())) == 1


@pytest.mark.parametrize("name", [f"{'x' * 300}.png", f"{'x' * 300}/a.png"])
def test_a_name_that_is_too_long_is_a_reason(tmp_path: Path, name: str) -> None:
    with pytest.raises(PictureError, match="too long"):
        write_crop(tmp_path / name, np.zeros((16, 16, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_folders_too_deep_to_be_made_are_a_reason() -> None:
    with pytest.raises(PictureError, match="more than 200 folders"):
        crop_path("a/" * 1500 + "b.jpg")


@pytest.mark.parametrize("names", [("a.pgm", "a.pgm.png/b.png"), ("a.pgm.png/b.png", "a.pgm")])
def test_a_folder_named_as_a_crop_is_a_reason(tmp_path: Path, names: tuple[str, str]) -> None:
    crop = np.zeros((16, 16, 3), np.uint8)
    write_crop(tmp_path / crop_path(names[0]), crop)
    with pytest.raises(PictureError, match="a folder has the name"):
        write_crop(tmp_path / crop_path(names[1]), crop)
    assert [*tmp_path.rglob(".*")] == []


def _jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_boxes_are_drawn_at_their_places_also_where_the_photo_is_reduced() -> None:
    photo = np.full((2400, 3200, 3), 128, np.uint8)
    mark = Mark(
        box=np.array([800, 400, 600, 800], np.float32),
        landmarks=np.full((5, 2), np.nan, np.float32),
        text="0.93  <b>\x1b[31mann\u202ea",
    )
    image = np.asarray(annotated(_jpeg(photo), [mark], max_pixels=10**8)).astype(int)
    assert image.shape == (1200, 1600, 3)
    drawn = np.argwhere(abs(image - 128).sum(axis=2) > 60)
    assert abs(drawn[:, 0].min() - 200) <= 2
    assert abs(drawn[:, 1].min() - 400) <= 2
    assert (image[300, 500] == 128).all()


def test_what_is_written_stays_within_the_photo() -> None:
    photo = np.full((100, 120, 3), 128, np.uint8)
    mark = Mark(
        box=np.array([100, 80, 40, 40], np.float32), landmarks=np.zeros((5, 2)), text="unknown 0.2"
    )
    image = np.asarray(annotated(_jpeg(photo), [mark], max_pixels=10**8))
    assert (image == 0).all(axis=2).sum() > 300


def test_a_sheet_holds_every_face_with_its_line() -> None:
    crops = [np.full((112, 112, 3), 20 + 10 * n, np.uint8) for n in range(7)]
    sheet = contact_sheet((crop, f"0.{n}  anna") for n, crop in enumerate(crops))
    found = {tuple(colour) for _, colour in sheet.getcolors(1 << 20) or []}
    assert {(20 + 10 * n,) * 3 for n in range(7)} <= found
    assert contact_sheet([]).size[0] > 0


def test_a_line_on_a_sheet_stays_below_its_face_and_a_large_sheet_grows_downwards() -> None:
    crop = np.full((112, 112, 3), 128, np.uint8)
    two = np.asarray(contact_sheet([(crop, "0.70  " + "W" * 50), (crop, "")]))
    assert (two[114:, 116:] == 255).all() and (two[114:, :112] < 128).any()
    many = contact_sheet((crop, "") for _ in range(500))
    assert many.size == (20 * 116, 20 * 130)


def test_the_least_sure_faces_come_first() -> None:
    assert list(least_sure(np.array([0.9, 0.7, 0.8, 0.7]))) == [1, 3, 2, 0]
    assert len(list(least_sure(np.zeros(500)))) == 400


def test_keys_with_any_bytes_come_back_as_the_name_of_the_crop() -> None:
    for name in (b"\xff\xfe.png", b"a#b%.png", "ü/é.png".encode()):
        assert crop_path(escape_key(name)).as_posix().encode("utf-8", "surrogateescape") == name
