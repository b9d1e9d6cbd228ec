"""Every format and mode, by pixels whose colours are known."""

from __future__ import annotations

import io
import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceidx.images import decode as decode_module
from faceidx.images.decode import PictureError, decode

RED, GREEN, BLUE, WHITE, BLACK = (
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (255, 255, 255),
    (0, 0, 0),
)
# The corners of a picture in blocks of 16 pixels, 48 wide and 32 high, so that no turn or flip of
# it looks like another.
_CORNERS = np.array([[RED, GREEN, BLUE], [WHITE, BLACK, (128, 128, 128)]], np.uint8)
BLOCKS = _CORNERS.repeat(16, axis=0).repeat(16, axis=1)


def _encode(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _decode(image: Image.Image, kind: str, **options: object) -> np.ndarray:
    result = decode(_encode(image, kind, **options))
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous and result.flags.writeable
    return result


def _difference(one: np.ndarray, other: np.ndarray) -> int:
    assert one.shape == other.shape
    return int(np.abs(one.astype(int) - other.astype(int)).max())


# --- formats -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("PPM", {}, 0),
        ("GIF", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 95}, 4),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("TIFF", {"compression": "tiff_adobe_deflate"}, 0),
        ("TIFF", {"compression": "jpeg", "quality": 95}, 8),
        ("JPEG", {"quality": 95, "subsampling": 0}, 4),
        ("JPEG", {"quality": 95, "progressive": True}, 4),
    ],
)
def test_every_format_gives_its_colours(
    kind: str, options: dict[str, object], tolerance: int
) -> None:
    result = _decode(Image.fromarray(BLOCKS), kind, **options)
    assert result.shape == BLOCKS.shape
    if tolerance:  # lossy formats blur colours where blocks meet
        assert _difference(result[8::16, 8::16], BLOCKS[8::16, 8::16]) <= tolerance
    else:
        assert _difference(result, BLOCKS) == 0


def test_a_jpeg_that_holds_a_second_picture_gives_the_first() -> None:
    first, second = Image.fromarray(BLOCKS), Image.new("RGB", (48, 32), "black")
    data = _encode(first, "MPO", save_all=True, append_images=[second], quality=95, subsampling=0)
    assert _difference(decode(data), BLOCKS) <= 4
    large = Image.fromarray(BLOCKS).resize((480, 320), Image.Resampling.NEAREST)
    data = _encode(large, "MPO", save_all=True, append_images=[second])
    assert decode(data, at_least=100).shape == (160, 240, 3)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(kind: str) -> None:
    first, second = Image.new("RGB", (8, 4), RED), Image.new("RGB", (8, 4), BLUE)
    options = {"lossless": True} if kind == "WEBP" else {}
    frames = _decode(first, kind, save_all=True, append_images=[second], **options)
    assert _difference(frames, np.full((4, 8, 3), RED, np.uint8)) == 0


@pytest.mark.parametrize(
    "data",
    [
        b"P2 3 1 255 0 128 255",
        b"P5 3 1 255 \x00\x80\xff",
        b"P5 3 1 65535 \x00\x00\x80\x80\xff\xff",
        b"P2 3 1 1000 0 502 1000",
        b"P3 3 1 255 0 0 0 128 128 128 255 255 255",
        b"P6 3 1 65535 " + b"\0\0" * 3 + b"\x80\x80" * 3 + b"\xff\xff" * 3,
    ],
)
def test_netpbm_pictures_of_any_depth_fill_the_range(data: bytes) -> None:
    assert decode(data)[0].tolist() == [[0] * 3, [128] * 3, [255] * 3]


def test_bytes_and_files_decode_alike(tmp_path: Path) -> None:
    data = _encode(Image.fromarray(BLOCKS), "PNG")
    (tmp_path / "named-otherwise.gif").write_bytes(data)
    assert _difference(decode(tmp_path / "named-otherwise.gif"), decode(data)) == 0


# --- modes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "PPM"])
def test_black_and_white_pictures_come_out_as_0_and_255(kind: str) -> None:
    bits = np.array([[0, 255, 0, 255, 255]] * 3, np.uint8)
    result = _decode(Image.fromarray(bits).convert("1"), kind)
    assert _difference(result, np.stack([bits] * 3, axis=2)) == 0


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "PPM", "GIF"])
def test_grey_pictures_have_three_equal_channels(kind: str) -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert _difference(_decode(Image.fromarray(grey), kind), np.stack([grey] * 3, axis=2)) == 0


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "GIF"])
def test_palettes_are_looked_up(kind: str) -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([*RED, *GREEN, *BLUE])
    assert _decode(image, kind)[0].tolist() == [list(RED), list(GREEN), list(BLUE)]


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})]
)
def test_what_is_transparent_shows_white(kind: str, options: dict[str, object]) -> None:
    pixels = np.array([[(255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 51)]], np.uint8)
    result = _decode(Image.fromarray(pixels), kind, **options)
    assert result[0].tolist() == [[255, 0, 0], [255, 255, 255], [204, 204, 204]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_with_transparency_shows_white_too(kind: str) -> None:
    pixels = np.array([[(0, 255), (0, 0), (100, 255)]], np.uint8)
    result = _decode(Image.fromarray(pixels, "LA"), kind)
    assert result[0, :, 0].tolist() == [0, 255, 100]


def test_grey_that_was_multiplied_by_its_alpha_shows_white_too() -> None:
    tags = {258: [8, 8], 262: [1], 277: [2], 338: [1]}
    data = _tiff("<", 3, tags, bytes([0, 255, 0, 0, 51, 51]))
    assert decode(data)[0, :, 0].tolist() == [0, 255, 255]


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_palette_entry_shows_white(kind: str) -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([*RED, *GREEN, *BLUE])
    assert _decode(image, kind, transparency=1)[0].tolist() == [list(RED), list(WHITE), list(BLUE)]


def test_a_palette_with_partial_transparency_is_composited() -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    image.putpalette([*BLACK, *RED])
    result = _decode(image, "PNG", transparency=b"\x33\xff")
    assert result[0].tolist() == [[204, 204, 204], list(RED)]


def test_a_transparent_colour_of_a_png_shows_white() -> None:
    grey = _decode(Image.fromarray(np.array([[7, 8]], np.uint8)), "PNG", transparency=7)
    assert grey[0, :, 0].tolist() == [255, 8]
    image = Image.fromarray(np.array([[RED, BLUE]], np.uint8))
    assert _decode(image, "PNG", transparency=RED)[0].tolist() == [list(WHITE), list(BLUE)]
    deep = _decode(Image.fromarray(np.array([[0, 257]], np.uint16)), "PNG", transparency=0)
    assert deep[0, :, 0].tolist() == [255, 1]


@pytest.mark.parametrize(
    ("depth", "row", "expected"),
    [
        (1, b"\x40", [255, 255]),  # the transparent 0, and white
        (2, b"\x60", [255, 170]),
        (4, b"\x12", [255, 34]),
        (8, b"\x01\x02", [255, 2]),
    ],
)
def test_the_transparent_colour_of_a_grey_png_is_one_of_its_depth(
    depth: int, row: bytes, expected: list[int]
) -> None:
    transparent = struct.pack(">H", 0 if depth == 1 else 1)
    grey = decode(_png(2, 1, depth, 0, b"\0" + row, transparent))
    assert grey[0, :, 0].tolist() == expected


def test_the_transparent_colour_of_a_deep_png_shows_white() -> None:
    transparent = struct.pack(">3H", 0x1234, 0x8000, 0xFEDC)
    row = b"\0" + transparent + struct.pack(">3H", 0x1334, 0x8000, 0xFEDC)
    assert decode(_png(2, 1, 16, 2, row, transparent))[0].tolist() == [list(WHITE), [19, 128, 254]]


@pytest.mark.parametrize(("kind", "tolerance"), [("TIFF", 0), ("JPEG", 6)])
def test_ink_colours_become_light(kind: str, tolerance: int) -> None:
    inks = np.zeros((16, 48, 4), np.uint8)  # none at all: white
    inks[:, 16:32] = (0, 255, 255, 0)  # magenta and yellow: red
    inks[:, 32:] = (0, 0, 0, 255)
    expected = np.array([[WHITE, RED, BLACK]], np.uint8).repeat(16, axis=0).repeat(16, axis=1)
    assert _difference(_decode(Image.fromarray(inks, "CMYK"), kind), expected) <= tolerance


@pytest.mark.parametrize(
    ("kind", "dtype"), [("PNG", "<u2"), ("TIFF", "<u2"), ("TIFF", ">u2"), ("PPM", "i4")]
)
def test_16_bit_grey_is_scaled_and_not_clipped(kind: str, dtype: str) -> None:
    values = np.arange(0, 65536, dtype=np.uint16).reshape(256, 256)
    mode = {"<u2": "I;16", ">u2": "I;16B", "i4": "I"}[dtype]
    image = Image.frombytes(mode, (256, 256), values.astype(dtype).tobytes())
    expected = np.rint(values / 257).astype(np.uint8)
    assert _difference(_decode(image, kind), np.stack([expected] * 3, axis=2)) == 0


def test_16_bit_colour_keeps_its_colours() -> None:
    row = b"\0" + struct.pack(">9H", 65535, 0, 0, 0, 65535, 0, 0x1234, 0x8000, 0xFEDC)
    assert decode(_png(3, 1, 16, 2, row))[0].tolist() == [[255, 0, 0], [0, 255, 0], [18, 128, 254]]


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_tiffs_that_count_down_from_white_are_no_negatives(kind: type) -> None:
    white = {np.uint8: 255, np.uint16: 65535, np.float32: 1}[kind]
    values = (np.linspace(0, 1, 64).reshape(8, 8) * white).astype(kind)
    plain = _encode(Image.fromarray(values), "TIFF")
    tag = struct.pack("<HHIHH", 262, 3, 1, 1, 0)
    assert plain.count(tag) == 1
    turned = plain.replace(tag, struct.pack("<HHIHH", 262, 3, 1, 0, 0))
    found, wanted = decode(turned).astype(int), decode(plain).astype(int)
    assert np.abs(found - (255 - wanted)).max() <= 1


def _tiff(order: str, width: int, tags: dict[int, list[int]], *strips: bytes) -> bytes:
    """A TIFF of one row (TIFF 6.0, section 2); `order` as of `struct`."""
    data, places = bytearray(8), []
    for strip in strips:
        places.append(len(data))
        data += strip + bytes(len(strip) % 2)
    tags = {256: [width], 257: [1], 259: [1], 278: [1], 273: places, **tags}
    tags[279] = [len(strip) for strip in strips]
    fields = b""
    for tag, values in sorted(tags.items()):
        value = struct.pack(f"{order}{len(values)}H", *values)
        if len(value) > 4:
            place = struct.pack(f"{order}I", len(data))
            data, value = data + value, place
        fields += struct.pack(f"{order}HHI", tag, 3, len(values)) + value.ljust(4, b"\0")
    data[:8] = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", 42, len(data))
    return bytes(data) + struct.pack(f"{order}H", len(tags)) + fields + bytes(4)


@pytest.mark.parametrize("order", ["<", ">"])
def test_tiffs_with_planes_of_16_bits_keep_their_colours(order: str) -> None:
    tags = {258: [16] * 3, 262: [2], 277: [3], 284: [2]}
    planes = [
        struct.pack(f"{order}2H", a << 8, b << 8) for a, b in zip(RED, (18, 128, 254), strict=True)
    ]
    assert decode(_tiff(order, 2, tags, *planes))[0].tolist() == [list(RED), [18, 128, 254]]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("kind", "bits", "sample_format"), [("f", 32, 3), ("i", 32, 2), ("h", 16, 2)]
)
def test_compressed_tiffs_are_read_in_either_order_of_bytes(
    order: str, kind: str, bits: int, sample_format: int
) -> None:
    tags = {258: [bits], 259: [8], 262: [1], 277: [1], 339: [sample_format]}
    data = _tiff(order, 3, tags, zlib.compress(struct.pack(f"{order}3{kind}", 0, 100, 255)))
    assert decode(data)[0, :, 0].tolist() == [0, 100, 255]


def test_colour_maps_of_old_tiffs_count_to_255() -> None:
    reds, greens, blues = (
        [*of_all, *[0] * 254] for of_all in zip(RED, (18, 128, 254), strict=True)
    )
    tags = {258: [8], 262: [3], 277: [1], 320: [*reds, *greens, *blues]}
    assert decode(_tiff("<", 2, tags, b"\0\1"))[0].tolist() == [list(RED), [18, 128, 254]]


def test_tiffs_of_12_bits_are_as_bright_as_any() -> None:
    # Two pixels, 0x800 and 0xfff, in three bytes.
    data = _tiff("<", 2, {258: [12], 262: [1], 277: [1]}, bytes.fromhex("800fff"))
    try:
        grey = decode(data)[0, :, 0].tolist()
    except PictureError as error:
        pytest.skip(f"this Pillow reads no such TIFF: {error}")
    assert grey == [128, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 0.5, 1]], np.float32), [0, 128, 255]),
        (np.array([[0, 100.4, 255]], np.float32), [0, 100, 255]),
        (np.array([[0, 257, 65535]], np.float32), [0, 1, 255]),
        (np.array([[-5, 0, 1e6]], np.float32), [0, 0, 255]),
        (np.array([[np.nan, np.inf, 0.2]], np.float32), [0, 0, 51]),
        (np.array([[0, 100, 255]], np.int32), [0, 100, 255]),
        (np.array([[-7, 257, 65535]], np.int32), [0, 1, 255]),
        (np.array([[0, 2**29, 2**30]], np.int32), [0, 128, 255]),
        (np.array([[0, 0, 0]], np.float32), [0, 0, 0]),
    ],
)
def test_32_bit_tiffs_are_brought_into_range(values: np.ndarray, expected: list[int]) -> None:
    assert _decode(Image.fromarray(values), "TIFF")[0, :, 0].tolist() == expected


def test_unsigned_32_bit_tiffs_are_not_taken_for_negative() -> None:
    data = _encode(Image.fromarray(np.array([[0, -1]], np.int32)), "TIFF")
    signed, unsigned = (struct.pack("<HHIH", 339, 3, 1, code) for code in (2, 1))
    assert signed in data
    assert decode(data.replace(signed, unsigned))[0, :, 0].tolist() == [0, 255]


# --- orientation -------------------------------------------------------------------------------

# What a camera stores for an upright picture, by EXIF orientation (Exif 2.32, tag 0x0112).
_STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", _STORED)
@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("JPEG", {"quality": 95, "subsampling": 0}, 4),
        ("PNG", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
    ],
)
def test_turned_pictures_come_out_upright(
    orientation: int, kind: str, options: dict[str, object], tolerance: int
) -> None:
    stored = Image.fromarray(np.ascontiguousarray(_STORED[orientation](BLOCKS)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert _difference(_decode(stored, kind, exif=exif, **options), BLOCKS) <= tolerance


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"]
)
def test_damaged_exif_data_leave_the_picture_as_it_is(exif: bytes) -> None:
    data = _encode(Image.fromarray(BLOCKS), "JPEG", exif=exif, quality=95, subsampling=0)
    assert _difference(decode(data), BLOCKS) <= 4


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert _difference(_decode(Image.fromarray(BLOCKS), "PNG", exif=exif), BLOCKS) == 0


# --- reduced decoding --------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_a_large_jpeg_is_reduced_like_a_full_decode_that_is_averaged(
    orientation: int, options: dict[str, object]
) -> None:
    y, x = np.mgrid[0:400, 0:640]
    waves = [np.sin(x / 17) * np.cos(y / 23), np.sin((x + y) / 31), np.cos(x / 41 - y / 13)]
    picture = (127.5 + 120 * np.stack(waves, axis=2)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = _encode(Image.fromarray(picture), "JPEG", quality=95, exif=exif, **options)
    full = decode(data)
    reduced = decode(data, at_least=100)
    assert reduced.shape == (full.shape[0] // 4, full.shape[1] // 4, 3)
    averaged = np.asarray(Image.fromarray(full).reduce(4))
    assert np.abs(reduced.astype(int) - averaged.astype(int)).mean() < 1.5


@pytest.mark.parametrize("size", [(101, 900), (900, 101), (199, 199), (200, 200), (799, 801)])
def test_a_reduced_jpeg_is_at_least_as_large_as_asked(size: tuple[int, int]) -> None:
    data = _encode(Image.new("RGB", size), "JPEG")
    height, width = decode(data, at_least=100).shape[:2]
    assert min(height, width) >= 100
    assert decode(data, at_least=1000).shape[:2] == size[::-1]


def test_other_formats_are_never_reduced() -> None:
    data = _encode(Image.new("RGB", (640, 400)), "PNG")
    assert decode(data, at_least=10).shape == (400, 640, 3)


# --- refusals ----------------------------------------------------------------------------------


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(
    width: int, height: int, depth: int, color: int, rows: bytes, transparent: bytes | None = None
) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    between = [] if transparent is None else [(b"tRNS", transparent)]
    chunks = [(b"IHDR", header), *between, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _reason(data: bytes | Path, **options: int) -> str:
    with pytest.raises(PictureError) as caught:
        decode(data, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        _png(60000, 60000, 8, 2, b""),
        b"P6 60000 60000 255 ",
        b"GIF89a" + struct.pack("<HHBBB", 60000, 60000, 0, 0, 0) + b",\0\0\0\0`\xea`\xea\0\x08\0;",
        b"BM"
        + struct.pack("<IHHI IiiHHIIiiII", 54, 0, 0, 54, 40, 60000, 60000, *[1, 24, *[0] * 6]),
    ],
    ids=["png", "ppm", "gif", "bmp"],
)
def test_bombs_are_refused_from_their_header(data: bytes) -> None:
    assert _reason(data).startswith("oversized: 60000 x 60000 pixels, more than 89478485")


def test_a_webp_beyond_pillows_own_bound_is_oversized(monkeypatch: pytest.MonkeyPatch) -> None:
    data = _encode(Image.new("RGB", (100, 100)), "WEBP")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert _reason(data) == "oversized: 10000 pixels"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM", "GIF"])
def test_the_bound_on_pixels_can_be_set(kind: str) -> None:
    data = _encode(Image.fromarray(BLOCKS), kind)
    assert _reason(data, max_pixels=1535) == "oversized: 48 x 32 pixels, more than 1535 in all"
    assert decode(data, max_pixels=1536).shape == (32, 48, 3)


def test_a_higher_bound_than_pillows_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # a process-wide bound that is not ours
    assert decode(_encode(Image.fromarray(BLOCKS), "PNG")).shape == (32, 48, 3)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a picture: the file is empty"),
        (b"this is text\n", "not a picture: its content is none of JPEG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        (b"P5 0 0 255 ", "damaged"),
        (_png(1, 1, 8, 2, b"\0\0"), "truncated"),
    ],
)
def test_what_is_no_picture_is_refused_with_a_reason(data: bytes, reason: str) -> None:
    assert _reason(data).startswith(reason)


def test_only_the_listed_formats_are_read() -> None:
    for kind in ("ICO", "TGA", "PCX", "JPEG2000", "EPS"):
        assert "not a picture" in _reason(_encode(Image.fromarray(BLOCKS), kind))


def test_a_file_that_is_not_there_or_no_file_has_its_reason(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "file.jpg").touch()
    (tmp_path / "circle.jpg").symlink_to("circle.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    reasons = {
        name: _reason(tmp_path / name)
        for name in ("gone.jpg", "file.jpg/x.jpg", "folder.jpg", "pipe.jpg", "circle.jpg")
    }
    assert reasons == {
        "gone.jpg": "no such file",
        "file.jpg/x.jpg": "no such file",
        "folder.jpg": "not a file",
        "pipe.jpg": "not a file",
        "circle.jpg": "cannot be opened: Too many levels of symbolic links",
    }
    assert _reason(Path("/dev/zero")) == "not a file"
    assert _reason(tmp_path / ("x" * 300 + ".jpg")) == "cannot be opened: File name too long"
    assert re.fullmatch("cannot be opened: .*embedded null.*", _reason(tmp_path / "nul\0.jpg"))


def test_a_file_that_may_not_be_read_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").touch()

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied", str(tmp_path / "a.jpg"))

    monkeypatch.setattr(os, "open", refuse)
    assert _reason(tmp_path / "a.jpg") == "permission denied"


def test_heic_without_its_extra_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    decode_module._heif_is_installed.cache_clear()
    data = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 100
    assert _reason(data) == "needs the extra heif: pip install 'faceidx[heif]'"
    decode_module._heif_is_installed.cache_clear()


def test_heic_is_read_upright_with_its_extra() -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="the extra heif is not installed")
    turned = Image.fromarray(np.ascontiguousarray(_STORED[6](BLOCKS)))
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    pillow_heif.from_pillow(turned).save(file, quality=95, exif=exif.tobytes(), chroma=444)
    assert _difference(decode(file.getvalue()), BLOCKS) <= 30
    assert _reason(file.getvalue()[:-200])


def test_nothing_is_printed_about_odd_pictures(tmp_path: Path) -> None:
    odd = _encode(Image.fromarray(BLOCKS), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    cut = _encode(Image.fromarray(BLOCKS), "TIFF", compression="tiff_lzw")[:-40]
    (tmp_path / "odd.jpg").write_bytes(odd)
    (tmp_path / "cut.tif").write_bytes(cut)
    code = (
        "import pathlib, sys\n"
        "from faceidx.images.decode import PictureError, decode\n"
        "for path in map(pathlib.Path, sys.argv[1:]):\n"
        "    try:\n"
        "        decode(path)\n"
        "    except PictureError:\n"
        "        pass\n"
    )
    command = [sys.executable, "-c", code, tmp_path / "odd.jpg", tmp_path / "cut.tif"]
    result = subprocess.run(command, capture_output=True, check=True)
    assert (result.stdout, result.stderr) == (b"", b"")
