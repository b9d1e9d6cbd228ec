"""`verify-pairs --unlabelled`: scores of a test that is to be handed in."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.conftest import RunCli

_PAIRS = ["p0/0.png p0/1.png", "p1/2.png p3/6.png", "p4/9.png gone.png", "p0/0.png p0/1.png"]


@pytest.fixture
def score(run_cli: RunCli, pictures: Path, fake_model_file: Path, tmp_path: Path) -> RunCli:
    (tmp_path / "test.txt").write_text("\n".join(_PAIRS))
    (tmp_path / "known.txt").write_text(
        "\n".join(f"{pair} {i % 2}" for i, pair in enumerate(_PAIRS))
    )
    where = ["--images", str(pictures), "--model", str(fake_model_file), "--device", "cpu"]
    return run_cli.of("verify-pairs", *where)


def test_every_pair_keeps_its_line_and_gets_the_score_of_a_labelled_list(
    score: RunCli, tmp_path: Path
) -> None:
    out = tmp_path / "scores.csv"
    result = score.json(tmp_path / "test.txt", "--unlabelled", "--scores", out)
    assert (result["pairs"], result["missing"], result["auc"]) == (4, 1, None)
    assert result["missing_pairs"][0]["line"] == 3
    rows = list(csv.DictReader(out.open()))
    assert [f"{row['left']} {row['right']}" for row in rows] == _PAIRS
    assert {row["label"] for row in rows} == {""}
    score(tmp_path / "known.txt", "--scores", tmp_path / "labelled.csv")
    known = [row["score"] for row in csv.DictReader((tmp_path / "labelled.csv").open())]
    assert [row["score"] for row in rows] == [known[0], known[1], "", known[2]]


def test_what_needs_labels_does_not_go_with_it(score: RunCli, tmp_path: Path) -> None:
    words = tmp_path / "test.txt", "--unlabelled"
    _, told = score(*words, code=2)
    assert "say where with --scores FILE" in told
    _, told = score(*words, "--scores", tmp_path / "s.csv", "--report", tmp_path / "r", code=2)
    assert "drop --all-pairs, --report" in told
    for judging in (("--missing", "reject"), ("--folds", 5), ("--format", "lfw"), ("--fmr", "0.1")):
        _, told = score(*words, "--scores", tmp_path / "s.csv", *judging, code=2)
        assert f"{judging[0]} does not go with --unlabelled" in told
    assert not (tmp_path / "s.csv").exists()


def test_a_list_without_labels_is_refused_with_the_way_out(score: RunCli, tmp_path: Path) -> None:
    _, told = score(tmp_path / "test.txt", code=2)
    assert "its label is lacking" in told and "--unlabelled" in told


def test_a_line_with_a_label_is_no_line_without_one(score: RunCli, tmp_path: Path) -> None:
    words = tmp_path / "known.txt", "--unlabelled", "--scores", tmp_path / "s.csv"
    _, told = score(*words, code=2)
    assert "known.txt:1" in told and "`left right`" in told
