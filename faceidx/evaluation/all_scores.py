"""Scores of every pair of rows of an embeddings file, counted in one pass in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from faceidx.embedding.store import EmbeddingFile
from faceidx.evaluation.counted import CountedScores, ScoreCounter, as_counted
from faceidx.evaluation.unit_rows import require_unit
from faceidx.progress import Progress, ProgressCallback, silent

_ROWS = 8192  # of one read from the file
_LEFT, _RIGHT = 2048, 1024  # rows of one matrix product: its scores stay in the cache
_HARDEST = 12


@dataclass(frozen=True, kw_only=True)
class HardPairs:
    """The pairs of one class that are most likely to be judged wrongly, the hardest first."""

    scores: np.ndarray
    """(n,) float32, as they are counted."""
    left: np.ndarray
    """(n,) int64, row of the file."""
    right: np.ndarray
    """(n,) int64, the higher row."""


@dataclass(frozen=True, kw_only=True)
class AllScores:
    """Every pair of two rows whose people are known."""

    genuine: CountedScores
    impostor: CountedScores
    lowest_genuine: HardPairs
    highest_impostor: HardPairs


@dataclass(frozen=True, kw_only=True)
class _Block:
    """Some rows of the file, those whose person is known."""

    vectors: np.ndarray
    """(n, D) float32."""
    people: np.ndarray
    """(n,) int64."""
    rows: np.ndarray
    """(n,) int64, rising."""

    def parts(self, size: int) -> Iterator[_Block]:
        for first in range(0, len(self.rows), size):
            part = slice(first, first + size)
            yield _Block(vectors=self.vectors[part], people=self.people[part], rows=self.rows[part])


def score_all_pairs(
    file: EmbeddingFile, people: np.ndarray, progress: ProgressCallback = silent
) -> AllScores:
    """Score every unordered pair of rows whose people are known, each once.

    Blocks of rows are multiplied in a fixed order and in fixed sizes: one file gives the same
    counts every time.

    Args:
        people: (N,) int64, the person of each row; -1 where unknown.

    Raises:
        InputError: rows are not of length 1, or hold NaN or infinities.
    """
    counts = _Counts()
    known = int(np.count_nonzero(people >= 0))
    total = known * (known - 1) // 2
    starts = range(0, file.count, _ROWS)
    for first in starts:
        left = _block(file, people, first)
        for second in starts[starts.index(first) :]:
            right = left if second == first else _block(file, people, second)
            for ours in left.parts(_LEFT):
                for others in right.parts(_RIGHT):
                    if others.rows[-1] > ours.rows[0]:
                        counts.add(ours, others)
                        done = counts.pairs
                        progress(Progress(stage="score", done=done, total=total, unit="pairs"))
    return counts.result()


class _Counts:
    """What is known of the pairs that were scored so far."""

    def __init__(self) -> None:
        self.pairs = 0
        self._all, self._genuine = ScoreCounter(), ScoreCounter()
        self._highest_impostor, self._lowest_genuine = _Hardest(1), _Hardest(-1)
        self._products = np.empty(_LEFT * _RIGHT, dtype=np.float32)

    def add(self, ours: _Block, others: _Block) -> None:
        """Count the pairs of a row of one part and a later row of another."""
        scores = self._products[: len(ours.rows) * len(others.rows)]
        np.matmul(ours.vectors, others.vectors.T, out=scores.reshape(len(ours.rows), -1))
        if others.rows[0] > ours.rows[-1]:
            wanted = None
            self._all.add(scores)
            self.pairs += len(scores)
        else:
            wanted = (ours.rows[:, None] < others.rows).ravel()
            self._all.add(scores[wanted])
            self.pairs += int(np.count_nonzero(wanted))
            scores[~wanted] = -np.inf
        if np.isin(ours.people, others.people).any():
            same = (ours.people[:, None] == others.people).ravel()
            places = np.flatnonzero(same if wanted is None else same & wanted)
            self._genuine.add(scores[places])
            self._lowest_genuine.offer(scores[places], *_rows(places, ours, others))
            scores[places] = -np.inf
        bound = self._highest_impostor.bound
        if scores.max() > bound:
            places = np.flatnonzero(scores > bound)
            self._highest_impostor.offer(scores[places], *_rows(places, ours, others))

    def result(self) -> AllScores:
        genuine = self._genuine.counted()
        return AllScores(
            genuine=genuine,
            impostor=self._all.counted(less=self._genuine),
            lowest_genuine=self._lowest_genuine.pairs(),
            highest_impostor=self._highest_impostor.pairs(),
        )


class _Hardest:
    """Keeps the pairs of highest score times sign; of equals, those that were found first."""

    def __init__(self, sign: int) -> None:
        self._sign = sign
        self._scores = np.empty(0, dtype=np.float32)
        self._left, self._right = np.empty((2, 0), dtype=np.int64)

    @property
    def bound(self) -> float:
        """What a score times sign must be above to be kept."""
        return float(self._scores[-1]) if len(self._scores) == _HARDEST else -np.inf

    def offer(self, scores: np.ndarray, left: np.ndarray, right: np.ndarray) -> None:
        signed = self._sign * scores
        better = np.flatnonzero(signed > self.bound)
        if len(better) > _HARDEST:
            least = np.partition(signed[better], -_HARDEST)[-_HARDEST]
            better = better[signed[better] >= least]
        joined = np.concatenate([self._scores, signed[better]])
        order = np.argsort(-joined, kind="stable")[:_HARDEST]
        self._scores = joined[order]
        self._left = np.concatenate([self._left, left[better]])[order]
        self._right = np.concatenate([self._right, right[better]])[order]

    def pairs(self) -> HardPairs:
        return HardPairs(
            scores=as_counted(self._sign * self._scores), left=self._left, right=self._right
        )


def _rows(places: np.ndarray, ours: _Block, others: _Block) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the file whose product stands at each place."""
    left, right = np.divmod(places, len(others.rows))
    return ours.rows[left], others.rows[right]


def _block(file: EmbeddingFile, people: np.ndarray, first: int) -> _Block:
    rows = first + np.flatnonzero(people[first : first + _ROWS] >= 0)
    vectors = file.vectors(slice(first, first + _ROWS))[rows - first]
    require_unit(vectors, rows, file.path)
    return _Block(vectors=vectors, people=people[rows], rows=rows)
