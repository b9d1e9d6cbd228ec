"""Whatever is done to a picture's bytes, decoding gives an array or a reason."""

from __future__ import annotations

import io
import pickle
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from faceidx.embedding.store import EmbeddingFile
from faceidx.images.decode import PictureError, decode
from tests.conftest import RunCli

# The library silences Pillow's warnings; pytest turns them on again.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

_NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)

# What Pillow writes: a name, its format, the mode and the options.
_WRITTEN: list[tuple[str, str, str, dict[str, Any]]] = [
    ("jpeg", "JPEG", "RGB", {}),
    ("jpeg-progressive-cmyk", "JPEG", "CMYK", {"progressive": True}),
    ("png-alpha", "PNG", "RGBA", {}),
    ("png-palette", "PNG", "P", {"transparency": 3}),
    ("png-16", "PNG", "I;16", {}),
    ("webp", "WEBP", "RGB", {}),
    ("webp-lossless", "WEBP", "RGBA", {"lossless": True}),
    ("bmp", "BMP", "RGB", {}),
    ("tiff", "TIFF", "RGB", {}),
    ("tiff-lzw", "TIFF", "RGB", {"compression": "tiff_lzw"}),
    ("tiff-float", "TIFF", "F", {"compression": "tiff_adobe_deflate"}),
    ("ppm", "PPM", "RGB", {}),
    ("pgm-16", "PPM", "I", {}),
    ("gif", "GIF", "P", {}),
]
_MORE: list[tuple[str, str, str, dict[str, Any]]] = [
    ("jpeg-grey-progressive", "JPEG", "L", {"progressive": True, "restart_marker_rows": 1}),
    ("mpo", "MPO", "RGB", {"save_all": True, "append_images": 2}),
    ("png-1", "PNG", "1", {}),
    ("apng", "PNG", "RGB", {"save_all": True, "append_images": 3}),
    ("webp-animated", "WEBP", "RGB", {"save_all": True, "append_images": 3}),
    ("gif-animated", "GIF", "P", {"save_all": True, "append_images": 3}),
    ("bmp-palette", "BMP", "P", {}),
    ("pbm", "PPM", "1", {}),
    ("tiff-pages", "TIFF", "L", {"save_all": True, "append_images": 3}),
    ("tiff-16", "TIFF", "I;16", {}),
    ("tiff-cmyk", "TIFF", "CMYK", {"compression": "packbits"}),
    ("tiff-group3", "TIFF", "1", {"compression": "group3"}),
    ("tiff-group4", "TIFF", "1", {"compression": "group4"}),
    *((f"tiff-{name}", "TIFF", "RGB", {"compression": name}) for name in ("jpeg", "lzma", "zstd")),
]


def _written(kind: str, mode: str, options: dict[str, Any]) -> bytes:
    image = Image.fromarray(_NOISE)
    image = image.convert("L").convert(mode) if mode.startswith("I") else image.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    options = dict(options)
    if kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        options["exif"] = exif
    if "append_images" in options:
        turned = [image.rotate(90 * n) for n in range(1, options["append_images"])]
        options["append_images"] = turned
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, depth: int, colour: int, interlace: int, data: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(data)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _rows(pixels: np.ndarray) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in pixels)


def _interlaced() -> bytes:
    """Adam7: seven passes of (first row, first column, step down, step right)."""
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2)]
    parts = [_rows(_NOISE[top::down, left::right]) for top, left, down, right in passes]
    return _png(60, 40, 8, 2, 1, b"".join([*parts, _rows(_NOISE[1::2])]))


def _run_length_encoded(width: int, height: int, body: bytes, bits: int = 8) -> bytes:
    """A BMP with a palette, whose pixels are runs."""
    palette = np.random.default_rng(1).bytes(4 << bits)
    start = 14 + 40 + len(palette)
    header = struct.pack("<IHHI", start + len(body), 0, 0, start)
    coding = {8: 1, 4: 2}[bits]
    sizes = (40, width, height, 1, bits, coding, len(body), 0, 0, 1 << bits, 0)
    return b"BM" + header + struct.pack("<IiiHHIIiiII", *sizes) + palette + body


def _runs() -> bytes:
    rows = (b"".join(bytes([6, value]) for value in row[::6, 0]) + b"\0\0" for row in _NOISE)
    return b"".join(rows) + b"\0\1"


def _plain_netpbm(magic: str, pixels: np.ndarray) -> bytes:
    numbers = "\n".join(" ".join(map(str, row.reshape(-1))) for row in pixels)
    top = "" if magic == "P1" else "255\n"
    return f"{magic}\n# made by a test\n60 40\n{top}{numbers}\n".encode()


def _heic() -> dict[str, bytes]:
    try:
        import pillow_heif
    except ImportError:
        return {}
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(_NOISE)).save(file)
    return {"heic": file.getvalue()}


WRITTEN = {name: _written(*rest) for name, *rest in _WRITTEN}
EXAMPLES = {
    **WRITTEN,
    **{name: _written(*rest) for name, *rest in _MORE},
    "png-interlaced": _interlaced(),
    "png-16-alpha": _png(60, 40, 16, 6, 0, _rows(_NOISE.repeat(8, 2)[..., :8])),
    "bmp-rle8": _run_length_encoded(60, 40, _runs()),
    "bmp-rle4": _run_length_encoded(60, 40, _runs(), bits=4),
    "plain-pbm": _plain_netpbm("P1", _NOISE[..., 0] & 1),
    "plain-pgm": _plain_netpbm("P2", _NOISE[..., 0]),
    "plain-ppm": _plain_netpbm("P3", _NOISE),
    **_heic(),
}
DAMAGED = 2000


def damaged(seed: int) -> bytes:
    """An example, the kinds by turns, after something was done to it."""
    rng = np.random.default_rng(seed)
    names = sorted(EXAMPLES)
    data = np.frombuffer(EXAMPLES[names[seed % len(names)]], np.uint8).copy()
    start = int(rng.integers(0, len(data)))
    match seed // len(names) % 8:
        case 0:  # single bytes, anywhere
            data[rng.integers(0, len(data), 10)] = rng.integers(0, 256, 10)
        case 1:  # the header, where sizes and offsets stand
            data[rng.integers(2, 64, 4)] = rng.integers(0, 256, 4)
        case 2:
            data = np.delete(data, slice(start, start + 20))
        case 3:
            data[start : start + 50] = 255
        case 4:
            data = np.insert(data, start, rng.integers(0, 256, 30))
        case 5:  # single bits
            data[rng.integers(0, len(data), 3)] ^= np.uint8(1) << rng.integers(0, 8, 3, np.uint8)
        case 6:  # cut short
            data = data[:start]
        case _:  # one picture within another
            other = EXAMPLES[names[int(rng.integers(0, len(names)))]]
            data = np.concatenate([data[:start], np.frombuffer(other, np.uint8), data[start:]])
    return data.tobytes()


def _decode_or_reason(data: bytes, **options: int) -> np.ndarray | str:
    try:
        result = decode(data, **options)
    except PictureError as error:
        reason = str(error)
        assert reason and reason.isprintable() and len(reason) <= 200
        assert "object at" not in reason
        assert str(pickle.loads(pickle.dumps(error))) == reason  # workers send it home
        return reason
    assert result.ndim == 3 and result.shape[2] == 3 and result.dtype == np.uint8
    return result


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_themselves_decode(example: str) -> None:
    result = _decode_or_reason(EXAMPLES[example])
    assert isinstance(result, np.ndarray)
    assert result.shape[:2] in ((40, 60), (60, 40))


@pytest.mark.parametrize("part", [0.0, 0.05, 0.3, 0.6, 0.9, 0.97])
@pytest.mark.parametrize("example", WRITTEN)
def test_truncated_pictures_are_refused(example: str, part: float) -> None:
    data = EXAMPLES[example]
    result = _decode_or_reason(data[: int(len(data) * part)])
    assert isinstance(result, str)
    if part >= 0.3:  # enough is there to tell
        assert result == "truncated"


@pytest.mark.parametrize("first", range(0, DAMAGED, 100))
def test_damaged_pictures_give_an_array_or_a_reason(first: int) -> None:
    outcomes = set()
    for seed in range(first, first + 100):
        result = _decode_or_reason(damaged(seed), max_pixels=1_000_000, at_least=seed % 2 * 10)
        outcomes.add(type(result))
    assert outcomes == {np.ndarray, str}


def test_of_2000_damaged_pictures_each_is_embedded_or_listed(
    fake_model_file: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    folder, out = tmp_path / "damaged", tmp_path / "out.h5"
    folder.mkdir()
    for seed in range(DAMAGED):
        (folder / f"{seed}.jpg").write_bytes(damaged(seed))
    words = ("embed", folder, "--model", fake_model_file, "--out", out, "--max-pixels", 1_000_000)
    result = run_cli.json(*words)
    assert result["images"] == DAMAGED == result["embedded"] + result["failed"]
    assert min(result["embedded"], result["failed"]) > DAMAGED // 5
    with EmbeddingFile(out) as file:
        listed = [key for key, reason in file.left().failed if reason]
        assert sorted([*file.paths(), *listed]) == sorted(f"{n}.jpg" for n in range(DAMAGED))


# --- small files that are made to take long ----------------------------------------------------


def _many_scans(count: int, where: str) -> bytes:
    """A progressive JPEG with more scans, or something like them where they are none."""
    file = io.BytesIO()
    Image.new("L", (64, 64), 128).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data[data.rindex(b"\xff\xda") : -2]
    if where == "scans":
        return data[:-2] + count * last + data[-2:]
    if where == "behind":
        return data + count * last
    segment = struct.pack(">HH", 0xFFEF, 2 + count * 4) + count * b"\xff\xda\0\4"
    return data[:2] + segment + data[2:]


def _strips(width: int, height: int, rows: int, count: int) -> bytes:
    """A TIFF with so many strips of so many rows, all at one place."""
    start = 8 + 2 + 12 * 9 + 4
    fields = [(256, 1, width), (257, 1, height), (258, 1, 8), (259, 1, 1), (262, 1, 1)]
    fields += [(273, count, start), (277, 1, 1), (278, 1, rows), (279, count, start + 4 * count)]
    directory = b"".join(struct.pack("<HHII", tag, 4, n, value) for tag, n, value in fields)
    places = np.arange(count) % 7 + start + 8 * count
    sizes = np.full(count, width * rows)
    tables = places.astype("<u4").tobytes() + sizes.astype("<u4").tobytes()
    header = b"II*\0" + struct.pack("<IH", 8, 9) + directory + bytes(4)
    return header + tables + bytes(width * rows + 7)


_COMMENTS = b"P2 60 40 255\n" + b"#\n" * 20_000 + b"1 " * 2400


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (_many_scans(5000, "scans"), "damaged: 5006 scans, more than 100"),
        (_run_length_encoded(40_000_000, 2, b"\1\0\0\0" * 2 + b"\0\1"), "oversized: 40000000 x 2"),
        (_COMMENTS, "damaged: more than 10000 comments"),
        (_strips(1, 200_000, 1, 200_000), "damaged: 200000 strips, more than 100000"),
        (_strips(500, 500, 250, 50_000), "damaged: its strips hold it several times over"),
    ],
    ids=["scans", "runs", "comments", "strips", "overlaps"],
)  # fmt: skip
def test_small_files_that_would_take_minutes_are_refused(data: bytes, reason: str) -> None:
    result = _decode_or_reason(data)
    assert isinstance(result, str) and result.startswith(reason)


@pytest.mark.parametrize("where", ["behind", "segment"])
def test_what_only_looks_like_scans_does_no_harm(where: str) -> None:
    found = decode(_many_scans(5000, where))
    np.testing.assert_array_equal(found, np.full((64, 64, 3), 128))


@pytest.mark.parametrize(
    "data",
    [_strips(500, 500, 1, 500), _strips(500, 500, 7, 72), _COMMENTS.replace(b"#\n", b"", 15_000)],
    ids=["rows", "strips", "comments"],
)
def test_many_strips_and_comments_alone_are_no_damage(data: bytes) -> None:
    assert isinstance(_decode_or_reason(data), np.ndarray)
