from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from faceidx.evaluation import bootstrap
from faceidx.evaluation.bootstrap import Units, bootstrap_figures
from faceidx.evaluation.folds import assign_folds, fold_accuracy
from faceidx.evaluation.intervals import (
    FigureIntervals,
    Interval,
    delong_interval,
    figure_intervals,
    naive_intervals,
    wilson_interval,
)
from faceidx.evaluation.roc import auc, closed_counts, eer, roc_curve, tar_at_far

TARGETS = (0.1, 0.01)


def _scored(seed: int, pairs: int, digits: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    genuine = np.arange(pairs) < pairs // 3
    return (rng.normal(size=pairs) + 1.2 * genuine).round(digits).astype(np.float32), genuine


def _people(seed: int, genuine: np.ndarray, number: int) -> Units:
    rng = np.random.default_rng(seed)
    left = rng.integers(0, number, len(genuine))
    right = np.where(genuine, left, (left + rng.integers(1, number, len(genuine))) % number)
    return Units(left=left, right=right, kind="identities")


def _intervals(
    scores: np.ndarray, genuine: np.ndarray, units: Units | None, **options: int
) -> FigureIntervals:
    folds = assign_folds(genuine)
    roc = roc_curve(scores, genuine)
    accuracy = None if folds is None else fold_accuracy(roc, scores, genuine, folds).mean
    naive = naive_intervals(roc, TARGETS, accuracy)
    return figure_intervals(naive, scores, genuine, units, TARGETS, folds=folds, **options)


def _width(interval: Interval | None) -> float:
    assert interval is not None
    return interval.high - interval.low


@pytest.mark.parametrize("digits", [0, 1, 6])
@pytest.mark.parametrize("rejected", [0, 20])
def test_delongs_interval_is_that_of_the_placement_values_pair_by_pair(
    digits: int, rejected: int
) -> None:
    scores, genuine = _scored(0, 150, digits)
    without = np.isin(np.arange(150), np.random.default_rng(0).permutation(150)[:rejected])
    lowest = np.where(without, -100, scores)
    ours, others = lowest[genuine][:, None], lowest[~genuine][None, :]
    wins = (ours > others) + 0.5 * (ours == others)
    variance = wins.mean(1).var(ddof=1) / len(ours) + wins.mean(0).var(ddof=1) / others.size
    margin = 1.959963984540054 * np.sqrt(variance)
    found = delong_interval(roc_curve(scores, genuine, rejected=without))
    assert found.low == pytest.approx(wins.mean() - margin, abs=1e-12)
    assert found.high == pytest.approx(min(1.0, wins.mean() + margin), abs=1e-12)


@pytest.mark.parametrize(("errors", "trials"), [(0, 10), (3, 10), (10, 10), (1, 100_000)])
def test_wilsons_interval_holds_the_rates_that_the_score_test_does_not_refuse(
    errors: int, trials: int
) -> None:
    found = wilson_interval(errors, trials)
    for end in found:
        if 0 < end < 1:
            z = (errors / trials - end) / np.sqrt(end * (1 - end) / trials)
            assert abs(z) == pytest.approx(norm.ppf(0.975), rel=1e-9)
    assert found.low <= errors / trials <= found.high
    assert (found.low == 0) == (errors == 0) and (found.high == 1) == (errors == trials)


def test_the_naive_intervals_are_those_of_rates_of_independent_pairs() -> None:
    scores, genuine = _scored(1, 400)
    roc = roc_curve(scores, genuine)
    naive = naive_intervals(roc, TARGETS, 0.8)
    assert naive.method is None
    assert naive.accuracy is not None
    assert [naive.auc.interval, naive.eer.interval, naive.accuracy.interval] == [None] * 3
    assert naive.accuracy.naive == wilson_interval(320, 400)
    for point, tar in zip(tar_at_far(roc, TARGETS), naive.tar, strict=True):
        assert tar == (None, wilson_interval(point.true_matches, 133))
    rate = eer(roc)
    half_width = 1.96 * np.sqrt(rate * (1 - rate) * (1 / 133 + 1 / 267) / 4)
    assert naive.eer.naive == pytest.approx((rate - half_width, rate + half_width), abs=0.004)
    assert _width(naive.eer.naive) == pytest.approx(2 * half_width, rel=0.02)


def test_without_an_error_only_the_naive_intervals_say_that_some_may_come() -> None:
    genuine = np.arange(200) < 100
    found = _intervals(genuine + 0.0, genuine, _people(0, genuine, 40))
    assert found.tar[1].interval is None
    assert found.tar[1].naive == (pytest.approx(0.963, abs=1e-3), 1.0)
    assert found.eer.interval is None
    assert found.eer.naive == (0.0, pytest.approx(0.0188, abs=1e-4))
    assert found.auc.interval == (1.0, 1.0)
    assert found.method == "bootstrap-identities"


def test_the_intervals_hold_the_middle_of_the_draws() -> None:
    scores, genuine = _scored(2, 150)
    units = _people(3, genuine, 40)
    folds = assign_folds(genuine)
    draws = bootstrap_figures(scores, genuine, units, TARGETS, folds=folds)
    found = _intervals(scores, genuine, units)
    assert found.method == "bootstrap-identities"
    assert found.accuracy is not None
    pairs = [
        (found.auc, draws.auc),
        (found.eer, draws.eer),
        (found.accuracy, draws.accuracy),
        *zip(found.tar, draws.tar.T, strict=True),
    ]
    for both, values in pairs:
        assert both.interval is not None
        inside = (values >= both.interval.low) & (values <= both.interval.high)
        assert 0.95 <= inside.mean() <= 0.97
        assert np.sum(values < both.interval.low) <= 25 >= np.sum(values > both.interval.high)


def test_people_that_fill_many_pairs_widen_every_interval() -> None:
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(15), 40)
    genuine = np.ones(600, bool)
    ours = rng.normal(size=15)[person] + 0.1 * rng.normal(size=600) + 1.0
    scores = np.concatenate([ours, rng.normal(size=600)])
    labels = np.concatenate([genuine, ~genuine])
    other = rng.integers(0, 15, 600)
    units = Units(
        left=np.concatenate([person, other]),
        right=np.concatenate([person, (other + 1) % 15]),
        kind="identities",
    )
    found = _intervals(scores, labels, units)
    assert found.accuracy is not None
    for both in (found.auc, found.eer, found.accuracy, *found.tar):
        assert _width(both.interval) > 1.5 * _width(both.naive)


@pytest.mark.parametrize("sides", [1, 2])
def test_independent_pairs_give_about_the_naive_intervals(sides: int) -> None:
    scores, genuine = _scored(4, 900)
    units = Units(left=np.arange(900), right=np.arange(900) + 900 * (sides - 1), kind="pictures")
    found = _intervals(scores, genuine, units)
    assert found.method == "bootstrap-pictures"
    assert found.auc.interval is not None and found.accuracy is not None
    assert found.auc.interval == pytest.approx(found.auc.naive, abs=0.006)
    assert _width(found.accuracy.interval) == pytest.approx(_width(found.accuracy.naive), rel=0.1)


def test_intervals_of_drawn_people_cover_the_truth_where_the_naive_ones_do_not() -> None:
    """People who are easy or hard to know again, 12 genuine pairs each; the true EER is known."""
    threshold = brentq(lambda t: norm.sf(t) - norm.cdf(t, 1.6, np.sqrt(2)), 0, 1)
    truth = norm.sf(threshold)
    person, strangers = np.repeat(np.arange(40), 12), 40 + np.arange(300)
    units = Units(  # every impostor pair is of two people of its own
        left=np.concatenate([person, strangers]),
        right=np.concatenate([person, 300 + strangers]),
        kind="identities",
    )
    genuine = np.arange(780) < 480
    sets = 60
    covered = np.zeros(2)
    for seed in range(sets):
        rng = np.random.default_rng(seed)
        ours = 1.6 + rng.normal(size=40)[person] + rng.normal(size=480)
        scores = np.concatenate([ours, rng.normal(size=300)])
        naive = naive_intervals(roc_curve(scores, genuine), ())
        found = figure_intervals(naive, scores, genuine, units, (), replicates=150)
        for i, interval in enumerate(found.eer):
            assert interval is not None
            covered[i] += interval.low <= truth <= interval.high
    assert covered[0] >= 0.9 * sets
    assert covered[1] <= 0.8 * sets


def test_one_seed_gives_one_interval() -> None:
    scores, genuine = _scored(5, 200)
    units = _people(6, genuine, 30)
    first, again, other = (_intervals(scores, genuine, units, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first.auc.naive == other.auc.naive
    assert first.auc.interval != other.auc.interval


def test_without_units_or_with_too_many_pairs_the_naive_ones_stand_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scores, genuine = _scored(7, 200)
    unknown = _intervals(scores, genuine, None)
    assert unknown.method is None
    assert unknown.auc == (None, delong_interval(roc_curve(scores, genuine)))
    monkeypatch.setattr(bootstrap, "_MOST_WORK", 1000)
    assert _intervals(scores, genuine, _people(0, genuine, 9)).method is None


def test_a_single_person_with_genuine_pairs_leaves_too_few_draws_to_quote() -> None:
    scores, genuine = np.array([0.9, 0.1, 0.2]), np.array([True, False, False])
    units = Units(left=np.array([0, 1, 2]), right=np.array([0, 2, 1]), kind="identities")
    assert _intervals(scores, genuine, units).method is None


def test_the_area_lies_within_its_interval_with_rejected_pairs_too() -> None:
    scores, genuine = _scored(8, 300)
    rejected = np.arange(300) % 7 == 0
    roc = roc_curve(scores, genuine, rejected=rejected)
    found = figure_intervals(
        naive_intervals(roc, TARGETS),
        scores,
        genuine,
        _people(9, genuine, 60),
        TARGETS,
        rejected=rejected,
    )
    assert found.auc.interval is not None
    assert found.auc.interval.low < auc(roc) < found.auc.interval.high
    assert found.accuracy is None
    assert [int(counts[-1]) for counts in closed_counts(roc)] == [100, 200]
