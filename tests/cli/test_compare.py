"""`faceidx verify-pairs --compare` from the command line."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import RunCli

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command beside `a.csv`, `b.csv` and `c.csv`, and `part.csv` that lacks a pair."""
    rng = np.random.default_rng(0)
    pairs = [(f"p{i % 7}/{i % 3}", f"p{j % 7}/{j % 2}") for i in range(8) for j in range(8)]
    for name in "abc":
        rows = ["left,right,label,score"]
        for left, right in pairs:
            genuine = left[:2] == right[:2]
            rows.append(f"{left},{right},{int(genuine)},{rng.normal() + 2 * genuine}")
        (tmp_path / f"{name}.csv").write_text("\n".join(rows) + "\n")
    lines = (tmp_path / "b.csv").read_text().splitlines(keepends=True)
    (tmp_path / "part.csv").write_text("".join(lines[:4] + lines[5:]))
    (tmp_path / "options.toml").write_text('missing = "reject"\n')
    monkeypatch.chdir(tmp_path)
    return run_cli.of("verify-pairs").ended


@pytest.mark.parametrize(
    "arguments", [["--compare", "a.csv", "b.csv"], ["a.csv", "--compare", "b.csv"]]
)
def test_two_files_are_two_systems_wherever_the_flag_stands(run: Run, arguments: list[str]) -> None:
    done = run(*arguments, "--json", "--fmr", "0.1,0.01")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert [system["name"] for system in result["systems"]] == ["a", "b"]
    (difference,) = result["differences"]
    assert (difference["system"], difference["to"]) == ("b", "a")
    assert set(difference["auc"]) == {"difference", "ci", "p", "delong_ci", "delong_p"}
    assert set(difference["accuracy"]["mcnemar"]) == {"n10", "n01", "p"}
    assert [point["target"] for point in difference["tar_at_far"]] == [0.1, 0.01]
    assert (result["matched_by"], result["report"]) == ("names", None)


def test_people_read_a_column_a_system_and_a_line_a_difference(run: Run, tmp_path: Path) -> None:
    done = run("--compare", "a.csv", "b.csv", "c.csv", "--report", "side")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("64 pairs  (10 genuine, 54 impostor; matched by names)")
    assert lines[1].split() == ["a", "b", "c"]
    assert [line for line in lines if " against " in line] == [
        "b against a  (bootstrap-identities)",
        "c against a  (bootstrap-identities)",
    ]
    assert sum(line.startswith("  AUC is ") for line in lines) == 2
    assert lines[-1] == "report: side"
    assert (tmp_path / "side" / "index.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a.csv", "b.csv"], "2 PAIRS are given; give one, or --compare"),
        (["--compare"], "give two files of scores or more"),
        (["--compare", "a.csv"], "one system alone"),
        (
            ["--compare", "a.csv", "part.csv"],
            "a.csv:5: the pair 'p0/0' and 'p3/1' is not in part.csv",
        ),
        (["--compare", "a.csv", "b.csv", "--missing", "reject"], "--missing does not go with"),
        (["--compare", "a.csv", "b.csv", "--config", "options.toml"], "--missing does not go with"),
        (["--compare", "a.csv", "b.csv", "--embeddings", "x.h5"], "--embeddings does not go with"),
        (["--compare", "a.csv", "b.csv", "--images", "."], "--images does not go with"),
        (["--compare", "a.csv", "b.csv", "--model", "m"], "--model does not go with"),
        (["--compare", "a.csv", "b.csv", "--flip"], "--flip does not go with"),
        (["--compare", "a.csv", "b.csv", "--scores", "s.csv"], "--scores does not go with"),
        (["--compare", "a.csv", "b.csv", "--groups", "g.csv"], "--groups does not go with"),
        (["--compare", "a.csv", "b.csv", "--all-pairs"], "--all-pairs does not go with"),
        (["--compare", "a.csv", "b.csv", "--save-threshold", "t"], "--save-threshold does not go"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    run: Run, tmp_path: Path, arguments: list[str], words: str
) -> None:
    before = set(tmp_path.iterdir())
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1 and words in done.stderr
    assert set(tmp_path.iterdir()) == before
