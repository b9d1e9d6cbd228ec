"""Settings of an approximate index, found by searching for pictures it has not learned from.

Some rows of the gallery are held out: no centroid is made of them, and a graph takes them up last.
Each is then searched for, itself not counting as an answer, and what the index finds is compared
with exact search. So recall is measured on the user's own vectors, whose people it has to find.
The same search tells what a stranger would meet, with all pictures of the own person taken out of
both answers: whoever is nearest to a stranger lies far off, and is found less easily.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from faceidx.gallery.approximate import PARAMETERS, Approximate, set_parameter, set_parameters
from faceidx.gallery.manifest import STRANGERS_BELOW, Recall, Tuning
from faceidx.gallery.rank import exact_scores
from faceidx.gallery.scan import Scan
from faceidx.gallery.vectors import Vectors

NEIGHBOURS, IDENTITIES = "neighbours", "identities"
_QUERIES = 2000
_SHARE = 4  # of the rows, one in so many at most
# Where none of n searches fails, up to 3 / n of them may (the rule of three): a target that fewer
# queries cannot show is not believed to be reached.
_RULE = 3
_TIMED, _RUNS = 1000, 3
# Cosines as close as this are one: whichever picture comes first is right.
_TIE = 1e-6
# Itself comes first, or second to its equal; among so many there is one that is not held out.
_CERTAIN, _ENOUGH = 2, 32
# Pictures of a person that are looked past to find the nearest of somebody else.
_MATES = 256
_CANDIDATES = (4, 8, 16, 32, 64, 128)
# Codes of a bit a number rank those far off so roughly that more may be needed. They cost exact
# comparisons, and are tried only where nothing else helps.
_MANY_CANDIDATES = (256, 512, 1024)


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
    mated: np.ndarray
    """(T,) whether the search counts as one for somebody enrolled."""
    strange: np.ndarray
    """(T,) cosine with the nearest row of anybody else; -inf where the search does not count as one
    for a stranger, or the row's own person fills all places looked at."""
    looked_past: int
    """The most rows of one person that are passed over to find somebody else's."""
    rate: float
    """Queries a second that exact search answered, more neighbours than a search needs."""
    seconds: float | None
    """What exact search took for `timed` of them; None where nobody asked."""

    @property
    def timed(self) -> int:
        return min(_TIMED, len(self.rows))


def hold_out(rows: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Draw the rows to measure with, in order."""
    return np.sort(chance.choice(rows, _size(rows), replace=False))


def hold_out_people(rows: np.ndarray, codes: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Draw such rows, half of them all rows of some people, who are strangers until then.

    Args:
        rows: to draw from, in order.
        codes: (N,) the person of each row of the gallery, -1 without identity.
    """
    named = rows[codes[rows] >= 0]
    turn = chance.permutation(int(codes.max(initial=0)) + 1)[codes[named]]
    whole = named[np.argsort(turn, kind="stable")][: _size(rows) // 2]
    rest = np.setdiff1d(rows, whole, assume_unique=True)
    single = chance.choice(rest, _size(rows) - len(whole), replace=False)
    return np.sort(np.concatenate([whole, single]))


def _size(rows: np.ndarray) -> int:
    return min(_QUERIES, -(-len(rows) // _SHARE))


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
    mates = min(_MATES, _most_pictures(codes[held_out], codes))
    k = min((_CERTAIN if indexed else _ENOUGH) + mates, vectors.count)
    started = time.perf_counter()
    scores, found = _nearest(vectors, queries, k)
    rate = len(queries) / (time.perf_counter() - started)
    answers = found != held_out[:, None] if indexed else ~np.isin(found, held_out)
    own = codes[held_out]
    others = answers & (codes[found] != own[:, None]) & (own >= 0)[:, None]
    seconds = None
    if memory is not None:
        scan = Scan(vectors, memory=memory)
        scan.search(queries[:1], 1)  # reads and rounds the vectors
        seconds = _fastest(lambda: scan.search(queries[:_TIMED], 1))
    alone = np.zeros(len(own), dtype=bool) if indexed else _alone(codes, held_out)
    strange = np.where(others, scores, -np.inf).max(1)
    if alone.any():  # no links lead to these by their own people's pictures, as in a graph
        strange[~alone] = -np.inf
    usable = answers.any(1)
    first = answers.argmax(1)
    picked = np.flatnonzero(usable), first[usable]
    person = codes[found[picked]]
    return Truth(
        rows=held_out[usable],
        vectors=queries[usable],
        score=scores[picked],
        person=person,
        known=(person >= 0) & (person == own[usable]),
        mated=~alone[usable] if not alone[usable].all() else alone[usable],
        strange=strange[usable],
        looked_past=mates,
        rate=rate,
        seconds=seconds,
    )


def _alone(codes: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Of which of the rows held out the person has no other row; False without identity."""
    present = codes.copy()
    present[held_out] = -1
    return (codes[held_out] >= 0) & ~np.isin(codes[held_out], present)


def _most_pictures(people: np.ndarray, codes: np.ndarray) -> int:
    """The most rows that any of some people has."""
    pictures = np.bincount(codes[codes >= 0])
    return int(pictures[people[people >= 0]].max(initial=0))


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
    exact = _Scores(vectors, expected.vectors)
    everybody = vectors.count < STRANGERS_BELOW
    trusted = _can_show(target, len(expected.rows), vectors.count)
    for parameters, widths in _settings(index, thorough=everybody):
        set_parameters(index, parameters)
        found = _Found(index, exact, codes, expected, widths[-1], everybody=everybody)
        for candidates in widths:
            recall = found.least_recall(candidates, recall_of)
            # Where the queries show too little, the most thorough of equals is taken.
            better = best is None or recall > best[0] or (not trusted and recall == best[0])
            if better:
                best = recall, parameters, candidates, found
            if recall >= target and trusted:
                break
        if best and best[0] >= target and (trusted or widths is not _CANDIDATES):
            break
    assert best is not None
    reached = best[0] >= target
    _, parameters, candidates, found = best
    set_parameters(index, parameters)
    if not everybody:  # that is measured all the same
        found = _Found(index, exact, codes, expected, candidates, everybody=True)
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


def _can_show(target: float, queries: int, count: int) -> bool:
    """Whether so many queries can show that a target is reached.

    In a large gallery they are taken to do so: only a small one can be searched from end to end.
    """
    return count >= _SHARE * _QUERIES or queries * (1 - target) >= _RULE


class _Scores:
    """Exact cosines of held-out rows, each computed once: most settings find the same rows."""

    def __init__(self, vectors: Vectors, queries: np.ndarray) -> None:
        self._vectors = vectors
        self._queries = queries
        self._pairs = np.empty(0, dtype=np.int64)
        self._known = np.empty(0, dtype=np.float32)

    def of(self, query: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Cosines (P,) of different pairs of a query and a row of the gallery, (P,) each."""
        pairs = query.astype(np.int64) * self._vectors.count + row
        new = np.sort(pairs[~self._has(pairs)])
        scores = exact_scores(self._vectors, self._queries, *np.divmod(new, self._vectors.count))
        at = np.searchsorted(self._pairs, new)
        self._pairs = np.insert(self._pairs, at, new)
        self._known = np.insert(self._known, at, scores)
        return np.asarray(self._known[np.searchsorted(self._pairs, pairs)])

    def _has(self, pairs: np.ndarray) -> np.ndarray:
        if not len(self._pairs):
            return np.zeros(len(pairs), dtype=bool)
        at = np.searchsorted(self._pairs, pairs)
        return np.asarray(self._pairs[np.minimum(at, len(self._pairs) - 1)] == pairs)


class _Found:
    """What an index finds for the held-out rows with some settings."""

    def __init__(
        self,
        index: Any,
        exact: _Scores,
        codes: np.ndarray,
        expected: Truth,
        candidates: int,
        *,
        everybody: bool,
    ) -> None:
        widest = candidates + 3
        width = min(index.ntotal, widest + (expected.looked_past if everybody else 0))
        _, rows = index.search(expected.vectors, width)
        usable = (rows >= 0) & (rows != expected.rows[:, None])
        other = usable & (codes[rows] != codes[expected.rows][:, None])
        self._place = np.where(other, other.cumsum(1), width + 1)  # among other people's, from 1
        usable[:, widest:] &= self._place[:, widest:] < widest
        query, place = np.nonzero(usable)
        scores = np.full(rows.shape, -np.inf, dtype=np.float32)
        scores[query, place] = exact.of(query, rows[query, place])
        self._scores = scores
        self._rows = rows
        self._codes = codes
        self._expected = expected
        self._everybody = everybody

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

    def _right_of_strangers(self, candidates: int) -> np.ndarray:
        """Whether the nearest row of somebody else is found, of the rows that it is known of."""
        taken = np.where(self._place <= candidates + 2, self._scores, -np.inf).max(1)
        strange = self._expected.strange
        return (taken >= strange - _TIE)[np.isfinite(strange)]

    def least_recall(self, candidates: int, recall_of: str) -> float:
        """The recall of the worse half, of enrolled people or, where they count, of strangers."""
        neighbour, person = self._right(candidates)
        if recall_of == IDENTITIES and self._expected.known.any():
            searches = [person[self._expected.known]]  # strangers have no person to be found
        else:
            mated = neighbour[self._expected.mated]
            searches = [mated, *([self._right_of_strangers(candidates)] * self._everybody)]
        halves = (right[half::2] for right in searches for half in (0, 1))
        return min(float(half.mean()) for half in halves if len(half))

    def recall(self, candidates: int) -> Recall:
        """All recalls over all held-out rows."""
        neighbour, person = self._right(candidates)
        stranger = self._right_of_strangers(candidates)
        known = self._expected.known
        return Recall(
            neighbours=float(neighbour[self._expected.mated].mean()),
            identities=float(person[known].mean()) if known.any() else None,
            strangers=float(stranger.mean()) if len(stranger) else None,
            queries=len(neighbour),
        )


def _settings(index: Any, *, thorough: bool) -> Iterator[tuple[dict[str, int], tuple[int, ...]]]:
    """Parameters with the numbers of candidates to try, from fast to thorough."""
    parameters: dict[str, int] = {}
    for parameters in _ladder(index):
        yield parameters, _CANDIDATES
    for candidates in _MANY_CANDIDATES if thorough else ():
        yield parameters, (candidates,)


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
