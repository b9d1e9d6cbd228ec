"""Training compiled: where it is asked for, can be done, and changes nothing but speed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from faceidx.errors import InputError
from faceidx.training.compiling import wants_compiling
from faceidx.training.job import settle_job
from faceidx.training.launch import settle_hardware
from faceidx.training.loop import train
from tests.training.conftest import metrics, quick, same_weights


def test_auto_compiles_on_a_gpu_from_a_million_pictures_on(people: Path, tmp_path: Path) -> None:
    options = quick(people, tmp_path / "run")
    job = settle_job(options, settle_hardware(options), lambda _: None)
    assert not wants_compiling(job, on_gpu=True) and not wants_compiling(job, on_gpu=False)
    job.recipe.epochs = 20_000
    assert wants_compiling(job, on_gpu=True) and not wants_compiling(job, on_gpu=False)
    options.compile = "off"
    assert not wants_compiling(job, on_gpu=True)
    options.compile = "soon"
    with pytest.raises(InputError, match="--compile soon"):
        wants_compiling(job, on_gpu=True)


def test_the_trial_before_training_leaves_nothing_behind(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda function: function)
    for compiled in ("on", "off"):
        train(quick(people, tmp_path / compiled, epochs=1, compile=compiled))
    assert metrics(tmp_path / "on") == metrics(tmp_path / "off")
    assert same_weights(tmp_path / "on/last.safetensors", tmp_path / "off/last.safetensors")


def test_without_a_compiler_one_line_says_so_and_training_goes_on(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: Any) -> Any:
        def run(_: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no C++ compiler\nwas found")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    with caplog.at_level(logging.WARNING):
        train(quick(people, tmp_path / "run", epochs=1, compile="on"))
    (record,) = [r for r in caplog.records if r.name == "faceidx.training.compiling"]
    assert "uncompiled" in record.getMessage() and "\n" not in record.getMessage()
