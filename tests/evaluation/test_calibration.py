from __future__ import annotations

import math
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from faceidx.cli.verify_pairs import summary
from faceidx.evaluation.calibration import (
    Calibration,
    fit_calibration,
    log_likelihood_ratio,
    min_cllr,
)
from faceidx.evaluation.counted import CountedScores
from faceidx.evaluation.roc import counted_curve, roc_curve
from faceidx.evaluation.threshold import read_threshold
from faceidx.evaluation.verdict import VerifyOptions
from faceidx.evaluation.verification import verify_pairs

Case = tuple[np.ndarray, np.ndarray]
LEVEL = Calibration(slope=0.0, intercept=0.0, cllr=1.0)


def _joined(genuine: np.ndarray, impostor: np.ndarray, dtype: str = "float64") -> Case:
    """Scores in an order that says nothing, and labels."""
    labels = np.arange(len(genuine) + len(impostor)) < len(genuine)
    order = np.random.default_rng(0).permutation(len(labels))
    return np.concatenate([genuine, impostor]).astype(dtype)[order], labels[order]


def _normal(
    seed: int, genuine: int, impostor: int, dtype: str = "float64", digits: int = 9
) -> Case:
    rng = np.random.default_rng(seed)
    both = rng.normal(0.6, 0.2, genuine), rng.normal(0.1, 0.15, impostor)
    return _joined(*(scores.round(digits) for scores in both), dtype=dtype)


def _clustered(seed: int, genuine: int, impostor: int) -> Case:
    """Impostors in narrow lopsided clusters: runs of neighbours look like nothing in particular."""
    rng = np.random.default_rng(seed)
    places = rng.normal(0.1, 0.15, 500)[rng.integers(0, 500, impostor)]
    return _joined(
        rng.normal(0.6, 0.2, genuine), places + 2e-4 * rng.exponential(size=impostor) ** 2
    )


def _moved(case: Case, factor: float, offset: float) -> Case:
    return case[0] * factor + offset, case[1]


def _with_outliers(case: Case, genuine: list[float], impostor: list[float]) -> Case:
    scores, labels = case
    return _joined(np.append(scores[labels], genuine), np.append(scores[~labels], impostor))


SMALL = {
    "balanced": _normal(0, 150, 150),
    "float32": _normal(1, 60, 300, "float32"),
    "few genuine": _normal(2, 5, 400),
    "few impostors": _normal(3, 400, 5),
    "ties": _normal(4, 300, 700, "float32", digits=1),
    "hundredths": _moved(_normal(5, 80, 500), 0.01, 0.0),
    "percent with an offset": _moved(_normal(6, 80, 500), 100.0, 1e4),
    "one overlap": _with_outliers(_joined(np.linspace(2, 3, 50), np.linspace(0, 1, 60)), [], [2.2]),
    "worthless": _joined(*np.random.default_rng(9).normal(size=(2, 200))),
    "two values": _joined(np.array([0, 1, 1, 1.0]), np.array([0, 0, 0, 1.0, 0])),
}
# Too many to be taken one by one.
LARGE = {
    "float32": _normal(10, 2_000, 150_000, "float32"),
    "both classes": _normal(11, 60_000, 80_000),
    "ties": _normal(12, 300, 70_000, "float32", digits=2),
    "clusters": _clustered(13, 500, 150_000),
    "hardly any overlap": _with_outliers(
        _joined(np.linspace(4, 5, 50_000), np.linspace(0, 1, 50_000) ** 3), [3.9], [4.1]
    ),
    "failures scored -1e9": _with_outliers(_normal(14, 500, 70_000), [], [-1e9] * 50),
}


def _cllr(scores: np.ndarray, labels: np.ndarray, fitted: Calibration) -> float:
    """The definition, pair by pair."""
    costs: dict[bool, list[float]] = {True: [], False: []}
    for score, genuine in zip(scores.tolist(), labels.tolist(), strict=True):
        x = fitted.slope * score + fitted.intercept
        wrong = -x if genuine else x
        costs[genuine].append(max(wrong, 0) + math.log1p(math.exp(-abs(wrong))))
    means = [math.fsum(of_class) / len(of_class) for of_class in costs.values()]
    return sum(means) / 2 / math.log(2)


def _weights(labels: np.ndarray) -> np.ndarray:
    """Each class weighs half in all."""
    genuine = np.count_nonzero(labels)
    return np.where(labels, 0.5 / genuine, 0.5 / (len(labels) - genuine))


def _counted(scores: np.ndarray) -> CountedScores:
    values, counts = np.unique(scores, return_counts=True)
    return CountedScores(values, counts)


@pytest.mark.parametrize("case", [*SMALL.values(), *LARGE.values()], ids=[*SMALL, *LARGE])
def test_the_minimum_is_that_of_pooling_adjacent_violators(case: Case) -> None:
    scores, labels = case
    weights = _weights(labels)
    share = IsotonicRegression().fit_transform(scores.astype(float), labels, sample_weight=weights)
    expected = -(
        weights[labels] @ np.log2(share[labels]) + weights[~labels] @ np.log2(1 - share[~labels])
    )
    assert min_cllr(roc_curve(scores, labels)) == pytest.approx(expected, abs=1e-9)


def test_the_minimum_is_the_same_from_all_points_of_the_curve() -> None:
    scores, labels = SMALL["ties"]
    every, vertices = roc_curve(scores, labels, full=True), roc_curve(scores, labels)
    assert min_cllr(every) == pytest.approx(min_cllr(vertices), abs=1e-12)


@pytest.mark.parametrize("case", [*SMALL.values(), *LARGE.values()], ids=[*SMALL, *LARGE])
def test_the_line_is_that_of_logistic_regression(case: Case) -> None:
    scores, labels = case
    fitted = fit_calibration(roc_curve(scores, labels))
    assert fitted is not None
    near = np.maximum(scores.astype(float), -50)  # impostors still further off cost nothing
    middle, spread = np.median(near), near.std()
    reference = LogisticRegression(C=np.inf, class_weight="balanced", tol=1e-10, max_iter=10_000)
    reference.fit(((near - middle) / spread)[:, None], labels)
    slope = reference.coef_.item() / spread
    assert fitted.slope == pytest.approx(slope, rel=1e-5)
    assert fitted.intercept == pytest.approx(
        reference.intercept_.item() - slope * middle, rel=1e-5, abs=1e-5
    )


@pytest.mark.parametrize("case", [*SMALL.values(), *LARGE.values()], ids=[*SMALL, *LARGE])
def test_the_cost_is_that_of_the_line_pair_by_pair(case: Case) -> None:
    scores, labels = case
    fitted = fit_calibration(roc_curve(scores, labels))
    assert fitted is not None
    assert fitted.cllr == pytest.approx(_cllr(scores, labels, fitted), abs=1e-9)


def test_two_scores_get_the_likelihood_ratios_of_their_shares() -> None:
    # A genuine pair scores 1 in 3 of 4 cases, an impostor pair in 1 of 5.
    fitted = fit_calibration(roc_curve(*SMALL["two values"]))
    assert fitted is not None
    ratios = [math.exp(log_likelihood_ratio(fitted, score)) for score in (1.0, 0.0)]
    assert ratios == pytest.approx([(3 / 4) / (1 / 5), (1 / 4) / (4 / 5)])
    assert fitted.cllr == pytest.approx(min_cllr(roc_curve(*SMALL["two values"])), abs=1e-12)


@pytest.mark.parametrize(
    ("genuine", "impostor", "least", "fitted"),
    [
        pytest.param([2, 3], [0, 1], 0, None, id="apart"),
        pytest.param([1], [0], 0, None, id="apart, one pair a class"),
        # Half of each class has the score 2, where LR is 1; all others are certain.
        pytest.param([2, 3], [0, 2], 0.5, None, id="apart but for a tie"),
        pytest.param([0.1, 0.1, 0.1], [0.1, 0.1], 1, LEVEL, id="all equal"),
        pytest.param([0], [1], 1, LEVEL, id="upside down, one pair a class"),
        pytest.param([0, 1], [1, 2, 3], 1, LEVEL, id="upside down"),
        # Half of the genuine pairs are certain; the others share a step with all impostor pairs.
        pytest.param(
            [0, 3],
            [1, 2],
            (math.log2(3) / 2 + math.log2(1.5)) / 2,
            LEVEL,
            id="no better on average",
        ),
    ],
)
def test_the_extremes(
    genuine: list[float], impostor: list[float], least: float, fitted: Calibration | None
) -> None:
    roc = roc_curve(*_joined(np.array(genuine), np.array(impostor), "float32"))
    assert min_cllr(roc) == pytest.approx(least, abs=1e-12)
    assert fit_calibration(roc) == fitted


labelled = st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=40).filter(
    lambda pairs: len({label for _, label in pairs}) == 2
)


@settings(max_examples=200, deadline=None)
@given(labelled)
def test_the_line_costs_between_the_minimum_and_one_bit(pairs: list[tuple[int, bool]]) -> None:
    scores, labels = (np.array(column) for column in zip(*pairs, strict=True))
    roc = roc_curve(scores.astype(np.float32), labels)
    fitted, least = fit_calibration(roc), min_cllr(roc)
    assert least is not None
    if fitted is None:
        assert scores[labels].min() >= scores[~labels].max()
    else:
        assert fitted.slope >= 0
        assert least - 1e-12 <= fitted.cllr <= 1 + 1e-12
        assert fitted.cllr == pytest.approx(_cllr(scores, labels, fitted), abs=1e-9)


@pytest.mark.parametrize("name", ["float32", "ties", "clusters"])
def test_counted_scores_give_the_same(name: str) -> None:
    scores, labels = LARGE[name]
    one_by_one = roc_curve(scores, labels)
    counted = counted_curve(_counted(scores[labels]), _counted(scores[~labels]))
    assert min_cllr(counted) == pytest.approx(min_cllr(one_by_one), abs=1e-12)
    expected, found = fit_calibration(one_by_one), fit_calibration(counted)
    assert expected is not None
    assert found is not None
    assert (found.slope, found.intercept) == pytest.approx(
        (expected.slope, expected.intercept), rel=1e-9
    )
    assert found.cllr == pytest.approx(expected.cllr, abs=1e-9)


def test_pairs_without_a_score_take_no_part() -> None:
    scores, labels = SMALL["few genuine"]
    rejected = np.random.default_rng(8).random(len(scores)) < 0.3
    with_them = roc_curve(scores, labels, rejected=rejected)
    without = roc_curve(scores[~rejected], labels[~rejected])
    assert min_cllr(with_them) == min_cllr(without)
    assert fit_calibration(with_them) == fit_calibration(without)
    one_class = roc_curve(scores, labels, rejected=labels)
    assert (min_cllr(one_class), fit_calibration(one_class)) == (None, None)


@pytest.mark.parametrize("factor", [1e-290, 1e-30, 1e30, 1e300])
def test_the_scale_of_the_scores_does_not_matter(factor: float) -> None:
    scores, labels = SMALL["balanced"]
    expected = fit_calibration(roc_curve(scores, labels))
    found = fit_calibration(roc_curve(scores * factor, labels))
    assert expected is not None
    assert found is not None
    assert found.slope * factor == pytest.approx(expected.slope, rel=1e-6)
    assert found.intercept == pytest.approx(expected.intercept, rel=1e-6)
    assert found.cllr == pytest.approx(expected.cllr, abs=1e-9)


@pytest.mark.parametrize("far", [1e9, 1e38, 1e300])
def test_far_outliers_on_either_side_do_not_hide_the_optimum(far: float) -> None:
    # Failures that were given a score: one of 50 genuine pairs, 1 of 5 impostor pairs. All that
    # counts then is this share: LR 0.1 for them, and near 1 for the others.
    scores, labels = _with_outliers(_normal(15, 490, 400), [-far] * 10, [-far] * 100)
    fitted = fit_calibration(roc_curve(scores, labels))
    assert fitted is not None
    ratios = [math.exp(log_likelihood_ratio(fitted, score)) for score in (-far, 0.0)]
    assert ratios == pytest.approx([(10 / 500) / (100 / 500), (490 / 500) / (400 / 500)], rel=1e-6)


def test_what_no_number_holds_gives_no_line() -> None:
    scores, labels = SMALL["balanced"]
    assert fit_calibration(roc_curve(scores * 1e-310, labels)) is None  # its slope
    outlier = _with_outliers(SMALL["balanced"], [], [-1.7e308])
    assert fit_calibration(roc_curve(*outlier)) is None  # its place in units of the others


def test_every_output_has_them(tmp_path: Path) -> None:
    scores, labels = SMALL["balanced"]
    listed = tmp_path / "scores.csv"
    lines = [f"{score!r},{label:d}" for score, label in zip(scores.tolist(), labels, strict=True)]
    listed.write_text("\n".join(["score,label", *lines]), "utf-8")
    saved, report = tmp_path / "threshold.json", tmp_path / "report"
    options = VerifyOptions(pairs=listed, save_threshold=saved, report=report)
    result = verify_pairs(options).as_json()

    roc = roc_curve(scores, labels)
    fitted = fit_calibration(roc)
    assert fitted is not None
    line = {"slope": fitted.slope, "intercept": fitted.intercept}
    assert (result["min_cllr"], result["cllr"]) == (min_cllr(roc), fitted.cllr)
    assert result["calibration"] == line
    threshold = read_threshold(saved)
    assert (threshold.calibration, threshold.min_cllr) == (fitted, min_cllr(roc))
    told = f"{fitted.cllr:.4f} after calibration, {result['min_cllr']:.4f} at best"
    assert re.search(rf"^Cllr +{re.escape(told)}$", summary(result), re.MULTILINE)
    page = (report / "index.html").read_text("utf-8")
    for text in (f"{fitted.cllr:.4f}", f"{result['min_cllr']:.4f}", f"{fitted.slope:.5g} × score"):
        assert text in page


def test_scores_that_are_apart_say_that_nothing_can_be_fitted(tmp_path: Path) -> None:
    listed, report = tmp_path / "scores.csv", tmp_path / "report"
    listed.write_text("score,label\n0.9,1\n0.8,1\n0.2,0\n0.1,0\n", "utf-8")
    result = verify_pairs(VerifyOptions(pairs=listed, report=report)).as_json()
    assert (result["min_cllr"], result["cllr"], result["calibration"]) == (0, None, None)
    assert "0.0000 at best  (no calibration can be fitted)" in summary(result)
    assert "cannot be fitted" in (report / "index.html").read_text("utf-8")


def test_no_second_copy_of_all_scores_is_made() -> None:
    scores, labels = _normal(16, 1_000, 1_000_000, "float32")
    roc = roc_curve(scores, labels)
    tracemalloc.start()
    fit_calibration(roc)
    min_cllr(roc)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < scores.nbytes
