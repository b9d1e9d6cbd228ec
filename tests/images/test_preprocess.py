from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceidx.errors import InputError
from faceidx.images.decode import PictureError, decode
from faceidx.images.preprocess import PRESETS, Preprocessing, far_from_shape, fit, load


def _preprocessing() -> Preprocessing:
    return Preprocessing(
        image_size=(112, 96), color="bgr", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)
    )


def test_preprocessing_survives_json() -> None:
    record = json.loads(json.dumps(_preprocessing().to_dict()))
    assert Preprocessing.from_dict({**record, "more": 1}) == _preprocessing()


@pytest.mark.parametrize(
    "wrong",
    [
        {"image_size": 112},
        {"image_size": [112]},
        {"image_size": [0, 112]},
        {"image_size": [112.0, 112]},
        {"image_size": [True, 112]},
        {"color": "RGB"},
        {"color": None},
        {"mean": [0.5]},
        {"mean": ["a", "b", "c"]},
        {"mean": [float("nan"), 0, 0]},
        {"std": [0.5, 0.5, 0]},
        {"std": None},
    ],
)
def test_a_record_that_makes_no_sense_is_an_error(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError):
        Preprocessing.from_dict({**_preprocessing().to_dict(), **wrong})


def test_a_record_that_lacks_a_value_is_an_error_naming_it() -> None:
    record = _preprocessing().to_dict()
    del record["std"]
    with pytest.raises(InputError, match="std"):
        Preprocessing.from_dict(record)


def test_presets_map_pixel_values_as_their_projects_do() -> None:
    def normalised(name: str, value: float) -> list[float]:
        preset = PRESETS[name]
        return [(value / 255 - m) / s for m, s in zip(preset.mean, preset.std, strict=True)]

    assert normalised("facenet", 200) == pytest.approx([(200 - 127.5) / 128] * 3)
    assert normalised("insightface", 255) == pytest.approx([1.0] * 3)
    assert normalised("adaface", 0) == pytest.approx([-1.0] * 3)
    assert normalised("imagenet", 0) == pytest.approx([-2.1179, -2.0357, -1.8044], abs=1e-4)
    assert {name: preset.color for name, preset in PRESETS.items()} == {
        "imagenet": "rgb",
        "insightface": "rgb",
        "adaface": "bgr",
        "facenet": "rgb",
    }


def test_a_picture_of_the_right_size_is_untouched() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (112, 96, 3), np.uint8)
    assert fit(picture, (112, 96)) is picture


@pytest.mark.parametrize("size", [(112, 112), (112, 96), (1, 1), (7, 300)])
@pytest.mark.parametrize("shape", [(250, 250), (50, 80), (1, 1), (1, 5000), (5000, 1), (113, 112)])
def test_every_picture_fits_every_size(shape: tuple[int, int], size: tuple[int, int]) -> None:
    result = fit(np.full((*shape, 3), 77, np.uint8), size)
    assert result.shape == (*size, 3)
    assert result.dtype == np.uint8
    assert np.all(result == 77)


def test_what_stands_out_is_cut_away_evenly() -> None:
    picture = np.zeros((100, 300, 3), np.uint8)
    picture[:, 100:200] = 255
    assert np.all(fit(picture, (100, 100)) == 255)
    assert np.all(fit(picture.transpose(1, 0, 2), (100, 100)) == 255)


def test_reducing_is_antialiased() -> None:
    checkers = (np.indices((400, 400)).sum(axis=0) % 2 * 255).astype(np.uint8)
    inner = fit(np.stack([checkers] * 3, axis=2), (100, 100))[5:-5, 5:-5]
    assert np.abs(inner.astype(int) - 128).max() <= 4


@pytest.mark.parametrize(
    ("height", "width", "far"),
    [
        (112, 112, False),
        (112, 92, False),
        (160, 160, False),
        (224, 224, False),
        (56, 56, False),
        (250, 250, True),
        (40, 40, True),
        (112, 150, True),
        (3000, 4000, True),
    ],
)
def test_raw_photos_are_told_from_crops(height: int, width: int, far: bool) -> None:
    assert far_from_shape(height, width, (112, 112)) is far
    assert far_from_shape(width, height, (112, 112)) is far


def test_loading_a_large_jpeg_equals_fitting_the_whole_of_it(tmp_path: Path) -> None:
    y, x = np.mgrid[0:1200, 0:1600]
    waves = [np.sin(x / 50) * np.cos(y / 60), np.sin((x + y) / 80), np.cos(x / 90 - y / 40)]
    picture = (127.5 + 120 * np.stack(waves, axis=2)).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.jpg", quality=95)
    whole = fit(decode(tmp_path / "a.jpg"), (112, 112))
    quick = load(tmp_path / "a.jpg", (112, 112))
    assert quick.shape == (112, 112, 3)
    assert np.abs(whole.astype(int) - quick.astype(int)).max() <= 6


def test_loading_passes_the_bound_on_pixels(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (20, 10)).save(file, "PNG")
    (tmp_path / "a.png").write_bytes(file.getvalue())
    with pytest.raises(PictureError, match="oversized: 20 x 10"):
        load(tmp_path / "a.png", (8, 8), max_pixels=199)
    assert load(tmp_path / "a.png", (8, 8), max_pixels=200).shape == (8, 8, 3)


def test_a_wrong_preprocessing_cannot_be_made_by_replacing_a_field() -> None:
    with pytest.raises(InputError, match="std"):
        replace(_preprocessing(), std=(0.5, 0.5, -1.0))


def test_the_real_faces_load(shared_data: Path) -> None:
    face = load(shared_data / "orl/s1/1.pgm", (112, 112))
    assert face.shape == (112, 112, 3)
    assert 50 < face.mean() < 200
