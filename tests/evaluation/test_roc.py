from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc_curve

from faceidx.errors import InputError
from faceidx.evaluation.roc import (
    at_or_above,
    auc,
    best_accuracy,
    confusion,
    d_prime,
    det_points,
    eer,
    in_precision,
    roc_curve,
    roc_points,
    tar_at_far,
)

Case = tuple[np.ndarray, np.ndarray]


def _drawn(seed: int, pairs: int, genuine: int, dtype: str, digits: int | None) -> Case:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(pairs) < genuine)
    scores = rng.normal(size=pairs) + 1.5 * labels
    return (scores if digits is None else scores.round(digits)).astype(dtype), labels


CASES = {
    "balanced": _drawn(0, 200, 100, "float64", None),
    "float32": _drawn(1, 300, 60, "float32", None),
    "few genuine": _drawn(2, 400, 3, "float32", None),
    "few impostors": _drawn(3, 400, 397, "float32", None),
    "heavy ties": _drawn(4, 1000, 400, "float32", 0),
    "some ties": _drawn(5, 1000, 100, "float64", 1),
    "all equal": (np.full(10, 0.5, np.float32), np.arange(10) < 4),
    "separated": (np.array([1.0, 2, 3, 4]), np.array([False, False, True, True])),
    "upside down": (np.array([1.0, 2, 3, 4]), np.array([True, True, False, False])),
    "one of each": (np.array([0.25, 0.75], np.float32), np.array([True, False])),
    "neighbouring floats": (
        np.nextafter(np.float32(0.5), np.array([0, 1, 0, 1], np.float32)),
        np.array([True, True, False, False]),
    ),
}

labelled = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40).filter(
    lambda pairs: len({label for _, label in pairs}) == 2
)


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def _thresholds(scores: np.ndarray) -> list[float]:
    """Every threshold that accepts a different set, highest first."""
    return [float(np.nextafter(scores.max(), scores.dtype.type(np.inf)))] + [
        float(score) for score in sorted(set(scores.tolist()), reverse=True)
    ]


def _counts(scores: np.ndarray, genuine: np.ndarray, threshold: float) -> tuple[int, int]:
    accepted = [
        label for score, label in zip(scores.tolist(), genuine, strict=True) if score >= threshold
    ]
    return sum(accepted), len(accepted) - sum(accepted)


def test_the_area_is_scikit_learns_to_1e_12(case: Case) -> None:
    scores, genuine = case
    assert auc(roc_curve(scores, genuine)) == pytest.approx(
        roc_auc_score(genuine, scores), abs=1e-12
    )


def test_the_full_curve_is_scikit_learns_to_1e_12(case: Case) -> None:
    scores, genuine = case
    far, tar, thresholds = sklearn_roc_curve(genuine, scores, drop_intermediate=False)
    roc = roc_curve(scores, genuine, full=True)
    ours = roc_points(roc)
    assert ours[0] == pytest.approx(far, abs=1e-12)
    assert ours[1] == pytest.approx(tar, abs=1e-12)
    assert roc.thresholds[1:].tolist() == thresholds[1:].tolist()


def test_leaving_points_between_vertices_out_loses_nothing(case: Case) -> None:
    scores, genuine = case
    whole, vertices = roc_curve(scores, genuine, full=True), roc_curve(scores, genuine)
    assert set(vertices.thresholds.tolist()) <= set(whole.thresholds.tolist())
    dropped = ~np.isin(whole.thresholds, vertices.thresholds)
    after = np.searchsorted(-vertices.thresholds, -whole.thresholds[dropped])
    for place, point in zip(after, np.flatnonzero(dropped), strict=True):
        ends = [
            (vertices.false_matches[place - i], vertices.true_matches[place - i]) for i in (0, 1)
        ]
        same_far = {whole.false_matches[point], ends[0][0], ends[1][0]}
        same_tar = {whole.true_matches[point], ends[0][1], ends[1][1]}
        assert len(same_far) == 1 or len(same_tar) == 1  # on a level or upright straight line


def test_counts_are_64_bit_integers_and_never_fall(case: Case) -> None:
    roc = roc_curve(*case)
    for counts in (roc.true_matches, roc.false_matches):
        assert counts.dtype == np.int64
        assert counts[0] == 0
        assert (np.diff(counts) >= 0).all()
    assert roc.true_matches[-1] == roc.genuine
    assert roc.false_matches[-1] == roc.impostor


def test_scores_stay_in_their_own_precision(case: Case) -> None:
    roc = roc_curve(*case)
    assert {roc.thresholds.dtype, roc.impostor_scores.dtype} == {case[0].dtype}


def test_the_scores_given_are_left_as_they_were() -> None:
    scores, genuine = _drawn(7, 50, 20, "float32", None)
    before = scores.copy()
    roc_curve(scores, genuine)
    assert (scores == before).all()


@settings(max_examples=200, deadline=None)
@given(labelled)
def test_the_area_is_the_share_of_couples_in_order(pairs: list[tuple[int, bool]]) -> None:
    scores = np.array([score for score, _ in pairs], np.float32)
    genuine = np.array([label for _, label in pairs])
    wins = [
        1.0 if ours > other else 0.5 if ours == other else 0.0
        for ours in scores[genuine]
        for other in scores[~genuine]
    ]
    assert auc(roc_curve(scores, genuine)) == pytest.approx(sum(wins) / len(wins), abs=1e-12)


def test_the_equal_error_rate_is_where_straight_lines_between_the_points_cross(case: Case) -> None:
    scores, genuine = case
    points = []
    for threshold in _thresholds(scores):
        tp, fp = _counts(scores, genuine, threshold)
        points.append((fp / (~genuine).sum(), 1 - tp / genuine.sum()))
    rate = None
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 <= y0 and x1 >= y1 and rate is None:
            low, high = 0.0, 1.0
            for _ in range(100):  # bisection along this line, for FMR = FNMR
                middle = (low + high) / 2
                if x0 + middle * (x1 - x0) < y0 + middle * (y1 - y0):
                    low = middle
                else:
                    high = middle
            rate = x0 + high * (x1 - x0)
    assert eer(roc_curve(scores, genuine)) == pytest.approx(rate, abs=1e-9)


@pytest.mark.parametrize("target", [0.0, 1e-3, 0.01, 0.1, 1 / 3, 0.5, 0.999, 1.0])
def test_tar_is_the_highest_that_the_far_target_allows(case: Case, target: float) -> None:
    scores, genuine = case
    impostor = int((~genuine).sum())
    allowed = [
        (*_counts(scores, genuine, threshold), threshold)
        for threshold in _thresholds(scores)
        if _counts(scores, genuine, threshold)[1] / impostor <= target
    ]
    point = tar_at_far(roc_curve(scores, genuine), [target])[0]
    assert point.fmr <= target
    assert point.true_matches == max(tp for tp, _, _ in allowed)
    assert point.false_matches == max(fp for _, fp, _ in allowed)
    assert point.threshold == min(threshold for _, _, threshold in allowed)
    assert point.fnmr == pytest.approx(1 - point.tar, abs=1e-12)


@settings(max_examples=200, deadline=None)
@given(labelled, st.floats(0, 1))
def test_the_far_reached_is_never_above_the_target(
    pairs: list[tuple[int, bool]], target: float
) -> None:
    scores = np.array([score for score, _ in pairs], np.float32)
    genuine = np.array([label for _, label in pairs])
    point = tar_at_far(roc_curve(scores, genuine), [target])[0]
    assert point.fmr <= target
    assert np.isfinite(point.threshold)
    assert _counts(scores, genuine, point.threshold) == (point.true_matches, point.false_matches)


def test_without_any_false_match_allowed_the_threshold_lies_above_a_highest_impostor() -> None:
    scores, genuine = np.array([0.9, 0.5, 0.1], np.float32), np.array([False, True, False])
    point = tar_at_far(roc_curve(scores, genuine), [0.0])[0]
    assert (point.false_matches, point.tar) == (0, 0.0)
    assert point.threshold == float(np.nextafter(np.float32(0.9), np.float32(np.inf)))


def test_a_rate_that_floats_cannot_hold_counts_as_written() -> None:
    # 0.29 * 100 is 28.999...: the 29 false matches that 0.29 stands for are allowed all the same.
    scores = np.arange(101, dtype=np.float64)
    genuine = scores == 0
    assert tar_at_far(roc_curve(scores, genuine), [0.29])[0].false_matches == 29


def test_the_best_accuracy_is_that_of_trying_every_threshold(case: Case) -> None:
    scores, genuine = case
    tried = []
    for threshold in _thresholds(scores):
        tp, fp = _counts(scores, genuine, threshold)
        tried.append(((tp + (~genuine).sum() - fp) / len(scores), threshold))
    best = max(accuracy for accuracy, _ in tried)
    threshold, accuracy = best_accuracy(roc_curve(scores, genuine))
    assert accuracy == pytest.approx(best, abs=1e-12)
    assert threshold == max(t for a, t in tried if a == best)


def test_the_four_counts_are_those_of_a_loop_at_any_threshold(case: Case) -> None:
    scores, genuine = case
    roc = roc_curve(scores, genuine)
    for threshold in [*_thresholds(scores), 0.3, -9.0, 9.0]:
        counts = confusion(roc, threshold)
        assert (counts.tp, counts.fp) == _counts(scores, genuine, threshold)
        assert counts.tp + counts.fn == roc.genuine
        assert counts.fp + counts.tn == roc.impostor


@given(st.floats(-2, 2), st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=20))
def test_a_threshold_in_the_scores_precision_parts_them_the_same(
    threshold: float, values: list[float]
) -> None:
    scores = np.sort(np.array(values, np.float32))
    expected = sum(value >= threshold for value in scores.tolist())
    assert at_or_above(scores, in_precision(threshold, scores.dtype)) == expected


def test_det_points_mirror_the_roc(case: Case) -> None:
    roc = roc_curve(*case)
    (far, tar), (fmr, fnmr) = roc_points(roc), det_points(roc)
    assert (far == fmr).all()
    assert fnmr == pytest.approx(1 - tar, abs=1e-12)


def test_d_prime_is_the_distance_of_the_means_in_pooled_deviations() -> None:
    scores, genuine = _drawn(8, 400, 150, "float32", None)
    ours, others = scores[genuine].astype(float), scores[~genuine].astype(float)
    expected = (ours.mean() - others.mean()) / np.sqrt((ours.var() + others.var()) / 2)
    assert d_prime(scores[genuine], scores[~genuine]) == pytest.approx(expected, rel=1e-9)


def test_d_prime_of_scores_without_spread_is_unknown() -> None:
    assert d_prime(np.ones(3), np.zeros(4)) is None


def test_counts_are_right_beyond_what_float32_can_count() -> None:
    pairs = 2**24 + 3  # float32 cannot tell 2^24 from 2^24 + 1
    scores = np.zeros(pairs, np.float32)
    scores[0], genuine = 1, np.zeros(pairs, bool)
    genuine[0] = True
    roc = roc_curve(scores, genuine)
    assert confusion(roc, 0.0).fp == pairs - 1
    assert roc.false_matches.dtype == roc.true_matches.dtype == np.int64
    assert roc.false_matches[-1] == pairs - 1
    assert tar_at_far(roc, [1.0])[0].false_matches == pairs - 1
    assert best_accuracy(roc) == (1.0, 1.0)
    assert auc(roc) == 1.0


@pytest.mark.parametrize(
    ("scores", "labels", "words"),
    [
        ([], [], "no pair"),
        ([0.1, 0.2], [1, 1], "need impostor pairs"),
        ([0.1, 0.2], [0, 0], "need genuine pairs"),
        ([0.1, np.nan, np.nan], [1, 0, 1], "no finite numbers"),
        ([0.1, np.inf], [1, 0], "1 scores are no finite numbers"),
        ([-np.inf, 0.2], [1, 0], "no finite numbers"),
        ([0.1, 0.2], [1, 0, 1], "do not fit"),
    ],
)
def test_what_has_no_curve_is_refused_with_a_clear_line(
    scores: list[float], labels: list[int], words: str
) -> None:
    with pytest.raises(InputError, match=words) as caught:
        roc_curve(np.array(scores, np.float32), np.array(labels, bool))
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("copies", [1, 3 << 20])
def test_scores_whose_squares_are_infinite_have_no_d_prime(copies: int) -> None:
    assert d_prime(np.full(copies, 1e308), np.array([-1e308, 5.0])) is None
