"""Settings of an approximate index, found by searching for pictures it has not learned from.

Some rows of the gallery are held out: no centroid is made of them, and a graph takes them up last.
Each is then searched for, itself not counting as an answer, and what the index finds is compared
with exact search. So recall is measured on the user's own vectors, whose people it has to find.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from faceidx.gallery.approximate import PARAMETERS, Approximate, set_parameter, set_parameters
from faceidx.gallery.manifest import Recall, Tuning
from faceidx.gallery.rank import exact_scores
from faceidx.gallery.scan import Scan
from faceidx.gallery.vectors import Vectors

NEIGHBOURS, IDENTITIES = "neighbours", "identities"
_QUERIES = 2000
_SHARE = 10  # of the rows, one in so many at most
_TIMED, _RUNS = 1000, 3
# Cosines as close as this are one: whichever picture comes first is right.
_TIE = 1e-6
# Itself comes first, or second to its equal; among so many there is one that is not held out.
_CERTAIN, _ENOUGH = 2, 32
_CANDIDATES = (4, 8, 16, 32, 64, 128)


@dataclass(kw_only=True)
class Truth:
    """Rows to search for, and what exact search finds for them."""

    rows: np.ndarray
    """(T,) the held-out rows."""
    vectors: np.ndarray
    """(T, D)."""
    score: np.ndarray
    """(T,) cosine with the nearest other row."""
    person: np.ndarray
    """(T,) number of the person on that row; -1 where it has no identity."""
    known: np.ndarray
    """(T,) whether that is the person of the row searched for."""
    seconds: float | None
    """What exact search took for `timed` of them; None where nobody asked."""

    @property
    def timed(self) -> int:
        return min(_TIMED, len(self.rows))


def hold_out(rows: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Draw the rows to measure with, in order."""
    size = min(_QUERIES, -(-len(rows) // _SHARE))
    return np.sort(chance.choice(rows, size, replace=False))


def truth(
    vectors: Vectors,
    codes: np.ndarray,
    held_out: np.ndarray,
    *,
    indexed: bool,
    memory: int | None = None,
) -> Truth:
    """Search exactly for the held-out rows.

    Args:
        codes: (N,) the person of each row, -1 without identity.
        indexed: whether the index to be measured holds these rows; none is an answer if not.
        memory: what exact search might take of it, to be timed so; None: it is not to be timed.
    """
    queries = vectors.rows(held_out)
    k = min(_CERTAIN if indexed else _ENOUGH, vectors.count)
    scores, found = _nearest(vectors, queries, k)
    answers = found != held_out[:, None] if indexed else ~np.isin(found, held_out)
    seconds = None
    if memory is not None:
        scan = Scan(vectors, memory=memory)
        scan.search(queries[:1], 1)  # reads and rounds the vectors
        seconds = _fastest(lambda: scan.search(queries[:_TIMED], 1))
    usable = answers.any(1)
    first = answers.argmax(1)
    picked = np.flatnonzero(usable), first[usable]
    person = codes[found[picked]]
    return Truth(
        rows=held_out[usable],
        vectors=queries[usable],
        score=scores[picked],
        person=person,
        known=(person >= 0) & (person == codes[held_out[usable]]),
        seconds=seconds,
    )


def _fastest(search: Callable[[], object]) -> float:
    """Seconds of the fastest run: what else the machine does only adds to them."""

    def seconds() -> float:
        started = time.perf_counter()
        search()
        return time.perf_counter() - started

    return min(seconds() for _ in range(_RUNS))


def _nearest(vectors: Vectors, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best rows by FAISS, block by block: it takes little memory, and no torch (0.5 GiB)."""
    import faiss

    best = faiss.ResultHeap(len(queries), k, keep_max=True)
    for first, block in vectors.blocks():
        kept = min(k, len(block))
        scores, rows = faiss.knn(queries, block, kept, metric=faiss.METRIC_INNER_PRODUCT)
        best.add_result(scores, rows + first)
    best.finalize()
    return best.D, best.I


def tune(
    index: Any,
    vectors: Vectors,
    codes: np.ndarray,
    expected: Truth,
    *,
    target: float,
    recall_of: str,
    factory: str,
) -> tuple[Tuning, bool]:
    """Find the cheapest settings that reach the target on each half of the held-out rows.

    The index need not hold those rows yet.

    Returns:
        The settings with what was measured, and whether they reach the target. Where none do,
        those of the highest recall.
    """
    best: tuple[float, dict[str, int], int, _Found] | None = None
    reached = False
    for parameters in _ladder(index):
        set_parameters(index, parameters)
        found = _Found(index, vectors, codes, expected)
        for candidates in _CANDIDATES:
            recall = found.least_recall(candidates, recall_of)
            if best is None or recall > best[0]:
                best = recall, parameters, candidates, found
            reached = recall >= target
            if reached:
                break
        if reached:
            break
    assert best is not None
    if reached:
        best = recall, parameters, candidates, found
    _, parameters, candidates, found = best
    set_parameters(index, parameters)
    search = Approximate(index, vectors, candidates, widest=vectors.count)
    queries = expected.vectors[: expected.timed]
    search.search(queries, 1)
    seconds = _fastest(lambda: search.search(queries, 1))
    tuning = Tuning(
        factory=factory,
        parameters=parameters,
        candidates=candidates,
        target_recall=target,
        recall_of=recall_of,
        recall=found.recall(candidates),
        measured_vectors=vectors.count,
        queries_per_second=round(expected.timed / seconds, 1),
        exact_queries_per_second=(
            None if expected.seconds is None else round(expected.timed / expected.seconds, 1)
        ),
    )
    return tuning, reached


class _Found:
    """What an index finds for the held-out rows with some settings."""

    def __init__(self, index: Any, vectors: Vectors, codes: np.ndarray, expected: Truth) -> None:
        width = min(index.ntotal, _CANDIDATES[-1] + 3)
        _, rows = index.search(expected.vectors, width)
        usable = (rows >= 0) & (rows != expected.rows[:, None])
        query, place = np.nonzero(usable)
        scores = np.full(rows.shape, -np.inf, dtype=np.float32)
        scores[query, place] = exact_scores(vectors, expected.vectors, query, rows[query, place])
        self._scores = scores
        self._rows = rows
        self._codes = codes
        self._expected = expected

    def _right(self, candidates: int) -> tuple[np.ndarray, np.ndarray]:
        """Whether each row's nearest is found, and whether its person is."""
        # As many as a search for one neighbour takes, and the row itself.
        width = candidates + 3
        scores = self._scores[:, :width]
        best = scores.argmax(1)
        at = np.arange(len(best)), best
        neighbour = scores[at] >= self._expected.score - _TIE
        person = self._codes[self._rows[at]] == self._expected.person
        return neighbour, (person & np.isfinite(scores[at])) | neighbour

    def least_recall(self, candidates: int, recall_of: str) -> float:
        """The recall of the worse half."""
        neighbour, person = self._right(candidates)
        right, counted = neighbour, np.ones(len(neighbour), dtype=bool)
        if recall_of == IDENTITIES and self._expected.known.any():
            right, counted = person, self._expected.known
        halves = (right[counted][half::2] for half in (0, 1))
        return min(float(half.mean()) for half in halves if len(half))

    def recall(self, candidates: int) -> Recall:
        """Both recalls over all held-out rows."""
        neighbour, person = self._right(candidates)
        known = self._expected.known
        return Recall(
            neighbours=float(neighbour.mean()),
            identities=float(person[known].mean()) if known.any() else None,
            queries=len(neighbour),
        )


def _ladder(index: Any) -> Iterator[dict[str, int]]:
    """Settings from fast to thorough, in steps of about 1.4."""
    import faiss

    names = [name for name in PARAMETERS if set_parameter(index, name, 1)]
    inverted = faiss.try_extract_index_ivf(index)
    highest = {"nprobe": inverted.nlist if inverted else 0, "efSearch": 4096}
    if not names:
        yield {}
        return
    lowest = {"nprobe": 1, "efSearch": 16}
    value = 1
    while True:
        yield {name: min(highest[name], max(lowest[name], value)) for name in names}
        if all(value >= highest[name] for name in names):
            return
        # 1, 2, 3, 4, 6, 8, 12, 16, 24, ...
        value = value + 1 if value < 4 else value // 3 * 4 if value % 3 == 0 else value * 3 // 2
