"""Exact nearest rows, faster than comparing everything in full precision.

A first pass scores every row in whole numbers of 8 bits, which CPUs with instructions for it (VNNI)
multiply several times as fast as float32. Its score s of a pair is off by no more than

    e = |q - q'| |x'| + |q| |x - x'| + (D + 1) 2^-23 |q| |x'|

where q' and x' are the rounded vectors: Cauchy-Schwarz on the roundings, whose lengths are
computed, and something to spare for the float32 arithmetic around it. So once k rows are known to
score f or more, no row with s + e < f is among the k best. All others are candidates, few in
practice, and are ranked by their exact cosines. Nothing is approximate in the result. CPUs without
such instructions do the same with float32 instead of whole numbers, and a smaller e; there FAISS is
the faster one.

Rows go through in blocks. To find the few candidates without looking at every score twice, only
the maximum of each group of neighbouring rows is compared with the bound.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from faceidx.gallery.rank import best_of_pairs, exact_scores, rank_all
from faceidx.gallery.vectors import Vectors

# A block's scores for so many queries are 21 MiB, which a last-level cache holds.
_BLOCK_ROWS = 16384
_QUERIES = 336
_GROUP = 16
# Queries with more candidates than this many times k (equal vectors by the thousand) are ranked
# in full instead.
_CROWDED = 64
_LARGEST = 127  # of the numbers of 8 bits
_FLOAT_UNIT = 2.0**-23


@dataclass(slots=True)
class _Rounded:
    """Vectors as the first pass multiplies them."""

    rows: Any
    """(n, D) tensor, int8 or float32."""
    scale: Any
    """Number that the vectors were multiplied with before rounding, or one for each row."""
    length: Any
    """(n,) lengths of the rounded vectors, in the scale of the exact ones."""
    residual: Any
    """(n,) lengths of what the rounding took away."""


@dataclass(slots=True)
class _Block:
    """Some rows of the gallery."""

    first: int
    count: int
    rows: Any
    """(n, D) tensor; n is a multiple of the group, filled up with zeros."""
    scale: float
    length: float
    """Of the longest rounded row."""
    residual: float
    """The longest of the roundings."""


class Scan:
    """Exact search over vectors in a file.

    Args:
        memory: bytes that rounded vectors may take to be kept from search to search; where they
            do not fit, each search reads and rounds the vectors anew.
    """

    def __init__(self, vectors: Vectors, *, memory: int) -> None:
        self._vectors = vectors
        self._kept: list[_Block] = []
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
        parts = [slice(n, n + _QUERIES) for n in range(0, len(queries), _QUERIES)]
        passes = [_FirstPass(self._vectors, queries[part], k) for part in parts]
        # NumPy runs on one core, torch's products on all of them.
        with ThreadPoolExecutor(_threads()) as pool:
            for block in self._blocks():
                for one in passes:
                    one.take(block)
                for _ in pool.map(_FirstPass.keep_up, passes):
                    pass
            for part, best in zip(parts, pool.map(_FirstPass.best, passes), strict=True):
                scores[part], rows[part] = best
        return np.flatnonzero(np.concatenate([one.crowded for one in passes]))

    def _blocks(self) -> Iterator[_Block]:
        yield from self._kept
        done = sum(block.count for block in self._kept)
        while done < self._vectors.count:
            block = _block(done, self._vectors.block(done, done + _BLOCK_ROWS))
            done += block.count
            if self._keep:
                self._kept.append(block)
            yield block


class _Found(NamedTuple):
    """Pairs that may be among the k best of their query, (P,) each."""

    query: np.ndarray
    row: np.ndarray
    score: np.ndarray
    error: np.ndarray
    """How far the score may be off; 0 for exact ones."""


class _FirstPass:
    """The first pass of some queries over the blocks."""

    def __init__(self, vectors: Vectors, queries: np.ndarray, k: int) -> None:
        import torch

        self.crowded = np.zeros(len(queries), dtype=bool)
        """Queries that have been given up, as they have too many candidates."""
        self._vectors = vectors
        self._exact = queries
        self._k = k
        self._rounded = _round(torch.from_numpy(queries), by_row=True)
        self._length = self._rounded.length + self._rounded.residual
        self._floor = np.full(len(queries), -np.inf, dtype=np.float32)
        """A score that k rows surely reach."""
        self._seen = self._ranked = 0
        self._found: list[_Found] = []

    def take(self, block: _Block) -> None:
        """Collect the rows of a block that may be among the k best."""
        scores = _multiply(block.rows, self._rounded.rows)
        if block.count < len(block.rows):
            scores[block.count :] = _least(scores.dtype)
        group = _GROUP if 2 * self._k * _GROUP <= len(block.rows) else 1
        grouped = scores.view(-1, group, scores.shape[1])
        highest = grouped.amax(1)
        if not self._seen:
            self._floor = self._first_floor(grouped, highest)
            self._ranked = block.count
        scale = self._rounded.scale * block.scale
        error = self._error(block)
        wanted = self._wanted(error, scale, scores.dtype)
        place, query = (highest >= wanted).nonzero(as_tuple=True)
        cells = grouped[place, :, query]
        pair, within = (cells >= wanted[query, None]).nonzero(as_tuple=True)
        query = query[pair]
        row = block.first + group * place[pair] + within
        columns = (query, row, cells[pair, within] / scale[query], error[query])
        self._found.append(_Found(*(column.numpy() for column in columns)))
        self._seen += block.count

    def keep_up(self) -> None:
        """Raise the floor where it is worth it: it rises fast at first."""
        if self._seen >= 2 * self._ranked:
            self._raise_floor()

    def best(self) -> tuple[np.ndarray, np.ndarray]:
        """The k best scores and rows, (Q, k) each; undefined for crowded queries."""
        self._raise_floor()
        found = self._found[0]
        exact = self._scored(found, np.flatnonzero(found.error))
        return best_of_pairs(exact.query, exact.row, exact.score, len(self._floor), self._k)

    def _first_floor(self, grouped: Any, highest: Any) -> np.ndarray:
        """The lowest exact score of the best rows of the k best groups, (Q,)."""
        groups = highest.topk(self._k, dim=0).indices.t().reshape(-1)
        query = np.repeat(np.arange(len(self._floor)), self._k)
        row = groups * grouped.shape[1] + grouped[groups, :, query].argmax(1)
        exact = exact_scores(self._vectors, self._exact, query, row.numpy())
        return exact.reshape(-1, self._k).min(1)

    def _raise_floor(self) -> None:
        """Score the k best of each query exactly, and drop what cannot be among them any more."""
        found = _Found(*(np.concatenate(column) for column in zip(*self._found, strict=True)))
        counts = np.bincount(found.query, minlength=len(self._floor))
        width = 2 * float(np.abs(found.score).max(initial=0)) + 1
        order = np.argsort(found.query * width - found.score)  # by query, then by score
        found = _Found(*(column[order] for column in found))
        starts = np.cumsum(counts) - counts
        first = np.arange(len(order)) - starts[found.query] < self._k
        found = self._scored(found, np.flatnonzero(first & (found.error > 0)))
        floor = np.full_like(self._floor, np.inf)
        np.minimum.at(floor, found.query[first], found.score[first])
        self._floor = np.where(counts < self._k, self._floor, floor)
        self._ranked = self._seen
        kept = found.score + found.error >= self._floor[found.query]
        counts = np.bincount(found.query[kept], minlength=len(self._floor))
        self.crowded |= counts > _CROWDED * self._k
        kept &= ~self.crowded[found.query]
        self._found = [_Found(*(column[kept] for column in found))]

    def _scored(self, found: _Found, pairs: np.ndarray) -> _Found:
        """Replace the scores of some pairs by the exact ones."""
        exact = exact_scores(self._vectors, self._exact, found.query[pairs], found.row[pairs])
        found.score[pairs] = exact
        found.error[pairs] = 0
        return found

    def _wanted(self, error: Any, scale: Any, dtype: Any) -> Any:
        """The lowest first-pass score whose true score may reach the floor, (Q,)."""
        import torch

        wanted = (torch.from_numpy(self._floor) - error) * scale
        wanted[torch.from_numpy(self.crowded)] = torch.inf
        if dtype.is_floating_point:
            return wanted
        limits = torch.iinfo(dtype)
        return wanted.double().floor().clamp(limits.min, limits.max).to(dtype)

    def _error(self, block: _Block) -> Any:
        """How far a score of the first pass may be off, (Q,)."""
        arithmetic = (block.rows.shape[1] + 1) * _FLOAT_UNIT * block.length
        return self._rounded.residual * block.length + self._length * (block.residual + arithmetic)


@cache
def has_int8() -> bool:
    """Whether this CPU multiplies whole numbers of 8 bits faster than float32."""
    import torch

    return torch.cpu._is_vnni_supported()


def _threads() -> int:
    import torch

    return int(torch.get_num_threads())


def _multiply(rows: Any, queries: Any) -> Any:
    import torch

    return (torch._int_mm if rows.dtype is torch.int8 else torch.mm)(rows, queries.t())


def _least(dtype: Any) -> float:
    import torch

    return -torch.inf if dtype.is_floating_point else torch.iinfo(dtype).min


def _block(first: int, rows: np.ndarray) -> _Block:
    import torch

    padding = -len(rows) % _GROUP
    exact = torch.nn.functional.pad(torch.from_numpy(rows), (0, 0, 0, padding))
    rounded = _round(exact, by_row=False)
    return _Block(
        first,
        len(rows),
        rounded.rows,
        float(rounded.scale),
        float(rounded.length.max()),
        float(rounded.residual.max()),
    )


def _round(exact: Any, *, by_row: bool) -> _Rounded:
    """Round (n, D) float32, each row in its own scale or all in one."""
    import torch

    lengths = torch.linalg.vector_norm
    if not has_int8():
        scale = torch.ones(len(exact) if by_row else ())
        return _Rounded(exact, scale, lengths(exact, dim=1), torch.zeros(len(exact)))
    highest = exact.abs().amax(1) if by_row else exact.abs().max()
    scale = _LARGEST / highest.clamp(min=torch.finfo(torch.float32).tiny * _LARGEST)
    column = scale[:, None] if by_row else scale
    rows = (exact * column).round_()
    back = rows / column
    return _Rounded(rows.to(torch.int8), scale, lengths(back, dim=1), lengths(exact - back, dim=1))
