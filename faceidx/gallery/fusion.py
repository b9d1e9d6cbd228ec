"""A person's score from the scores of several pictures, and what strangers reach by it.

- `best`: the cosine of the person's nearest picture.
- `mean`: the cosine of the person's template, the mean of all the person's unit vectors at unit
  length.
- `vote`: of the probe's `neighbours` nearest pictures, each votes for its person with its cosine
  (negative ones with nothing); the score is the sum of the votes over `neighbours`. People without
  a vote are no candidates.

Each fusion is one class that ranks people for a probe, and that scores the gallery's own pictures
as strangers: a threshold is calibrated with the very scores it will be held against.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import ClassVar

import numpy as np

from faceidx.errors import InputError
from faceidx.gallery.folder import Gallery
from faceidx.gallery.search import Candidate, nearest_identities, require_people, search
from faceidx.progress import Progress, ProgressCallback, silent

NEIGHBOURS = 5
# One block of scores is 2048 x 8192 float32: 64 MiB.
_BLOCK_PROBES = 2048
_BLOCK_ROWS = 8192
# Where this many neighbours do not show enough that have a name, all that have one are compared.
_MAX_NEIGHBOURS = 1024


class Fusion(ABC):
    """Ranks the people of one gallery; pictures without identity take no part."""

    name: ClassVar[str]

    def __init__(self, gallery: Gallery, neighbours: int = NEIGHBOURS) -> None:
        self.gallery = gallery
        self.neighbours = neighbours

    @abstractmethod
    def nearest(self, vectors: np.ndarray, k: int) -> list[list[Candidate]]:
        """The nearest people of each probe, best first; fewer than `k` where there are no more.

        Args:
            vectors: (Q, D) unit rows.

        Raises:
            InputError: the gallery is empty or holds nobody with a name, or dimensions differ.
        """

    @abstractmethod
    def as_strangers(self, rows: np.ndarray, *, progress: ProgressCallback = silent) -> np.ndarray:
        """The score of the best candidate for pictures of the gallery, without their own person.

        All scores are never held at once.

        Args:
            rows: (T,) rows of the gallery that have an identity.

        Returns:
            (T,) float32.
        """

    def _blocks(
        self, rows: np.ndarray, progress: ProgressCallback
    ) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """Probes block by block: their place, their vectors and their people's codes."""
        for first in range(0, len(rows), _BLOCK_PROBES):
            place = slice(first, first + _BLOCK_PROBES)
            yield place, self.gallery.vectors(rows[place]), self.gallery.codes[rows[place]]
            progress(Progress("calibrate", min(place.stop, len(rows)), len(rows), "searches"))

    def _others(self, queries: np.ndarray, own: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Scores of all pictures, block by block, -inf for one's own and for nameless ones."""
        gallery = self.gallery
        for start in range(0, gallery.count, _BLOCK_ROWS):
            rows = slice(start, start + _BLOCK_ROWS)
            codes = gallery.codes[rows]
            scores = queries @ gallery.vectors(rows).T
            scores[(own[:, None] == codes) | (codes < 0)] = -np.inf
            yield start, scores


class BestPicture(Fusion):
    """A person is as near as the person's nearest picture."""

    name = "best"

    def nearest(self, vectors: np.ndarray, k: int) -> list[list[Candidate]]:
        return nearest_identities(self.gallery, vectors, k)

    def as_strangers(self, rows: np.ndarray, *, progress: ProgressCallback = silent) -> np.ndarray:
        best = np.full(len(rows), -np.inf, dtype=np.float32)
        for place, queries, own in self._blocks(rows, progress):
            for _, scores in self._others(queries, own):
                np.maximum(best[place], scores.max(axis=1), out=best[place])
        return best


class MeanTemplate(Fusion):
    """A person is as near as the mean of the person's pictures."""

    name = "mean"

    @cached_property
    def _templates(self) -> tuple[np.ndarray, np.ndarray]:
        """(P, D) unit templates of the people, and the row of the picture nearest to each."""
        gallery = self.gallery
        sums = np.zeros((len(gallery.people), gallery.dim), dtype=np.float64)
        for rows, codes in self._named_blocks():
            # Of the sums' own type: with others NumPy takes eight times as long.
            np.add.at(sums, codes, gallery.vectors(rows).astype(np.float64))
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        # Pictures that cancel each other out leave no direction: such a person is never near.
        templates = (sums / np.where(lengths > 0, lengths, 1)).astype(np.float32)
        nearest = np.full(len(sums), -1, dtype=np.int64)
        best = np.full(len(sums), -np.inf)
        for rows, codes in self._named_blocks():
            scores = np.einsum("nd,nd->n", gallery.vectors(rows), templates[codes])
            for row, code, score in zip(rows, codes, scores, strict=True):
                if score > best[code]:
                    nearest[code], best[code] = row, score
        return templates, nearest

    def _named_blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        named = np.flatnonzero(self.gallery.codes >= 0)
        for first in range(0, len(named), _BLOCK_ROWS):
            rows = named[first : first + _BLOCK_ROWS]
            yield rows, self.gallery.codes[rows]

    def nearest(self, vectors: np.ndarray, k: int) -> list[list[Candidate]]:
        templates, rows = self._templates
        people = require_people(self.gallery)
        found: list[list[Candidate]] = []
        for first in range(0, len(vectors), _BLOCK_PROBES):
            queries = vectors[first : first + _BLOCK_PROBES]
            scores, codes = _top(queries, templates, min(k, len(people)))
            found += [
                [Candidate(people[c], int(rows[c]), float(s)) for c, s in zip(*one, strict=True)]
                for one in zip(codes, scores, strict=True)
            ]
        return found

    def as_strangers(self, rows: np.ndarray, *, progress: ProgressCallback = silent) -> np.ndarray:
        templates, _ = self._templates
        best = np.full(len(rows), -np.inf, dtype=np.float32)
        for place, queries, own in self._blocks(rows, progress):
            for start in range(0, len(templates), _BLOCK_ROWS):
                block = templates[start : start + _BLOCK_ROWS]
                scores = queries @ block.T
                inside = (own >= start) & (own < start + len(block))
                scores[inside, own[inside] - start] = -np.inf
                np.maximum(best[place], scores.max(axis=1), out=best[place])
        return best


class NearestVote(Fusion):
    """The nearest pictures vote for their people."""

    name = "vote"

    def nearest(self, vectors: np.ndarray, k: int) -> list[list[Candidate]]:
        people = require_people(self.gallery)
        found = []
        for scores, rows in self._named_neighbours(vectors):
            codes = self.gallery.codes[rows]
            voted, first, number = np.unique(codes, return_index=True, return_inverse=True)
            votes = np.bincount(number, np.maximum(scores, 0)) / self.neighbours
            # Among equal votes the person of the nearer picture comes first.
            order = np.lexsort((first, -votes))[:k]
            found.append(
                [Candidate(people[voted[i]], int(rows[first[i]]), float(votes[i])) for i in order]
            )
        return found

    def _named_neighbours(self, vectors: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Scores and rows of each probe's nearest pictures that have an identity."""
        for first in range(0, len(vectors), _BLOCK_PROBES):
            yield from zip(
                *self._nearest_named(vectors[first : first + _BLOCK_PROBES]), strict=True
            )

    def _nearest_named(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same of a block, (Q, k) scores and rows."""
        gallery = self.gallery
        named = np.flatnonzero(gallery.codes >= 0)
        wanted = width = min(self.neighbours, len(named))
        scores = np.full((len(queries), wanted), -np.inf, dtype=np.float32)
        rows = np.zeros(scores.shape, dtype=np.int64)
        left = np.arange(len(queries))
        # Nameless pictures may take up places: who is left with too few is searched again, and
        # where they are very many compared with all that have a name.
        while len(left) and width <= max(_MAX_NEIGHBOURS, wanted):
            near, found = search(gallery, queries[left], width)
            nameless = gallery.codes[found] < 0
            places = np.argsort(nameless, axis=1, kind="stable")[:, :wanted]
            enough = np.count_nonzero(~nameless, axis=1) >= wanted
            scores[left[enough]] = np.take_along_axis(near, places, axis=1)[enough]
            rows[left[enough]] = np.take_along_axis(found, places, axis=1)[enough]
            left, width = left[~enough], min(gallery.count, 4 * width)
        for start in range(0, len(named) if len(left) else 0, _BLOCK_ROWS):
            block = queries[left] @ gallery.vectors(named[start : start + _BLOCK_ROWS]).T
            scores[left], rows[left] = _merged(scores[left], rows[left], block, start)
        rows[left] = named[rows[left]]
        return scores, rows

    def as_strangers(self, rows: np.ndarray, *, progress: ProgressCallback = silent) -> np.ndarray:
        best = np.zeros(len(rows), dtype=np.float32)
        width = min(self.neighbours, self.gallery.count)
        for place, queries, own in self._blocks(rows, progress):
            scores = np.full((len(queries), width), -np.inf, dtype=np.float32)
            found = np.zeros(scores.shape, dtype=np.int64)
            for start, block in self._others(queries, own):
                scores, found = _merged(scores, found, block, start)
            query, at = np.nonzero(np.isfinite(scores))  # other places stayed empty
            person = query * len(self.gallery.people) + self.gallery.codes[found[query, at]]
            voted, number = np.unique(person, return_inverse=True)
            votes = np.bincount(number, np.maximum(scores[query, at], 0)) / self.neighbours
            first = np.searchsorted(voted, np.arange(len(queries)) * len(self.gallery.people))
            best[place] = np.maximum.reduceat(votes, first)
        return best


def create_fusion(name: str, gallery: Gallery, neighbours: int = NEIGHBOURS) -> Fusion:
    """Prepare a fusion for a gallery.

    Raises:
        InputError: there is no fusion of that name.
    """
    kinds: dict[str, type[Fusion]] = {k.name: k for k in (BestPicture, MeanTemplate, NearestVote)}
    if name not in kinds:
        raise InputError(f"--fusion {name} is none of {', '.join(kinds)}")
    if neighbours < 1:
        raise InputError(f"--neighbours {neighbours} is less than 1")
    return kinds[name](gallery, neighbours)


def _top(queries: np.ndarray, templates: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best templates of each query: (Q, k) scores, falling, and (Q, k) numbers."""
    scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    found = np.zeros((len(queries), k), dtype=np.int64)
    for start in range(0, len(templates), _BLOCK_ROWS):
        block = queries @ templates[start : start + _BLOCK_ROWS].T
        scores, found = _merged(scores, found, block, start)
    return scores, found


def _merged(
    scores: np.ndarray, found: np.ndarray, block: np.ndarray, start: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k best of k kept so far and of a block's columns, numbered from `start`.

    Among equal scores those of the lower number come first, also where the last place is shared.
    """
    k = scores.shape[1]
    chosen = _best_columns(block, k)
    both = np.concatenate([scores, np.take_along_axis(block, chosen, axis=1)], axis=1)
    numbers = np.concatenate([found, chosen + start], axis=1)
    # What was kept comes from lower numbers, and a stable sort leaves it in front.
    order = np.argsort(-both, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(both, order, axis=1), np.take_along_axis(numbers, order, axis=1)


def _best_columns(block: np.ndarray, k: int) -> np.ndarray:
    """Columns of the k highest scores of each row, of equals the first, as (Q, k) rising."""
    k = min(k, block.shape[1])
    last = np.partition(block, -k, axis=1)[:, -k]
    above = block > last[:, None]
    tied = block == last[:, None]
    room = k - above.sum(axis=1, keepdims=True)
    kept = above | (tied & (np.cumsum(tied, axis=1) <= room))
    return np.nonzero(kept)[1].reshape(len(block), k)
