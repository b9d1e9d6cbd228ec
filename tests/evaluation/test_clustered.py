from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from faceidx.evaluation.clustered import interval_by_people


def test_independent_trials_give_about_clopper_and_pearsons_interval() -> None:
    errors = np.zeros(200)
    errors[:20] = 1
    exact = binomtest(20, 200).proportion_ci(method="exact")
    assert interval_by_people(errors, np.ones(200)) == pytest.approx(
        (exact.low, exact.high), abs=2e-3
    )


def test_without_an_error_each_person_counts_as_one_trial() -> None:
    exact = binomtest(0, 12).proportion_ci(method="exact")
    found = interval_by_people(np.zeros(12), np.full(12, 50))
    assert found == pytest.approx((exact.low, exact.high))
    low, high = interval_by_people(np.full(12, 50), np.full(12, 50))
    assert (low, high) == pytest.approx((1 - exact.high, 1))


def test_the_interval_holds_the_truth_where_trials_of_a_person_agree() -> None:
    """Binomial intervals over all trials would hold it in some 60 of 100 draws."""
    chance = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        own_rate = chance.beta(0.5, 4.5, size=40)  # 10 % on average
        trials = chance.integers(2, 20, 40)
        low, high = interval_by_people(chance.binomial(trials, own_rate), trials)
        held += low <= 0.1 <= high
    assert 0.9 <= held / 300 <= 1


def test_errors_that_are_shared_widen_it() -> None:
    errors, trials = np.array([1, 0, 2, 0, 0, 0]), np.full(6, 10)
    alone, shared = (interval_by_people(errors, trials, shared=s) for s in (1, 2))
    assert shared.low < alone.low
    assert shared.high > alone.high
