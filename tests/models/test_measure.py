from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np
import pytest

from faceidx.children import Child
from faceidx.models import measure
from faceidx.models.engines import Way
from faceidx.models.face_model import Compiled
from faceidx.models.measure import Trial, measure_apart, rate_of
from faceidx.models.open import ModelOptions
from faceidx.models.remembered import CLOSED
from tests.conftest import FAKE_SIZE, FakeModel


def _trial(path: Path, way: Way) -> Trial:
    pictures = np.random.default_rng(7).integers(0, 256, (4, *FAKE_SIZE, 3), dtype=np.uint8)
    options = ModelOptions(path=path, device="cpu")
    return Trial(options=options, way=way, device="cpu", batch_size=8, sample=pictures)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_SECONDS", 0.05)


@pytest.mark.parametrize("compiled", [False, "onednn"])
def test_a_process_apart_says_how_fast_a_way_is(fake_model_file: Path, compiled: Compiled) -> None:
    way = Way(engine="torch", precision="bf16", compiled=compiled)
    measured = measure_apart(_trial(fake_model_file, way))
    if compiled and measured == CLOSED:
        pytest.skip("this torch and this processor have no graph of oneDNN for bf16")
    assert measured.rate > 0 and measured.seconds > 0


def test_a_way_that_cannot_be_built_is_closed(fake_model_file: Path) -> None:
    way = Way(engine="torch", precision="int8")
    assert measure_apart(_trial(fake_model_file, way)) == CLOSED


def test_one_that_runs_otherwise_than_it_should_is_closed(fake_model_file: Path) -> None:
    # No part of it is for oneDNN's graph.
    way = Way(engine="onnx", precision="fp32", compiled="onednn")
    assert measure_apart(_trial(fake_model_file, way)) == CLOSED


@pytest.mark.parametrize(
    ("module", "function", "code"),
    [("faulthandler", "_sigsegv", -11), ("os", "_exit", None), ("time", "sleep", None)],
)
def test_one_that_crashes_ends_or_hangs_is_closed(
    module: str,
    function: str,
    code: int | None,
    fake_model_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(measure, "Child", lambda *_: Child(module, function))
    monkeypatch.setattr(measure, "_LONGEST", 1.0)
    with caplog.at_level(logging.DEBUG):
        way = Way(engine="torch", precision="bf16", compiled="onednn")
        assert measure_apart(_trial(fake_model_file, way)) == CLOSED
    (record,) = caplog.records
    assert "torch bf16 as oneDNN's graph" in record.getMessage()
    assert code is None or f"exit code {code}" in record.getMessage()


class _Sleepy(FakeModel):
    def raw_embed(self, pictures: np.ndarray) -> np.ndarray:
        time.sleep(0.01)
        return super().raw_embed(pictures)


def test_a_slow_model_is_measured_once_or_twice() -> None:
    model = _Sleepy()  # no more than 1,600 images/s
    pictures = np.zeros((3, *FAKE_SIZE, 3), np.uint8)
    assert rate_of(model, pictures, enough=1e12) > 0
    assert model.batches == [model.best_batch // 2]
    model.batches.clear()
    rate_of(model, pictures, enough=1700)
    assert len(model.batches) <= 2
    model.batches.clear()
    rate_of(model, pictures)
    assert len(model.batches) > 2
