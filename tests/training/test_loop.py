"""Whole runs on a few painted people."""

from __future__ import annotations

import json
import math
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from faceidx.errors import InputError, JobError
from faceidx.images.preprocess import load
from faceidx.images.sources import open_source
from faceidx.losses.registry import HEADS
from faceidx.models.file import read_model, read_record
from faceidx.models.open import ModelOptions, open_model
from faceidx.progress import Progress
from faceidx.training import epoch, run_folder
from faceidx.training.job import settle_job
from faceidx.training.launch import settle_hardware
from faceidx.training.loop import train
from faceidx.training.recipes import settle_recipe
from tests.models.onnx_graphs import mean_color_graph
from tests.training.conftest import metrics, paint_people, quick, same_weights


@pytest.fixture(scope="module")
def unbroken(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("unbroken") / "run"
    train(quick(people, run))
    return run


def test_a_run_learns_and_leaves_every_promised_file(people: Path, tmp_path: Path) -> None:
    result = train(quick(people, tmp_path / "run", epochs=6, lr=0.1))
    assert result["val_accuracy"] > 0.8
    assert result["classes"] == 8 and result["images"] == 72
    lines = metrics(tmp_path / "run")
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[-1]["loss"] < lines[0]["loss"]
    names = {p.name for p in (tmp_path / "run").iterdir()}
    assert names == {
        "model.safetensors",
        "last.safetensors",
        "state",
        "metrics.jsonl",
        "config.toml",
        "curves.png",
        "left-out.csv",
        "tensorboard",
    }
    record = read_record(tmp_path / "run" / "model.safetensors")
    assert record.class_names == [f"person_{i:02d}" for i in range(8)]
    assert record.training["epoch"] == result["best_epoch"]


def test_the_same_seed_gives_the_same_metrics_and_weights(
    people: Path, unbroken: Path, tmp_path: Path
) -> None:
    train(quick(people, tmp_path / "run"))
    assert metrics(tmp_path / "run") == metrics(unbroken)
    assert same_weights(tmp_path / "run/last.safetensors", unbroken / "last.safetensors")


def test_another_seed_gives_othermetrics(people: Path, unbroken: Path, tmp_path: Path) -> None:
    train(quick(people, tmp_path / "run", seed=4))
    assert metrics(tmp_path / "run") != metrics(unbroken)


def test_an_interrupted_run_goes_on_and_ends_like_an_unbroken_one(
    people: Path, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epoch, "_REPORT_STEPS", 1)
    seen = 0

    def stop_in_the_second_epoch(p: Progress) -> None:
        nonlocal seen
        seen += p.stage == "train"
        if seen == 12:  # nine steps an epoch
            raise KeyboardInterrupt

    options = quick(people, tmp_path / "run", save_steps=1)
    with pytest.raises(KeyboardInterrupt):
        train(options, stop_in_the_second_epoch)
    state = json.loads((tmp_path / "run/state/state.json").read_text())["state"]
    assert (state["epoch"], state["step"]) == (1, 2)
    train(options)
    assert metrics(tmp_path / "run") == metrics(unbroken)
    assert same_weights(tmp_path / "run/last.safetensors", unbroken / "last.safetensors")


@pytest.mark.parametrize("devices", ["1", "2"])
def test_sigterm_saves_the_state_and_leaves(
    devices: str, people: Path, unbroken: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "faceidx", "train", str(people), "--out", str(run)]
    command += ["--arch", "mobilefacenet", "--image-size", "32", "--embedding-dim", "16"]
    command += ["--epochs", "300", "--batch-size", "8", "--lr", "0.05", "--device", "cpu"]
    command += ["--devices", devices, "--precision", "fp32"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (run / "metrics.jsonl").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command again to go on" in errors
    assert "Traceback" not in errors
    state = json.loads((run / "state/state.json").read_text())["state"]
    assert state["epoch"] >= 1 and state["step"] > 0 and not state["finished"]


@pytest.mark.parametrize(
    "more",
    [
        {"ema": 0.9, "clip_norm": 1.0, "accumulate": 3},
        {"optimizer": "adamw", "lr": 1e-3, "sampling": "balanced"},
    ],
)
def test_what_else_a_run_keeps_is_part_of_its_state(
    more: dict[str, object], people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epoch, "_REPORT_STEPS", 1)

    def stop(p: Progress) -> None:
        if p.done > 88:  # in the third step of the second epoch
            raise KeyboardInterrupt

    broken, whole = (
        quick(people, tmp_path / name, save_steps=1, **more) for name in ("broken", "whole")
    )
    train(whole)
    with pytest.raises(KeyboardInterrupt):
        train(broken, stop)
    train(broken)
    assert metrics(broken.out) == metrics(whole.out)
    assert same_weights(broken.out / "last.safetensors", whole.out / "last.safetensors")


def test_the_average_is_what_is_judged_and_kept(people: Path, tmp_path: Path) -> None:
    train(quick(people, tmp_path / "run", ema=0.9))
    saved = load_file(tmp_path / "run/state/tensors.safetensors")
    model = load_file(tmp_path / "run/last.safetensors")
    for name, tensor in model.items():
        np.testing.assert_array_equal(tensor, saved[f"average.{name}"])
    assert any((tensor != saved[f"network.{name}"]).any() for name, tensor in model.items())


def test_a_finished_run_is_not_trained_again(people: Path, unbroken: Path) -> None:
    seen: list[Progress] = []
    with pytest.raises(InputError, match="holds a finished run; give --overwrite"):
        train(quick(people, unbroken), seen.append)
    with pytest.raises(InputError, match="nowhere does not exist; create it first"):
        train(quick(people, unbroken.with_name("nowhere") / "run"), seen.append)
    assert seen == []  # it is told before the pictures are read


def test_an_unfinished_run_with_other_options_is_refused_by_name(
    people: Path, tmp_path: Path
) -> None:
    def stop(p: Progress) -> None:
        if p.stage == "train" and p.done > 64:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(quick(people, tmp_path / "run", epochs=30), stop)
    with pytest.raises(InputError, match=r"lr was 0\.05, now 0\.01"):
        train(quick(people, tmp_path / "run", epochs=30, lr=0.01))


def test_what_a_kill_leaves_in_the_folder_does_not_stop_the_run(
    people: Path, unbroken: Path, tmp_path: Path
) -> None:
    def stop(p: Progress) -> None:
        if p.stage == "train" and p.done > 64:
            raise KeyboardInterrupt

    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(quick(people, run), stop)
    (run / ".faceidx-tmp-0123456789ab-state").mkdir()
    (run / ".faceidx-tmp-0123456789ab-model.safetensors").write_text("half")
    train(quick(people, run))
    assert metrics(run) == metrics(unbroken)
    assert not list(run.glob(".faceidx-tmp-*"))


@pytest.mark.parametrize("loss", [loss for loss in HEADS if loss != "softmax"])
def test_every_loss_trains_resumes_exactly_and_classifies(
    loss: str, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epoch, "_REPORT_STEPS", 1)

    def stop(p: Progress) -> None:
        if p.done > 24:  # in the fourth of nine steps
            raise KeyboardInterrupt

    broken, whole = (
        quick(people, tmp_path / name, loss=loss, epochs=2, lr=0.02, save_steps=1)
        for name in ("broken", "whole")
    )
    train(whole)
    with pytest.raises(KeyboardInterrupt):
        train(broken, stop)
    train(broken)
    assert metrics(broken.out) == metrics(whole.out)
    assert same_weights(broken.out / "last.safetensors", whole.out / "last.safetensors")
    model = open_model(ModelOptions(path=whole.out / "model.safetensors", device="cpu"))
    pictures = [load(p.path, model.preprocessing.image_size) for p in open_source(people).pictures]
    shares = model.classify(model.raw_embed(np.stack(pictures)))
    assert shares.shape == (80, 8)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)


def test_the_angle_loss_refuses_a_head_with_several_weights_an_identity(
    people: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="one weight an identity"):
        train(quick(people, tmp_path / "run", loss="subcenter-arcface", aux=("angle",)))
    assert not (tmp_path / "run").exists()


def test_a_run_interrupted_in_its_first_epoch_goes_on(
    people: Path, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object) -> None:
        raise JobError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "write_metrics", full_disk)
        with pytest.raises(JobError):
            train(quick(people, tmp_path / "run"))
    assert (tmp_path / "run/model.safetensors").exists()
    train(quick(people, tmp_path / "run"))
    assert metrics(tmp_path / "run") == metrics(unbroken)


def test_a_folder_with_other_things_is_never_emptied(people: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/diary.txt").write_text("dear diary")
    with pytest.raises(InputError, match="other things"):
        train(quick(people, tmp_path / "run", overwrite=True))
    assert (tmp_path / "run/diary.txt").read_text() == "dear diary"


@pytest.mark.parametrize(
    ("batch", "parts"),
    [(18, 1), (23, 1), (23, 3)],  # neither 23 nor a third of it divides evenly
)
def test_two_processes_give_the_loss_curve_of_one(
    batch: int, parts: int, people: Path, tmp_path: Path
) -> None:
    # A low rate: at a high one rounding grows to more than the tolerance within a few steps.
    settings = {"batch_size": batch, "accumulate": parts, "lr": 1e-4, "epochs": 2}
    for devices in ("1", "2"):
        train(quick(people, tmp_path / devices, devices=devices, **settings))
    one, two = metrics(tmp_path / "1"), metrics(tmp_path / "2")
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], abs=1e-5)


@pytest.mark.parametrize("aux", ["center", "angle"])
def test_an_auxiliary_loss_comes_in_at_the_epoch_asked_for(
    people: Path, tmp_path: Path, aux: str
) -> None:
    train(quick(people, tmp_path / "run", aux=(aux,), aux_start="2"))
    lines = metrics(tmp_path / "run")
    assert [f"loss_{aux}" in line for line in lines] == [False, True, True]
    assert "head.weight" in load_file(tmp_path / "run/model.safetensors")
    assert not [n for n in load_file(tmp_path / "run/model.safetensors") if aux in n]


def test_auxiliary_losses_wait_for_the_curve_to_flatten(people: Path, tmp_path: Path) -> None:
    train(quick(people, tmp_path / "run", aux=("center",), epochs=12, lr=0.1))
    started = [line.get("aux_started", False) for line in metrics(tmp_path / "run")]
    assert sum(started) == 1
    first = started.index(True)
    on = ["loss_center" in line for line in metrics(tmp_path / "run")]
    assert on == [i > first for i in range(12)]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"epochs": 5}, "5 epochs are too few to tell"),
        ({"val": "0", "epochs": 9}, "nothing is held out to judge by"),
        ({"aux_start": "2"}, None),
        ({"epochs": 6}, None),
    ],
)
def test_losses_that_cannot_come_in_by_themselves_are_warned_of(
    more: dict[str, object],
    reason: str | None,
    people: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    options = quick(people, tmp_path / "run", aux=("center",), **more)
    settle_job(options, settle_hardware(options), lambda _: None)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == (reason is not None)
    assert not reason or reason in told[0]


def test_continue_keeps_the_classifier_and_its_classes(
    people: Path, unbroken: Path, tmp_path: Path
) -> None:
    model = unbroken / "model.safetensors"
    result = train(quick(people, tmp_path / "run", from_model=model, lr=1e-6, epochs=1))
    assert result["stage"] == "continue"
    before, after = read_model(model), read_model(tmp_path / "run/model.safetensors")
    assert after.record.class_names == before.record.class_names
    change = np.abs(after.head["weight"].numpy() - before.head["weight"].numpy()).max()
    assert change < 1e-3


def test_continue_keeps_scale_and_margin_of_a_margin_loss(people: Path, tmp_path: Path) -> None:
    first = quick(people, tmp_path / "first", loss="cosface", scale=16.0, margin=0.1, epochs=1)
    train(first)
    more = {"from_model": first.out / "model.safetensors", "stage": "continue"}
    for given, margin in ((None, 0.1), (0.2, 0.2)):
        options = quick(people, tmp_path / "run", margin=given, **more)
        recipe = settle_job(options, settle_hardware(options), lambda _: None).recipe
        assert (recipe.loss, recipe.scale, recipe.margin) == ("cosface", 16.0, margin)


def test_people_of_a_kept_classifier_whom_the_data_lack_are_told_of(
    people: Path, unbroken: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fewer = shutil.copytree(people, tmp_path / "fewer")
    for number in (0, 3, 5):
        shutil.rmtree(fewer / f"person_{number:02}")
    for data in (people, fewer):
        caplog.clear()
        options = quick(data, tmp_path / "run", from_model=unbroken / "model.safetensors")
        settle_job(options, settle_hardware(options), lambda _: None)
        told = "3 of 8 people of the classifier of --from have no picture" in caplog.text
        assert told == (data is fewer)


def test_a_warm_up_that_lasts_the_whole_run_is_told_of(
    people: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for epochs in (2, 1):
        assert "never falls" not in caplog.text
        options = quick(people, tmp_path / "run", epochs=epochs, warmup_epochs=1.0)
        settle_job(options, settle_hardware(options), lambda _: None)
    assert "the rate rises for 1 epochs, of which there are 1, and never falls" in caplog.text


def test_a_model_to_start_from_is_never_replaced_by_the_run(
    people: Path, unbroken: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(unbroken, target_is_directory=True)
    for out in (unbroken, tmp_path / "link"):
        model = unbroken / "model.safetensors"
        with pytest.raises(InputError, match=r"--from .* lies in the run .*; give another --out"):
            train(quick(people, out, from_model=model, overwrite=True))
        assert model.exists()


def test_finetune_takes_new_people_and_keeps_the_backbone(unbroken: Path, tmp_path: Path) -> None:
    others = paint_people(tmp_path / "others", 4, 6, seed=9)
    model = unbroken / "model.safetensors"
    result = train(quick(others, tmp_path / "run", from_model=model, stage="finetune", epochs=1))
    assert result["classes"] == 4
    before, after = read_model(model), read_model(tmp_path / "run/model.safetensors")
    name = "features.0.0.weight"
    change = np.abs((after.backbone[name] - before.backbone[name]).numpy()).max()
    assert 0 < change < 0.05


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"stage": "continue"}, "--from MODEL"),
        ({"stage": "finetune"}, "--from MODEL"),
        ({"arch": "resnet7"}, "resnet7"),
        ({"loss": "hope"}, "hope"),
        ({"recipe": "secret"}, "secret"),
        ({"select": "pairs"}, "--pairs"),
        ({"val": "1.5"}, "--val"),
        ({"val": "nowhere"}, "nowhere"),
        ({"aux_start": "soon", "aux": ("center",)}, "--aux-start soon"),
        ({"aux_start": "0", "aux": ("center",)}, "--aux-start 0"),
        ({"aux_start": "²", "aux": ("center",)}, "--aux-start ²"),
        ({"aux_start": "4", "aux": ("center",)}, "--aux-start 4: there are 3 epochs"),
        ({"aux_start": "2"}, "--aux-start is of no use without --aux"),
        ({"out": Path("run\udcff")}, "--out run.*can only hold UTF-8; give a link to it"),
        ({"from_model": Path("a\udcff")}, "--from a.*can only hold UTF-8"),
        ({"aux_weight": 0.1}, "--aux-weight is of no use without --aux"),
        ({"pairs_root": Path("photos")}, "--pairs-root is of no use without --pairs"),
        ({"pairs_format": "lfw"}, "--pairs-format is of no use without --pairs"),
        ({"aux_weight": math.nan, "aux": ("center",)}, "--aux-weight nan"),
        ({"optimizer": "lion"}, "no optimizer named 'lion'; there are sgd, adamw"),
        ({"sampling": "odd"}, "no sampling named 'odd'; there are natural, balanced"),
        ({"loss": "sphereface", "label_smoothing": 0.1}, "sphereface takes no --label-smoothing"),
        ({"batch_size": 1}, "--batch-size 1, .* one picture at a time"),
        ({"batch_size": 4, "accumulate": 3}, "--accumulate 3, 1 processes: .* one picture"),
        ({"batch_size": 3, "devices": "2", "sync_bn": "off"}, "2 processes: .* one picture"),
    ],
)
def test_options_that_make_no_sense_leave_no_folder_behind(
    people: Path, tmp_path: Path, more: dict[str, object], message: str
) -> None:
    seen: list[Progress] = []
    with pytest.raises(InputError, match=message):
        train(quick(people, **{"out": tmp_path / "run", **more}), seen.append)
    assert not (tmp_path / "run").exists()
    assert "batch_size" in more or seen == []  # nobody waits for pictures to be read first


def test_a_model_and_options_that_contradict_it_are_refused(
    people: Path, unbroken: Path, tmp_path: Path
) -> None:
    model = unbroken / "model.safetensors"
    with pytest.raises(InputError, match="--embedding-dim 8"):
        train(quick(people, tmp_path / "run", from_model=model, embedding_dim=8))
    with pytest.raises(InputError, match=r"--arch resnet10: .* has mobilefacenet"):
        train(quick(people, tmp_path / "run", from_model=model, arch="resnet10"))
    with pytest.raises(InputError, match=r"tensors\.safetensors"):
        train(quick(people, tmp_path / "run", from_model=unbroken / "state/tensors.safetensors"))
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_started_from_is_named_for_what_it_is(people: Path, tmp_path: Path) -> None:
    saved, graph = tmp_path / "backbone.pth", tmp_path / "net.onnx"
    torch.save({"weight": torch.zeros(3)}, saved)
    mean_color_graph(graph)
    with pytest.raises(InputError, match=r"backbone\.pth holds weights .* `faceidx models import`"):
        train(quick(people, tmp_path / "run", from_model=saved))
    with pytest.raises(InputError, match=r"net\.onnx: an ONNX graph cannot be trained on"):
        train(quick(people, tmp_path / "run", from_model=graph))
    with pytest.raises(InputError, match=r"none\.safetensors: no such model file"):
        train(quick(people, tmp_path / "run", from_model=tmp_path / "none.safetensors"))
    assert not (tmp_path / "run").exists()


def test_unreadable_and_nameless_pictures_are_left_out_and_listed(tmp_path: Path) -> None:
    data = paint_people(tmp_path / "people", 3, 6)
    (data / "person_00/06.png").write_text("no picture")
    (data / "stray.png").write_bytes((data / "person_00/00.png").read_bytes())
    result = train(quick(data, tmp_path / "run", epochs=1))
    assert result["left_out"] == 2
    listed = (tmp_path / "run/left-out.csv").read_text().splitlines()
    assert listed[0] == "path,reason"
    assert "stray.png" in listed[1] and "no identity" in listed[1]
    assert "person_00/06.png" in listed[2] and "not a picture" in listed[2]


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_state(
    people: Path, tmp_path: Path
) -> None:
    with pytest.raises(JobError, match="diverged in epoch 1"):
        train(quick(people, tmp_path / "run", lr=1e18, warmup_epochs=0.0))
    assert not (tmp_path / "run/model.safetensors").exists()


def test_the_best_epoch_is_that_of_the_highest_mean_of_both_figures(
    unbroken: Path, tmp_path: Path
) -> None:
    lines = metrics(unbroken)
    worth = [(line["val_auc"] + line["val_accuracy"]) / 2 for line in lines]
    best = max(range(len(lines)), key=lambda i: (worth[i], i)) + 1
    assert read_record(unbroken / "model.safetensors").training["epoch"] == best


def test_a_small_set_gets_a_smaller_batch_unless_one_is_given(tmp_path: Path) -> None:
    for pictures, given, expected in (
        (300, None, 18),
        (40, None, 8),
        (9000, None, 64),
        (300, 32, 32),
    ):
        options = quick(tmp_path, tmp_path / "run", batch_size=given)
        assert settle_recipe(options, pictures=pictures, on_gpu=False)[1].batch_size == expected


def test_people_held_out_are_no_classes(tmp_path: Path) -> None:
    data = paint_people(tmp_path / "people", 24, 4)
    result = train(quick(data, tmp_path / "run", epochs=1, val="0.2"))
    assert result["held_out_people"] == 4
    assert result["classes"] == 20
    assert result["val_auc"] is not None


def test_a_validation_folder_judges_in_place_of_a_share(people: Path, tmp_path: Path) -> None:
    result = train(quick(people, tmp_path / "run", val=str(people), epochs=1))
    assert result["images"] == 80
    assert result["val_accuracy"] is not None and result["val_auc"] is not None


def test_a_pair_list_is_reported_and_chooses_when_asked(people: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.csv"
    rows = ["left,right,label"]
    rows += [f"person_0{i}/00.png,person_0{i}/01.png,1" for i in range(8)]
    rows += [f"person_0{i}/00.png,person_0{(i + 1) % 8}/01.png,0" for i in range(8)]
    pairs.write_text("\n".join(rows))
    options = quick(people, tmp_path / "run", pairs=pairs, pairs_root=people, select="pairs")
    result = train(options)
    curve = [line["pairs_auc"] for line in metrics(tmp_path / "run")]
    assert result["pairs_auc"] == max(curve)


def test_pictures_too_many_for_memory_are_read_as_they_come(
    people: Path, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from faceidx.training import pictures

    monkeypatch.setattr(pictures, "free_memory", lambda _: 0)
    train(quick(people, tmp_path / "run"))
    assert metrics(tmp_path / "run") == metrics(unbroken)


def test_the_written_config_holds_every_setting(unbroken: Path) -> None:
    import tomllib

    config = tomllib.loads((unbroken / "config.toml").read_text())
    assert config["arch"] == "mobilefacenet"
    assert config["batch-size"] == 8
    assert config["label-smoothing"] == 0.0
