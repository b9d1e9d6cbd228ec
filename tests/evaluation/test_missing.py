"""Pairs whose picture has no embedding: counted, named, and judged under both policies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from faceidx.evaluation.folds import assign_folds, fold_accuracy
from faceidx.evaluation.roc import (
    auc,
    best_accuracy,
    confusion,
    d_prime,
    eer,
    roc_curve,
    tar_at_far,
)
from faceidx.evaluation.verification import VerifyOptions, verify_pairs

Write = Callable[..., Path]
TARGETS = (1.0, 0.5, 0.1, 0.01, 0.0)


def _list(path: Path, rows: Sequence[tuple[str, str, int]]) -> Path:
    lines = [f"{left},{right},{label}" for left, right, label in rows]
    path.write_text("\n".join(["left,right,label", *lines]) + "\n", "utf-8")
    return path


class _Thousand:
    """1,000 pairs of random vectors; ten of them, five a class, name a picture that is missing."""

    def __init__(self, tmp_path: Path, embeddings: Write) -> None:
        rng = np.random.default_rng(0)
        keys = [f"p{person:03d}/{picture}.jpg" for person in range(150) for picture in range(4)]
        centres = np.repeat(rng.normal(size=(150, 16)), 4, axis=0)
        vectors = (centres + rng.normal(size=centres.shape)).astype(np.float32)
        self.rows: list[tuple[str, str, int]] = []
        scores = []
        for k in range(1000):
            one = int(rng.integers(600))
            other = one // 4 * 4 + (one + int(rng.integers(1, 4))) % 4
            if k % 2:  # an impostor pair
                other = (one + 4 * int(rng.integers(1, 150))) % 600
            self.rows.append((keys[one], keys[other], 1 - k % 2))
            unit = vectors[[one, other]] / np.linalg.norm(vectors[[one, other]], axis=1)[:, None]
            scores.append(float(unit[0] @ unit[1]))
        self.gone = sorted(rng.permutation(500)[:5] * 2) + sorted(rng.permutation(500)[:5] * 2 + 1)
        self.names = [f"p{i:03d}/gone-{i}.jpg" for i in range(10)]
        for pair, name in zip(self.gone, self.names, strict=True):
            left, right, label = self.rows[pair]
            self.rows[pair] = (left, name, label) if pair % 3 else (name, right, label)
        self.scores = np.array(scores)
        self.scores[self.gone] = -np.inf
        self.genuine = np.array([label == 1 for *_, label in self.rows])
        self.pairs = _list(tmp_path / "pairs.csv", self.rows)
        self.embeddings = embeddings(keys, vectors=vectors)

    def options(self, **more: object) -> VerifyOptions:
        given = {"pairs": self.pairs, "embeddings": self.embeddings, "fmr": TARGETS, **more}
        return VerifyOptions(**given)  # type: ignore[arg-type]


@pytest.fixture
def thousand(tmp_path: Path, embeddings: Write) -> _Thousand:
    return _Thousand(tmp_path, embeddings)


def _expected(scores: np.ndarray, genuine: np.ndarray) -> dict[str, object]:
    """The figures by trying every threshold; minus infinity never matches."""
    ours, others = scores[genuine], scores[~genuine]
    wins = (ours[:, None] > others) + 0.5 * (ours[:, None] == others)
    tried = [np.inf, *sorted(set(scores[np.isfinite(scores)]), reverse=True)]
    counts = [(int((others >= t).sum()), int((ours >= t).sum())) for t in tried]
    tars = [max(tp for fp, tp in counts if fp / len(others) <= t) / len(ours) for t in TARGETS]
    return {
        "auc": wins.mean(),
        "eer": _crossing([*counts, (len(others), len(ours))], len(others), len(ours)),
        "tar": tars,
        "right": max(tp + len(others) - fp for fp, tp in counts),
    }


def _crossing(counts: list[tuple[int, int]], impostor: int, genuine: int) -> float:
    for (fp, tp), (next_fp, next_tp) in pairwise(counts):
        fmr, fnmr = fp / impostor, 1 - tp / genuine
        next_fmr, next_fnmr = next_fp / impostor, 1 - next_tp / genuine
        if next_fmr >= next_fnmr:
            share = (fnmr - fmr) / ((fnmr - fmr) + (next_fmr - next_fnmr))
            return fmr + share * (next_fmr - fmr)
    raise AssertionError("the curve ends where all are accepted")


def test_ten_missing_of_a_thousand_are_counted_and_named(thousand: _Thousand) -> None:
    result = verify_pairs(thousand.options()).as_json()
    assert (result["pairs"], result["genuine"], result["impostor"]) == (1000, 500, 500)
    assert (result["missing"], result["judged"]) == (10, 990)
    names = dict(zip(thousand.gone, thousand.names, strict=True))
    assert result["missing_pairs"] == [
        {
            "line": pair + 2,
            "left": thousand.rows[pair][0],
            "right": thousand.rows[pair][1],
            "genuine": pair % 2 == 0,
            "reason": f"{names[pair]}: not among the embedded pictures",
        }
        for pair in sorted(names)
    ]
    assert {p["picture"] for p in result["missing_pictures"]} == set(thousand.names)


@pytest.mark.parametrize("policy", ["exclude", "reject"])
def test_the_figures_of_both_policies_are_those_of_every_threshold(
    thousand: _Thousand, policy: str
) -> None:
    kept = np.isfinite(thousand.scores) if policy == "exclude" else np.ones(1000, dtype=bool)
    expected = _expected(thousand.scores[kept], thousand.genuine[kept])
    asked = verify_pairs(thousand.options(missing=policy)).as_json()
    other = "reject" if policy == "exclude" else "exclude"
    beside = verify_pairs(thousand.options(missing=other)).as_json()["other_policy"]
    assert beside["missing_policy"] == policy
    for found in (asked, beside):
        assert found["judged"] == np.count_nonzero(kept)
        assert found["auc"] == pytest.approx(expected["auc"], abs=1e-12)
        assert found["eer"] == pytest.approx(expected["eer"], abs=1e-12)
        assert [point["tar"] for point in found["tar_at_far"]] == expected["tar"]
        assert found["confusion"]["tp"] + found["confusion"]["tn"] == expected["right"]
        assert found["auc_ci"][0] < found["auc"] < found["auc_ci"][1]
    for name in ("auc_ci", "eer_ci", "accuracy", "accuracy_std", "accuracy_ci", "tar_at_far"):
        assert asked[name] == beside[name]


def test_a_list_with_pairs_left_out_is_judged_as_one_that_never_held_them(
    tmp_path: Path, embeddings: Write
) -> None:
    keys = [f"p{person}/{picture}.jpg" for person in range(20) for picture in range(3)]
    rng = np.random.default_rng(1)
    rows = []
    for k in range(240):
        one, other = rng.integers(20, size=2)
        other = one if k % 2 else (other + (other == one)) % 20
        picture = rng.permutation(4)  # of four pictures nobody has the last
        rows.append(
            f"p{one}/{picture[0]}.jpg,p{other}/{picture[1]}.jpg,{int(one == other)},{k % 3}"
        )
    files = embeddings(keys)
    found = []
    for name, kept in (("all", rows), ("there", [row for row in rows if "/3.jpg" not in row])):
        path = tmp_path / f"{name}.csv"
        path.write_text("\n".join(["left,right,label,fold", *kept]))
        found.append(verify_pairs(VerifyOptions(pairs=path, embeddings=files)).as_json())
    assert found[0]["missing"] > 100 and not found[1]["missing"]
    assert found[0]["folds"] == 3 and found[0]["auc_ci_method"] == "bootstrap-identities"
    for name in ("judged", "auc", "eer", "accuracy", "accuracy_std", "threshold", "confusion"):
        assert found[0][name] == found[1][name]
    # The same people are drawn, though not in the same order.
    assert found[0]["auc_ci"] == pytest.approx(found[1]["auc_ci"], abs=0.02)


def test_a_rejected_pair_matches_at_no_threshold(thousand: _Thousand) -> None:
    verified = verify_pairs(thousand.options(missing="reject"))
    point = verified.as_json()["tar_at_far"][0]
    assert (point["target"], point["tar"], point["false_matches"]) == (1.0, 495 / 500, 495)
    for threshold in (-2.0, -1e30):
        counts = confusion(verified.roc, threshold)
        assert (counts.tp, counts.fp, counts.tn, counts.fn) == (495, 495, 5, 5)


def _rejecting(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    genuine = rng.random(60) < 0.5
    scores = (rng.normal(size=60) + genuine).round(1)
    return scores, genuine, rng.random(60) < rng.choice([0.1, 0.5, 0.9])


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("full", [False, True])
def test_the_curve_with_rejected_pairs_ties_them_below_all_others(seed: int, full: bool) -> None:
    scores, genuine, rejected = _rejecting(seed)
    roc = roc_curve(scores, genuine, rejected=rejected, full=full)
    lowest = np.where(rejected, -np.inf, scores)
    expected = _expected(lowest, genuine)
    assert (roc.genuine, roc.impostor) == (genuine.sum(), (~genuine).sum())
    assert auc(roc) == pytest.approx(expected["auc"], abs=1e-12)
    tied = np.where(rejected, -100, scores)
    assert auc(roc) == pytest.approx(roc_auc_score(genuine, tied), abs=1e-12)
    assert eer(roc) == pytest.approx(expected["eer"], abs=1e-12)
    assert [point.tar for point in tar_at_far(roc, TARGETS)] == expected["tar"]
    threshold, accuracy = best_accuracy(roc)
    assert round(accuracy * 60) == expected["right"]
    assert np.isfinite(threshold)
    scored = ~rejected
    assert d_prime(roc.genuine_scores, roc.impostor_scores) == d_prime(
        np.sort(scores[genuine & scored]), np.sort(scores[~genuine & scored])
    )


def test_the_scores_of_rejected_pairs_are_not_looked_at() -> None:
    scores, genuine, rejected = _rejecting(0)
    one = roc_curve(scores, genuine, rejected=rejected)
    other = roc_curve(np.where(rejected, np.nan, scores), genuine, rejected=rejected)
    assert one.thresholds.tolist() == other.thresholds.tolist()
    assert (auc(one), eer(one)) == (auc(other), eer(other))


def test_folds_count_rejected_pairs_as_non_matches() -> None:
    scores, genuine, rejected = _rejecting(1)
    lowest = np.where(rejected, -100.0, scores)
    folds = assign_folds(genuine, 3)
    assert folds is not None
    found = fold_accuracy(roc_curve(lowest, genuine, rejected=rejected), lowest, genuine, folds)
    for fold in range(3):
        held = folds == fold
        accepted = (scores >= found.thresholds[fold]) & ~rejected
        assert found.accuracies[fold] == np.mean((accepted == genuine)[held])
        tried = [np.inf, *scores[~rejected & ~held]]
        best = max(np.mean((((scores >= t) & ~rejected) == genuine)[~held]) for t in tried)
        assert np.mean((accepted == genuine)[~held]) == best


def test_a_class_of_rejected_pairs_alone_is_judged_reported_and_saved(
    tmp_path: Path, embeddings: Write
) -> None:
    path = embeddings(["a/1", "a/2", "a/3"])
    rows = [("a/1", "a/2", 1), ("a/1", "a/3", 1), ("a/1", "c/1", 0), ("c/1", "b/1", 0)]
    for label, name in ((1, "impostors"), (0, "genuine")):
        pairs = _list(
            tmp_path / f"{name}.csv",
            [(left, right, int(genuine == label)) for left, right, genuine in rows],
        )
        verified = verify_pairs(
            VerifyOptions(
                pairs=pairs,
                embeddings=path,
                missing="reject",
                report=tmp_path / f"{name}-report",
                save_threshold=tmp_path / f"{name}.json",
                fmr=(1.0, 0.0),
            )
        )
        figures = verified.as_json()
        # Of two genuine pairs with a score and two impostors without, none is in error.
        assert figures["auc"] == label
        assert figures["eer"] == 1 - label
        assert [point["tar"] for point in figures["tar_at_far"]] == [label, label]
        assert [point["far"] for point in figures["tar_at_far"]] == [1 - label, 0]
        assert figures["d_prime"] is None
        assert (tmp_path / f"{name}-report" / "index.html").is_file()


def test_a_list_whose_pairs_are_all_rejected_has_no_curve() -> None:
    with pytest.raises(Exception, match="no pair has a score"):
        roc_curve(np.zeros(2), np.array([True, False]), rejected=np.array([True, True]))
