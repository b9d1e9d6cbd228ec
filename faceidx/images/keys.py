"""Keys: how a picture is named in every file we write, and which names are names of pictures."""

from __future__ import annotations

import os
import re

PICTURE_EXTENSIONS = frozenset(
    {"jpg", "jpeg", "jpe", "png", "webp", "bmp", "tif", "tiff", "pgm", "ppm", "pnm", "gif"}
    | {"heic", "heif"}  # pictures by name always; reading them needs the extra heif
)
# Formats that a crop is written in under its picture's own name; others get `.png` behind it.
_WRITTEN = frozenset({"jpg", "jpeg", "jpe", "png", "bmp", "tif", "tiff", "webp"})

_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # what surrogateescape makes of a byte that is not UTF-8
_ESCAPED = re.compile(rb"%([0-9A-Fa-f]{2})")


def escape_key(path_relative: str | bytes | os.PathLike[str]) -> str:
    """Return the key of a path relative to its source, or of a name in a list of pairs.

    Bytes that are not UTF-8 become `%XX` and a literal `%` becomes `%25`; everything else stays,
    control characters included. A leading `./` is dropped, since lists name the same file with and
    without it; nothing else is normalised, so `unescape_key` gives back the very bytes.

    Args:
        path_relative: text is taken as UTF-8, undecodable bytes as surrogates (PEP 383); a path
            object in the encoding of the file system.
    """
    if isinstance(path_relative, str):
        raw = path_relative.encode("utf-8", "surrogateescape")
    else:
        raw = os.fsencode(path_relative)
    while raw.startswith(b"./"):
        raw = raw[2:].lstrip(b"/")
    return escape_bytes(raw)


def escape_bytes(raw: bytes) -> str:
    """Escape as `escape_key` does, keeping a leading `./`."""
    text = raw.replace(b"%", b"%25").decode("utf-8", "surrogateescape")
    return _NOT_UTF8.sub(lambda found: f"%{ord(found[0]) - 0xDC00:02X}", text)


def unescape_key(key: str) -> bytes:
    """Return the bytes of the path that a key stands for.

    A `%` that starts no escape stands for itself (no key of ours holds one).
    """
    if "%" not in key:
        return key.encode("utf-8")
    return _ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), key.encode("utf-8"))


def face_key(picture: str, number: int) -> str:
    """Return the key of one of several faces in a picture: `KEY#1` for the first.

    Args:
        picture: the picture's key as `several_faces_key` gives it.
        number: counted from 1.
    """
    return f"{picture}#{number}"


def several_faces_key(key: str) -> str:
    """Return a picture's key where keys of faces are made of it: a literal `#` becomes `%23`."""
    return key.replace("#", "%23")


def own_key(key: str) -> str:
    """Return the picture's key that `several_faces_key` was given: order is by that."""
    return key.replace("%23", "#")


def picture_of_face(key: str) -> str:
    """Return the key of the picture that a face's key was made of."""
    return key.rpartition("#")[0]


def folder_of(key: str) -> str:
    """The folder that a picture lies in, empty at the root: whom it shows, unless that is said."""
    return key.rpartition("/")[0]


def is_picture_name(name: str) -> bool:
    """Whether the extension is one of a picture, in whatever case."""
    _, dot, extension = name.rpartition(".")
    return bool(dot) and extension.lower() in PICTURE_EXTENSIONS


def is_crop_renamed(name: str) -> bool:
    """Whether a crop gets `.png` behind its picture's name.

    So do those that are named as another's crop would be: `a.pgm` becomes `a.pgm.png`, and beside
    it `a.pgm.png` becomes `a.pgm.png.png`.
    """
    inner, _, extension = name.rpartition(".")
    if extension.lower() not in _WRITTEN or not inner:
        return True
    return extension == "png" and is_picture_name(inner) and is_crop_renamed(inner)


def photo_of_crop(key: str) -> str:
    """Return the key of the photo that a picture is the crop of, if its name is one of a crop's.

    Lists name the photo, `a.heic`, and mean the crop as well, `a.heic.png`.
    """
    photo = key.removesuffix(".png")
    is_crop = is_picture_name(photo) and is_crop_renamed(photo.rpartition("/")[2])
    return photo if is_crop else key
