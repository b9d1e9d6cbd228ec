"""Exact cosines of chosen pairs, and the order of candidates by them."""

from __future__ import annotations

import numpy as np

from faceidx.gallery.vectors import Vectors

# Pairs of one step: two blocks of 512 x 512 in float32 are 2 MiB, about what a core's cache holds.
_PAIRS = 512
_SCAN_ROWS = 65536


def exact_scores(
    vectors: Vectors, queries: np.ndarray, query: np.ndarray, row: np.ndarray
) -> np.ndarray:
    """Cosines of pairs, summed in float64 and rounded once: the same in whatever company.

    Args:
        queries: (Q, D) unit float32.
        query: (P,) which query.
        row: (P,) which row of the gallery.

    Returns:
        (P,) float32.
    """
    scores = np.empty(len(row), dtype=np.float32)
    for first in range(0, len(row), _PAIRS):
        part = slice(first, first + _PAIRS)
        one, other = queries[query[part]], vectors.rows(row[part])
        scores[part] = np.einsum("pd,pd->p", one, other, dtype=np.float64)
    return scores


def best_of_pairs(
    query: np.ndarray, row: np.ndarray, score: np.ndarray, queries: int, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k best candidates of each query; among equal scores the lower row comes first.

    Args:
        query, row, score: (P,) candidates in any order, each pair once.

    Returns:
        scores (Q, k) float32 and rows (Q, k) int64; -inf and -1 where there are fewer than k.
    """
    order = np.lexsort((row, -score, query))
    query, row, score = query[order], row[order], score[order]
    starts = np.searchsorted(query, np.arange(queries))
    place = np.arange(len(query)) - starts[query]
    kept = place < k
    scores = np.full((queries, k), -np.inf, dtype=np.float32)
    rows = np.full((queries, k), -1, dtype=np.int64)
    scores[query[kept], place[kept]] = score[kept]
    rows[query[kept], place[kept]] = row[kept]
    return scores, rows


def rank_all(vectors: Vectors, query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores (N,) float32 and rows (N,) of all vectors, best first, ties by row."""
    scores = np.empty(vectors.count, dtype=np.float32)
    for first, block in vectors.blocks(_SCAN_ROWS):
        scores[first : first + len(block)] = np.einsum("nd,d->n", block, query, dtype=np.float64)
    rows = np.argsort(-scores, kind="stable")
    return scores[rows], rows
