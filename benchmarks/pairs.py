"""Verification at IJB-C's size: scores of pairs, and figures of scores, each beside the usual way.

    python benchmarks/pairs.py [figures] [scores]

Both sides of a comparison run in turn in one process; medians. IJB-C's 1:1 protocol has 15,658,489
pairs of 23,124 templates, 19,557 of them genuine.

figures: scores drawn from two normal distributions. Ours computes all that `verify-pairs` does but
the bootstrap; scikit-learn's share is `roc_curve` and `roc_auc_score` alone.

scores: random unit vectors of 512 float32 numbers, pairs drawn at random and put in the order of
their left side, as IJB-C lists them. Ours is `cosine_scores`; the usual way gathers both sides of
100,000 pairs, multiplies and sums, as insightface's script for IJB does. Two lists:
`enrolled` as in IJB-C, where 3,531 enrolled templates stand on the left and 19,593 probes on the
right, so that nearly a quarter of all such couples is listed; and `any`, with any template on
either side, 3 % of all couples, which leaves the least to gain.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np
from sklearn.metrics import roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc_curve

from faceidx.evaluation.figures import figures_of
from faceidx.evaluation.scoring import cosine_scores

PAIRS, GENUINE = 15_658_489, 19_557
ENROLLED, PROBES, DIM = 3_531, 19_593, 512
TARGETS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
USUAL_BATCH = 100_000
RUNS = 3

Result = TypeVar("Result")


def our_figures(scores: np.ndarray, genuine: np.ndarray) -> float:
    figures, _ = figures_of(scores, genuine, targets=TARGETS)
    return figures.auc


def their_figures(scores: np.ndarray, genuine: np.ndarray) -> float:
    sklearn_roc_curve(genuine, scores)
    return float(roc_auc_score(genuine, scores))


def usual_scores(vectors: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    scores = np.empty(len(left), dtype=np.float32)
    for first in range(0, len(left), USUAL_BATCH):
        batch = slice(first, first + USUAL_BATCH)
        scores[batch] = (vectors[left[batch]] * vectors[right[batch]]).sum(1)
    return scores


def compare_figures(rng: np.random.Generator) -> None:
    genuine = np.zeros(PAIRS, dtype=bool)
    genuine[rng.choice(PAIRS, GENUINE, replace=False)] = True
    scores = rng.normal(np.where(genuine, 0.6, 0.05), 0.12).astype(np.float32)
    ours, theirs = _in_turn(
        f"figures of {PAIRS:,} scores, {GENUINE:,} genuine",
        {
            "ours": partial(our_figures, scores, genuine),
            "scikit-learn": partial(their_figures, scores, genuine),
        },
    )
    print(f"AUC           {ours:.12f} and {theirs:.12f}")
    assert abs(ours - theirs) < 1e-12


def compare_scores(rng: np.random.Generator) -> None:
    templates = ENROLLED + PROBES
    vectors = rng.normal(size=(templates, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for name, rows, columns in (("enrolled", ENROLLED, PROBES), ("any", templates, templates)):
        couples = np.sort(rng.integers(0, rows * columns, PAIRS))
        left, right = couples // columns, couples % columns + templates - columns
        ours, theirs = _in_turn(
            f"scores of {PAIRS:,} pairs of {templates:,} vectors ({name})",
            {
                "ours": partial(cosine_scores, vectors, left, right),
                "usual": partial(usual_scores, vectors, left, right),
            },
        )
        difference = float(np.abs(ours - theirs).max())
        print(f"largest difference {difference:.2e}, both {ours.dtype}")
        assert ours.dtype == theirs.dtype == np.float32
        assert difference < 1e-6


def _in_turn(title: str, ways: dict[str, Callable[[], Result]]) -> list[Result]:
    """Print the median seconds of each way, how many times faster the first is, and peaks."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(RUNS):
        for name, run in ways.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    print(f"\n{title}, median of {RUNS}")
    results = []
    for name, run in ways.items():
        tracemalloc.start()
        results.append(run())
        peak = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
        median = statistics.median(seconds[name])
        print(f"{name:<13} {median:6.2f} s  {peak:6.0f} MiB beyond its input")
    first, second = (statistics.median(times) for times in seconds.values())
    print(f"ratio         {second / first:6.1f}")
    return results


def main() -> None:
    parts = {"figures": compare_figures, "scores": compare_scores}
    for name in sys.argv[1:] or parts:
        parts[name](np.random.default_rng(0))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\npeak memory of the whole process, both sides: {peak:.1f} GiB")


if __name__ == "__main__":
    main()
