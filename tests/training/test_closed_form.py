"""The hybrid's closed form in a run: fitted once, the same in all processes, kept over stages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from faceidx.models.descriptor import Descriptor
from faceidx.models.file import read_model
from faceidx.training.loop import train
from faceidx.training.network import TrainingNetwork
from tests.training.conftest import paint_people, quick

_HYBRID = {"arch": "hybrid", "image_size": 32, "embedding_dim": 15, "epochs": 1, "ema": 0.9}


@pytest.fixture(scope="module")
def people_and_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("hybrid")
    people = paint_people(folder / "people", 6, 5)
    train(quick(people, folder / "run", **_HYBRID))
    return people, folder / "run"


def _described(run: Path) -> dict[str, torch.Tensor]:
    backbone = read_model(run / "last.safetensors").backbone
    return {n: t for n, t in backbone.items() if n.startswith("descriptor.")}


def test_it_is_fitted_to_the_pictures_and_the_classifier_does_not_look_at_it(
    people_and_run: tuple[Path, Path],
) -> None:
    content = read_model(people_and_run[1] / "model.safetensors")
    merged = content.backbone["descriptor.merge.weight"]
    torch.testing.assert_close(merged @ merged.T, torch.eye(5), atol=1e-4, rtol=0.0)
    assert (content.head["weight"][:, 10:] == 0).all()
    assert (content.head["weight"][:, :10] != 0).any()


def test_two_processes_have_the_same(people_and_run: tuple[Path, Path], tmp_path: Path) -> None:
    people, run = people_and_run
    train(quick(people, tmp_path / "two", devices="2", **_HYBRID))
    for name, weight in _described(tmp_path / "two").items():
        torch.testing.assert_close(weight, _described(run)[name], atol=1e-3, rtol=1e-3)


def test_finetuning_keeps_what_it_was_fitted_to(
    people_and_run: tuple[Path, Path], tmp_path: Path
) -> None:
    others = paint_people(tmp_path / "others", 4, 4, seed=9)
    options = {**_HYBRID, "arch": None, "image_size": None, "embedding_dim": None}
    model = people_and_run[1] / "model.safetensors"
    train(quick(others, tmp_path / "tuned", from_model=model, stage="finetune", **options))
    before, after = _described(people_and_run[1]), _described(tmp_path / "tuned")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_pictures_that_are_judged_are_described_once_and_judged_alike(
    people_and_run: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    people, _ = people_and_run
    options = {**_HYBRID, "epochs": 3, "val": "0.3"}
    calls: list[int] = []
    forward = Descriptor.forward

    def counted(self: Descriptor, pictures: torch.Tensor) -> torch.Tensor:
        calls.append(len(pictures))
        return forward(self, pictures)

    monkeypatch.setattr(Descriptor, "forward", counted)
    train(quick(people, tmp_path / "once", **options))
    once = sum(calls)
    calls.clear()
    monkeypatch.setattr(TrainingNetwork, "fixed_part", lambda *_: None)
    train(quick(people, tmp_path / "anew", **options))
    assert sum(calls) > once > 0
    assert _figures(tmp_path / "once") == _figures(tmp_path / "anew")


def _figures(run: Path) -> list[list[float | None]]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [[line[name] for name in ("loss", "val_accuracy", "val_auc")] for line in lines]
