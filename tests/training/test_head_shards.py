"""Whole runs whose classifier is spread over processes, or sampled."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from safetensors.numpy import load_file

from faceidx.errors import InputError
from faceidx.models.file import read_model
from faceidx.models.open import ModelOptions, open_model
from faceidx.processes import RowRange
from faceidx.progress import ProgressCallback
from faceidx.training import epoch, job, run_folder
from faceidx.training.epoch import train_epoch
from faceidx.training.job import Job, settle_job, spread_head
from faceidx.training.launch import launch, settle_hardware
from faceidx.training.loop import train
from faceidx.training.network import Start, build_network
from faceidx.training.options import Recipe, TrainOptions
from faceidx.training.recipes import settle_recipe
from faceidx.training.run import set_up
from faceidx.training.stop import Stop
from tests.training.conftest import paint_people, quick


def _losses(run: Path) -> list[float]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


# A low rate: at a high one rounding grows to more than the tolerance within a few steps.
# Few steps: each norm of each step is an exchange that waits for the slowest process.
_SLOW: dict[str, Any] = {"lr": 1e-4, "epochs": 1, "batch_size": 23, "arch": "resnet10"}


@pytest.mark.parametrize(
    "more",
    [
        {"accumulate": 3, "clip_norm": 1.0, "label_smoothing": 0.1, "sample_rate": 0.6},
        {"loss": "adaface", "scale": 8.0, "optimizer": "adamw", "lr": 1e-6, "ema": 0.9,
         "aux": ("center",), "aux_start": "1"},
    ],
)  # fmt: skip
def test_two_processes_with_half_the_classes_each_follow_one_with_all(
    more: dict[str, Any], people: Path, tmp_path: Path
) -> None:
    more = {**_SLOW, **more}
    train(quick(people, tmp_path / "one", **more))
    train(quick(people, tmp_path / "two", **more, devices="2", head_shards="on"))
    assert _losses(tmp_path / "two") == pytest.approx(_losses(tmp_path / "one"), abs=1e-5)
    one, two = (load_file(tmp_path / name / "last.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert two["head.weight"].shape == (8, 16)
    np.testing.assert_allclose(two["head.weight"], one["head.weight"], atol=1e-4)


class _StopAfterSomeSteps(Stop):
    """A request to end that comes in the second step."""

    def __init__(self) -> None:
        self._looked = 0

    @property
    def asked(self) -> bool:  # type: ignore[override]
        self._looked += 1
        return self._looked > 1


def _begin(fabric: Fabric, job: Job, progress: ProgressCallback) -> int:
    epoch._REPORT_STEPS = 1
    run = set_up(fabric, job, _StopAfterSomeSteps())
    with pytest.raises(KeyboardInterrupt):
        train_epoch(run, progress)
    return run.state.step


def test_a_state_of_two_processes_is_gone_on_with_by_one_and_by_three(
    people: Path, tmp_path: Path
) -> None:
    more = {**_SLOW, "sample_rate": 0.6, "ema": 0.9}
    train(quick(people, tmp_path / "whole", **more))
    whole = load_file(tmp_path / "whole" / "state" / "tensors.safetensors")
    options = quick(people, tmp_path / "begun", **more, devices="2")
    hardware = settle_hardware(options)
    begun = settle_job(options, hardware, lambda _: None)
    run_folder.prepare_folder(options.out, begun.settings, overwrite=False)
    assert launch(hardware, _begin, begun, lambda _: None) == 2
    for processes in ("1", "3"):
        run = tmp_path / processes
        shutil.copytree(options.out, run)
        train(quick(people, run, **more, devices=processes))
        assert _losses(run) == pytest.approx(_losses(tmp_path / "whole"), abs=1e-5)
        saved = load_file(run / "state" / "tensors.safetensors")
        assert saved.keys() == whole.keys()
        (memory,) = (n for n in saved if n[:9] == "optimizer" and saved[n].shape == (8, 16))
        for name in ("network.head.weight", "average.head.weight", memory):
            np.testing.assert_allclose(saved[name], whole[name], atol=1e-4, err_msg=name)
        model = open_model(ModelOptions(path=run / "model.safetensors", device="cpu"))
        assert model.class_names == [f"person_{i:02d}" for i in range(8)]


def test_continuing_gives_each_process_its_rows_of_the_classifier(
    fake_model_file: Path,
) -> None:
    content = read_model(fake_model_file)
    start = Start(stage="continue", content=content)
    _, recipe = _settings(embedding_dim=8)
    recipe.loss = "softmax"
    for number in range(2):
        rows = RowRange(total=3, processes=2, number=number)
        network = build_network(recipe, start, content.record.preprocessing, 3, rows)
        for name, parameter in network.head.named_parameters():
            assert torch.equal(parameter, content.head[name][rows.first : rows.last])


def _settings(**more: Any) -> tuple[TrainOptions, Recipe]:
    options = quick(Path("d"), Path("o"), loss="arcface", **more)
    return options, settle_recipe(options, pictures=1000, on_gpu=False)[1]


def test_the_average_follows_a_sampled_classifier_too(people: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(quick(people, out, epochs=1, loss="cosface", sample_rate=0.5, ema=0.9))
    state = load_file(out / run_folder.STATE / "tensors.safetensors")
    model = load_file(out / run_folder.LAST)
    assert not np.array_equal(state["network.head.weight"], state["average.head.weight"])
    assert np.array_equal(model["head.weight"], state["average.head.weight"])


def test_auto_spreads_many_classes_over_several_processes_alone() -> None:
    many = job._MANY_CLASSES
    assert spread_head(*_settings(), many, 2)
    assert not spread_head(*_settings(), many - 1, 2)
    assert not spread_head(*_settings(), many, 1)
    assert not spread_head(*_settings(aux=("angle",)), many, 2)
    assert not spread_head(*_settings(head_shards="off"), many, 2)
    assert spread_head(*_settings(head_shards="on"), 10, 1)
    assert spread_head(*_settings(sample_rate=0.5), 10, 1)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"loss": "sphereface", "sample_rate": 0.5}, "--loss sphereface: its classes can neither"),
        ({"aux": ("angle",), "head_shards": "on"}, "--aux angle needs all weights"),
        ({"sample_rate": 0.5, "head_shards": "off", "devices": "2"}, "drop --head-shards off"),
        ({"head_shards": "on", "devices": "7", "batch_size": 7, "val": "0"}, "5 identities for 7"),
        ({"sample_rate": 0.0}, "--sample-rate 0"),
    ],
)
def test_what_cannot_be_spread_is_refused_before_a_file_is_made(
    more: dict[str, Any], message: str, tmp_path: Path
) -> None:
    data = paint_people(tmp_path / "people", 5, 3)
    with pytest.raises(InputError, match=message):
        train(quick(data, tmp_path / "run", **more))
    assert not (tmp_path / "run").exists()
