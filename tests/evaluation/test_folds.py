from __future__ import annotations

import numpy as np
import pytest

from faceidx.errors import InputError
from faceidx.evaluation.folds import assign_folds, fold_accuracy
from faceidx.evaluation.roc import roc_curve


def _brute_force(
    scores: np.ndarray, genuine: np.ndarray, folds: np.ndarray
) -> tuple[list[float], list[float]]:
    """Try every score of the other folds as threshold, highest first; judge the held fold."""
    accuracies, thresholds = [], []
    for fold in sorted(set(folds.tolist())):
        held = folds == fold
        trained, labels = scores[~held], genuine[~held]
        reject_all = np.nextafter(trained.max(), scores.dtype.type(np.inf))
        best, chosen = -1, None
        for threshold in [reject_all, *sorted(set(trained.tolist()), reverse=True)]:
            right = int(((trained >= threshold) == labels).sum())
            if right > best:
                best, chosen = right, threshold
        thresholds.append(float(chosen))
        accuracies.append(float(((scores[held] >= chosen) == genuine[held]).mean()))
    return accuracies, thresholds


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("pairs", "genuine", "digits"),
    [(200, 100, 6), (400, 20, 6), (1000, 12, 6), (200, 180, 6), (150, 50, 0), (50, 25, 1)],
)
def test_fold_accuracy_is_that_of_trying_every_threshold_on_the_other_folds(
    dtype: str, pairs: int, genuine: int, digits: int
) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        labels = rng.permutation(np.arange(pairs) < genuine)
        scores = (rng.normal(size=pairs) + labels).round(digits).astype(dtype)
        folds = assign_folds(labels, 5, seed=seed)
        assert folds is not None
        found = fold_accuracy(roc_curve(scores, labels), scores, labels, folds)
        accuracies, thresholds = _brute_force(scores, labels, folds)
        assert found.accuracies.tolist() == accuracies
        assert found.thresholds.tolist() == thresholds
        assert found.mean == pytest.approx(np.mean(accuracies), abs=1e-12)
        assert found.std == pytest.approx(np.std(accuracies), abs=1e-12)


def test_folds_that_hold_one_class_only_are_judged_all_the_same() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) < 30
    scores = rng.normal(size=60) + labels
    folds = np.repeat([0, 1, 4], 20)  # one class, mixed, one class; and numbers that are not used
    found = fold_accuracy(roc_curve(scores, labels), scores, labels, folds)
    accuracies, thresholds = _brute_force(scores, labels, folds)
    assert found.accuracies.tolist() == accuracies
    assert found.thresholds.tolist() == thresholds


def test_an_impostor_fold_with_all_high_scores_does_not_mislead_the_shortcut() -> None:
    # Nearly all high impostor scores lie in one fold: the others' thresholds must stay right.
    rng = np.random.default_rng(1)
    labels = np.arange(2000) < 20
    scores = rng.normal(size=2000).astype(np.float32) + labels
    folds = rng.integers(0, 4, 2000)
    order = np.argsort(scores)
    high = order[-400:]
    folds[high[~labels[high]]] = 3
    found = fold_accuracy(roc_curve(scores, labels), scores, labels, folds)
    accuracies, thresholds = _brute_force(scores, labels, folds)
    assert found.accuracies.tolist() == accuracies
    assert found.thresholds.tolist() == thresholds


def test_stratified_folds_hold_as_many_of_each_class() -> None:
    genuine = np.random.default_rng(0).random(1234) < 0.2
    folds = assign_folds(genuine)
    assert folds is not None
    for of_class in (genuine, ~genuine):
        sizes = np.bincount(folds[of_class])
        assert len(sizes) == 10
        assert sizes.max() - sizes.min() <= 1


def test_the_seed_settles_the_folds() -> None:
    genuine = np.arange(500) % 3 == 0
    first, again, other = (assign_folds(genuine, seed=seed) for seed in (1, 1, 2))
    assert first is not None and again is not None and other is not None
    assert (first == again).all()
    assert (first != other).any()


def test_auto_takes_the_lists_own_folds_where_it_has_two() -> None:
    genuine = np.arange(40) % 2 == 0
    own = np.arange(40) // 20
    assert assign_folds(genuine, own=own) is own
    one = assign_folds(genuine, own=np.zeros(40, int))
    assert one is not None and len(set(one.tolist())) == 10
    asked = assign_folds(genuine, 4, own=own)
    assert asked is not None and len(set(asked.tolist())) == 4


def test_a_small_class_gets_fewer_folds_and_a_single_pair_none() -> None:
    few = assign_folds(np.arange(40) < 3)
    assert few is not None and len(set(few.tolist())) == 3
    assert assign_folds(np.arange(40) < 1) is None


@pytest.mark.parametrize("folds", [1, 0, 21, 1000])
def test_folds_that_cannot_be_made_are_refused(folds: int) -> None:
    with pytest.raises(InputError, match=r"smaller class has pairs \(20\)"):
        assign_folds(np.arange(50) < 20, folds)


def test_many_folds_keep_their_numbers() -> None:
    genuine = np.arange(1200) < 600
    folds = assign_folds(genuine, 300)
    assert folds is not None
    assert np.bincount(folds).tolist() == [4] * 300
