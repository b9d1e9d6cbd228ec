"""Exact nearest rows, faster than comparing everything in full precision.

A first pass scores every row with rounded vectors (`rounded.py`) and says how far a score s may be
off: no more than e. So once k rows are known to score f or more, no row with s + e < f is among the
k best. All others are candidates, few in practice, and are ranked by their exact cosines. Nothing
is approximate in the result.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np

from faceidx.gallery.rank import best_of_pairs, exact_scores, rank_all
from faceidx.gallery.rounded import Above, Block, Queries, has_int8
from faceidx.gallery.vectors import Vectors

# What the first pass says of a block and so many queries are 8 MiB, which a last-level cache holds.
_BLOCK_ROWS = 16384
_QUERIES = 512
# Each thread works alone where it has so many queries; else all share one product.
_WORTH_A_THREAD = 128
# The k best of so many neighbouring rows' best are about the k best, and found faster.
_GROUP = 16
# Queries with more candidates than this many times k (equal vectors by the thousand) are ranked
# in full instead.
_CROWDED = 64


class Scan:
    """Exact search over vectors in a file.

    Args:
        memory: bytes that rounded vectors may take to be kept from search to search; where they
            do not fit, each search reads and rounds the vectors anew.
    """

    def __init__(self, vectors: Vectors, *, memory: int) -> None:
        self._vectors = vectors
        self._kept: list[Block] = []
        self._keep = vectors.count * vectors.dim * (1 if has_int8() else 4) <= memory

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k best rows of each query; among equal scores the lower row comes first.

        Args:
            queries: (Q, D) float32.
            k: at most N.

        Returns:
            scores (Q, k) float32 and rows (Q, k) int64.
        """
        scores = np.empty((len(queries), k), dtype=np.float32)
        rows = np.empty((len(queries), k), dtype=np.int64)
        if k > _BLOCK_ROWS // 2:
            crowded = np.arange(len(queries))
        else:
            crowded = self._two_passes(queries, k, scores, rows)
        for query in crowded:
            every_score, every_row = rank_all(self._vectors, queries[query])
            scores[query], rows[query] = every_score[:k], every_row[:k]
        return scores, rows

    def _two_passes(
        self, queries: np.ndarray, k: int, scores: np.ndarray, rows: np.ndarray
    ) -> np.ndarray:
        """Fill in scores and rows; return the queries that have too many candidates for it."""
        from faceidx.threads import single_threads

        threads = _threads()
        share = -(-len(queries) // threads)
        size = min(share, _QUERIES) if share >= _WORTH_A_THREAD else _QUERIES
        parts = [slice(n, n + size) for n in range(0, len(queries), size)]
        passes = [_FirstPass(self._vectors, queries[part], k) for part in parts]
        with nullcontext() if len(parts) < threads else single_threads(threads, "scan") as pool:
            each = pool.map if pool else map
            for block in self._blocks():
                for _ in each(partial(_FirstPass.take, block=block), passes):
                    pass
            for part, best in zip(parts, each(_FirstPass.best, passes), strict=True):
                scores[part], rows[part] = best
        return np.flatnonzero(np.concatenate([one.crowded for one in passes]))

    def _blocks(self) -> Iterator[Block]:
        yield from self._kept
        done = sum(len(block.rows) for block in self._kept)
        while done < self._vectors.count:
            block = Block.of(done, self._vectors.block(done, done + _BLOCK_ROWS))
            done += len(block.rows)
            if self._keep:
                self._kept.append(block)
            yield block


class _FirstPass:
    """The first pass of some queries over the blocks."""

    def __init__(self, vectors: Vectors, queries: np.ndarray, k: int) -> None:
        self.crowded = np.zeros(len(queries), dtype=bool)
        """Queries that have been given up, as they have too many candidates."""
        self._vectors = vectors
        self._exact = queries
        self._k = k
        self._rounded = Queries(queries)
        self._floor = np.full(len(queries), -np.inf, dtype=np.float32)
        """A score that k rows surely reach."""
        self._seen = self._ranked = 0
        self._found: list[Above] = []

    def take(self, block: Block) -> None:
        """Collect the rows of a block that may be among the k best."""
        if not self._seen:
            scores = self._rounded.scores(block)
            self._floor = self._first_floor(block, scores[:, : len(self._floor)])
            self._found.append(self._rounded.reaching(block, scores, self._floor))
            self._ranked = len(block.rows)
        else:
            self._found.append(self._rounded.above(block, self._floor))
        self._seen += len(block.rows)
        if self._seen >= 2 * self._ranked:  # the floor rises fast at first
            self._raise_floor()

    def best(self) -> tuple[np.ndarray, np.ndarray]:
        """The k best scores and rows, (Q, k) each; undefined for crowded queries."""
        self._raise_floor()
        found = self._found[0]
        exact = self._scored(found, np.flatnonzero(found.error))
        return best_of_pairs(exact.query, exact.row, exact.score, len(self._floor), self._k)

    def _first_floor(self, block: Block, scores: Any) -> np.ndarray:
        """The lowest exact score of the best rows of the k groups with the best of them, (Q,)."""
        import torch

        queries = len(self._floor)
        fits = len(scores) % _GROUP == 0 and len(scores) >= 2 * self._k * _GROUP
        grouped = scores.view(-1, _GROUP if fits else 1, queries)
        groups = grouped.amax(1).topk(self._k, dim=0).indices.t()
        within = grouped[groups, :, torch.arange(queries)[:, None]].argmax(2)
        row = block.first + (grouped.shape[1] * groups + within).reshape(-1).numpy()
        query = np.repeat(np.arange(queries), self._k)
        exact = exact_scores(self._vectors, self._exact, query, row)
        return exact.reshape(-1, self._k).min(1)

    def _raise_floor(self) -> None:
        """Score the k best of each query exactly, and drop what cannot be among them any more."""
        found = Above(*(np.concatenate(column) for column in zip(*self._found, strict=True)))
        counts = np.bincount(found.query, minlength=len(self._floor))
        width = 2 * float(np.abs(found.score).max(initial=0)) + 1
        order = np.argsort(found.query * width - found.score)  # by query, then by score
        found = Above(*(column[order] for column in found))
        starts = np.cumsum(counts) - counts
        first = np.arange(len(order)) - starts[found.query] < self._k
        found = self._scored(found, np.flatnonzero(first & (found.error > 0)))
        floor = np.full_like(self._floor, np.inf)
        np.minimum.at(floor, found.query[first], found.score[first])
        self._floor = np.where(counts < self._k, self._floor, np.maximum(self._floor, floor))
        self._ranked = self._seen
        kept = found.score + found.error >= self._floor[found.query]
        counts = np.bincount(found.query[kept], minlength=len(self._floor))
        self.crowded |= counts > _CROWDED * self._k
        self._floor[self.crowded] = np.inf
        kept &= ~self.crowded[found.query]
        self._found = [Above(*(column[kept] for column in found))]

    def _scored(self, found: Above, pairs: np.ndarray) -> Above:
        """Replace the scores of some pairs by the exact ones."""
        exact = exact_scores(self._vectors, self._exact, found.query[pairs], found.row[pairs])
        found.score[pairs] = exact
        found.error[pairs] = 0
        return found


def _threads() -> int:
    import torch

    return int(torch.get_num_threads())
