"""Parts of photos: where they lie and what they show, whether or not the photo is reduced."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from faceidx.images.decode import PictureError, decode
from faceidx.images.photo import Photo


def _jpeg(width: int, height: int, orientation: int = 1) -> bytes:
    small = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    pixels = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95, subsampling=0, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("width", "height"), [(1601, 1203), (1600, 1208), (1206, 1602)])
def test_a_reduced_part_shows_what_the_whole_photo_has_there(
    width: int, height: int, orientation: int
) -> None:
    data = _jpeg(width, height, orientation)
    whole, photo = decode(data), Photo(data, overview=200)
    assert photo.size == whole.shape[:2]
    right, low = photo.size[1], photo.size[0]
    for edges in ((0, 0, right, low), (right - 333, low - 301, right, low)):
        part = photo.part(*edges, detail=0.1)
        assert part is not None
        rows, columns = (side * part.factor for side in part.pixels.shape[:2])
        there = whole[part.top : part.top + rows, part.left : part.left + columns]
        assert there.shape[:2] == (rows, columns)  # no part reaches beyond the photo
        averaged = cv2.resize(there, part.pixels.shape[1::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(averaged.astype(int) - part.pixels).mean() < 1
        fine = photo.part(*edges, detail=1)
        assert fine is not None and fine.factor == 1
        np.testing.assert_array_equal(fine.pixels, whole[fine.top :, fine.left :])


def test_a_photo_that_changes_between_two_looks_is_a_failure(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(_jpeg(1600, 1200))
    photo = Photo(file, overview=200)
    file.write_bytes(_jpeg(800, 600))
    with pytest.raises(PictureError, match="changed while it was read"):
        photo.part(0, 0, 100, 100, detail=1)
