from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceidx.embedding.store import Left, Origin, write_embeddings
from faceidx.errors import JobError
from tests.conftest import RunCli

_ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`pairs.csv` (40 pairs, two missing), `faces.h5`, and `broken.csv` with a broken line 3."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(8, 12))
    keys = [f"p{p}/{i}.jpg" for p in range(8) for i in range(3)]
    vectors = np.repeat(centres, 3, axis=0) + 0.7 * rng.normal(size=(24, 12))
    lengths = np.linalg.norm(vectors, axis=1)
    write_embeddings(
        tmp_path / "faces.h5",
        origin=Origin(model="tiny", fingerprint="a" * 64),
        vectors=vectors / lengths[:, None],
        norms=lengths,
        paths=keys,
        identities=[key.split("/")[0] for key in keys],
        left=Left(failed=[("p0/bad.jpg", "truncated")]),
    )
    rows = ["left,right,label"]
    for number in range(19):
        person, other = number % 8, (number + 1 + number // 8) % 8
        rows.append(f"p{person}/{number % 3}.jpg,p{person}/{(number + 1) % 3}.jpg,1")
        rows.append(f"p{person}/{number % 3}.jpg,p{other}/{number % 3}.jpg,0")
    rows += ["p0/0.jpg,p0/bad.jpg,1", "p0/0.jpg,\x1b[31mgone.jpg,0"]
    (tmp_path / "pairs.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "broken.csv").write_text("left,right,label\np0/0.jpg,p0/1.jpg,1\nhalf a line\n")
    return tmp_path


@pytest.fixture
def run(folder: Path, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command in the folder of the job."""
    monkeypatch.chdir(folder)
    return run_cli.of("verify-pairs").ended


def test_one_json_object_is_all_that_stdout_holds(run: Run, folder: Path) -> None:
    done = run("pairs.csv", "--embeddings", "faces.h5", "--json", "--fmr", "0.2,0.05")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert (result["pairs"], result["missing"], result["format"]) == (40, 2, "csv")
    assert [m["reason"] for m in result["missing_pairs"]] == [
        "p0/bad.jpg: truncated",
        "\x1b[31mgone.jpg: not among the embedded pictures",
    ]
    assert [point["target"] for point in result["tar_at_far"]] == [0.2, 0.05]
    assert set(result["confusion"]) == {"tp", "fp", "tn", "fn"}
    assert [result[name] for name in ("engine", "engine_precision", "detect")] == [None] * 3
    assert result["other_policy"]["missing_policy"] == "reject"
    assert done.stderr == ""


def test_people_read_a_table_that_no_name_can_disturb(run: Run) -> None:
    done = run("pairs.csv", "--embeddings", "faces.h5", "--missing", "reject")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("pairs")
    assert "40  (20 genuine, 20 impostor; csv)" in lines[0]
    assert "2, counted as non-matches; the first, at line 40: truncated (all with" in lines[1]
    assert "bad.jpg" not in done.stdout + done.stderr
    told = run("pairs.csv", "--embeddings", "faces.h5", "-v")
    assert "line 40: p0/bad.jpg: truncated" in told.stderr
    for name in ("AUC", "EER", "accuracy", "threshold", "TAR at FAR 0.001"):
        assert any(line.startswith(name) for line in lines)
    assert "\x1b" not in done.stdout


def test_a_list_of_one_class_is_counted_and_has_no_figures(run: Run, folder: Path) -> None:
    rows = "p0/0.jpg,p0/1.jpg,1\np0/0.jpg,p0/2.jpg,1\np0/0.jpg,p1/gone.jpg,0\n"
    (folder / "one.csv").write_text(f"left,right,label\n{rows}")
    words = ("one.csv", "--embeddings", "faces.h5")
    done = run(*words, "--json", "--scores", "s.csv")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["pairs"], result["missing"]) == (3, 1)
    assert result["auc"] is None and result["confusion"] is None
    assert result["missing_pairs"][0]["right"] == "p1/gone.jpg"
    assert result["other_policy"]["auc"] == 1
    told = run(*words)
    assert told.returncode == 0, told.stderr
    lines = told.stdout.splitlines()
    assert lines[2].split() == ["figures", "none"]
    assert lines[3].startswith("with reject  AUC 1.00000")
    assert lines[4].startswith("note: all 1 impostor pairs are left out")
    assert len(lines) == 5
    done = run(*words, "--save-threshold", "t.json")
    assert done.returncode == 2 and not (folder / "t.json").exists()
    assert done.stderr.count("\n") == 1 and "drop --save-threshold" in done.stderr


def test_names_of_pictures_are_said_with_v_alone(run: Run, fake_model_file: Path) -> None:
    Image.new("RGB", (16, 16)).save("her.png")
    words = ("pairs.csv", "--images", ".", "--model", str(fake_model_file))
    quiet, told = run(*words), run(*words, "-v")
    for done in (quiet, told):
        assert done.returncode == 2 and done.stdout == ""
        assert "none of its 26 names is found in ., which holds 1 pictures" in done.stderr
    assert quiet.stderr.count("\n") == 1 and "her.png" not in quiet.stderr
    assert "the list names 'p0/0.jpg' and the folder holds 'her.png'" in told.stderr


def test_all_outputs_are_written_and_named(run: Run, folder: Path) -> None:
    outputs = ["--scores", "s.csv", "--report", "verdict", "--save-threshold", "t.json"]
    done = run("pairs.csv", "--embeddings", "faces.h5", "--json", *outputs, "--at-fmr", "0.1")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["scores"], result["report"], result["save_threshold"]) == (
        "s.csv",
        "verdict",
        "t.json",
    )
    assert (folder / "verdict" / "index.html").is_file()
    assert json.loads((folder / "t.json").read_text())["target_fmr"] == 0.1
    again = run("s.csv", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["auc"] == result["auc"]


def test_where_the_report_cannot_be_made_the_same_command_can_be_run_again(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise JobError("No space left on device")

    before = sorted(folder.iterdir())
    outputs = ["--scores", "s.csv", "--report", "verdict", "--save-threshold", "t.json"]
    command = ["pairs.csv", "--embeddings", "faces.h5", *outputs, "--at-fmr", "0.1"]
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr("faceidx.evaluation.report.write_report", full)
        assert run(*command).returncode == 1
    assert sorted(folder.iterdir()) == before
    assert run(*command).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.csv", "--embeddings", "faces.h5"], "none.csv"),
        (["pairs.csv"], "--embeddings"),
        (["pairs.csv", "--embeddings", "none.h5"], "none.h5: no such file"),
        (["pairs.csv", "--embeddings", "pairs.csv"], "no readable HDF5 file"),
        (["broken.csv", "--embeddings", "faces.h5"], "broken.csv:3"),
        (["pairs.csv", "--embeddings", "faces.h5", "--fmr", "0.1,2"], "'2' is no rate"),
        (["pairs.csv", "--embeddings", "faces.h5", "--folds", "1"], "'1' is neither auto"),
        (["pairs.csv", "--embeddings", "faces.h5", "--folds", "100"], "100 folds cannot be made"),
        (["pairs.csv", "--embeddings", "faces.h5", "--missing", "drop"], "'drop'"),
        (["pairs.csv", "--embeddings", "faces.h5", "--format", "x"], "no format 'x'"),
        (["pairs.csv", "--embeddings", "faces.h5", "--scores", "broken.csv"], "--overwrite"),
        (["pairs.csv", "--embeddings", "faces.h5", "--pictures", "."], "--report"),
        (["pairs.csv", "--embeddings", "faces.h5", "--at-fmr", "0.1"], "--save-threshold"),
    ],
)
def test_wrong_input_is_one_line_exit_code_2_and_no_file(
    run: Run, folder: Path, arguments: list[str], words: str
) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1 and words in done.stderr
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_help_ends_in_examples_and_loads_neither_torch_nor_faiss() -> None:
    code = """
import sys
import click.testing
from faceidx.cli import main
result = click.testing.CliRunner().invoke(main, ["verify-pairs", "--help"])
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


def test_options_of_embedding_are_said_to_be_of_no_use_without_a_model(run: Run) -> None:
    words = ("pairs.csv", "--embeddings", "faces.h5")
    done = run(*words, "--flip", "--preset", "imagenet", "--device", "cpu")
    assert done.returncode == 0
    assert "--flip is of no use without --model" in done.stderr
    assert "--preset is of no use without --model" in done.stderr
    assert done.stderr.count("of no use") == 2
    assert "of no use" not in run(*words).stderr
