from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from faceidx.embedding.store import Left
from faceidx.errors import InputError
from faceidx.evaluation import all_scores
from faceidx.evaluation.all_pairs import AllPairs, judge_all_pairs
from faceidx.evaluation.report import command_line
from faceidx.evaluation.roc import Roc, best_accuracy, confusion, eer, roc_curve, tar_at_far
from faceidx.evaluation.verification import VerifyOptions, verify_pairs
from faceidx.progress import Progress

Write = Callable[..., Path]
TARGETS = (0.0, 1e-3, 1e-2, 0.1, 0.5)


def _options(path: Path, **more: Any) -> VerifyOptions:
    return VerifyOptions(pairs=path, embeddings=path, all_pairs=True, **({"fmr": TARGETS} | more))


def _exact_vectors(people: np.ndarray, seed: int, flips: int = 3) -> np.ndarray:
    """Rows of sixteen times 1/4 or -1/4: their products are exact in any order, and often tie."""
    rng = np.random.default_rng(seed)
    signs = rng.choice([-0.25, 0.25], size=(people.max() + 2, 16))[people]
    for row in signs:
        row[rng.choice(16, flips, replace=False)] *= -1
    return signs


def _keys(people: np.ndarray) -> list[str]:
    """A key a row; one of nobody (-1) lies in no folder, and so has no identity."""
    return [f"p{p}/{i}.jpg" if p >= 0 else f"{i}.jpg" for i, p in enumerate(people)]


def _brute_force(vectors: np.ndarray, people: np.ndarray) -> tuple[Roc, np.ndarray, np.ndarray]:
    known = np.flatnonzero(people >= 0)
    pairs = np.array(list(combinations(known, 2)))
    scores = np.einsum("pd,pd->p", vectors[pairs[:, 0]], vectors[pairs[:, 1]]).astype(np.float32)
    genuine = people[pairs[:, 0]] == people[pairs[:, 1]]
    return roc_curve(scores, genuine), scores, genuine


@pytest.mark.parametrize(
    "blocks", [(8192, 2048, 1024), (16, 8, 4), (7, 3, 5), (64, 1, 64), (1, 1, 1)]
)
@pytest.mark.parametrize("order", ["by person", "shuffled"])
def test_all_figures_are_those_of_every_pair_by_itself(
    blocks: tuple[int, int, int], order: str, embeddings: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = np.repeat(np.arange(-1, 14), [9, *range(1, 8), *range(1, 8)])
    if order == "shuffled":
        people = np.random.default_rng(1).permutation(people)
    vectors = _exact_vectors(people, seed=2)
    for name, size in zip(("_ROWS", "_LEFT", "_RIGHT"), blocks, strict=True):
        monkeypatch.setattr(all_scores, name, size)
    verdict = judge_all_pairs(_options(embeddings(_keys(people), vectors)))
    roc, _, _ = _brute_force(vectors, people)

    assert (verdict.roc.genuine, verdict.roc.impostor) == (roc.genuine, roc.impostor)
    assert np.array_equal(verdict.roc.thresholds, roc.thresholds)
    assert np.array_equal(verdict.roc.true_matches, roc.true_matches)
    assert np.array_equal(verdict.roc.false_matches, roc.false_matches)
    assert verdict.figures.eer == eer(roc)
    assert verdict.figures.points == tar_at_far(roc, TARGETS)
    assert verdict.figures.threshold == best_accuracy(roc)[0]
    assert verdict.figures.confusion == confusion(roc, verdict.figures.threshold)


def test_it_agrees_with_the_list_of_all_pairs(tmp_path: Path, embeddings: Write) -> None:
    people = np.repeat(np.arange(30), 5)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(30, 24))[people] + 1.6 * rng.normal(size=(150, 24))
    vectors[7] = vectors[3]  # pictures that are there twice
    vectors[90] = vectors[10]
    keys = _keys(people)
    path = embeddings(keys, vectors)
    lines = [
        f"{keys[i]},{keys[j]},{int(people[i] == people[j])}" for i, j in combinations(range(150), 2)
    ]
    (tmp_path / "all.csv").write_text("\n".join(["left,right,label", *lines]) + "\n")
    listed = verify_pairs(
        VerifyOptions(pairs=tmp_path / "all.csv", embeddings=path, fmr=TARGETS)
    ).as_json()
    found = verify_pairs(_options(path)).as_json()

    for name in ("pairs", "genuine", "impostor", "judged", "confusion"):
        assert found[name] == listed[name], name
    for name in ("auc", "eer", "threshold", "d_prime", "precision", "f1", "auc_ci_delong"):
        assert found[name] == pytest.approx(listed[name], abs=1e-6), name
    for one, other in zip(found["tar_at_far"], listed["tar_at_far"], strict=True):
        for name in ("target", "far", "tar", "threshold", "false_matches", "tar_ci_naive"):
            assert one[name] == pytest.approx(other[name], abs=1e-6), name
    assert set(listed) <= set(found)


def test_what_cannot_be_said_is_null(embeddings: Write) -> None:
    people = np.repeat([0, -1, 1, 2], [3, 2, 3, 1])
    path = embeddings(
        _keys(people), _exact_vectors(people, 0), left=Left(failed=[("x.jpg", "truncated")])
    )
    found = verify_pairs(_options(path)).as_json()

    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["all_pairs"] is True
    assert found["format"] == "all-pairs"
    assert (found["pictures"], found["identities"]) == (7, 3)
    assert found["without_identity"] == 2
    assert found["pictures_without_identity"] == ["3.jpg", "4.jpg"]
    assert found["missing_pictures"] == [{"picture": "x.jpg", "reason": "truncated"}]
    assert (found["accuracy"], found["accuracy_std"], found["folds"]) == (None, None, None)
    assert found["auc_ci_method"] == "jackknife-identities"
    assert [w for w in found["warnings"] if "identity are in no pair (2 left out)" in w]
    assert [w for w in found["warnings"] if "rests on 3 people" in w]


@pytest.mark.parametrize(
    ("people", "said"),
    [
        ([-1, -1, -1], "knows no identity of its 3 pictures"),
        ([0, 0, -1], "of one person"),
        ([0, 1, 2], "no identity has two pictures"),
    ],
)
def test_people_that_do_not_make_both_kinds_of_pairs_are_refused(
    people: list[int], said: str, embeddings: Write
) -> None:
    rows = np.array(people)
    path = embeddings(_keys(rows), _exact_vectors(rows, 0))
    with pytest.raises(InputError, match=said):
        verify_pairs(_options(path))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"scores": Path("s.csv")}, "--scores"),
        ({"missing": "reject"}, "--missing reject"),
        ({"folds": 5}, "--folds"),
        ({"groups": Path("g.csv")}, "--groups"),
        ({"images": Path()}, "--images"),
        ({"format": "lfw"}, "--format lfw"),
        ({"embeddings": None}, "needs --embeddings"),
    ],
)
def test_options_that_need_a_list_are_refused(more: dict[str, Any], said: str) -> None:
    options = _options(Path("faces.h5"))
    for name, value in more.items():
        setattr(options, name, value)
    with pytest.raises(InputError, match=said):
        verify_pairs(options)


def test_rows_that_are_no_unit_vectors_are_refused(embeddings: Write) -> None:
    people = np.array([0, 0, 1])
    path = embeddings(_keys(people), _exact_vectors(people, 0))
    for row, said in (([2.0] * 16, "row 1 has the length 8"), ([np.nan] * 16, "no finite numbers")):
        with h5py.File(path, "a") as file:
            file["embeddings"][1] = row
        with pytest.raises(InputError, match=said):
            verify_pairs(_options(path))


def test_half_precision_is_scored_as_it_is_stored(embeddings: Write) -> None:
    people = np.repeat(np.arange(6), 4)
    path = embeddings(_keys(people))
    with h5py.File(path, "a") as file:
        half = file["embeddings"][()].astype(np.float16)
        del file["embeddings"]
        file["embeddings"] = half
    roc, _, _ = _brute_force(half.astype(np.float32), people)

    figures = judge_all_pairs(_options(path)).figures
    assert figures.eer == eer(roc)
    assert figures.threshold == pytest.approx(best_accuracy(roc)[0], abs=1e-6)


def test_the_same_file_gives_the_same_verdict(embeddings: Write) -> None:
    path = embeddings(_keys(np.repeat(np.arange(40), 3)))
    assert judge_all_pairs(_options(path)).as_json() == judge_all_pairs(_options(path)).as_json()


def test_the_hardest_pairs_are_found(embeddings: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    people = np.repeat(np.arange(30), 4)
    path = embeddings(_keys(people))
    with h5py.File(path) as file:
        _, scores, genuine = _brute_force(file["embeddings"][()], people)
    pairs = np.array(list(combinations(_keys(people), 2)))
    for name, size in (("_ROWS", 32), ("_LEFT", 16), ("_RIGHT", 8)):
        monkeypatch.setattr(all_scores, name, size)
    verdict = judge_all_pairs(_options(path))

    expected = [
        *pairs[~genuine][np.argsort(-scores[~genuine])[:12]].tolist(),
        *pairs[genuine][np.argsort(scores[genuine])[:12]].tolist(),
    ]
    assert [list(verdict.names(pair)) for pair in range(24)] == expected
    assert np.array_equal(verdict.judged.genuine, np.arange(24) >= 12)


def test_of_equally_hard_pairs_the_first_found_are_kept(embeddings: Write) -> None:
    people = np.repeat(np.arange(40), 2)
    path = embeddings(_keys(people), np.tile(np.eye(1, 16), (80, 1)))
    verdict = judge_all_pairs(_options(path))

    assert verdict.figures.auc == 0.5
    assert [verdict.names(pair)[0] for pair in range(12)] == ["p0/0.jpg"] * 12
    assert verdict.names(12) == ("p0/0.jpg", "p0/1.jpg")


def test_report_and_threshold_are_those_of_all_pairs(tmp_path: Path, embeddings: Write) -> None:
    path = embeddings(_keys(np.repeat(np.arange(20), 4)))
    options = _options(
        path, report=tmp_path / "report", save_threshold=tmp_path / "t.json", at_fmr=1e-2
    )
    verdict = verify_pairs(options)
    page = (tmp_path / "report" / "index.html").read_text("utf-8")
    figures = json.loads((tmp_path / "report" / "figures.json").read_text("utf-8"))
    threshold = json.loads((tmp_path / "t.json").read_text("utf-8"))

    assert isinstance(verdict, AllPairs)
    assert figures == verdict.as_json()
    assert "3,160 pairs, 120 of one person and 3,040 of two" in page
    assert all(name in page for pair in range(24) for name in verdict.names(pair))
    assert not (tmp_path / "report" / "scores.csv").exists()
    assert command_line(options).startswith("faceidx verify-pairs --all-pairs --embeddings ")
    assert (threshold["genuine"], threshold["impostor"]) == (120, 3040)
    assert threshold["threshold"] == tar_at_far(verdict.roc, [1e-2])[0].threshold


def test_memory_does_not_grow_with_the_number_of_pairs(
    embeddings: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(all_scores, "_ROWS", 256)

    def peak(pictures: int) -> int:
        people = np.arange(pictures) // 5
        path = embeddings(_keys(people), _exact_vectors(people, 0), name=f"{pictures}.h5")
        tracemalloc.start()
        verdict = judge_all_pairs(_options(path))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert verdict.roc.genuine + verdict.roc.impostor == pictures * (pictures - 1) // 2
        return peak

    few, many = peak(400), peak(3000)  # 80 thousand pairs, and 4.5 million: 18 MB of scores
    assert many - few < 6_000_000
    assert many < 260_000_000


def test_an_interruption_ends_it_at_once_and_leaves_nothing(
    tmp_path: Path, embeddings: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(all_scores, "_ROWS", 16)
    seen: list[Progress] = []

    def interrupt(progress: Progress) -> None:
        seen.append(progress)
        if len(seen) == 3:
            raise KeyboardInterrupt

    path = embeddings(_keys(np.repeat(np.arange(20), 5)))
    with pytest.raises(KeyboardInterrupt):
        verify_pairs(_options(path, report=tmp_path / "report"), interrupt)
    assert len(seen) == 3
    assert [(p.stage, p.unit, p.total) for p in seen] == [("score", "pairs", 4950)] * 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["faces.h5"]
