"""Nearest neighbours by cosine: pictures, and people by their best picture.

Small functions over NumPy arrays. Scores are exact for every kind of index, and exact search finds
exactly the nearest (`scan.py`); an approximate index may miss some of them (`approximate.py`).
Among equal scores the lower row comes first.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from faceidx.errors import InputError
from faceidx.gallery.device import MAX_GPU_K
from faceidx.gallery.folder import Gallery
from faceidx.gallery.rank import exact_scores
from faceidx.gallery.unit import require_dim

# Cells of one block of results; with scores and rows 12 bytes a cell.
_BLOCK_CELLS = 1 << 22
_BLOCK_QUERIES = 4096
# Rows that so many queries are compared with at once.
_BLOCK_ROWS = 1024
# Where this many neighbours do not show enough people, the query is compared with everybody.
_MAX_NEIGHBOURS = 1024

_log = logging.getLogger(__name__)


class Candidate(NamedTuple):
    """A person that a probe may be."""

    identity: str
    row: int
    """The gallery row of the person's best picture."""
    score: float
    """Its cosine with the probe."""


def search(gallery: Gallery, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the k nearest pictures of each query.

    Args:
        vectors: (Q, D) unit rows.
        k: more than the gallery holds is cut to what it holds, with a warning.

    Returns:
        scores: (Q, k) float32 cosines, descending.
        rows: (Q, k) int64 rows of the gallery; among equal scores the lower row comes first.

    Raises:
        InputError: the gallery is empty, dimensions differ, or a query is not finite.
    """
    vectors = _checked(gallery, vectors)
    if k > gallery.count:
        _log.warning("%d neighbours asked for; the gallery holds %d", k, gallery.count)
        k = gallery.count
    scores = np.empty((len(vectors), k), dtype=np.float32)
    rows = np.empty((len(vectors), k), dtype=np.int64)
    for block in _blocks(len(vectors), k + 1):
        scores[block], rows[block] = _search_block(gallery, vectors[block], k)
    return scores, rows


def rankings(
    gallery: Gallery, vectors: np.ndarray, k: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """As `search`, query by query: (k,) scores and rows. A few queries at a time are in memory."""
    for block in _blocks(len(vectors), k + 1):
        yield from zip(*search(gallery, vectors[block], k), strict=True)


def nearest_identities(
    gallery: Gallery, vectors: np.ndarray, k_people: int
) -> list[list[Candidate]]:
    """Find the nearest people of each query, a person's score being that of the best picture.

    Gallery rows without identity take no part. Each query gets exactly `k_people` different
    people, or all people of the gallery where it holds fewer.

    Args:
        vectors: (Q, D) unit rows.

    Returns:
        For each query its candidates, best first; among equal scores the lower row comes first.

    Raises:
        InputError: as for `search`, or no row of the gallery has an identity.
    """
    vectors = _checked(gallery, vectors)
    wanted = min(k_people, len(require_people(gallery)))
    found: list[list[Candidate]] = [[] for _ in vectors]
    open_queries = np.arange(len(vectors))
    # The nearest person takes up as many places as they have pictures, others few: who needs more
    # is searched again.
    spread = -(-gallery.count // len(gallery.people))
    width = min(gallery.count, _MAX_NEIGHBOURS, 2 * wanted + spread)
    while len(open_queries) and width <= _MAX_NEIGHBOURS:
        for block in _blocks(len(open_queries), width + 1):
            queries = open_queries[block]
            scores, rows = _search_block(gallery, vectors[queries], width)
            for query, score, row in zip(queries, scores, rows, strict=True):
                found[query] = _people_of(gallery, score, row, wanted)
        open_queries = np.array([q for q in open_queries if len(found[q]) < wanted], dtype=np.int64)
        if width == gallery.count:
            break
        width = min(gallery.count, 4 * width)
    for query, people in zip(
        open_queries, _by_every_picture(gallery, vectors[open_queries], wanted), strict=True
    ):
        found[query] = people
    return found


def require_people(gallery: Gallery) -> list[str]:
    """The people of a gallery; raise `InputError` where there is nobody to find."""
    require_pictures(gallery)
    if not gallery.people:
        raise InputError(f"{gallery.path} holds no picture with an identity: nobody to find")
    return gallery.people


def require_pictures(gallery: Gallery) -> None:
    """Raise `InputError` where a gallery is empty."""
    if not gallery.count:
        raise InputError(f"{gallery.path} is empty; add faces with `faceidx index add`")


def _checked(gallery: Gallery, vectors: np.ndarray) -> np.ndarray:
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    require_dim(vectors.shape[1], "the query", gallery.dim, str(gallery.path))
    require_pictures(gallery)
    if not np.isfinite(vectors).all():
        raise InputError("a query holds NaN or infinity")
    return vectors


def _blocks(count: int, width: int) -> Iterator[slice]:
    step = max(1, min(_BLOCK_QUERIES, _BLOCK_CELLS // width))
    for first in range(0, count, step):
        yield slice(first, min(first + step, count))


def _search_block(gallery: Gallery, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best rows of a block, in canonical order."""
    if gallery.approximate is not None:
        scores, rows = gallery.approximate.search(vectors, k)
        few = np.flatnonzero(rows[:, -1] < 0)  # too few rows in the lists that were looked at
        if len(few):
            scores[few], rows[few] = gallery.scan.search(vectors[few], k)
        return scores, rows
    if gallery.device_index is None or k >= MAX_GPU_K:
        return gallery.scan.search(vectors, k)
    width = min(k + 1, gallery.count)  # one more shows whether the last place is shared
    scores, rows = gallery.device_index.search(vectors, width)
    order = np.lexsort((rows, -scores), axis=1)
    scores, rows = (np.take_along_axis(a, order, axis=1) for a in (scores, rows))
    if width > k:
        shared = np.flatnonzero(scores[:, k - 1] == scores[:, k])
        if len(shared):
            scores[shared, :k], rows[shared, :k] = gallery.scan.search(vectors[shared], k)
    return scores[:, :k], rows[:, :k]


def _by_every_picture(
    gallery: Gallery, vectors: np.ndarray, wanted: int
) -> Iterator[list[Candidate]]:
    """Compare queries with all pictures of everybody, for their nearest people.

    Float32 products, off by no more than (D + 2) 2^-24 (of unit vectors), say who may be among
    them; exact scores of all pictures of these decide.
    """
    codes = gallery.codes
    rows = np.argsort(codes, kind="stable")[np.count_nonzero(codes < 0) :]  # person by person
    starts = np.searchsorted(codes[rows], np.arange(len(gallery.people) + 1))
    for block in _blocks(len(vectors), len(gallery.people)):
        queries = vectors[block]
        best = np.full((len(queries), len(gallery.people)), -np.inf, dtype=np.float32)
        for first in range(0, len(rows), _BLOCK_ROWS):
            part = rows[first : first + _BLOCK_ROWS]
            scores = queries @ gallery.vectors(part).T
            people, at = np.unique(codes[part], return_index=True)
            scores = np.maximum.reduceat(scores, at, axis=1)
            best[:, people] = np.maximum(best[:, people], scores)
        least = np.partition(best, -wanted, axis=1)[:, -wanted] - (gallery.dim + 2) * 2.0**-23
        for query, near in zip(queries, best >= least[:, None], strict=True):
            theirs = np.concatenate([rows[starts[n] : starts[n + 1]] for n in np.flatnonzero(near)])
            nothing = np.zeros(len(theirs), dtype=np.int64)
            scores = exact_scores(gallery.rows, query[None], nothing, theirs)
            order = np.lexsort((theirs, -scores))
            yield _people_of(gallery, scores[order], theirs[order], wanted)


def _people_of(
    gallery: Gallery, scores: np.ndarray, rows: np.ndarray, wanted: int
) -> list[Candidate]:
    """The first `wanted` different people of a ranking of pictures."""
    codes = gallery.codes[rows]
    people, first = np.unique(codes, return_index=True)
    first = np.sort(first[people >= 0])[:wanted]
    return [
        Candidate(gallery.people[codes[place]], int(rows[place]), float(scores[place]))
        for place in first
    ]
