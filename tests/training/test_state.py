"""The saved state: what it brings back, and what is said of one that is damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning_fabric.plugins import MixedPrecision
from torch import nn

from faceidx.errors import InputError
from faceidx.images.preprocess import Preprocessing
from faceidx.losses.registry import create_auxiliary, create_head
from faceidx.training.network import TrainingNetwork
from faceidx.training.run_folder import prepare_folder
from faceidx.training.state import Kept, State, load_tensors, read_state, save_state


def _kept(seed: int) -> Kept:
    """A network that has made a step, with fp16's scale and a center loss that has moved."""
    torch.manual_seed(seed)
    preprocessing = Preprocessing(image_size=(2, 2), color="rgb", mean=(0, 0, 0), std=(1, 1, 1))
    network = TrainingNetwork(
        nn.Sequential(nn.Flatten(), nn.Linear(12, 4)),
        create_head("sphereface", dim=4, classes=3),
        {name: create_auxiliary(name, dim=4, classes=3) for name in ("center", "angle")},
        preprocessing,
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    pictures, labels = torch.rand(6, 2, 2, 3) * 255, torch.arange(6) % 3
    network(pictures, labels, {"center": 0.1, "angle": 1.0})["loss"].backward()
    optimizer.step()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0 ** (10 + seed))
    scaler.scale(torch.ones(()))  # which makes the scale a tensor
    precision = MixedPrecision("16-mixed", "cpu", scaler)
    return Kept(network=network, optimizer=optimizer, scaler=precision)


def _same(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one)
    return one == other


def test_weights_optimizer_scale_centres_and_annealing_come_back_bit_for_bit(
    tmp_path: Path,
) -> None:
    saved, other = _kept(1), _kept(2)
    state = State(epoch=3, step=7, sums={"loss": 0.1 + 0.2}, aux_started=2, aux_share=0.25)
    save_state(tmp_path / "state", state, saved, {"lr": 0.1})
    found = read_state(tmp_path / "state")
    assert found == (state, {"lr": 0.1})
    assert other.scaler.state_dict() != saved.scaler.state_dict()
    load_tensors(tmp_path / "state", other)
    assert other.scaler.state_dict() == saved.scaler.state_dict()
    weights = saved.network.state_dict()
    assert _same(other.network.state_dict(), weights)
    assert _same(other.optimizer.state_dict()["state"], saved.optimizer.state_dict()["state"])
    assert weights["auxiliaries.center.centers"].any()
    assert weights["head.angle.step"] == weights["auxiliaries.angle.step"] == 1


def _cut(folder: Path) -> None:
    path = folder / "tensors.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def _flip(folder: Path) -> None:
    path = folder / "tensors.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")


def _lose(folder: Path) -> None:
    (folder / "tensors.safetensors").unlink()


def _no_json(folder: Path) -> None:
    (folder / "state.json").write_text("{")


def _another_kind(folder: Path) -> None:
    (folder / "state.json").write_text("[1, 2]")


def _newer(folder: Path) -> None:
    values = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps({**values, "version": 99}))


def _unknown_field(folder: Path) -> None:
    values = json.loads((folder / "state.json").read_text())
    values["state"]["mood"] = "good"
    (folder / "state.json").write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_cut, "not the file that was written"),
        (_flip, "not the file that was written"),
        (_lose, "No such file"),
        (_no_json, "damaged"),
        (_another_kind, "damaged"),
        (_unknown_field, "mood"),
        (_newer, "newer faceidx"),
    ],
)
def test_a_damaged_state_is_named_and_can_be_overwritten(
    damage: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    save_state(run / "state", State(epoch=1), _kept(1), {"lr": 0.1})
    damage(run / "state")
    with pytest.raises(InputError, match=message):
        read_state(run / "state")
    with pytest.raises(InputError, match=rf"{run} cannot go on: .*{message}"):
        prepare_folder(run, {"lr": 0.1}, overwrite=False)
    prepare_folder(run, {"lr": 0.1}, overwrite=True)
    assert list(run.iterdir()) == []


def test_a_state_of_another_network_is_refused(tmp_path: Path) -> None:
    save_state(tmp_path / "state", State(), _kept(1), {})
    other = _kept(1)
    other.network.head = create_head("sphereface", dim=4, classes=5)
    with pytest.raises(InputError, match="does not fit"):
        load_tensors(tmp_path / "state", other)
