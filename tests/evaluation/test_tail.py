from __future__ import annotations

import numpy as np
import pytest

from faceidx.evaluation.counted import CountedScores
from faceidx.evaluation.tail import (
    lower_tail,
    most_at_or_above,
    most_at_or_below,
    upper_tail,
)

_RNG = np.random.default_rng(7)
_SCORES = {
    "one": np.array([0.25], dtype=np.float32),
    "two": np.array([-0.5, 0.25], dtype=np.float32),
    "constant": np.full(40, 0.5),
    "few": np.sort(_RNG.normal(size=17)),
    "ties": np.sort(_RNG.integers(0, 12, 900) / 8),
    "many": np.sort(_RNG.normal(size=54_321).astype(np.float32)),
}


@pytest.fixture(params=_SCORES)
def rising(request: pytest.FixtureRequest) -> np.ndarray:
    return _SCORES[request.param]


def test_every_point_counts_what_a_plain_count_does(rising: np.ndarray) -> None:
    upper, lower = upper_tail(rising), lower_tail(rising)
    assert [p.count for p in upper] == [np.count_nonzero(rising >= p.score) for p in upper]
    assert [p.count for p in lower] == [np.count_nonzero(rising <= p.score) for p in lower]
    assert upper[0].score == rising[-1] and upper[-1].score == rising[0]
    assert lower[0].score == rising[0] and lower[-1].score == rising[-1]
    assert upper[-1].count == lower[-1].count == len(rising)


def test_ten_points_stand_for_each_power_of_ten() -> None:
    counts = [p.count for p in upper_tail(np.arange(1000.0))]
    assert counts[:12] == [1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25]
    assert counts[-4:] == [501, 631, 794, 1000]
    assert len(upper_tail(_SCORES["many"])) == 46


def test_what_is_said_of_any_score_is_never_too_little_and_seldom_much_too_much(
    rising: np.ndarray,
) -> None:
    upper, lower = upper_tail(rising), lower_tail(rising)
    asked = [*rising[:: max(1, len(rising) // 300)].tolist(), *_RNG.normal(size=50), -9.0, 9.0]
    for score in asked:
        above, below = np.count_nonzero(rising >= score), np.count_nonzero(rising <= score)
        assert most_at_or_above(upper, score) >= above
        assert most_at_or_below(lower, score) >= below
        if len(np.unique(rising)) == len(rising):  # without ties the next point is near
            assert most_at_or_above(upper, score) <= max(1.3 * above + 1, 1)
            assert most_at_or_below(lower, score) <= max(1.3 * below + 1, 1)


def test_a_score_beyond_all_is_as_high_or_low_as_none(rising: np.ndarray) -> None:
    lowest, highest = float(rising[0]), float(rising[-1])
    assert most_at_or_above(upper_tail(rising), np.nextafter(highest, 9)) == 0
    assert most_at_or_above(upper_tail(rising), np.nextafter(lowest, -9)) == len(rising)
    assert most_at_or_below(lower_tail(rising), np.nextafter(lowest, -9)) == 0
    assert most_at_or_below(lower_tail(rising), np.nextafter(highest, 9)) == len(rising)


def test_counted_scores_have_the_same_tails_as_plain_ones() -> None:
    rising = _SCORES["ties"]
    counted = CountedScores(*np.unique(rising, return_counts=True))
    assert upper_tail(counted) == upper_tail(rising)
    assert lower_tail(counted) == lower_tail(rising)
