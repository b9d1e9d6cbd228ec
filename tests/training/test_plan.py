"""The plan that `train --dry-run` prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from faceidx.cli import main
from faceidx.models.registry import create_backbone
from faceidx.training.network import TrainingNetwork
from faceidx.training.plan import make_plan
from tests.training.conftest import quick


def test_the_plan_says_what_the_run_would_do_and_writes_nothing(
    people: Path, tmp_path: Path
) -> None:
    plan = make_plan(quick(people, tmp_path / "run", embedding_dim=64, ema=0.9))
    assert (plan["classes"], plan["images"], plan["held_out_images"]) == (8, 72, 8)
    assert (plan["steps_per_epoch"], plan["steps"]) == (9, 27)
    assert plan["recipe"]["name"] == "laptop" and plan["recipe"]["lr"] == 0.05
    backbone = create_backbone("mobilefacenet", embedding_dim=64, image_size=(32, 32))
    parameters = sum(p.numel() for p in backbone.parameters())
    assert plan["parameters"] == parameters
    assert plan["head_parameters"] == 64 * 8 + 8
    # Weights, gradients, momentum and average alone are four times the weights.
    assert 16 * parameters < plan["memory"] < 16 * parameters + (64 << 20)
    assert plan["seconds"] > 0 and plan["images_per_second"] > 0
    assert list(tmp_path.iterdir()) == []


def test_pictures_that_judge_both_ways_are_held_out_once(people: Path, tmp_path: Path) -> None:
    plan = make_plan(quick(people, tmp_path / "run", val=str(people)))
    assert (plan["images"], plan["held_out_images"]) == (80, 80)


def test_operations_are_counted_two_for_a_multiplication_and_addition(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = make_plan(quick(people, tmp_path / "run"))["flops"]
    embed = TrainingNetwork.embed

    def embed_and_multiply(self: TrainingNetwork, pictures: torch.Tensor) -> torch.Tensor:
        embeddings = embed(self, pictures)
        return embeddings if self.training else embeddings @ embeddings.new_ones(16, 1000)

    monkeypatch.setattr(TrainingNetwork, "embed", embed_and_multiply)
    assert make_plan(quick(people, tmp_path / "run"))["flops"] == plain + 2 * 16 * 1000


def test_several_processes_share_the_steps_of_the_plan(people: Path, tmp_path: Path) -> None:
    plan = make_plan(quick(people, tmp_path / "run", devices="4"))
    assert plan["processes"] == 4 and plan["steps"] == 27


def test_the_command_prints_the_plan_for_people_and_as_json(people: Path, tmp_path: Path) -> None:
    command = ["train", str(people), "--out", str(tmp_path / "run"), "--dry-run"]
    command += ["--arch", "mobilefacenet", "--image-size", "32", "--device", "cpu"]
    told = CliRunner().invoke(main, [*command, "--json"])
    assert told.exit_code == 0
    assert json.loads(told.stdout)["recipe"]["arch"] == "mobilefacenet"
    shown = CliRunner().invoke(main, command)
    assert "mobilefacenet at 32 pixels" in shown.stdout and "lr = 0.1" in shown.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_settings_that_the_command_prints_make_a_recipe_of_the_same_plan(
    people: Path, tmp_path: Path
) -> None:
    command = ["train", str(people), "--out", str(tmp_path / "run"), "--dry-run"]
    command += ["--device", "cpu"]
    given = ["--arch", "mobilefacenet", "--image-size", "32", "--aux", "center", "--epochs", "2"]
    shown = CliRunner().invoke(main, [*command, *given]).stdout
    assert "None" not in shown and "name" not in shown
    own = tmp_path / "mine.toml"
    own.write_text(shown.partition("\n\n")[2])
    plans = [
        json.loads(CliRunner().invoke(main, [*command, *options, "--json"]).stdout)
        for options in (given, ["--recipe", str(own)])
    ]
    of_the_recipe = [{**plan["recipe"], "name": None} for plan in plans]
    assert of_the_recipe[0] == of_the_recipe[1]
    assert plans[0]["steps"] == plans[1]["steps"]
