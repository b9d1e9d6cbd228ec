"""The four stages of a course's face task (CMU 11-785, HW2P2), on small painted people.

Pictures of 32 pixels; a medium set of people and a large one of others; trials of people who are in
neither: `left right 0|1`, and without the label where it is to be handed in.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from tests.conftest import RunCli
from tests.training.conftest import paint_people

_TINY = ["--arch", "mobilefacenet", "--image-size", "32", "--embedding-dim", "16"]
_QUICK = ["--batch-size", "8", "--device", "cpu", "--precision", "fp32", "--augment", "none"]


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """A folder with `medium`, `large`, `verification` and its trials."""
    paint_people(tmp_path / "medium", 8, 6, seed=1)
    paint_people(tmp_path / "large", 10, 4, seed=2)
    paint_people(tmp_path / "verification", 6, 4, seed=3)
    labelled = [
        f"verification/person_{i:02d}/00.png verification/person_{j:02d}/0{k}.png {int(i == j)}"
        for i in range(6)
        for j in range(6)
        for k in (1, 2)
    ]
    (tmp_path / "trials.txt").write_text("".join(f"{line}\n" for line in labelled))
    return tmp_path


def test_pretrain_eval_continue_and_finetune_follow_one_another(
    course: Path, run_cli: RunCli
) -> None:
    def train(people: str, run: str, *words: object) -> dict[str, Any]:
        trials = ["--pairs", course / "trials.txt", "--pairs-root", course]
        return run_cli.json(
            "train", course / people, "--out", course / run, *_QUICK, *trials, *words
        )

    def judge(run: str, people: str) -> dict[str, Any]:
        data = ["--data", course / people, "--pairs", course / "trials.txt", "--images", course]
        model = course / run / "model.safetensors"
        return run_cli.json("eval", "--model", model, "--device", "cpu", *data)

    pretrained = train("medium", "pre", *_TINY, "--epochs", 10, "--lr", 0.1)
    assert (pretrained["stage"], pretrained["classes"]) == ("pretrain", 8)
    assert pretrained["pairs_auc"] is not None

    judged = judge("pre", "medium")
    assert judged["classifier"]["rank1"]["trials"] == 48
    assert judged["classifier"]["rank1"]["value"] > 0.5  # by chance 0.125
    assert judged["verification"]["pairs"] == 72
    assert judged["verification"]["genuine"] == 12
    assert judged["verification"]["auc"] > 0.7  # people whom it never saw

    more = ["--from", course / "pre" / "model.safetensors", "--stage", "continue", "--lr", 0.01]
    aux = ["--aux", "center", "--aux", "angle", "--aux-start", 1]
    continued = train("medium", "cont", *more, *aux, "--epochs", 2)
    assert (continued["stage"], continued["classes"]) == ("continue", 8)
    metrics = (course / "cont" / "metrics.jsonl").read_text()
    assert "loss_center" in metrics and "loss_angle" in metrics

    other = ["--from", course / "cont" / "model.safetensors", "--stage", "finetune"]
    tuned = train("large", "tuned", *other, "--epochs", 2, "--lr", 0.05)
    assert (tuned["stage"], tuned["classes"]) == ("finetune", 10)
    before = load_file(course / "cont" / "model.safetensors")
    after = load_file(course / "tuned" / "model.safetensors")
    assert before["head.weight"].shape == (8, 16) and after["head.weight"].shape == (10, 16)
    assert judge("tuned", "large")["classifier"]["rank1"]["trials"] == 40

    handed_in = [line.rpartition(" ")[0] for line in (course / "trials.txt").open()]
    (course / "test.txt").write_text("\n".join(handed_in))
    words = ["--unlabelled", "--images", course, "--scores", course / "scores.csv"]
    model = course / "tuned" / "model.safetensors"
    scored = run_cli.json("verify-pairs", course / "test.txt", "--model", model, *words)
    assert (scored["pairs"], scored["missing"]) == (72, 0)
