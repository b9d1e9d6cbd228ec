"""Rates whose trials come in clusters: all searches with the pictures of one person, say."""

from __future__ import annotations

import numpy as np

from faceidx.evaluation.intervals import Interval

_LOW, _HIGH = 0.025, 0.975


def interval_by_people(errors: np.ndarray, trials: np.ndarray, *, shared: float = 1.0) -> Interval:
    """95 % interval of a rate whose trials belong to people.

    Clopper and Pearson's exact interval (Biometrika 26, 1934) at an effective number of trials,
    as Korn and Graubard do for samples drawn in clusters (Survey Methodology 24, 1998): the number
    that would give independent trials the variance that the people show (ratio estimator; Cochran,
    "Sampling Techniques", 1977, equation 11.29). Where nobody or everybody errs, the people say
    nothing of how alike one person's trials are; then each person counts as one trial.

    Args:
        errors: (P,) of each person.
        trials: (P,) of each person, 1 or more.
        shared: how many people one error tends to show up in: they are no independent evidence.
    """
    from scipy.special import betaincinv

    people, total = len(trials), float(trials.sum())
    rate = float(errors.sum()) / total
    residuals = errors - rate * trials
    variance = float(np.square(residuals).sum()) / total**2
    variance *= people / (people - 1) if people > 1 else 1
    effective = float(people) if variance <= 0 else min(total, rate * (1 - rate) / variance)
    effective = max(effective / shared, 1.0)
    wrong, right = rate * effective, (1 - rate) * effective
    low = float(betaincinv(wrong, right + 1, _LOW)) if wrong > 0 else 0.0
    high = float(betaincinv(wrong + 1, right, _HIGH)) if right > 0 else 1.0
    return Interval(low, high)
