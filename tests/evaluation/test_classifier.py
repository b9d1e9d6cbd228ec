from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from faceidx.evaluation.classifier import open_set_figures, rank_figures
from tests.conftest import RunCli, draw

NAMES = ["anna", "bert", "chloé"]
NOTHING = {"value": None, "errors": 0, "trials": 0}


def test_figures_of_a_threshold_equal_a_naive_loop() -> None:
    chance = np.random.default_rng(0)
    scores = np.sort(chance.dirichlet([1, 1, 1], 60).astype(np.float32))[:, ::-1]
    order = np.array([chance.permutation(3) for _ in range(60)])
    who = chance.choice([*NAMES, "stranger", "other", ""], 60).tolist()
    wrong = {"fpir": 0, "fnir": 0}
    trials = {"fpir": 0, "fnir": 0}
    for name, classes, best in zip(who, order, scores[:, 0], strict=True):
        if name in NAMES:
            trials["fnir"] += 1
            wrong["fnir"] += not (best >= 0.6 and NAMES[classes[0]] == name)
        elif name:
            trials["fpir"] += 1
            wrong["fpir"] += bool(best >= 0.6)
    for name, figure in open_set_figures(order, scores, who, NAMES, 0.6).items():
        assert 0 < wrong[name] < trials[name]
        value = wrong[name] / trials[name]
        assert figure == {"value": value, "errors": wrong[name], "trials": trials[name]}
    assert open_set_figures(order, scores, who, NAMES, None) == {"fpir": NOTHING, "fnir": NOTHING}
    assert rank_figures(order, who, NAMES)["rank5"]["value"] == 1


@pytest.mark.parametrize(("threshold", "fpir"), [((), None), (("0",), 1.0), (("1",), 0.0)])
def test_the_answer_of_a_classifier_has_every_figure(
    run_cli: RunCli, fake_model_file: Path, tmp_path: Path, threshold: tuple[str, ...], fpir: float
) -> None:
    for number, name in enumerate(("anna", "anna", "stranger")):
        draw(tmp_path / "photos" / name / f"{number}.png", seed=number)
    words = ("classify", tmp_path / "photos", "--model", fake_model_file)
    result = run_cli.json(*words, *(("--threshold", *threshold) if threshold else ()))
    assert result["rank1"]["trials"] == 2
    known, strange = (2, 1) if threshold else (0, 0)
    assert (result["fnir"]["trials"], result["fpir"]["trials"]) == (known, strange)
    assert result["fpir"]["value"] == fpir
    assert set(result["fnir"]) == set(result["fpir"]) == {"value", "errors", "trials"}


def test_a_picture_of_somebody_known_that_cannot_be_read_is_missed(
    run_cli: RunCli, fake_model_file: Path, tmp_path: Path
) -> None:
    photos, file = tmp_path / "photos", tmp_path / "photos.h5"
    for number, name in enumerate(("anna", "anna", "stranger", "stranger")):
        draw(photos / name / f"{number}.png", seed=number)
    draw(photos / "nobody.png", seed=9)
    model = ("--model", fake_model_file)
    whole = run_cli.json("classify", photos, *model, "--threshold", "0")
    for number, name in enumerate(("anna", "stranger")):
        (photos / name / f"{2 * number}.png").write_text("no picture")
    judged = run_cli.json("eval", *model, "--data", photos)["classifier"]
    run_cli("embed", photos, *model, "--out", file)
    for probes in (photos, file):
        told = run_cli.json("classify", probes, *model, "--threshold", "0")
        assert told["fnir"]["trials"] == 2 and told["fnir"]["errors"] >= 1
        assert (whole["fpir"]["trials"], told["fpir"]["trials"]) == (2, 1)
        for rank in ("rank1", "rank5"):
            assert told[rank]["trials"] == 2 and told[rank]["errors"] >= 1
            assert told[rank] == judged[rank]
    assert (judged["failed"], judged["unknown_identities"]) == (2, 1)  # not whom nobody named


def test_rows_of_no_direction_are_missed_and_never_a_match(
    run_cli: RunCli, fake_model_file: Path, tmp_path: Path
) -> None:
    photos, store = tmp_path / "photos", tmp_path / "photos.h5"
    for number in range(4):
        draw(photos / "anna" / f"{number}.png", seed=number)
    run_cli("embed", photos, "--model", fake_model_file, "--out", store)
    with h5py.File(store, "r+") as file:
        file["embeddings"][0] = np.nan
        file["embeddings"][1] = 0
        norms = file["norms"]
        norms[2] = np.inf
    out = tmp_path / "who.jsonl"
    told = run_cli.json("classify", store, "--model", fake_model_file, "--out", out)
    assert (told["probes"], told["failed"], told["matched"], told["unknown"]) == (4, 3, 1, 3)
    assert told["rank5"]["trials"] == 4 and told["rank5"]["errors"] == 3
    last = [json.loads(line) for line in out.read_text("utf-8").splitlines()][-3:]
    assert [(row["score"], row["decision"]) for row in last] == [(None, "unknown")] * 3


@pytest.mark.parametrize(("threshold", "code"), [("1.5", 0), ("-0.1", 0), ("nan", 2)])
def test_a_threshold_that_is_no_probability_is_told(
    run_cli: RunCli, pictures: Path, fake_model_file: Path, threshold: str, code: int
) -> None:
    words = ("classify", pictures, "--model", fake_model_file, f"--threshold={threshold}")
    assert f"--threshold {threshold} is no probability" in run_cli(*words, code=code)[1]


@pytest.mark.parametrize("words", [("classify",), ("eval", "--data")])
def test_a_classifier_says_that_it_does_not_flip(
    run_cli: RunCli, pictures: Path, fake_model_file: Path, words: tuple[str, ...]
) -> None:
    given = (*words, pictures, "--model", fake_model_file)
    plain, quiet = run_cli(*given)
    flipped, told = run_cli(*given, "--flip")
    assert flipped == plain
    assert "--flip is not for the classifier's answers" in told and "--flip" not in quiet
