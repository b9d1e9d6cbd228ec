from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from faceidx.evaluation.bootstrap import Units, bootstrap_figures, pair_weights, units_of
from faceidx.evaluation.folds import assign_folds, fold_accuracy
from faceidx.evaluation.roc import auc, eer, roc_curve, tar_at_far

TARGETS = (0.3, 0.1, 0.01, 0.0, 1.0)


def _scored(seed: int, pairs: int, digits: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    genuine = rng.random(pairs) < 0.4
    return (rng.normal(size=pairs) + 1.2 * genuine).round(digits).astype(np.float32), genuine


def _people(seed: int, genuine: np.ndarray, number: int) -> Units:
    rng = np.random.default_rng(seed)
    left = rng.integers(0, number, len(genuine))
    right = np.where(genuine, left, (left + rng.integers(1, number, len(genuine))) % number)
    return Units(left=left, right=right, kind="identities")


def _expected_weights(units: Units, seed: int, replicates: int, number: int) -> list[list[int]]:
    """Pair by pair: the product of the draws of its two people, or the draws of its one person."""
    rng = np.random.default_rng(seed)
    weights = []
    for _ in range(replicates):
        drawn = rng.integers(0, number, size=number).tolist()
        weights.append(
            [
                drawn.count(left) * (1 if left == right else drawn.count(right))
                for left, right in zip(units.left, units.right, strict=True)
            ]
        )
    return weights


def test_a_pair_counts_as_often_as_its_people_are_drawn() -> None:
    _, genuine = _scored(0, 40, 2)
    units = _people(1, genuine, 12)
    found = list(pair_weights(units, seed=3, replicates=5))
    assert [weights.tolist() for weights in found] == _expected_weights(units, 3, 5, 12)


def test_who_stands_in_one_pair_alone_is_drawn_with_the_pairs_other_person() -> None:
    # Person 0 stands in three pairs, 4 and 5 in two; 1, 2, 3, 6 and 7 in one each.
    pairs = [(0, 1), (2, 0), (0, 0), (4, 5), (5, 4), (6, 7), (3, 3)]
    left, right = np.array(pairs).T
    units = Units(left=left, right=right, kind="identities")
    drawn = np.array(list(pair_weights(units, seed=0, replicates=4000)))
    assert (drawn[:, 0] == drawn[:, 1]).all() and (drawn[:, 0] == drawn[:, 2]).all()
    assert (drawn[:, 3] == drawn[:, 4]).all()
    # Five are drawn: 0, 4, 5, the pair of 6 and 7, and 3. All 5^5 draws give these figures.
    assert drawn.mean(0) == pytest.approx([1, 1, 1, 0.8, 0.8, 1, 1], abs=0.07)
    assert drawn.var(0) == pytest.approx([0.8] * 3 + [1.312] * 2 + [0.8] * 2, rel=0.12)


@pytest.mark.parametrize("digits", [0, 1, 6])
@pytest.mark.parametrize("share_rejected", [0.0, 0.2])
def test_the_figures_of_a_draw_are_those_of_its_pairs_written_out(
    digits: int, share_rejected: float
) -> None:
    scores, genuine = _scored(1, 70, digits)
    units = _people(2, genuine, 14)
    rejected = np.random.default_rng(3).random(70) < share_rejected
    found = bootstrap_figures(
        scores, genuine, units, TARGETS, rejected=rejected, seed=4, replicates=25
    )
    whole = 0
    for i, weights in enumerate(_expected_weights(units, 4, 25, 14)):
        pairs = np.repeat(np.arange(70), weights)
        if not 0 < np.count_nonzero(genuine[pairs]) < len(pairs):
            assert np.isnan([found.auc[i], found.eer[i], *found.tar[i]]).all()
            continue
        roc = roc_curve(scores[pairs], genuine[pairs], rejected=rejected[pairs])
        assert found.auc[i] == pytest.approx(auc(roc), abs=1e-12)
        assert found.eer[i] == pytest.approx(eer(roc), abs=1e-12)
        assert found.tar[i].tolist() == [point.tar for point in tar_at_far(roc, TARGETS)]
        lowest = np.where(rejected, -100.0, scores)[pairs]
        assert found.auc[i] == pytest.approx(roc_auc_score(genuine[pairs], lowest), abs=1e-12)
        whole += 1
    assert whole > 20


def test_the_accuracy_of_a_draw_is_judged_at_the_thresholds_of_all_pairs() -> None:
    scores, genuine = _scored(5, 120, 2)
    units = _people(6, genuine, 30)
    folds = assign_folds(genuine, 4)
    assert folds is not None
    by_fold = fold_accuracy(roc_curve(scores, genuine), scores, genuine, folds)
    found = bootstrap_figures(scores, genuine, units, (), folds=folds, seed=7, replicates=10)
    for i, weights in enumerate(_expected_weights(units, 7, 10, 30)):
        right = total = 0.0
        for pair, times in enumerate(weights):
            share = times / np.count_nonzero(folds == folds[pair])
            accepted = scores[pair] >= by_fold.thresholds[folds[pair]]
            right, total = right + share * (accepted == genuine[pair]), total + share
        assert found.accuracy[i] == pytest.approx(right / total, abs=1e-12)


def test_drawn_once_each_the_folds_accuracy_is_the_one_that_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scores, genuine = _scored(8, 103, 2)  # folds of unequal size
    folds = assign_folds(genuine, 5)
    assert folds is not None
    monkeypatch.setattr(
        "faceidx.evaluation.bootstrap.pair_weights", lambda *_, **__: [np.ones(103, dtype=np.int64)]
    )
    units = _people(9, genuine, 20)
    found = bootstrap_figures(scores, genuine, units, (), folds=folds, replicates=1)
    by_fold = fold_accuracy(roc_curve(scores, genuine), scores, genuine, folds)
    assert found.accuracy[0] == pytest.approx(by_fold.mean, abs=1e-12)


def test_two_systems_get_the_same_draws() -> None:
    scores, genuine = _scored(10, 80, 6)
    units = _people(11, genuine, 20)
    one = bootstrap_figures(scores, genuine, units, TARGETS, seed=1, replicates=40)
    other = bootstrap_figures(2 * scores - 1, genuine, units, TARGETS, seed=1, replicates=40)
    for name in ("auc", "eer", "tar"):
        assert np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True)
    again = bootstrap_figures(scores, genuine, units, TARGETS, seed=2, replicates=40)
    assert not np.array_equal(one.auc, again.auc, equal_nan=True)


def test_scores_stay_in_their_own_precision() -> None:
    """A threshold between two neighbours of float32 parts them; in float64 as well."""
    low = np.float32(0.1)
    high = np.nextafter(low, np.float32(1))
    scores = np.array([high, low] * 6, dtype=np.float32)
    genuine = np.array([True, False] * 6)
    units = Units(left=np.arange(12), right=np.arange(12), kind="pictures")
    for dtype in (np.float32, np.float64):
        found = bootstrap_figures(scores.astype(dtype), genuine, units, (0.0,), replicates=20)
        assert np.nanmin(found.auc) == np.nanmin(found.tar) == 1.0
        assert np.nanmax(found.eer) == 0.0


def test_names_are_numbered_across_both_sides() -> None:
    units = units_of(["a", "b", "a"], ["b", "c", "a"], "pictures")
    assert units.left.tolist() == [0, 1, 0]
    assert units.right.tolist() == [1, 2, 0]
