from __future__ import annotations

import numpy as np
import pytest

from faceidx.evaluation import intervals
from faceidx.evaluation.intervals import (
    Units,
    auc_interval,
    bootstrap_aucs,
    delong_interval,
    units_of,
)
from faceidx.evaluation.roc import auc, roc_curve


def _scored(seed: int, pairs: int, digits: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    genuine = np.arange(pairs) < pairs // 3
    return (rng.normal(size=pairs) + 1.2 * genuine).round(digits).astype(np.float32), genuine


def _people(seed: int, genuine: np.ndarray, number: int) -> Units:
    rng = np.random.default_rng(seed)
    left = rng.integers(0, number, len(genuine))
    right = np.where(genuine, left, (left + rng.integers(1, number, len(genuine))) % number)
    return Units(left=left, right=right, kind="identities")


@pytest.mark.parametrize("digits", [0, 1, 6])
def test_delongs_interval_is_that_of_the_placement_values_pair_by_pair(digits: int) -> None:
    scores, genuine = _scored(0, 150, digits)
    ours, others = scores[genuine][:, None], scores[~genuine][None, :]
    wins = (ours > others) + 0.5 * (ours == others)
    variance = wins.mean(1).var(ddof=1) / len(ours) + wins.mean(0).var(ddof=1) / others.size
    margin = 1.959963984540054 * np.sqrt(variance)
    found = delong_interval(roc_curve(scores, genuine))
    assert found.low == pytest.approx(wins.mean() - margin, abs=1e-12)
    assert found.high == pytest.approx(min(1.0, wins.mean() + margin), abs=1e-12)


def test_each_bootstrap_area_is_that_of_the_pairs_repeated_by_their_weights() -> None:
    scores, genuine = _scored(1, 60, 1)
    units = _people(2, genuine, 12)
    found = bootstrap_aucs(scores, genuine, units, seed=3, replicates=20)
    rng = np.random.default_rng(3)
    expected = []
    for drawn in rng.integers(0, 12, size=(20, 12)):
        times = np.bincount(drawn, minlength=12)
        weight = np.where(
            units.left == units.right, times[units.left], times[units.left] * times[units.right]
        )
        repeated, labels = np.repeat(scores, weight), np.repeat(genuine, weight)
        if 0 < labels.sum() < len(labels):
            expected.append(auc(roc_curve(repeated, labels)))
    assert found == pytest.approx(expected, abs=1e-12)


def test_people_that_fill_many_pairs_widen_the_interval() -> None:
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
    found = auc_interval(roc_curve(scores, labels), scores, labels, units)
    assert found.method == "bootstrap-identities"
    width, naive = (high - low for low, high in (found.interval, found.delong))
    assert width > 1.5 * naive


def test_independent_pairs_give_about_delongs_interval() -> None:
    scores, genuine = _scored(4, 900)
    units = Units(left=np.arange(900), right=np.arange(900), kind="pictures")
    found = auc_interval(roc_curve(scores, genuine), scores, genuine, units)
    assert found.method == "bootstrap-pictures"
    assert found.interval.low == pytest.approx(found.delong.low, abs=0.006)
    assert found.interval.high == pytest.approx(found.delong.high, abs=0.006)


def test_one_seed_gives_one_interval() -> None:
    scores, genuine = _scored(5, 200)
    units = _people(6, genuine, 30)
    roc = roc_curve(scores, genuine)
    first, again, other = (
        auc_interval(roc, scores, genuine, units, seed=seed).interval for seed in (0, 0, 1)
    )
    assert first == again != other


def test_replicates_drawn_in_blocks_are_those_drawn_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scores, genuine = _scored(5, 100)
    units = _people(6, genuine, 100)
    at_once = bootstrap_aucs(scores, genuine, units, seed=0, replicates=50)
    monkeypatch.setattr(intervals, "_BLOCK", 700)
    assert (bootstrap_aucs(scores, genuine, units, seed=0, replicates=50) == at_once).all()


def test_without_units_or_with_too_many_pairs_delongs_interval_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scores, genuine = _scored(7, 200)
    roc = roc_curve(scores, genuine)
    unknown = auc_interval(roc, scores, genuine, None)
    assert unknown.method == "delong" and unknown.interval == unknown.delong
    monkeypatch.setattr(intervals, "_MOST_WORK", 1000)
    assert auc_interval(roc, scores, genuine, _people(0, genuine, 9)).method == "delong"


def test_a_single_person_with_genuine_pairs_leaves_too_few_draws_to_quote() -> None:
    scores, genuine = np.array([0.9, 0.1]), np.array([True, False])
    units = Units(left=np.array([0, 1]), right=np.array([0, 2]), kind="identities")
    assert auc_interval(roc_curve(scores, genuine), scores, genuine, units).method == "delong"


def test_names_are_numbered_across_both_sides() -> None:
    units = units_of(["a", "b", "a"], ["b", "c", "a"], "pictures")
    assert units.left.tolist() == [0, 1, 0]
    assert units.right.tolist() == [1, 2, 0]
