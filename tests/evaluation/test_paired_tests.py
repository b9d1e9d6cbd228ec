"""Tests of differences against their textbook forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from faceidx.evaluation.bootstrap import Units, bootstrap_figures
from faceidx.evaluation.paired_tests import (
    delong_difference,
    drawn_difference,
    mcnemar,
)
from faceidx.evaluation.roc import roc_curve


def _placements(scores: np.ndarray, genuine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """DeLong's V10 and V01, couple by couple."""
    ours, others = scores[genuine][:, None], scores[~genuine][None]
    wins = (ours > others) + 0.5 * (ours == others)
    return wins.mean(axis=1), wins.mean(axis=0)


@pytest.mark.parametrize("decimals", [0, 1, 6])
@pytest.mark.parametrize("seed", range(4))
def test_delongs_test_is_the_one_of_placement_values_couple_by_couple(
    decimals: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    genuine = rng.random(150) < 0.3
    shared = rng.normal(size=150) + genuine
    first, second = ((shared + rng.normal(size=150)).round(decimals) for _ in range(2))
    found = delong_difference(
        roc_curve(first, genuine), roc_curve(second, genuine), (first, second), genuine
    )
    (first10, first01), (second10, second01) = (_placements(s, genuine) for s in (first, second))
    v10, v01 = np.stack([first10, second10]), np.stack([first01, second01])
    covariance = np.cov(v10) / v10.shape[1] + np.cov(v01) / v01.shape[1]
    contrast = np.array([-1, 1])
    error = np.sqrt(contrast @ covariance @ contrast)
    difference = roc_auc_score(genuine, second) - roc_auc_score(genuine, first)
    assert found.difference == pytest.approx(difference, abs=1e-12)
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(difference) / error), rel=1e-9)
    low, high = stats.norm.interval(0.95, difference, error)
    assert found.interval == pytest.approx((low, high), abs=1e-12)


def test_a_system_does_not_differ_from_itself() -> None:
    rng = np.random.default_rng(0)
    genuine, scores = rng.random(50) < 0.5, rng.normal(size=50)
    curves = roc_curve(scores, genuine), roc_curve(2 * scores, genuine)
    same = delong_difference(*curves, (scores, 2 * scores), genuine)
    assert (same.difference, same.interval, same.p) == (0, (0, 0), 1)
    assert mcnemar(genuine, genuine).p == 1
    same = drawn_difference(0.0, scores, scores)
    assert (same.interval, same.p) == ((0, 0), 1)


def test_where_no_placement_value_varies_there_is_no_p_of_delong() -> None:
    genuine = np.array([True, True, False, False])
    best, worst = np.array([2.0, 2, 1, 1]), np.array([1.0, 1, 2, 2])
    curves = roc_curve(worst, genuine), roc_curve(best, genuine)
    found = delong_difference(*curves, (worst, best), genuine)
    assert (found.difference, found.interval, found.p) == (1, (1, 1), None)


def test_one_pair_of_a_class_has_no_variance() -> None:
    genuine = np.array([True, False, False])
    first, second = np.array([2.0, 1, 3]), np.array([3.0, 1, 2])
    curves = roc_curve(first, genuine), roc_curve(second, genuine)
    found = delong_difference(*curves, (first, second), genuine)
    assert (found.difference, found.interval, found.p) == (0.5, None, None)


@pytest.mark.parametrize(
    ("only_first", "only_second"), [(0, 0), (1, 0), (4, 1), (5, 5), (2, 30), (900, 1100)]
)
def test_mcnemars_test_is_the_binomial_one(only_first: int, only_second: int) -> None:
    both, neither = 7, 3
    first = np.repeat([True, True, False, False], [both, only_first, only_second, neither])
    second = np.repeat([True, False, True, False], [both, only_first, only_second, neither])
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second) == (only_first, only_second)
    tosses = only_first + only_second
    expected = stats.binomtest(only_first, tosses).pvalue if tosses else 1.0
    assert found.p == pytest.approx(expected, rel=1e-9)


def test_mcnemars_test_is_exact_where_its_terms_are_below_the_smallest_float() -> None:
    first = np.arange(400_000) < 199_000
    found = mcnemar(first, ~first)
    assert found.p == pytest.approx(stats.binomtest(199_000, 400_000).pvalue, rel=1e-6)
    assert mcnemar(first | True, first & False).p == 0  # 2^-399999


def test_the_p_of_draws_is_small_where_their_interval_leaves_zero_out() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(size=999)
    for shift in np.linspace(-4, 4, 33):
        second = first + rng.normal(size=999) + shift
        found = drawn_difference(shift, first, second)
        assert found.interval is not None and found.p is not None
        low, high = np.quantile(second - first, [0.025, 0.975])
        assert found.interval == (low, high)
        beyond = min(np.sum(second <= first), np.sum(second >= first))
        assert found.p == pytest.approx(min(1, 2 * (beyond + 1) / 1000))
        if found.p < 0.048 or found.p > 0.052:  # at the edge one draw decides
            assert (found.p < 0.05) == (not low <= 0 <= high)


def test_draws_without_the_figure_are_left_out() -> None:
    first, second = np.array([0.1, np.nan, 0.3, 0.2]), np.array([0.2, np.nan, 0.5, 0.4])
    found = drawn_difference(0.15, first, second)
    assert found == drawn_difference(0.15, first[[0, 2, 3]], second[[0, 2, 3]])
    assert found.p == 0.5  # three draws, none at or below zero: 2 (0 + 1) / (3 + 1)


def test_where_people_matter_chance_alone_convinces_delong_but_not_the_bootstrap() -> None:
    """Two equally good systems, each better with other people than the other: 40 experiments."""
    certain = {"bootstrap": 0, "delong": 0}
    for seed in range(40):
        rng = np.random.default_rng(seed)
        genuine = np.arange(150) < 75
        left = rng.integers(0, 20, 150)
        right = np.where(genuine, left, (left + rng.integers(1, 20, 150)) % 20)
        units = Units(left=left, right=right, kind="identities")
        base = rng.normal(size=150) + 1.5 * genuine
        scores = []
        for _ in range(2):
            easy = rng.normal(size=20)
            scores.append(base + np.where(genuine, 1, -1) * (easy[left] + easy[right]) / 2)
        first, second = scores
        found = delong_difference(
            roc_curve(first, genuine), roc_curve(second, genuine), (first, second), genuine
        )
        draws = [
            bootstrap_figures(s, genuine, units, [], seed=seed, replicates=100).auc for s in scores
        ]
        drawn = drawn_difference(found.difference, *draws)
        certain["delong"] += found.p is not None and found.p < 0.05
        certain["bootstrap"] += drawn.p is not None and drawn.p < 0.05
    assert certain["bootstrap"] <= 5
    assert certain["delong"] >= 12
