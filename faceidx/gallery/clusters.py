"""Centroids for inverted lists: spherical k-means over a sample, and who is nearest to which."""

from __future__ import annotations

import numpy as np

from faceidx.gallery.vectors import BLOCK_ROWS, Vectors

# k-means needs some vectors of each cluster; more than these, or more rounds, gain little.
SAMPLE_PER_LIST = 16
_ROUNDS = 5


def train_centroids(vectors: Vectors, rows: np.ndarray, lists: int, seed: int) -> np.ndarray:
    """Spherical k-means (Dhillon & Modha 2001) by FAISS over some rows.

    Args:
        rows: (S,) the rows to learn from, at least as many as lists.

    Returns:
        (lists, D) unit float32.
    """
    import faiss

    sample = np.empty((len(rows), vectors.dim), dtype=np.float32)
    for first in range(0, len(rows), BLOCK_ROWS):
        part = slice(first, first + BLOCK_ROWS)
        sample[part] = vectors.rows(rows[part])
    clustering = faiss.Kmeans(
        vectors.dim,
        lists,
        niter=_ROUNDS,
        spherical=True,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=len(rows),
    )
    clustering.train(sample)
    return np.asarray(clustering.centroids)


def nearest_centroids(vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Number of the centroid nearest to each vector, (n,) int32.

    Args:
        vectors: (n, D) unit float32.
        centroids: (lists, D) unit float32.
    """
    import faiss

    _, nearest = faiss.knn(vectors, centroids, 1, metric=faiss.METRIC_INNER_PRODUCT)
    return np.asarray(nearest[:, 0], dtype=np.int32)


def mean_centroids(
    vectors: Vectors, lists: np.ndarray, held_out: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Centroids as unit means of their own vectors, and of nothing else.

    Args:
        lists: (N,) the list of each row.
        held_out: rows that are not to be seen in the means, but where a list has no others.

    Returns:
        centroids: (L, D) of the lists that are left, those without a vector dropped.
        lists: (N,) renumbered.
    """
    used, lists = np.unique(lists, return_inverse=True)
    counted = np.ones(vectors.count, dtype=bool)
    counted[held_out] = False
    lonely = np.bincount(lists[counted], minlength=len(used)) == 0
    counted |= lonely[lists]
    sums = np.zeros((len(used), vectors.dim), dtype=np.float32)
    for first, block in vectors.blocks():
        seen = counted[first : first + len(block)]
        np.add.at(sums, lists[first : first + len(block)][seen], block[seen])
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return sums / np.maximum(lengths, np.finfo(np.float32).tiny), lists.astype(np.int32)
