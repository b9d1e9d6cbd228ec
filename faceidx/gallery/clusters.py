"""Centroids for inverted lists: spherical k-means over a sample, and who is nearest to which.

Products are computed in bfloat16 where the CPU has instructions for it. A vector that is filed
under its second-nearest centroid now and then costs nothing: recall is measured afterwards.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from faceidx.gallery.vectors import BLOCK_ROWS, Vectors

# k-means needs some vectors of each cluster; more than these, or more rounds, gain little.
SAMPLE_PER_LIST = 24
_ROUNDS = 5
_ROWS = 4096


def train_centroids(
    vectors: Vectors, rows: np.ndarray, lists: int, chance: np.random.Generator
) -> np.ndarray:
    """Spherical k-means (Dhillon & Modha 2001) over some rows.

    Args:
        rows: (S,) the rows to learn from, at least as many as lists.

    Returns:
        (lists, D) unit float32.
    """
    import torch

    sample = torch.empty(len(rows), vectors.dim, dtype=_product_type())
    for first in range(0, len(rows), BLOCK_ROWS):
        fetched = vectors.rows(rows[first : first + BLOCK_ROWS])
        sample[first : first + len(fetched)] = torch.from_numpy(fetched)
    vectors.release()
    centroids = sample[torch.from_numpy(chance.permutation(len(rows))[:lists])].float()
    for _ in range(_ROUNDS):
        sums = torch.zeros_like(centroids)
        nearest = _nearest(sample, centroids)
        for first in range(0, len(sample), BLOCK_ROWS):
            part = slice(first, first + BLOCK_ROWS)
            sums.index_add_(0, nearest[part], sample[part].float())
        empty = (sums == 0).all(1)
        again = torch.from_numpy(chance.integers(len(rows), size=int(empty.sum())))
        sums[empty] = sample[again].float()
        centroids = torch.nn.functional.normalize(sums)
    return centroids.numpy()


def nearest_centroids(vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Number of the centroid nearest to each vector, (n,) int32.

    Args:
        vectors: (n, D) unit float32.
        centroids: (lists, D) unit float32.
    """
    import torch

    rows = torch.from_numpy(vectors).to(_product_type())
    return _nearest(rows, torch.from_numpy(centroids)).numpy().astype(np.int32)


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


def _nearest(rows: Any, centroids: Any) -> Any:
    import torch

    columns = centroids.to(rows.dtype).t()
    parts = rows.split(_ROWS)
    return torch.cat([torch.mm(part, columns).argmax(1) for part in parts])


@cache
def _product_type() -> Any:
    import torch

    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32
