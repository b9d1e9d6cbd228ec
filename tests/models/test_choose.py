from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from faceidx.models.choose import choose_model
from faceidx.models.face_model import FaceModel
from faceidx.models.open import ModelOptions, model_shape
from tests.conftest import FAKE_SIZE
from tests.models.onnx_graphs import mean_color_graph


def _pictures(count: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (count, *FAKE_SIZE, 3), dtype=np.uint8)


def _choose(path: Path, images: int = 100, **options: Any) -> FaceModel:
    return choose_model(
        ModelOptions(path=path, device="cpu", **options), _pictures(5), images=images, batch_size=4
    )


def test_half_precision_says_how_true_it_is(fake_model_file: Path) -> None:
    fidelity = _choose(fake_model_file, precision="bf16").fidelity
    assert fidelity is not None and fidelity.pictures == 5
    assert 0.99 < fidelity.least <= fidelity.mean < 1
    assert _choose(fake_model_file, precision="fp32").fidelity is None


def test_what_pictures_a_model_wants_is_told_without_running_it(
    fake_model_file: Path, tmp_path: Path
) -> None:
    preprocessing, template = model_shape(ModelOptions(path=fake_model_file))
    assert (preprocessing.image_size, template) == (FAKE_SIZE, "arcface")
    foreign = ModelOptions(path=mean_color_graph(tmp_path / "m.onnx"), preset="adaface")
    preprocessing, template = model_shape(foreign)
    assert (preprocessing.image_size, preprocessing.color, template) == ((112, 112), "bgr", None)
