"""Verification figures at IJB-C's size, beside scikit-learn's, in turn in one run.

    python benchmarks/pairs.py

15,658,489 scores of which 19,557 are genuine (the 1:1 protocol of IJB-C), drawn from two normal
distributions. Ours computes every figure of `verify-pairs` but the bootstrap; scikit-learn's share
is `roc_curve` and `roc_auc_score` alone.
"""

from __future__ import annotations

import statistics
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
from sklearn.metrics import roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc_curve

from faceidx.evaluation.folds import assign_folds, fold_accuracy
from faceidx.evaluation.roc import auc, best_accuracy, confusion, eer, roc_curve, tar_at_far

PAIRS, GENUINE = 15_658_489, 19_557
TARGETS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
RUNS = 3


def ours(scores: np.ndarray, genuine: np.ndarray) -> float:
    roc = roc_curve(scores, genuine)
    tar_at_far(roc, TARGETS)
    eer(roc)
    threshold, _ = best_accuracy(roc)
    confusion(roc, threshold)
    folds = assign_folds(genuine)
    assert folds is not None  # there are enough pairs of both kinds
    fold_accuracy(roc, scores, genuine, folds)
    return auc(roc)


def theirs(scores: np.ndarray, genuine: np.ndarray) -> float:
    sklearn_roc_curve(genuine, scores)
    return float(roc_auc_score(genuine, scores))


def main() -> None:
    rng = np.random.default_rng(0)
    genuine = np.zeros(PAIRS, dtype=bool)
    genuine[rng.choice(PAIRS, GENUINE, replace=False)] = True
    scores = rng.normal(np.where(genuine, 0.6, 0.05), 0.12).astype(np.float32)
    seconds: dict[str, list[float]] = {"ours": [], "scikit-learn": []}
    values = {}
    for _ in range(RUNS):
        for name, run in (("ours", ours), ("scikit-learn", theirs)):
            began = time.perf_counter()
            values[name] = run(scores, genuine)
            seconds[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    print(f"{PAIRS:,} scores, {GENUINE:,} genuine, median of {RUNS}")
    for name, median in medians.items():
        print(f"{name:<13} {median:6.2f} s  AUC {values[name]:.12f}")
    print(f"ratio         {medians['scikit-learn'] / medians['ours']:6.1f}")
    print(f"peak of ours beyond its input: {_peak(lambda: ours(scores, genuine)) / 2**20:.0f} MiB")


def _peak(run: Callable[[], object]) -> int:
    tracemalloc.start()
    run()
    return tracemalloc.get_traced_memory()[1]


if __name__ == "__main__":
    main()
