from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.metrics.cluster import pair_confusion_matrix

from faceidx.evaluation.cluster_figures import cluster_figures


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_figures_are_scikit_learns_and_those_of_a_naive_loop(seed: int) -> None:
    chance = np.random.default_rng(seed)
    groups, people = chance.integers(0, 12, 80), chance.integers(3, 20, 80)
    told = cluster_figures(groups, people)
    (_, fp), (fn, tp) = pair_confusion_matrix(people, groups)
    assert told["pairwise"]["precision"] == pytest.approx(tp / (tp + fp))
    assert told["pairwise"]["recall"] == pytest.approx(tp / (tp + fn))
    both = [[g == h and p == q for h, q in zip(groups, people, strict=True)]
            for g, p in zip(groups, people, strict=True)]  # fmt: skip
    precision = np.mean([sum(row) / sum(groups == g) for row, g in zip(both, groups, strict=True)])
    recall = np.mean([sum(row) / sum(people == p) for row, p in zip(both, people, strict=True)])
    assert told["bcubed"]["precision"] == pytest.approx(precision)
    assert told["bcubed"]["recall"] == pytest.approx(recall)
    assert told["bcubed"]["f1"] == pytest.approx(2 * precision * recall / (precision + recall))
    pairs = list(itertools.combinations(range(80), 2))
    assert tp == 2 * sum(both[i][j] for i, j in pairs)


def test_what_has_no_pairs_is_unknown() -> None:
    told = cluster_figures(np.arange(4), np.arange(4))
    assert told["pairwise"] == {"precision": None, "recall": None, "f1": None}
    assert told["bcubed"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0}
