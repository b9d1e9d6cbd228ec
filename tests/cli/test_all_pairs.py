from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from faceidx.embedding.store import Origin, write_embeddings
from tests.conftest import RunCli

LIST_FIELDS = {
    "pairs", "genuine", "impostor", "missing", "missing_pairs", "missing_policy", "format", "auc",
    "auc_ci", "eer", "accuracy", "accuracy_std", "folds", "threshold", "confusion", "tar_at_far",
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> RunCli:
    """`faceidx verify-pairs` beside `faces.h5`: 25 pictures of 8 people, one of nobody."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    vectors = np.repeat(rng.normal(size=(8, 12)), 3, axis=0) + 0.8 * rng.normal(size=(24, 12))
    vectors = np.concatenate([vectors, rng.normal(size=(1, 12))])
    write_embeddings(
        Path("faces.h5"),
        origin=Origin(model="tiny", fingerprint="a" * 64),
        vectors=vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
        norms=np.ones(25),
        paths=[f"p{i // 3}/{i % 3}.jpg" for i in range(24)] + ["\x1b[31mnobody.jpg"],
        identities=[f"p{i // 3}" for i in range(24)] + [""],
    )
    return run_cli.of("verify-pairs")


def test_the_json_has_the_fields_of_a_list_and_says_what_was_compared(run: RunCli) -> None:
    result = run.json("--all-pairs", "--embeddings", "faces.h5", "--fmr", "1e-1,1e-2")

    assert set(result) >= LIST_FIELDS
    assert (result["pairs"], result["genuine"], result["impostor"]) == (276, 24, 252)
    assert (result["all_pairs"], result["format"]) == (True, "all-pairs")
    assert (result["pictures"], result["identities"]) == (24, 8)
    assert result["pictures_without_identity"] == ["\x1b[31mnobody.jpg"]
    assert [point["target"] for point in result["tar_at_far"]] == [0.1, 0.01]
    assert (result["accuracy"], result["folds"], result["scores"]) == (None, None, None)


def test_the_summary_names_pictures_people_and_what_is_left_out(run: RunCli) -> None:
    out, _ = run("--all-pairs", "--embeddings", "faces.h5")

    assert "276  (24 genuine, 252 impostor; all-pairs)" in out
    assert "24 of 8 people" in out
    assert "note: pictures without identity are in no pair (1 left out)" in out
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--all-pairs"], "--all-pairs needs --embeddings FILE.h5"),
        (["faces.h5", "--all-pairs", "--embeddings", "faces.h5"], "give no PAIRS"),
        ([], "PAIRS is missing"),
        (["--all-pairs", "--embeddings", "faces.h5", "--folds", "3"], "does not go with --folds"),
        (["--all-pairs", "--embeddings", "gone.h5"], "gone.h5: no such file"),
    ],
)
def test_what_does_not_fit_is_one_line_and_exit_code_2(
    words: list[str], said: str, run: RunCli
) -> None:
    _, err = run(*words, code=2)
    assert said in err
    assert err.count("\n") == 1


def test_outputs_are_written_and_not_replaced_unasked(run: RunCli) -> None:
    words = ("--all-pairs", "--embeddings", "faces.h5", "--report", "r", "--save-threshold", "t")
    result = run.json(*words, "--at-fmr", "1e-2")
    assert (result["report"], result["save_threshold"]) == ("r", "t")
    assert {"index.html", "figures.json", "roc.png"} <= {path.name for path in Path("r").iterdir()}

    _, err = run(*words, code=2)
    assert "exists already" in err
    run(*words, "--overwrite")
