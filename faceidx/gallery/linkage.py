"""Groups of faces by average linkage over a graph of nearest neighbours.

Two groups are joined while the mean cosine between their faces, over all pairs of one face of each,
is at least a threshold, the most alike groups first (UPGMA: Sokal and Michener, 1958). Of unit
vectors that mean is the product of the groups' sums over their sizes, so that it takes one product
and not one for each pair of faces. Two groups with such a mean hold a pair of faces at least as
alike; groups are therefore compared only where the graph has an edge between them.

Single links cannot chain groups together, the result depends on no chance, and the work grows with
the edges. docs/clustering.md has what was measured beside it.
"""

from __future__ import annotations

import heapq
import math
from statistics import NormalDist
from typing import Any

import numpy as np

from faceidx.progress import Progress, ProgressCallback, silent

NEIGHBOURS = 32
# Up to so many faces all are compared with all; beyond, cells of an inverted file are.
_EXACT_FACES = 50_000
_CELLS_OF_ROOT, _PROBED_CELLS = 4, 32
_TRAINED_A_CELL = 40
_BLOCK = 4096
# By measurement (docs/clustering.md): how far above the scores of strangers a group begins.
_DEVIATIONS = 3.5
_STRANGERS = 2.3
_PAIRS = 200_000
_ROUNDING = 1e-6  # of the cosine of equal faces
_TOLD_APART = 8  # numbers by which different faces differ


def neighbour_graph(
    vectors: np.ndarray, neighbours: int = NEIGHBOURS, *, progress: ProgressCallback = silent
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest other faces of each face.

    Args:
        vectors: (N, D) float32 unit rows.

    Returns:
        (N, k) float32 cosines, falling, and (N, k) int64 rows, -1 where none was found.
    """
    index = _index(vectors)
    count = len(vectors)
    k = min(neighbours, max(count - 1, 1))
    scores = np.full((count, k), -np.inf, dtype=np.float32)
    rows = np.full((count, k), -1, dtype=np.int64)
    for first in range(0, count, _BLOCK):
        block = slice(first, min(first + _BLOCK, count))
        found_scores, found = index.search(vectors[block], k + 1)
        own = found == np.arange(block.start, block.stop)[:, None]
        # Among equal faces one's own row may not be found: then the last one is left out.
        own[~own.any(axis=1), -1] = True
        if found.shape[1] == k + 1 and count > 1:
            scores[block] = found_scores[~own].reshape(-1, k)
            rows[block] = found[~own].reshape(-1, k)
        progress(Progress("neighbours", block.stop, count, "faces"))
    return scores, rows


def average_linkage(
    vectors: np.ndarray, scores: np.ndarray, rows: np.ndarray, threshold: float
) -> np.ndarray:
    """Join the most alike groups until none are alike enough.

    Args:
        vectors: (N, D) unit rows.
        scores, rows: as `neighbour_graph` gives them.
        threshold: smallest mean cosine between two groups that are joined.

    Returns:
        (N,) int64, the lowest row of each row's group.
    """
    groups = _Groups(vectors)
    left, right, cosines = _edges(scores, rows, threshold)
    heap = [
        (-cosine, one, other)
        for cosine, one, other in zip(cosines.tolist(), left.tolist(), right.tolist(), strict=True)
    ]
    heapq.heapify(heap)
    for _, one, other in heap:
        groups.near[one].add(other)
        groups.near[other].add(one)
    while heap:
        _, one, other = heapq.heappop(heap)
        if groups.near[one] is _GONE or groups.near[other] is _GONE:
            continue
        joined, others = groups.join(one, other)
        if not others:
            continue
        means = groups.means(joined, others)
        for group, mean in zip(others, means.tolist(), strict=True):
            if mean >= threshold:
                heapq.heappush(heap, (-mean, group, joined))
    return groups.lowest_rows()


def automatic_threshold(vectors: np.ndarray, seed: int = 0) -> float:
    """A threshold from the faces themselves: so far above the scores of strangers, by their spread.

    Two faces drawn by chance are nearly always two people. The middle of such pairs' scores, and
    the distance from there down to their 16 % quantile (a standard deviation, if they are normally
    distributed, whatever the few pairs of one person do at the upper end) tell what strangers
    score. A group begins 3.5 deviations above; where the faces are many, so far above that a face
    has about two strangers as alike.

    Args:
        vectors: (N, D) unit rows; of one pair there is no spread, and the threshold is 1, rounding
            aside, as it is of faces that are all the same.
    """
    count = len(vectors)
    if count < 3:
        return 1 - _ROUNDING
    chance = np.random.default_rng(seed)
    one = chance.integers(0, count, _PAIRS)
    other = (one + chance.integers(1, count, _PAIRS)) % count
    # Pairs of the same faces, whatever order they come in.
    turn = np.lexsort(vectors.T[:_TOLD_APART])
    one, other = turn[one], turn[other]
    cosines = np.concatenate(
        [
            np.einsum("nd,nd->n", vectors[one[i : i + _BLOCK]], vectors[other[i : i + _BLOCK]])
            for i in range(0, _PAIRS, _BLOCK)
        ]
    )
    low, middle = np.quantile(cosines, [NormalDist().cdf(-1), 0.5])
    deviations = max(_DEVIATIONS, -NormalDist().inv_cdf(min(0.5, _STRANGERS / count)))
    return float(min(1.0, middle + deviations * (middle - low))) - _ROUNDING


_GONE: set[int] = set()


class _Groups:
    """Groups of faces while they are joined: faces first, then one more for each join."""

    def __init__(self, vectors: np.ndarray) -> None:
        count, dim = vectors.shape
        self._sums = np.zeros((max(2 * count - 1, 1), dim), dtype=np.float32)
        self._sums[:count] = vectors
        self._sizes = np.ones(len(self._sums), dtype=np.float32)
        self._parent = np.arange(len(self._sums))
        self._faces, self._number = count, count
        self.near: list[set[int]] = [set() for _ in range(count)]
        """Groups with an edge to each; `_GONE` for a group that became part of another."""

    def join(self, one: int, other: int) -> tuple[int, list[int]]:
        """Make one group of two; return its number and the groups near it."""
        joined = self._number
        self._number += 1
        near = (self.near[one] | self.near[other]) - {one, other}
        for group in near:
            edges = self.near[group]
            edges.discard(one)
            edges.discard(other)
            edges.add(joined)
        self.near[one] = self.near[other] = _GONE
        self.near.append(near)
        self._sums[joined] = self._sums[one] + self._sums[other]
        self._sizes[joined] = self._sizes[one] + self._sizes[other]
        self._parent[[one, other]] = joined
        return joined, sorted(near)

    def means(self, group: int, others: list[int]) -> np.ndarray:
        """Mean cosine between the faces of one group and of each other one."""
        sums = self._sums[others] @ self._sums[group]
        return np.asarray(sums / (self._sizes[others] * self._sizes[group]))

    def lowest_rows(self) -> np.ndarray:
        root = np.arange(self._number)
        for group in range(self._number - 1, -1, -1):  # a group's parent has the higher number
            root[group] = root[self._parent[group]]
        _, first, number = np.unique(root[: self._faces], return_index=True, return_inverse=True)
        return np.asarray(first[number])


def _edges(
    scores: np.ndarray, rows: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each pair of rows with an edge of at least the threshold once, the lower row first."""
    one, place = np.nonzero((scores >= threshold) & (rows >= 0))
    other = rows[one, place]
    low, high = np.minimum(one, other), np.maximum(one, other)
    _, kept = np.unique(low * len(rows) + high, return_index=True)
    return low[kept], high[kept], scores[one[kept], place[kept]]


def _index(vectors: np.ndarray) -> Any:
    import faiss

    count, dim = vectors.shape
    index: Any = faiss.IndexFlatIP(dim)
    if count > _EXACT_FACES:
        cells = _CELLS_OF_ROOT * math.isqrt(count)
        index = faiss.IndexIVFFlat(index, dim, cells, faiss.METRIC_INNER_PRODUCT)
        step = max(1, count // (_TRAINED_A_CELL * cells))
        index.train(np.ascontiguousarray(vectors[::step]))
        index.nprobe = _PROBED_CELLS
    index.add(vectors)
    return index
