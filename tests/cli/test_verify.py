from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from faceidx.cli.verify import likelihood_ratio
from tests.conftest import RunCli, draw

_ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(
    pictures: Path, fake_model_file: Path, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> RunCli:
    """`faceidx verify` in the folder of the pictures; the model is `tiny.safetensors` there."""
    monkeypatch.chdir(pictures)
    Path("tiny.safetensors").symlink_to(fake_model_file)
    return run_cli.of("verify")


@pytest.fixture
def threshold_file(run: RunCli, run_cli: RunCli) -> str:
    """`t.json`, from 20 pairs of the ten pictures."""
    keys = [f"p{number // 2}/{number}.png" for number in range(10)]
    rows = [f"{keys[i]},{keys[i + 1]},1" for i in range(0, 10, 2)]
    rows += [f"{keys[i]},{keys[(i + 3) % 10]},0" for i in range(0, 10)]
    Path("pairs.csv").write_text("left,right,label\n" + "\n".join(rows) + "\n")
    run_cli(
        *("verify-pairs", "pairs.csv", "--images", ".", "--model", "tiny.safetensors"),
        *("--save-threshold", "t.json", "--at-fmr", 0.2),
    )
    record = json.loads(Path("t.json").read_text())
    record["calibration"] = {"slope": 8.0, "intercept": -1.0, "cllr": 0.5}
    Path("t.json").write_text(json.dumps(record))
    return "t.json"


def test_one_json_object_holds_the_score_and_what_it_means(
    run: RunCli, threshold_file: str
) -> None:
    pair = ["p0/0.png", "p1/3.png", "--model", "tiny.safetensors"]
    result = run.json(*pair, "--threshold-file", threshold_file)
    assert set(result) == {
        "left", "right", "score", "threshold", "match", "fmr", "target_fmr", "fmr_at_score",
        "fnmr_at_score", "likelihood_ratio", "model", "fingerprint", "warnings",
    }  # fmt: skip
    assert (result["left"], result["right"]) == ("p0/0.png", "p1/3.png")
    assert result["match"] is (result["score"] >= result["threshold"])
    assert result["fmr"] == result["target_fmr"] == 0.2
    assert set(result["fmr_at_score"]) == {"at_most", "false_matches", "impostor"}
    assert set(result["likelihood_ratio"]) == {"ln", "log10"}
    assert result["model"] == "tiny.safetensors" and len(result["fingerprint"]) == 64
    assert run.json(*pair, "--threshold", threshold_file) == result
    assert run.json(*pair, "--threshold", 2)["match"] is False
    assert run.json(*pair)["match"] is None


def test_people_read_a_few_plain_lines(run: RunCli, threshold_file: str) -> None:
    same, _ = run(
        "p0/0.png", "p0/0.png", "--model", "tiny.safetensors", "--threshold-file", "t.json"
    )
    lines = same.splitlines()
    assert lines[0].split() == ["score", "1.000000"]
    assert lines[1].startswith("verdict") and "same person (threshold" in lines[1]
    assert "FMR 20 %" in lines[1]
    assert "none of 10 impostor pairs scores this high (up to 30 % may: 3/10" in lines[2]
    assert "at most 5 of 5 genuine pairs score this low (100 %)" in lines[3]
    ratio = "1,100 : 1 for one person (extrapolated beyond the scores of the list)"  # e^(8 - 1)
    assert lines[4] == f"likelihood ratio  {ratio}"
    assert lines[5].startswith("note: the threshold rests on 2 false matches of 10")
    assert len(lines) == 6
    alone, _ = run("p0/0.png", "p1/3.png", "--model", "tiny.safetensors", "--threshold", "1")
    assert "different people (threshold 1.000000)" in alone
    assert len(alone.splitlines()) == 2


def test_a_rate_too_fine_for_the_list_is_told_as_asked_for_and_never_as_0(
    run: RunCli, run_cli: RunCli, threshold_file: str
) -> None:
    words = ("verify-pairs", "pairs.csv", "--images", ".", "--model", "tiny.safetensors")
    run_cli(*words, "--save-threshold", "fine.json")
    pair = ["p0/0.png", "p0/0.png", "--model", "tiny.safetensors", "--threshold", "fine.json"]
    result = run.json(*pair)
    assert (result["fmr"], result["target_fmr"]) == (0, 0.001)
    told, _ = run(*pair)
    assert "FMR 0.1 %)" in told.splitlines()[1]
    note = "no impostor pair of 10 reaches the threshold: its FMR was not seen, and may be up to"
    assert f"note: {note} 0.3 (95 % confidence)" in told


@pytest.mark.parametrize(
    ("log10", "text"),
    [
        (3.114, "1,300 : 1 for one person"),
        (-1.0, "10 : 1 for two people"),
        (0.2, "1.6 : 1 for one person"),
        (0.001, "1 : 1: it speaks for neither"),
        (-0.001, "1 : 1: it speaks for neither"),
        (6.5, "more than 1,000,000 : 1 for one person"),
        (-400.0, "more than 1,000,000 : 1 for two people"),
    ],
)
def test_a_likelihood_ratio_is_told_with_the_digits_it_is_worth(log10: float, text: str) -> None:
    assert likelihood_ratio(log10) == text


def test_flip_is_part_of_what_a_threshold_file_is_for(run: RunCli, threshold_file: str) -> None:
    pair = ["p0/0.png", "p1/3.png", "--model", "tiny.safetensors"]
    plain, flipped = run.json(*pair), run.json(*pair, "--flip")
    assert plain["fingerprint"] != flipped["fingerprint"]
    assert plain["score"] != flipped["score"]
    _, error = run(*pair, "--flip", "--threshold-file", threshold_file, code=2)
    assert "drop --flip" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["p0/1.png", "none.png"], "none.png: no such picture"),
        (["p0/1.png", "p0"], "p0 cannot be compared: not a file"),
        (["p0/1.png", "p0/0.png", "--threshold", "nan"], "is no number"),
        (["p0/1.png", "p0/0.png", "--threshold", "x"], "x is neither a number nor a threshold"),
        (["p0/1.png", "p0/0.png", "--threshold", "p0/0.png"], "p0/0.png is no threshold file"),
        (["p0/1.png", "p0/0.png", "--threshold-file", "none"], "no such threshold file"),
        (["p0/1.png", "p0/0.png", "--threshold-file", "p0/0.png"], "no threshold file"),
        (["p0/1.png", "p0/0.png", "--threshold-file", "t", "--threshold", "1"], "not both"),
        (["p0/1.png", "p0/0.png", "--preset", "imagenet"], "drop --preset"),
        (["p0/1.png"], "Missing argument 'RIGHT'"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    run: RunCli, words: list[str], message: str
) -> None:
    out, error = run(*words, "--model", "tiny.safetensors", code=2)
    assert out == "" and message in error and error.count("\n") == 1


def test_a_model_must_be_given(run: RunCli) -> None:
    _, error = run("p0/0.png", "p0/1.png", code=2)
    assert "Missing option '--model'" in error


def test_names_cannot_steer_the_terminal(run: RunCli) -> None:
    draw(Path("\x1b[31mred.png"), seed=3)
    Path("\x1b[2Jbroken.png").write_bytes(b"x")
    pair = ["\x1b[31mred.png", "p0/0.png", "--model", "tiny.safetensors", "--threshold", "0.5"]
    assert run.json(*pair)["left"] == "\x1b[31mred.png"
    out, error = run("\x1b[2Jbroken.png", *pair[1:], code=2)
    assert "\x1b" not in out + error and "broken.png" in error


def test_help_ends_in_examples_and_loads_nothing_heavy() -> None:
    code = """
import sys
import click.testing
from faceidx.cli import main
result = click.testing.CliRunner().invoke(main, ["verify", "--help"])
assert result.exit_code == 0, result.output
assert "Examples:" in result.output
heavy = {"torch", "faiss", "sklearn", "matplotlib", "h5py", "numpy"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
