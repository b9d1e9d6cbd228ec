from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from faceidx.errors import InputError
from faceidx.evaluation.figures import no_figures
from faceidx.evaluation.lists.pairs import ScoreList
from faceidx.evaluation.verdict import DEFAULT_TARGETS, OneClass
from faceidx.evaluation.verification import VerifyOptions, judge, parse_targets, verify_pairs

Write = Callable[..., Path]

CONTRACT = {
    "pairs", "genuine", "impostor", "missing", "missing_pairs", "missing_policy", "format", "auc",
    "auc_ci", "eer", "accuracy", "accuracy_std", "folds", "threshold", "confusion", "tar_at_far",
}  # fmt: skip


def _list(path: Path, rows: list[tuple[str, str, int]]) -> Path:
    lines = [f"{left},{right},{label}" for left, right, label in rows]
    path.write_text("\n".join(["left,right,label", *lines]) + "\n", "utf-8")
    return path


@pytest.fixture
def people(tmp_path: Path, embeddings: Write) -> tuple[Path, Path]:
    """A list of 120 pairs, and the embeddings of its pictures."""
    keys = [f"person{p}/{i}.jpg" for p in range(12) for i in range(4)]
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(60):
        person, one, other = (*rng.integers(0, 12, 1), *rng.permutation(4)[:2])
        rows.append((f"person{person}/{one}.jpg", f"person{person}/{other}.jpg", 1))
        two = rng.permutation(12)[:2]
        rows.append((f"person{two[0]}/{one}.jpg", f"person{two[1]}/{other}.jpg", 0))
    return _list(tmp_path / "pairs.csv", rows), embeddings(keys)


@pytest.fixture
def lines(tmp_path: Path, embeddings: Write) -> tuple[Path, Path]:
    """Six pairs whose scores are 0.9, 0.4, missing (genuine), 0.6, 0.1, missing (impostor)."""
    cosines = {"g1": 0.9, "g2": 0.4, "i1": 0.6, "i2": 0.1}
    vectors = [[1.0, 0.0]] + [[c, np.sqrt(1 - c * c)] for c in cosines.values()]
    path = embeddings(["probe", *cosines], vectors=np.array(vectors))
    rows = [
        ("probe", "g1", 1),
        ("probe", "g2", 1),
        ("probe", "gone", 1),
        ("probe", "i1", 0),
        ("probe", "i2", 0),
        ("lost", "probe", 0),
    ]
    return _list(tmp_path / "pairs.csv", rows), path


def test_the_json_has_every_promised_field(people: tuple[Path, Path]) -> None:
    result = verify_pairs(VerifyOptions(pairs=people[0], embeddings=people[1])).as_json()
    assert set(result) >= CONTRACT
    assert (result["pairs"], result["genuine"], result["impostor"]) == (120, 60, 60)
    assert (result["missing"], result["missing_pairs"], result["format"]) == (0, [], "csv")
    assert (result["folds"], result["missing_policy"]) == (10, "exclude")
    assert sum(result["confusion"].values()) == 120
    assert [p["target"] for p in result["tar_at_far"]] == [0.1, 0.01, 0.001]
    for point in result["tar_at_far"]:
        assert set(point) >= {"target", "far", "tar", "threshold", "false_matches"}
        assert point["tar_ci"][0] <= point["tar"] <= point["tar_ci"][1]
        assert point["tar_ci_naive"][0] <= point["tar"] <= point["tar_ci_naive"][1]
        assert point["far"] == point["false_matches"] / 60 <= point["target"]
    assert result["auc_ci"][0] <= result["auc"] <= result["auc_ci"][1]
    assert result["auc_ci_method"] == "bootstrap-identities"
    for name in ("eer", "accuracy"):
        for interval in (result[f"{name}_ci"], result[f"{name}_ci_naive"]):
            assert interval[0] <= result[name] <= interval[1]
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_pairs_left_out_take_no_part_in_the_figures(lines: tuple[Path, Path]) -> None:
    # Genuine 0.9 and 0.4, impostors 0.6 and 0.1: three of four couples are in order.
    result = verify_pairs(VerifyOptions(pairs=lines[0], embeddings=lines[1])).as_json()
    assert (result["pairs"], result["genuine"], result["impostor"]) == (6, 3, 3)
    assert (result["missing"], result["judged"]) == (2, 4)
    assert [(m["line"], m["left"], m["right"]) for m in result["missing_pairs"]] == [
        (4, "probe", "gone"),
        (7, "lost", "probe"),
    ]
    assert result["auc"] == 0.75
    assert result["confusion"] == {"tp": 1, "fp": 0, "tn": 2, "fn": 1}
    assert result["tar_at_far"][0]["tar"] == 0.5


def test_rejected_pairs_never_match(lines: tuple[Path, Path]) -> None:
    # The missing ones tie below all others. Genuine 0.9 beats three impostors, 0.4 beats two, the
    # missing one ties with one: (3 + 2 + 0.5) / 9. Best accuracy is at 0.9: 1 + 3 right of 6.
    result = verify_pairs(
        VerifyOptions(pairs=lines[0], embeddings=lines[1], missing="reject")
    ).as_json()
    assert result["judged"] == 6
    assert result["auc"] == pytest.approx(5.5 / 9, abs=1e-12)
    assert result["confusion"] == {"tp": 1, "fp": 0, "tn": 3, "fn": 2}
    assert result["tar_at_far"][0]["tar"] == pytest.approx(1 / 3)
    excluded = verify_pairs(VerifyOptions(pairs=lines[0], embeddings=lines[1])).as_json()
    assert result["d_prime"] == excluded["d_prime"]


def test_figures_under_the_other_policy_stand_beside(lines: tuple[Path, Path]) -> None:
    results = {
        policy: verify_pairs(
            VerifyOptions(pairs=lines[0], embeddings=lines[1], missing=policy)
        ).as_json()
        for policy in ("exclude", "reject")
    }
    for policy, other in (("exclude", "reject"), ("reject", "exclude")):
        beside = results[policy]["other_policy"]
        assert beside["missing_policy"] == other
        assert beside.keys() > no_figures(DEFAULT_TARGETS).keys()
        assert all(beside[name] == results[other][name] for name in beside)


def test_a_class_that_is_missing_whole_is_said(tmp_path: Path, embeddings: Write) -> None:
    path = embeddings(["a/1", "a/2", "b/1"])
    pairs = _list(tmp_path / "p.csv", [("a/1", "a/2", 1), ("a/1", "c/1", 0), ("c/1", "b/1", 0)])
    verdict = verify_pairs(VerifyOptions(pairs=pairs, embeddings=path))
    assert isinstance(verdict, OneClass)
    assert (verdict.counts(), len(verdict.judged.scores)) == ((1, 2), 1)
    assert [pair.line for pair in verdict.missing] == [3, 4]
    assert len(verdict.warnings) == 1
    assert "all 2 impostor pairs are left out" in verdict.warnings[0]
    rejecting = verify_pairs(VerifyOptions(pairs=pairs, embeddings=path, missing="reject"))
    assert verdict.other_policy is not None
    assert verdict.other_policy["auc"] == rejecting.as_json()["auc"]
    none = {"missing_policy": "exclude", "judged": 1, **no_figures(DEFAULT_TARGETS)}
    assert rejecting.other_policy == none
    assert verdict.other_policy.keys() == none.keys()


@pytest.mark.parametrize(("label", "lacking"), [(1, "impostor"), (0, "genuine")])
def test_a_list_of_one_class_has_scores_and_no_figures(
    tmp_path: Path, embeddings: Write, label: int, lacking: str
) -> None:
    path = embeddings(["a/1", "a/2", "b/1"])
    both = [("a/1", "a/2", 1), ("a/1", "b/1", 0)]
    pairs = _list(tmp_path / "p.csv", [(left, right, label) for left, right, _ in both])
    options = VerifyOptions(pairs=pairs, embeddings=path, fmr=(0.1, 0.0))
    told = verify_pairs(replace(options, scores=tmp_path / "s.csv")).as_json()
    assert told["warnings"] == [f"no {lacking} pair is in the list; the figures need some"]
    assert (tmp_path / "s.csv").read_text().count("\n") == 3
    with_both = replace(options, pairs=_list(tmp_path / "both.csv", both))
    usual = verify_pairs(with_both).as_json()
    assert list(told) == list(usual)
    known = {"pairs", "genuine", "impostor", "missing_policy", "judged", "format", "warnings"}
    known |= {"missing", "missing_pairs", "missing_pictures", "model", "fingerprint"}
    assert {name for name, value in told.items() if value is not None} == {*known, "tar_at_far"}
    for point, usual_point in zip(told["tar_at_far"], usual["tar_at_far"], strict=True):
        assert point == {**dict.fromkeys(usual_point), "target": usual_point["target"]}


@pytest.mark.parametrize("output", ["save_threshold", "report", "groups"])
def test_what_needs_both_classes_is_refused_before_anything_is_written(
    tmp_path: Path, embeddings: Write, output: str
) -> None:
    pairs = _list(tmp_path / "p.csv", [("a/1", "a/2", 1)])
    (tmp_path / "g.csv").write_text("identity,group\na,x\n")
    path = tmp_path / ("g.csv" if output == "groups" else "new")
    options = VerifyOptions(
        pairs=pairs,
        embeddings=embeddings(["a/1", "a/2"]),
        scores=tmp_path / "s.csv",
        **{output: path},  # type: ignore[arg-type]
    )
    before = set(tmp_path.iterdir())
    with pytest.raises(InputError, match=f"no impostor pair .* drop --{output.replace('_', '-')}"):
        verify_pairs(options)
    assert set(tmp_path.iterdir()) == before


def test_figures_on_few_errors_draw_a_warning(people: tuple[Path, Path]) -> None:
    options = VerifyOptions(pairs=people[0], embeddings=people[1], fmr=(0.1,))
    warnings = verify_pairs(options).warnings
    assert len(warnings) == 1
    assert "fewer than 30 errors stand behind TAR at FAR 0.1 (6 false matches)" in warnings[0]


def test_an_area_of_1_is_said_to_rest_on_no_error(tmp_path: Path) -> None:
    rows = [(label, label + 0.01 * k) for k in range(50) for label in (0, 1)]
    assert "AUC (no pair out of order), TAR" in _warnings(tmp_path / "s.csv", rows)


def test_figures_on_enough_errors_draw_none() -> None:
    rng = np.random.default_rng(0)
    genuine = np.arange(4000) < 2000
    listed = ScoreList(
        path=Path("s.csv"),
        format="scores",
        scores=rng.normal(size=4000) + genuine,
        genuine=genuine,
        lines=np.arange(4000),
    )
    verified = judge(listed, None, VerifyOptions(pairs=listed.path, fmr=(0.1,)))
    assert verified.warnings == []
    assert verified.figures.intervals.method is None


def _warnings(path: Path, rows: list[tuple[int, float]], **options: Any) -> str:
    path.write_text("label,score\n" + "".join(f"{label},{score}\n" for label, score in rows))
    return "\n".join(verify_pairs(VerifyOptions(pairs=path, **options)).warnings)


def test_a_rate_that_is_finer_than_the_list_is_said(tmp_path: Path) -> None:
    rows = [(label, label + 0.01 * k) for k in range(50) for label in (0, 1)]
    said = _warnings(tmp_path / "s.csv", rows, fmr=(0.5, 0.02, 0.01, 1e-3, 0.0))
    assert "50 impostor pairs cannot measure a FAR of 0.01, 0.001: the smallest above 0" in said
    coarse = {"fmr": (0.1, 0.02, 0.0)}
    assert "cannot measure" not in _warnings(tmp_path / "s.csv", rows, **coarse)
    # The rate of a threshold that leaves, 1e-3 where none is given, too.
    saved = _warnings(tmp_path / "s.csv", rows, **coarse, save_threshold=tmp_path / "t.json")
    assert "50 impostor pairs cannot measure a FAR of 0.001: the" in saved


def test_the_eer_rests_on_the_errors_of_the_rarer_kind_of_pairs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [(1, score) for score in rng.normal(1, 1, 4000)]
    rows += [(0, score) for score in rng.normal(0, 1, 40)]
    assert "EER (13 false matches)" in _warnings(tmp_path / "s.csv", rows)
    mirrored = [(1 - label, -score) for label, score in rows]
    assert "EER (13 false non-matches)" in _warnings(tmp_path / "s.csv", mirrored)


def test_scores_that_are_the_wrong_way_round_are_said(tmp_path: Path) -> None:
    rows = [(label, 1 - label + 0.01 * k) for k in range(50) for label in (0, 1)]
    assert "genuine pairs score lower than impostor pairs" in _warnings(tmp_path / "s.csv", rows)
    alike = [(label, 0.01 * k) for k in range(50) for label in (0, 1)]
    assert "score lower" not in _warnings(tmp_path / "s.csv", alike)


def test_a_list_whose_names_are_found_another_way_says_which(
    tmp_path: Path, people: tuple[Path, Path]
) -> None:
    pairs, embeddings = people
    other = tmp_path / "other.csv"
    other.write_text(pairs.read_text().replace("person", "data/faces/person"))
    plain = verify_pairs(VerifyOptions(pairs=pairs, embeddings=embeddings))
    found = verify_pairs(VerifyOptions(pairs=other, embeddings=embeddings))
    assert found.as_json()["auc"] == plain.as_json()["auc"] and not found.missing
    note = "the names of the list were found without their leading `data/faces/`"
    assert found.warnings == [note, *plain.warnings]


def test_scores_written_and_judged_again_give_the_same_figures(
    people: tuple[Path, Path], tmp_path: Path
) -> None:
    scores = tmp_path / "scores.csv"
    options = VerifyOptions(pairs=people[0], embeddings=people[1], scores=scores)
    first = verify_pairs(options).as_json()
    with scores.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["left", "right", "label", "score"]
    labels = [int(row["label"]) for row in rows]
    assert roc_auc_score(labels, [float(row["score"]) for row in rows]) == pytest.approx(
        first["auc"], abs=1e-12
    )
    again = verify_pairs(VerifyOptions(pairs=scores)).as_json()
    for name in ("pairs", "auc", "eer", "accuracy", "confusion", "tar_at_far", "threshold"):
        assert again[name] == first[name]
    assert again["fingerprint"] is None


def test_people_of_pairs_that_are_left_out_are_not_drawn(
    people: tuple[Path, Path], tmp_path: Path
) -> None:
    header, *rows = people[0].read_text("utf-8").splitlines()
    more = [f"stranger{n}/0.jpg,person{n}/gone.jpg,0" for n in range(12)]
    listed = tmp_path / "more.csv"
    listed.write_text("\n".join([header, *more, *rows]) + "\n", "utf-8")
    scores = tmp_path / "scores.csv"
    first = verify_pairs(VerifyOptions(pairs=listed, embeddings=people[1], scores=scores)).as_json()
    again = verify_pairs(VerifyOptions(pairs=scores)).as_json()
    assert (first["missing"], first["auc_ci_method"]) == (12, "bootstrap-identities")
    for name in ("auc_ci", "eer_ci", "accuracy_ci", "tar_at_far"):
        assert again[name] == first[name]


@pytest.mark.parametrize("length", [0, 0.5, 2])
def test_rows_that_are_not_of_length_1_are_refused_rather_than_scored(
    people: tuple[Path, Path], length: float
) -> None:
    with h5py.File(people[1], "r+") as file:
        file["embeddings"][5] *= np.float32(length)
    with pytest.raises(InputError, match=f"row 5 has the length {length}; .* of length 1"):
        verify_pairs(VerifyOptions(pairs=people[0], embeddings=people[1]))


def test_an_interval_of_too_many_pairs_is_said_to_be_too_narrow(
    people: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faceidx.evaluation.bootstrap._MOST_WORK", 0)
    scores = tmp_path / "scores.csv"
    first = verify_pairs(VerifyOptions(pairs=people[0], embeddings=people[1], scores=scores))
    for found in (first, verify_pairs(VerifyOptions(pairs=scores))):
        assert found.as_json()["auc_ci_method"] == "delong"
        assert any("there are too many pairs" in warning for warning in found.warnings)
    nameless = tmp_path / "nameless.csv"
    nameless.write_text("score,label\n0.5,1\n0.4,0\n0.6,0\n")
    told = " ".join(verify_pairs(VerifyOptions(pairs=nameless)).warnings)
    assert "too many pairs" not in told


def test_scores_without_names_come_back_without_names(tmp_path: Path) -> None:
    nameless, scores = tmp_path / "nameless.csv", tmp_path / "scores.csv"
    values = enumerate((0.9, 0.8, 0.3, 0.4, 0.7, 0.2, 0.1, 0.6))
    nameless.write_text("score,label\n" + "".join(f"{v},{int(i < 4)}\n" for i, v in values))
    first = verify_pairs(VerifyOptions(pairs=nameless, scores=scores)).as_json()
    again = verify_pairs(VerifyOptions(pairs=scores)).as_json()
    assert again["auc_ci_method"] == first["auc_ci_method"] == "delong"
    assert again["auc_ci"] == first["auc_ci"]


def test_a_saved_threshold_says_what_it_was_chosen_for(
    people: tuple[Path, Path], tmp_path: Path
) -> None:
    path = tmp_path / "threshold.json"
    options = VerifyOptions(
        pairs=people[0], embeddings=people[1], save_threshold=path, at_fmr=0.05, fmr=(0.05,)
    )
    point = verify_pairs(options).as_json()["tar_at_far"][0]
    record = json.loads(path.read_text())
    assert record["format"] == "faceidx-threshold"
    assert record["threshold"] == point["threshold"]
    assert (record["target_fmr"], record["fmr"]) == (0.05, point["far"])
    assert record["fnmr"] == pytest.approx(1 - point["tar"])
    assert record["fingerprint"] == "f" * 64
    assert record["pairs"] == str(people[0])


def test_one_seed_gives_one_result(people: tuple[Path, Path]) -> None:
    options = VerifyOptions(pairs=people[0], embeddings=people[1], seed=5)
    assert verify_pairs(options).as_json() == verify_pairs(options).as_json()


def test_targets_are_read_in_order_and_once() -> None:
    assert parse_targets("1e-3, 0.1,1e-3,0,1") == (0.001, 0.1, 0.0, 1.0)


@pytest.mark.parametrize("text", ["", "x", "0.1,", "-0.1", "1.5", "nan", "0.1;0.2", "inf"])
def test_targets_that_are_no_rates_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="no rate from 0 to 1"):
        parse_targets(text)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"embeddings": None}, "give --embeddings"),
        ({"at_fmr": 0.1}, "--save-threshold"),
        ({"pictures": Path()}, "give --report"),
        ({"fmr": (2.0,)}, "no rate"),
        ({"save_threshold": Path("t.json"), "at_fmr": -1.0}, "--at-fmr"),
        ({"scores": Path("faces.h5")}, "exists already"),
        ({"scores": Path("faces.h5"), "overwrite": True}, "a path of its own"),
        ({"scores": Path("nowhere/s.csv")}, "does not exist"),
        ({"scores": Path("same"), "save_threshold": Path("same")}, "a path of its own"),
        ({"folds": 61}, "smaller class"),
        ({"format": "nonsense"}, "nonsense"),
        ({"embeddings": Path("missing.h5")}, "no such file"),
        ({"pairs": Path("faces.h5"), "embeddings": None}, "--embeddings, and a list of pairs or"),
        ({"report": Path("pairs.csv"), "overwrite": True}, "a path of its own"),
        ({"scores": Path(), "overwrite": True}, "is a folder"),
    ],
)
def test_wrong_options_are_refused_and_leave_nothing(
    people: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, object],
    words: str,
) -> None:
    monkeypatch.chdir(people[0].parent)
    before = {path: path.read_bytes() for path in people[0].parent.iterdir()}
    given = {"pairs": people[0], "embeddings": people[1], **options}
    with pytest.raises(InputError, match=words):
        verify_pairs(VerifyOptions(**given))  # type: ignore[arg-type]
    assert {path: path.read_bytes() for path in people[0].parent.iterdir()} == before


def test_embeddings_beside_a_file_of_scores_are_refused(
    people: tuple[Path, Path], tmp_path: Path
) -> None:
    scores = tmp_path / "s.csv"
    scores.write_text("label,score\n1,0.9\n0,0.1\n")
    with pytest.raises(InputError, match="needs no embeddings"):
        verify_pairs(VerifyOptions(pairs=scores, embeddings=people[1]))


def test_real_faces_give_the_area_that_scikit_learn_gives(
    shared_data: Path, tmp_path: Path
) -> None:
    """Raw pixels of LFW crops as vectors: a poor model, but a real list."""
    from PIL import Image

    from faceidx.embedding.store import Origin, write_embeddings
    from faceidx.evaluation.lists import read_list

    root = shared_data / "lfw-dev"
    keys = sorted(str(path.relative_to(root)) for path in root.rglob("*.jpg"))
    small = [
        np.asarray(Image.open(root / key).convert("L").resize((16, 16)), np.float32).ravel()
        for key in keys
    ]
    vectors = np.stack(small) - np.mean(small, axis=0)
    lengths = np.linalg.norm(vectors, axis=1)
    vectors /= lengths[:, None]
    write_embeddings(
        tmp_path / "dev.h5",
        origin=Origin(model="pixels", fingerprint="0" * 64),
        vectors=vectors,
        norms=lengths,
        paths=keys,
        identities=[key.split("/")[0] for key in keys],
    )
    path = shared_data / "lfw-pairs-dev.txt"
    result = verify_pairs(VerifyOptions(pairs=path, embeddings=tmp_path / "dev.h5")).as_json()
    listed = read_list(path)
    rows = [keys.index(f"{key}.jpg") for key in listed.keys]  # type: ignore[union-attr]
    scores = [
        vectors[rows[left]] @ vectors[rows[right]]
        for left, right in zip(listed.left, listed.right, strict=True)  # type: ignore[union-attr]
    ]
    assert (result["pairs"], result["genuine"], result["missing"]) == (600, 300, 0)
    assert result["format"] == "lfw"
    assert result["auc"] == pytest.approx(roc_auc_score(listed.genuine, scores), abs=1e-5)
    assert result["auc_ci_method"] == "bootstrap-identities"
