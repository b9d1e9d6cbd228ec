"""The list of pairs that a run is judged by each epoch."""

from __future__ import annotations

import tomllib
from pathlib import Path

from tests.conftest import RunCli
from tests.training.conftest import paint_people

_QUICK = (
    *("--arch", "mobilefacenet", "--image-size", 32, "--embedding-dim", 16, "--epochs", 1),
    *("--batch-size", 8, "--device", "cpu", "--precision", "fp32"),
)


def test_a_list_that_reads_in_two_ways_is_settled_by_the_option_that_is_named(
    tmp_path: Path, run_cli: RunCli
) -> None:
    people = paint_people(tmp_path / "people", 4, 4)
    judges = paint_people(tmp_path / "judges", 2, 1)
    for number in (0, 1):
        (judges / f"person_0{number}" / "00.png").rename(judges / f"{number}.png")
    (tmp_path / "ambiguous.txt").write_text("1 0 1\n1 1 0\n1 0 0\n0 1 1\n")
    run = tmp_path / "run"
    pairs = ("--pairs", tmp_path / "ambiguous.txt", "--pairs-root", judges)
    words = ("train", people, "--out", run, *_QUICK, *pairs)
    _, err = run_cli(*words, code=2)
    assert "give --pairs-format lfw or pairs01 or 01pairs" in err
    assert run_cli.json(*words, "--pairs-format", "pairs01")["pairs_auc"] is not None
    assert tomllib.loads((run / "config.toml").read_text())["pairs-format"] == "pairs01"
    again = run_cli.json(
        "train", people, "--out", tmp_path / "again", "--config", run / "config.toml"
    )
    assert again["pairs_auc"] is not None
    _, err = run_cli(*words, "--pairs-format", "pairs01", code=2)
    assert "holds a finished run" in err
