from __future__ import annotations

import numpy as np
import pytest

from faceidx.errors import InputError
from faceidx.evaluation import counted
from faceidx.evaluation.counted import CountedScores, ScoreCounter, as_counted
from faceidx.evaluation.intervals import delong_interval
from faceidx.evaluation.roc import (
    Roc,
    auc,
    best_accuracy,
    confusion,
    counted_curve,
    d_prime,
    eer,
    roc_curve,
    tar_at_far,
)

TARGETS = (0.0, 1e-3, 0.02, 0.3, 0.5, 0.999, 1.0)


def _cosines(seed: int, pairs: int, steps: int) -> np.ndarray:
    """Scores on a coarse grid, so that many of them are equal."""
    rng = np.random.default_rng(seed)
    return (np.clip(rng.normal(0.2, 0.3, pairs), -1, 1) * steps).round() / np.float32(steps)


def _counted(scores: np.ndarray) -> CountedScores:
    values, counts = np.unique(scores, return_counts=True)
    return CountedScores(values, counts)


def _figures(roc: Roc) -> list[object]:
    return [
        auc(roc), eer(roc), best_accuracy(roc), tar_at_far(roc, TARGETS), delong_interval(roc),
        [confusion(roc, threshold) for threshold in (-2, -0.25, 0.0, 0.1, 0.3, 1.0, 2.0)],
    ]  # fmt: skip


def test_counted_scores_answer_like_the_sorted_array() -> None:
    scores = np.sort(_cosines(0, 300, 20).astype(np.float32))
    same = _counted(scores)
    asked = np.linspace(-1.2, 1.2, 97, dtype=np.float32)

    assert len(same) == 300
    assert [same[rank] for rank in (0, 7, 299, -1, -300)] == [
        scores[rank] for rank in (0, 7, 299, -1, -300)
    ]
    assert np.array_equal(same[np.arange(300)], scores)
    for side in ("left", "right"):
        assert np.array_equal(same.searchsorted(asked, side), scores.searchsorted(asked, side))
    assert same.moments() == pytest.approx(
        (np.mean(scores, dtype=float), np.var(scores, dtype=float))
    )
    for rank in (300, -301):
        with pytest.raises(IndexError):
            same[rank]


@pytest.mark.parametrize(("genuine", "impostor"), [(50, 700), (700, 50), (1, 1), (400, 400)])
@pytest.mark.parametrize("steps", [4, 1000])
def test_a_curve_of_counted_scores_gives_the_figures_of_the_scores(
    genuine: int, impostor: int, steps: int
) -> None:
    ours = _cosines(1, genuine, steps).astype(np.float32) / 2 + np.float32(0.25)
    others = _cosines(2, impostor, steps).astype(np.float32)
    plain = roc_curve(np.concatenate([ours, others]), np.arange(genuine + impostor) < genuine)
    roc = counted_curve(_counted(ours), _counted(others))

    assert np.array_equal(roc.thresholds, plain.thresholds)
    assert _figures(roc) == _figures(plain)
    assert d_prime(roc.genuine_scores, roc.impostor_scores) == pytest.approx(
        d_prime(plain.genuine_scores, plain.impostor_scores)
    )


def test_one_class_only_is_refused() -> None:
    none = CountedScores(np.empty(0, np.float32), np.empty(0, np.int64))
    with pytest.raises(InputError, match="need genuine pairs"):
        counted_curve(none, _counted(np.array([0.5], np.float32)))


def test_counts_beyond_32_bits_stay_exact() -> None:
    """Two genuine and two impostor scores, in turn, each so often that float32 would lose it."""
    many = [2**24 + 1, 3 * 2**31 + 5, 2**32 + 3, 2**33 + 7]
    roc = counted_curve(
        CountedScores(np.float32([0.25, 0.75]), np.array([many[0], many[2]])),
        CountedScores(np.float32([0.0, 0.5]), np.array([many[3], many[1]])),
    )
    genuine, impostor = many[0] + many[2], many[1] + many[3]
    wins = many[0] * many[3] + many[2] * impostor

    assert (roc.genuine, roc.impostor) == (genuine, impostor)
    assert auc(roc) == pytest.approx(wins / (genuine * impostor), abs=1e-15)
    counts = confusion(roc, 0.5)
    assert (counts.tp, counts.fp, counts.tn, counts.fn) == (many[2], many[1], many[3], many[0])
    point = tar_at_far(roc, [0.5])[0]
    assert (point.threshold, point.false_matches) == (0.25, many[1])
    assert best_accuracy(roc) == (0.75, (many[2] + impostor) / (genuine + impostor))


def test_scores_are_counted_in_steps_and_rounded_down() -> None:
    step = 2.0**-23
    scores = np.float32([-1, -step / 2, 0, step / 2, step, 0.3, 0.3, 1, 1.015])
    counter = ScoreCounter()
    counter.add(scores.reshape(3, 3))
    found = counter.counted()

    expected = np.floor(scores.astype(np.float64) / step) * step
    assert np.array_equal(found[np.arange(9)], np.sort(expected))
    assert np.array_equal(as_counted(scores), expected)
    assert found.dtype == np.float32


def test_a_counter_leaves_out_what_another_counted() -> None:
    scores = _cosines(3, 500, 30).astype(np.float32)
    every, some = ScoreCounter(), ScoreCounter()
    every.add(scores)
    some.add(scores[:200])
    rest = every.counted(less=some)

    assert np.array_equal(rest[np.arange(300)], np.sort(as_counted(scores[200:])))
    assert len(every.counted(less=every)) == 0


def test_counters_that_fill_up_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a counter held 4 bits, so that carrying is seen before 2^32 scores are scored."""
    monkeypatch.setattr(counted, "_FULL", 8)
    monkeypatch.setattr(counted, "_CHUNK", 4)
    scores = np.float32([0.5] * 100 + [0.25] * 9 + [-0.5] * 3)
    every, some = ScoreCounter(), ScoreCounter()
    every.add(np.random.default_rng(0).permutation(scores))
    some.add(scores[:60])

    assert every._counts.max() < 16
    assert np.array_equal(every.counted()[np.arange(112)], np.sort(scores))
    assert np.array_equal(every.counted(less=some)[np.arange(52)], np.sort(scores[60:]))
