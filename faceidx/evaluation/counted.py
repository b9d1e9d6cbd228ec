"""Sorted scores by value and count: for more scores than memory holds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

LARGEST = 1.03125
"""Rows of length 1 that were stored in half precision may have a product of a little over 1."""
_PER_ONE = np.float32(2**23)
_OFFSET = int(LARGEST * 2**23)
_FULL = 2**31  # half of what a counter of 32 bits holds
_CHUNK = 1 << 16  # scores that are counted at once: their steps and places stay in the cache
_BLOCK = 1 << 20


class CountedScores:
    """The scores of one class, each value once with the number of times it occurs.

    It answers what is asked of a sorted array: `len`, the k-th lowest score (`scores[k]`) and
    `searchsorted`; the counts are exact, and int64.

    Args:
        values: (V,) rising, no value twice.
        counts: (V,) int64; 1 or more each, where a curve is to be built of them.
    """

    def __init__(self, values: np.ndarray, counts: np.ndarray) -> None:
        self.values = values
        self._starts = np.zeros(len(values) + 1, dtype=np.int64)
        np.cumsum(counts, out=self._starts[1:])

    @property
    def dtype(self) -> np.dtype:
        return self.values.dtype

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, rank: Any) -> Any:
        """The score at one or more places of the sorted order; negative ones from the end."""
        places = np.asarray(rank)
        places = np.where(places < 0, places + len(self), places)
        if np.any((places < 0) | (places >= len(self))):
            raise IndexError(f"there are {len(self)} scores; {rank} is none of them")
        return self.values[self._starts.searchsorted(places, side="right") - 1]

    def searchsorted(self, scores: Any, side: Any = "left") -> Any:
        """Number of scores below each given score, or with `right` not above it."""
        return self._starts[self.values.searchsorted(scores, side)]

    def below(self, places: np.ndarray) -> np.ndarray:
        """Number of scores that have one of the first so many values."""
        return self._starts[places]

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield values in double precision and their counts, a block at a time."""
        edges = range(0, len(self.values) + _BLOCK, _BLOCK)
        for first, end in pairwise(edges):
            values = self.values[first:end].astype(np.float64)
            yield values, np.diff(self._starts[first : end + 1])

    def moments(self) -> tuple[float, float]:
        """Mean and variance."""
        mean = math.fsum(float(np.dot(v, n)) for v, n in self.blocks()) / len(self)
        squares = math.fsum(float(np.dot(np.square(v - mean), n)) for v, n in self.blocks())
        return mean, squares / len(self)


class ScoreCounter:
    """Counts cosines in steps of 2^-23, each rounded down to its step.

    2^-23 (1.2e-7) is the precision of float32, and what the product of two rows is sure to. A score
    is at or above a step exactly when its counted value is. There is a counter for every step, so
    that memory does not depend on the number of scores.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(2 * _OFFSET + 1, dtype=np.uint32)
        self._carried: dict[int, int] = {}
        """What counters held when they were set back, by place."""
        self._since = 0
        self._steps = np.empty(_CHUNK, dtype=np.float32)
        self._places = np.empty(_CHUNK, dtype=np.intp)

    def add(self, scores: np.ndarray) -> None:
        """Count float32 scores of any shape, none of them beyond `LARGEST` or -`LARGEST`."""
        flat = scores.reshape(-1)
        for first in range(0, len(flat), _CHUNK):
            chunk = flat[first : first + _CHUNK]
            steps, places = self._steps[: len(chunk)], self._places[: len(chunk)]
            np.multiply(chunk, _PER_ONE, out=steps)
            np.floor(steps, out=steps)
            places[...] = steps
            places += _OFFSET
            if self._since + len(chunk) > _FULL:
                self._carry()
            np.add.at(self._counts, places, np.uint32(1))
            self._since += len(chunk)

    def counted(self, less: ScoreCounter | None = None) -> CountedScores:
        """All scores counted so far, without those that another counter counted as well."""
        occupied = self._counts > 0
        occupied[list(self._carried)] = True
        places = np.flatnonzero(occupied)
        counts = self._at(places)
        if less is not None:
            counts -= less._at(places)
            places, counts = places[counts > 0], counts[counts > 0]
        return CountedScores((places - _OFFSET).astype(np.float32) / _PER_ONE, counts)

    def _at(self, places: np.ndarray) -> np.ndarray:
        counts = self._counts[places].astype(np.int64)
        for place, carried in self._carried.items():
            counts[np.searchsorted(places, place)] += carried
        return counts

    def _carry(self) -> None:
        """Set back what is half full: no counter can then overflow for `_FULL` more scores."""
        for place in np.flatnonzero(self._counts >= _FULL):
            self._carried[int(place)] = self._carried.get(int(place), 0) + int(self._counts[place])
            self._counts[place] = 0
        self._since = 0


def as_counted(scores: np.ndarray) -> np.ndarray:
    """Round float32 scores down to the step that they are counted at."""
    return np.floor(scores * _PER_ONE) / _PER_ONE
