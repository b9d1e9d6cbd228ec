"""Small pictures for reports, as `data:` addresses that a page carries in itself."""

from __future__ import annotations

import base64
import io
import os
import re
from pathlib import Path

from PIL import Image

from faceidx.images.decode import PictureError, decode
from faceidx.images.keys import is_picture_name, picture_of_face, unescape_key
from faceidx.images.shown import crop_path

SIDE = 160
_FACE_NUMBER = re.compile(r"#\d+$")  # a face of a picture with several: KEY#2


def thumbnail(source: Path | bytes, side: int = SIDE) -> str:
    """Return a picture as the `data:` address of a JPEG whose longer side is at most `side`.

    Raises:
        PictureError: it cannot be read.
    """
    image = Image.fromarray(decode(source, at_least=side))
    image.thumbnail((side, side))
    written = io.BytesIO()
    image.save(written, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode("ascii")


def find_picture(root: Path, key: str) -> Path:
    """Return the file that a key names below a folder; the key may lack the file's suffix.

    The folder may also be one of crops: there the face KEY#2 of `a.jpg` lies in `a#2.jpg`.

    Raises:
        PictureError: there is no such file, or the key would lead out of the folder.
    """
    relative = Path(os.fsdecode(unescape_key(_FACE_NUMBER.sub("", key))))
    if relative.is_absolute() or ".." in relative.parts or "\0" in str(relative):
        raise PictureError("its name leads out of the folder of pictures")
    path = root / relative
    try:
        if path.is_file():
            return path
        if path.parent.is_dir():
            found = [p for p in path.parent.glob("*") if p.stem == path.name]
            pictures = [p for p in found if is_picture_name(p.name)]
            if len(pictures) == 1:
                return pictures[0]
        if face := _FACE_NUMBER.search(key):
            crop = root / crop_path(picture_of_face(key), int(face[0][1:]))
            if crop.is_file():
                return crop
    except OSError as error:  # a name too long for the file system
        raise PictureError(error.strerror or "cannot be read") from None
    raise PictureError("not in the folder of pictures")
