"""Training on a GPU: every precision and option that has a path of its own there, and going on."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from faceidx.models.descriptor import Descriptor
from faceidx.progress import Progress
from faceidx.training.discriminant import fit_descriptor
from faceidx.training.loop import train
from faceidx.training.options import TrainOptions
from tests.training.conftest import metrics, paint_people, quick


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint_people(tmp_path_factory.mktemp("gpu") / "people", 12, 10)


def _options(people: Path, out: Path, **more: object) -> TrainOptions:
    return quick(people, out, device="cuda", **more)


@pytest.mark.parametrize(
    "more",
    [
        {"precision": "bf16", "augment": "strong", "ema": 0.9},
        {"precision": "fp16", "loss": "arcface", "head_shards": "on", "sample_rate": 0.5},
        {"precision": "bf16", "sync_bn": "on", "loss": "sphereface", "augment": "randaugment"},
        {"precision": "bf16", "aux": ("center", "angle"), "aux_start": "1", "accumulate": 2},
        {"precision": "bf16", "arch": "iresnet18", "compile": "on"},
        {"precision": "bf16", "arch": "hybrid", "embedding_dim": 30, "loss": "cosface"},
        {"precision": "auto", "arch": "hybrid_wide", "embedding_dim": 30, "loss": "cosface"},
    ],
    ids=lambda more: "-".join(map(str, more.values())),
)
def test_it_learns(people: Path, tmp_path: Path, more: dict[str, object]) -> None:
    train(_options(people, tmp_path / "run", **{"epochs": 4, **more}))
    lines = metrics(tmp_path / "run")
    losses = [line["loss"] for line in lines]
    assert len(losses) == 4 and all(map(math.isfinite, losses))
    assert losses[-1] < losses[0]


def test_an_interrupted_run_goes_on_where_it_was(people: Path, tmp_path: Path) -> None:
    whole = _options(people, tmp_path / "whole", precision="fp32", save_steps=2)
    train(whole)
    parts = replace(whole, out=tmp_path / "parts")
    with pytest.raises(_InterruptedError):
        train(parts, _interrupt_in_the_second_epoch)
    assert len(metrics(parts.out)) == 1
    train(parts)
    expected, found = metrics(whole.out), metrics(parts.out)
    assert [line["epoch"] for line in found] == [line["epoch"] for line in expected]
    assert found[-1]["loss"] == pytest.approx(expected[-1]["loss"], rel=0.05)


class _InterruptedError(Exception):
    pass


def _interrupt_in_the_second_epoch(progress: Progress) -> None:
    if progress.stage == "train" and progress.total and progress.done > 0.5 * progress.total:
        raise _InterruptedError


def test_the_closed_form_is_what_it_is_on_the_cpu() -> None:
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(8).repeat(6)
    people = torch.rand(8, 3, 112, 112, generator=rng)
    faces = people[labels] + 0.3 * torch.rand(48, 3, 112, 112, generator=rng)
    rows = []
    for device in ("cpu", "cuda"):
        descriptor = Descriptor(16).to(device)
        fit_descriptor(descriptor, [(faces.to(device), labels.to(device))])
        rows.append(descriptor(faces.to(device)).cpu())
    here, there = (part @ part.T for part in rows)  # directions may be mirrored, angles not
    np.testing.assert_allclose(here.numpy(), there.numpy(), atol=0.01)
