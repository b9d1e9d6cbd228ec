"""From a picture's bytes to upright 8-bit RGB, whatever the format and however damaged the file.

Pillow stands behind `decode` and nowhere else; plain JPEGs need less (`plain_jpeg.py`). Colour
profiles are not applied. Of a damaged compressed TIFF, libtiff itself writes a line to stderr
(without the picture's name), which Pillow gives no means to stop.
"""

from __future__ import annotations

import functools
import io
import os
import re
import stat
import struct
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import (  # the plugins enter themselves into Image.OPEN
    BmpImagePlugin,  # noqa: F401
    ExifTags,
    GifImagePlugin,  # noqa: F401
    Image,
    ImageFile,
    ImagePalette,
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    PpmImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    WebPImagePlugin,  # noqa: F401
)

from faceidx.errors import FaceidxError
from faceidx.images.limits import too_slow
from faceidx.images.plain_jpeg import decode_plain

DEFAULT_MAX_PIXELS = 89_478_485
"""Pillow's own bound: a quarter of a gibibyte of RGB."""

# Pillow's names. MPO (JPEG with a second picture inside, as phones write it) is opened as JPEG.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM", "GIF")
DRAFTED = ("JPEG", "MPO")  # may be decoded at a fraction of their size
_READABLE = "JPEG, PNG, WebP, BMP, TIFF, PGM, PPM, GIF, HEIC"
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_LONGEST_REASON = 200
# Twice what DEFAULT_MAX_PIXELS of 16-bit RGB take: more memory than any picture needs.
_LARGEST_PART = 1 << 30

# EXIF orientation -> what makes the picture upright (Exif 2.32, tag 0x0112).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What makes a picture unusable is in our reason; what Pillow merely finds odd in one of a million
# pictures would fill the terminal, once from each worker.
warnings.filterwarnings("ignore", module=r"PIL\.")


class PictureError(FaceidxError):
    """Why a picture cannot be used: one line, without the picture's name."""


def decode(
    data: bytes | Path, *, at_least: int = 0, max_pixels: int = DEFAULT_MAX_PIXELS
) -> np.ndarray:
    """Decode a picture to (H, W, 3) uint8 RGB, upright.

    Transparency is composited over white; EXIF rotation is applied; of several frames the first is
    taken. 16-bit pictures are scaled by 1/257. For 32-bit grey TIFF, white is the smallest of
    1 (floating point only), 255 and 65535 that no pixel exceeds, else the largest pixel.

    Args:
        data: the bytes of the picture, or its file.
        at_least: where not 0, a large JPEG may come out reduced by 2, 4 or 8, which is faster; both
            sides stay at least this long.
        max_pixels: larger pictures are refused, before anything is decoded.

    Raises:
        PictureError: the picture is missing, damaged, truncated, oversized or no picture, or made
            to be decoded for minutes.
    """
    with open_bytes(data) as file:
        pixels = decode_plain(file, max_pixels=max_pixels, at_least=at_least)
        if pixels is not None:
            return pixels
        with _header_read(file, max_pixels) as image:
            if at_least and image.format in DRAFTED:
                image.draft(None, (at_least, at_least))
            image.load()
            return np.array(upright_rgb(image))


# --- opening -----------------------------------------------------------------------------------


def read_part(file: Path, offset: int, size: int) -> bytes:
    """Read the bytes of a picture that lies in a larger file, such as a tar shard.

    Raises:
        PictureError: the file is missing, or ends before the picture does.
    """
    if size > _LARGEST_PART:
        raise PictureError(f"oversized: {size} bytes")
    with open_bytes(file) as opened:
        try:
            opened.seek(offset)
            data = opened.read(size)
        except OSError as error:
            raise PictureError(_one_line(f"cannot be read: {_words(error)}")) from None
    if len(data) < size:
        raise PictureError("truncated")
    return data


@contextmanager
def open_bytes(data: bytes | Path) -> Iterator[IO[bytes]]:
    """A picture's bytes, to be read.

    Raises:
        PictureError: its file is missing, is none, or cannot be opened.
    """
    if isinstance(data, bytes):
        yield io.BytesIO(data)
        return
    try:
        # Opening a device can have effects and opening a pipe can wait for ever.
        if not stat.S_ISREG(data.stat().st_mode):
            raise PictureError("not a file")
        file = os.fdopen(os.open(data, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except (FileNotFoundError, NotADirectoryError):
        raise PictureError("no such file") from None
    except PermissionError:
        raise PictureError("permission denied") from None
    except (OSError, ValueError) as error:
        raise PictureError(_one_line(f"cannot be opened: {_words(error)}")) from None
    with file:
        yield file


@contextmanager
def _reasons() -> Iterator[None]:
    """Turn whatever Pillow raises into a `PictureError`."""
    try:
        yield
    except PictureError:
        raise
    except Image.DecompressionBombError as error:
        # Some of Pillow's formats check against a bound of their own and keep the sides to
        # themselves.
        pixels = re.search(r"\d+", str(error))
        raise PictureError(f"oversized: {pixels[0] if pixels else 'too many'} pixels") from None
    except MemoryError:
        raise PictureError("out of memory while decoding") from None
    except Exception as error:  # on damaged data Pillow raises nearly anything
        reason = "truncated" if _is_truncation(error) else f"damaged: {_words(error)}"
        raise PictureError(_one_line(reason)) from None


def _is_truncation(error: Exception) -> bool:
    return isinstance(error, EOFError) or "truncated" in str(error).lower()


def _words(error: Exception) -> str:
    if isinstance(error, (LookupError, TypeError, struct.error)):
        return "its structure makes no sense"  # their own words are about Pillow's code
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _one_line(reason: str) -> str:
    line = "".join(c if c.isprintable() else " " for c in reason)
    return " ".join(line.split())[:_LONGEST_REASON]


@contextmanager
def opened_picture(data: bytes | Path, max_pixels: int) -> Iterator[ImageFile.ImageFile]:
    """A picture whose header was read and tells no reason to refuse it."""
    with open_bytes(data) as file, _header_read(file, max_pixels) as image:
        yield image


@contextmanager
def _header_read(file: IO[bytes], max_pixels: int) -> Iterator[ImageFile.ImageFile]:
    with _reasons():
        image = _identify(file)
        width, height = image.size
        if width * height > max_pixels:
            raise PictureError(
                f"oversized: {width} x {height} pixels, more than {max_pixels} in all"
            )
        if width < 1 or height < 1:
            raise PictureError(f"damaged: {width} x {height} pixels")
        if (reason := too_slow(image, file)) is not None:
            raise PictureError(reason)
        if image.format == "PNG":
            _scale_transparent_colour(image)
        elif image.format == "TIFF":
            _read_as_written(image)
        yield image


def _identify(file: IO[bytes]) -> ImageFile.ImageFile:
    """Read the header, as `Image.open` does but for the bound on pixels.

    `Image.open` checks against a bound of the whole process (which is not ours to change) and then
    does not tell the sides.
    """
    file.seek(0)
    prefix = file.read(16)
    if not prefix:
        raise PictureError("not a picture: the file is empty")
    formats: tuple[str, ...] = _FORMATS
    if prefix[4:8] == b"ftyp" and prefix[8:12] in _HEIF_BRANDS:
        if not _heif_is_installed():
            raise PictureError("needs the extra heif: pip install 'faceidx[heif]'")
        formats = ("HEIF",)
    if _ends_too_early(file, prefix):
        raise PictureError("truncated")
    complaint: Exception | None = None
    for name in formats:
        factory, accept = Image.OPEN[name]
        if accept is not None and accept(prefix) is not True:
            continue
        file.seek(0)
        try:
            return factory(file, "")
        except (SyntaxError, IndexError, TypeError, struct.error) as error:
            complaint = error  # another format may still know it
    if complaint is not None:
        raise complaint
    raise PictureError(f"not a picture: its content is none of {_READABLE}")


def _ends_too_early(file: IO[bytes], prefix: bytes) -> bool:
    """Whether a WebP or TIFF is cut short; Pillow calls such files broken without a reason."""
    if prefix[:4] == b"RIFF":
        needed = 8 + int.from_bytes(prefix[4:8], "little")
    elif prefix[:4] == b"II*\0":  # the directory of a TIFF may stand at its end
        needed = 2 + int.from_bytes(prefix[4:8], "little")
    elif prefix[:4] == b"MM\0*":
        needed = 2 + int.from_bytes(prefix[4:8], "big")
    else:
        return False
    return file.seek(0, os.SEEK_END) < needed


@functools.cache
def _heif_is_installed() -> bool:
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


# --- pixels ------------------------------------------------------------------------------------


def upright_rgb(image: Image.Image) -> Image.Image:
    """A loaded picture as upright 8-bit RGB."""
    return _rgb(_upright(image))


def _upright(image: Image.Image) -> Image.Image:
    method = _UPRIGHT.get(orientation(image))
    return image if method is None else image.transpose(method)


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of a picture; 1 where it is upright as it is."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
        return found if found in _UPRIGHT else 1
    except Exception:  # a picture whose EXIF data alone are damaged is still a picture
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _from_deep_grey(image).convert("RGB")
    if image.has_transparency_data:
        colours = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        white = Image.new("RGBA", colours.size, "white")
        return Image.alpha_composite(white, colours).convert("RGB")
    # `convert` copies what is RGB already.
    return image if image.mode == "RGB" else image.convert("RGB")


# As Pillow calls samples of a PNG that it brings to 8 bits by a factor.
_WIDENED = {"L;2": 85, "L;4": 17}


def _scale_transparent_colour(image: ImageFile.ImageFile) -> None:
    """Do with a PNG's transparent colour what Pillow will do with its pixels alone.

    Pixels of 16-bit colours are told apart by their upper halves then, as they are by Pillow.
    """
    colour, samples = image.info.get("transparency"), image.tile[0].args if image.tile else ""
    if isinstance(colour, int) and samples in _WIDENED:
        image.info["transparency"] = colour * _WIDENED[samples]
    elif isinstance(colour, tuple) and samples == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in colour)


# TIFF 6.0, section 8.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _COLOR_MAP = 258, 262, 320


def _read_as_written(image: ImageFile.ImageFile) -> None:
    """Correct what Pillow takes samples of some TIFFs for, which would come out as noise or black.

    It reads uncompressed 16-bit planes as 8-bit ones, and takes what libtiff has brought into the
    machine's order of bytes for that of the file. Some old colour maps count to 255.
    """
    tags = getattr(image, "tag_v2", {})
    deep = 16 in tags.get(_BITS_PER_SAMPLE, ())
    order = "L" if getattr(tags, "prefix", b"II") == b"II" else "B"
    for place, tile in enumerate(image.tile):
        if not isinstance(tile.args, tuple):
            continue
        samples, *rest = tile.args
        if tile.codec_name == "raw" and deep and len(samples) == 1:
            samples = f"{samples};16{order}"
        elif tile.codec_name == "libtiff":
            samples = re.sub(r"(?<=;16|;32)B(?=[SF])", "N", samples)
        image.tile[place] = tile._replace(args=(samples, *rest))
    colours = tags.get(_COLOR_MAP, ())
    if image.mode in ("P", "PA") and max(colours, default=0) < 256:
        image.palette = ImagePalette.raw("RGB;L", bytes(colours))


def _from_deep_grey(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format != "TIFF"):
        # Mode I with PNG and PGM: 16 bits in a wider type.
        wide = values.astype(np.uint32)
        white_value = (1 << min(16, *tags.get(_BITS_PER_SAMPLE, (16,)))) - 1
        grey = ((wide * 255 + white_value // 2) // white_value).clip(max=255).astype(np.uint8)
        transparent = image.info.get("transparency")
        if isinstance(transparent, int):
            grey[wide == transparent] = 255
        return Image.fromarray(255 - grey if _is_white_zero(tags) else grey)
    if image.mode == "I" and not _is_signed(image):
        values = values.view(np.uint32)
    with np.errstate(invalid="ignore"):  # of signalling NaNs, which count as the others do
        numbers = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0).clip(min=0)
    peak = float(numbers.max())
    whites = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
    white = next((white for white in whites if peak <= white), peak)
    grey = np.rint(numbers * (255 / white)).astype(np.uint8)
    return Image.fromarray(255 - grey if _is_white_zero(tags) else grey)


def _is_white_zero(tags: Mapping[int, Any]) -> bool:
    """Whether a TIFF counts from white down to black; Pillow turns those of 8 bits itself."""
    return tags.get(_PHOTOMETRIC) == 0


def _is_signed(image: Image.Image) -> bool:
    sample_format, signed = 339, 2  # TIFF 6.0, section 19
    return signed in getattr(image, "tag_v2", {}).get(sample_format, ())
