"""Divergence is noticed, undone where an auxiliary loss may be to blame, and told."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from faceidx.errors import InputError, JobError
from faceidx.progress import Progress
from faceidx.training import epoch, guard, loop
from faceidx.training.loop import train
from faceidx.training.state import State
from tests.training.conftest import metrics, quick, same_weights


def _line(head: float = 1.0, norm: float = 20.0, worth: float | None = None) -> dict[str, Any]:
    return {"loss_head": head, "embedding_norm": norm, "val_auc": worth, "val_accuracy": worth}


def _state(*values: float, started: int | None, epoch: int | None = None) -> State:
    history = [_line(worth=value) for value in values]
    return State(history=history, aux_started=started, epoch=epoch or len(history))


@pytest.mark.parametrize(
    ("means", "reason"),
    [
        ({"loss": 1.4, "head": 1.2, "norm": 21.0}, None),
        ({"loss": 9.0, "head": 1.2, "norm": 21.0}, None),  # a weighted sum may be any size
        ({"loss": 3.2, "head": 2.9, "norm": 21.0}, None),
        ({"loss": 3.2, "head": 3.1, "norm": 21.0}, "its loss rose from 1 to 3.1"),
        ({"loss": float("nan"), "head": 1.0, "norm": 20.0}, "its loss is no number any more"),
        ({"loss": float("inf"), "head": 1.0, "norm": 20.0}, "its loss is no number any more"),
        ({"loss": 1.0, "head": 1.0, "norm": 201.0}, "embeddings went from 20 to 201"),
        ({"loss": 1.0, "head": 1.0, "norm": 1.9}, "embeddings went from 20 to 1.9"),
    ],
)
def test_steps_that_diverge_are_told_from_steps_that_do_not(
    means: dict[str, float], reason: str | None
) -> None:
    found = guard.trouble_in_steps(_state(0.8, 0.8, 0.8, started=2), means)
    assert found is None if reason is None else reason in str(found)


def test_without_an_auxiliary_loss_only_a_loss_that_is_no_number_is_trouble() -> None:
    state = _state(0.8, 0.8, started=None)
    assert guard.trouble_in_steps(state, {"loss": 99.0, "head": 99.0, "norm": 0.1}) is None
    assert guard.trouble_in_steps(state, {"loss": float("nan"), "head": 1.0, "norm": 1.0})


def test_a_loss_on_from_the_start_is_held_against_that_of_the_untrained_network() -> None:
    state = State(aux_started=0, first_loss=4.0)
    assert guard.trouble_in_steps(state, {"loss": 20.0, "head": 8.9, "norm": 3.0}) is None
    assert guard.trouble_in_steps(state, {"loss": 20.0, "head": 9.1, "norm": 3.0})


@pytest.mark.parametrize(
    ("since", "in_trouble"),
    [
        ((0.60, 0.60), True),
        ((0.60,), False),  # one epoch may be chance
        ((0.60, 0.79), False),
        ((0.79, 0.60), False),
        ((0.79, 0.60, 0.60), True),
        ((0.78, 0.78), False),  # within what the curve jumps
        ((0.85, 0.86), False),
    ],
)
def test_validation_has_to_fall_clearly_and_for_some_epochs(
    since: tuple[float, ...], in_trouble: bool
) -> None:
    state = _state(0.70, 0.78, 0.80, 0.79, 0.80, *since, started=5)
    assert (guard.trouble_after_epoch(state, "val") is not None) == in_trouble


def test_a_curve_that_jumps_has_to_fall_further() -> None:
    calm = _state(0.79, 0.80, 0.79, 0.80, 0.70, 0.70, started=4)
    jumpy = _state(0.70, 0.80, 0.70, 0.80, 0.70, 0.70, started=4)
    assert guard.trouble_after_epoch(calm, "val")
    assert not guard.trouble_after_epoch(jumpy, "val")


def test_without_validation_nothing_falls() -> None:
    state = State(history=[_line(), _line(), _line()], aux_started=1, epoch=3)
    assert guard.trouble_after_epoch(state, "val") is None
    assert guard.is_to_go_back_to(state, "val")


def test_a_weight_that_is_too_large_is_halved_until_it_is_not_and_all_is_told(
    people: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    with caplog.at_level(logging.WARNING):
        result = train(quick(people, run, aux=("center",), aux_weight=1e4, aux_start="2"))
    told = [r.getMessage() for r in caplog.records if r.name == guard.__name__]
    assert len(told) == guard.HALVINGS + 1
    assert "its loss is no number any more" in told[0] and "0.5 of their weight" in told[0]
    assert "back to the end of epoch 1" in told[0]
    assert "none of them" in told[-1]
    shares = [event["share"] for event in result["aux_rollbacks"]]
    assert shares == [0.5, 0.25, 0.125, 0.0]
    assert result["aux_started"] == 2 and result["aux_share"] == 0.0
    lines = metrics(run)
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert lines[1]["aux_rollbacks"] == result["aux_rollbacks"]
    assert not [line for line in lines if "loss_center" in line]
    assert not (run / "good-state").exists()


def test_a_run_that_went_back_for_good_ends_like_one_without_auxiliary_losses(
    people: Path, tmp_path: Path
) -> None:
    aux = {"aux": ("center",), "aux_weight": 1e4, "aux_start": "2", "ema": 0.9}
    train(quick(people, tmp_path / "back", **aux))
    train(quick(people, tmp_path / "never", ema=0.9))
    assert same_weights(tmp_path / "back/last.safetensors", tmp_path / "never/last.safetensors")


def test_half_the_weight_is_what_the_losses_come_back_with(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trouble = iter([None, "validation fell"])
    monkeypatch.setattr(guard, "trouble_after_epoch", lambda *_: next(trouble, None))
    aux = {"aux": ("center",), "aux_start": "2", "epochs": 4}
    result = train(quick(people, tmp_path / "run", **aux))
    lines = metrics(tmp_path / "run")
    assert [line["aux_share"] for line in lines] == [0, 0.5, 0.5, 0.5]
    assert result["aux_rollbacks"] == [
        {"epoch": 2, "back_to": 1, "reason": "validation fell", "share": 0.5}
    ]
    # Their weight grows anew: less of it counts in the epoch they come back with than later.
    extra = [(line["loss"] - line["loss_head"]) / line["loss_center"] for line in lines[1:]]
    assert extra[0] < 0.75 * extra[1]
    # A difference of losses in float32, some digits of which cancel out.
    assert extra[1] == pytest.approx(0.5 * 0.003, rel=1e-4)


def test_embeddings_that_overflow_in_validation_send_the_run_back(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    validate, calls = loop.validate, iter([False, True])

    def overflow_once(fabric: Any, network: Any, *rest: Any) -> Any:
        if next(calls, False):
            with torch.no_grad():
                next(network.backbone.parameters()).fill_(float("inf"))
        return validate(fabric, network, *rest)

    monkeypatch.setattr(loop, "validate", overflow_once)
    result = train(quick(people, tmp_path / "run", aux=("center",), aux_start="2"))
    (event,) = result["aux_rollbacks"]
    assert event["reason"] == "its embeddings are no numbers any more"


@pytest.mark.parametrize("steps", [1, 500])
def test_a_loss_that_is_no_number_stops_the_run_and_what_is_saved_is_sound(
    steps: int, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn, count = epoch.learn, iter(range(100))

    def spoiled(fabric: Any, network: Any, *rest: Any) -> Any:
        if next(count) == 13:
            with torch.no_grad():
                network.module.head.weight.fill_(float("nan"))
        return learn(fabric, network, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(epoch, "learn", spoiled)
        with pytest.raises(
            JobError, match=r"diverged in epoch 2: its loss is no number.*lower --lr"
        ):
            train(quick(people, tmp_path / "run", save_steps=steps))
    # The next run goes on from the last good state, and ends as if nothing had been.
    train(quick(people, tmp_path / "run", save_steps=steps))
    train(quick(people, tmp_path / "whole"))
    assert same_weights(tmp_path / "run/last.safetensors", tmp_path / "whole/last.safetensors")


def test_a_good_state_that_is_gone_or_damaged_is_named(people: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    good = run / "good-state"

    def stop(p: Progress) -> None:
        if p.done > 72 + 24:  # in the second of four epochs
            raise KeyboardInterrupt

    options = quick(people, run, aux=("center",), aux_weight=1e4, aux_start="2", save_steps=1)
    with pytest.raises(KeyboardInterrupt):
        train(options, stop)
    values = json.loads((good / "state.json").read_text())
    (good / "state.json").write_text(json.dumps(values)[:50])
    with pytest.raises(InputError, match=r"good-state is damaged"):
        train(options)
    shutil.rmtree(good)
    with pytest.raises(JobError, match=r"good-state is gone"):
        train(options)
