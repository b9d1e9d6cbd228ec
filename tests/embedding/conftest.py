"""What tests of embedding share: the model that `embed` opens, and a toy detector."""

from __future__ import annotations

from pathlib import Path

import pytest

from faceidx.embedding import embed as module
from faceidx.images.detect import Detector, open_detector
from tests.conftest import FakeModel
from tests.images.photos import write_toy_detector


@pytest.fixture
def model(fake_model: FakeModel, monkeypatch: pytest.MonkeyPatch) -> FakeModel:
    """The model that `embed` opens."""
    monkeypatch.setattr(module, "open_exact", lambda _: fake_model)
    monkeypatch.setattr(module, "choose_model", lambda *_, **__: fake_model)
    return fake_model


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector that takes red squares for faces."""
    path = tmp_path_factory.mktemp("toy") / "toy.onnx"
    write_toy_detector(path)
    return path


@pytest.fixture(scope="module")
def detector(toy: Path) -> Detector:
    return open_detector(toy)
