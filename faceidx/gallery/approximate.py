"""Search in an approximate FAISS index, ranked by exact cosines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from faceidx.gallery.rank import best_of_pairs, exact_scores
from faceidx.gallery.vectors import Vectors

# What FAISS calls the settings that trade speed for recall; an index has one, both or none.
PARAMETERS = ("nprobe", "efSearch")


class Approximate:
    """Takes candidates from an index, and ranks them by the vectors themselves.

    Args:
        candidates: taken from the index beyond twice the neighbours asked for: what the index
            ranks in the wrong order is put right among so many.
        widest: more the index cannot give at once.
    """

    def __init__(self, index: Any, vectors: Vectors, candidates: int, *, widest: int) -> None:
        self._index = index
        self._vectors = vectors
        self._candidates = candidates
        self._widest = min(vectors.count, widest)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k best rows that the index knows of.

        Returns:
            scores (Q, k) float32, exact, and rows (Q, k) int64; among equal scores the lower row
            comes first. -inf and -1 where the index shows fewer than k.
        """
        width = min(self._widest, 2 * k + self._candidates)
        _, found = self._index.search(queries, width)
        # Row numbers come from a file: none outside the gallery is believed.
        query, place = np.nonzero((found >= 0) & (found < self._vectors.count))
        row = found[query, place]
        score = exact_scores(self._vectors, queries, query, row)
        return best_of_pairs(query, row, score, len(queries), k)


def set_parameters(index: Any, parameters: Mapping[str, int]) -> None:
    """Set FAISS's search parameters, by name."""
    for name, value in parameters.items():
        set_parameter(index, name, value)


def set_parameter(index: Any, name: str, value: int) -> bool:
    """Set a search parameter of FAISS; False where the index has none of the name."""
    import faiss

    try:
        faiss.ParameterSpace().set_index_parameter(index, name, value)
    except RuntimeError:
        return False
    return True
