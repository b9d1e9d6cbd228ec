"""`faceidx eval` judges a list of pairs as `verify-pairs` does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import RunCli, draw

_FILES = {"scores", "report", "save_threshold"}


@pytest.fixture
def listed(pictures: Path, tmp_path: Path) -> Path:
    """Twenty pairs of the ten pictures, and one that is missing."""
    keys = [f"p{number // 2}/{number}.png" for number in range(10)]
    rows = [f"{keys[i]},{keys[i ^ 1]},1" for i in range(10)]
    rows += [f"{keys[i]},{keys[(i + 3) % 10]},0" for i in range(10)]
    path = tmp_path / "pairs.csv"
    path.write_text("\n".join(["left,right,label", *rows, "p0/0.png,gone.png,0\n"]))
    return path


def test_the_verification_is_that_of_verify_pairs_with_the_same_options(
    listed: Path, pictures: Path, fake_model_file: Path, run_cli: RunCli
) -> None:
    given = ("--images", pictures, "--model", fake_model_file, "--device", "cpu")
    more = ("--format", "csv", "--fmr", "0.3,0.1", "--folds", 2, "--missing", "reject")
    for words in ((), (*more, "--seed", 7)):
        wanted = run_cli.json("verify-pairs", listed, *given, *words)
        found = run_cli.json("eval", "--pairs", listed, *given, *words)["verification"]
        assert found == {name: value for name, value in wanted.items() if name not in _FILES}
        made = [found[name] for name in ("engine", "engine_precision", "detect")]
        assert made == ["torch", "fp32", "none"]
        assert isinstance(found["precision"], float)  # of the decisions
    assert [point["target"] for point in found["tar_at_far"]] == [0.3, 0.1]
    assert (found["folds"], found["missing_policy"]) == (2, "reject")


def test_chance_follows_the_seed(
    listed: Path, pictures: Path, fake_model_file: Path, run_cli: RunCli
) -> None:
    words = ("eval", "--pairs", listed, "--images", pictures, "--model", fake_model_file, "--seed")
    one, same, other = (run_cli.json(*words, seed)["verification"] for seed in (1, 1, 2))
    assert one == same
    assert one["auc_ci"] != other["auc_ci"]


def test_a_list_that_reads_in_two_ways_is_settled_by_the_option_that_is_named(
    pictures: Path, fake_model_file: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    for number in (0, 1):
        (pictures / f"p{number}" / f"{2 * number}.png").rename(pictures / f"{number}.png")
    path = tmp_path / "ambiguous.txt"
    path.write_text("1 0 1\n1 1 0\n1 0 0\n0 1 1\n")
    words = ("eval", "--pairs", path, "--images", pictures, "--model", fake_model_file)
    _, err = run_cli(*words, code=2)
    assert "give --format lfw or pairs01 or 01pairs" in err
    assert run_cli.json(*words, "--format", "pairs01")["verification"]["genuine"] == 2


def test_a_list_of_one_class_has_no_figures(
    listed: Path, pictures: Path, fake_model_file: Path, run_cli: RunCli
) -> None:
    genuine = [line for line in listed.read_text().splitlines() if not line.endswith(",0")]
    listed.write_text("\n".join(genuine))
    words = ("eval", "--pairs", listed, "--images", pictures, "--model", fake_model_file)
    assert run_cli.json(*words)["verification"]["auc"] is None
    out, _ = run_cli(*words)
    assert "note: no impostor pair is in the list" in out


@pytest.mark.parametrize("option", ["--format=csv", "--fmr=0.1", "--folds=2", "--missing=reject"])
def test_what_judges_a_list_needs_one(fake_model_file: Path, run_cli: RunCli, option: str) -> None:
    _, err = run_cli("eval", "--model", fake_model_file, "--data", ".", option, code=2)
    assert f"{option.partition('=')[0]} goes with --pairs FILE" in err and err.count("\n") == 1


def test_a_model_without_classifier_is_told_what_its_embeddings_are_good_for(
    fake_model_file: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    bare = tmp_path / "bare.safetensors"
    run_cli("models", "export", fake_model_file, "--out", bare, "--no-class-names")
    draw(tmp_path / "people" / "ann" / "1.png", seed=1)
    for command in (("eval", "--data"), ("classify",)):
        _, err = run_cli(*command, tmp_path / "people", "--model", bare, code=2)
        assert "`classify --index GALLERY` and `eval --pairs FILE` go by its embeddings" in err
