"""Whatever is done to a picture's bytes, decoding gives an array or a reason."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from faceidx.images.decode import PictureError, decode

# The library silences Pillow's warnings; pytest turns them on again.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

_OPTIONS: list[tuple[str, str, dict[str, object]]] = [
    ("JPEG", "RGB", {}),
    ("JPEG", "CMYK", {"progressive": True}),
    ("PNG", "RGBA", {}),
    ("PNG", "P", {"transparency": 3}),
    ("PNG", "I;16", {}),
    ("WEBP", "RGB", {}),
    ("WEBP", "RGBA", {"lossless": True}),
    ("BMP", "RGB", {}),
    ("TIFF", "RGB", {}),
    ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    ("TIFF", "F", {"compression": "tiff_adobe_deflate"}),
    ("PPM", "RGB", {}),
    ("PPM", "I", {}),
    ("GIF", "P", {}),
]


def _examples() -> list[bytes]:
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    examples = []
    for kind, mode, options in _OPTIONS:
        image = Image.fromarray(noise)
        image = image.convert("L").convert(mode) if mode.startswith("I") else image.convert(mode)
        file = io.BytesIO()
        more = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP", "TIFF") else {}
        image.save(file, kind, **options, **more)
        examples.append(file.getvalue())
    return examples


EXAMPLES = _examples()


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


@pytest.mark.parametrize("example", range(len(EXAMPLES)))
def test_the_examples_themselves_decode(example: int) -> None:
    result = _decode_or_reason(EXAMPLES[example])
    assert isinstance(result, np.ndarray)
    assert result.shape[:2] in ((40, 60), (60, 40))


@pytest.mark.parametrize("part", [0.0, 0.05, 0.3, 0.6, 0.9, 0.97])
@pytest.mark.parametrize("example", range(len(EXAMPLES)))
def test_truncated_pictures_are_refused(example: int, part: float) -> None:
    data = EXAMPLES[example]
    result = _decode_or_reason(data[: int(len(data) * part)])
    assert isinstance(result, str)
    if part >= 0.3:  # enough is there to tell
        assert result == "truncated"


@pytest.mark.parametrize("seed", range(420))
def test_damaged_pictures_give_an_array_or_a_reason(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = np.frombuffer(EXAMPLES[seed % len(EXAMPLES)], np.uint8).copy()
    damage = seed // len(EXAMPLES) % 5
    start = int(rng.integers(0, len(data)))
    if damage == 0:  # single bytes, anywhere
        data[rng.integers(0, len(data), 10)] = rng.integers(0, 256, 10)
    elif damage == 1:  # the header, where sizes and offsets stand
        data[rng.integers(2, 64, 4)] = rng.integers(0, 256, 4)
    elif damage == 2:
        data = np.delete(data, slice(start, start + 20))
    elif damage == 3:
        data[start : start + 50] = 255
    else:
        data = np.insert(data, start, rng.integers(0, 256, 30))
    _decode_or_reason(data.tobytes(), max_pixels=1_000_000, at_least=int(rng.integers(0, 2)) * 10)
