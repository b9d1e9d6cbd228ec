"""Which index a gallery gets: the kind that was asked for, or what `auto` finds best.

`auto` makes inverted lists and a graph, and keeps the graph where it is clearly faster: that
depends on how the people lie. Then it keeps the better one where that is worth giving up exactness.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from faceidx.gallery.flat import write_flat
from faceidx.gallery.indexes import (
    AUTO,
    FLAT,
    HNSW,
    INDEX,
    IVF,
    Carried,
    IndexOptions,
    Made,
    graph_bytes,
    make_index,
)
from faceidx.gallery.manifest import Tuning
from faceidx.gallery.vectors import BLOCK_ROWS, Vectors
from faceidx.progress import Progress, ProgressCallback, silent

# Below this exact search answers in less than half a millisecond, and nothing need be measured.
_SMALL = 50_000
_TINY = 16  # there is nothing to tune with
# `auto` gives up exactness only for at least this much more speed.
_WORTH = 2.0
# A graph takes ten times the memory of lists, and is built anew when anybody is removed: it has to
# be so much faster. Over 200,000 real faces and mixtures it was 1.7 to 2.2 times as fast.
_CLEARLY = 1.5
# A graph over a million vectors takes many minutes, so one over so many is tried first ...
_TRIAL = 50_000
# ... and must be so fast beside lists there. Graphs that won by 1.7 to 2.5 among 200,000 were 1.2
# to 2.1 times as fast on trial. Those that lost were 0.2 and 0.3 times, but elsewhere 1 to 5 times:
# a trial may save the time, and never decides for a graph.
_PROMISING = 0.75

_log = logging.getLogger(__name__)


class Written(NamedTuple):
    """The index that was written."""

    kind: str
    tuning: Tuning | None
    files: tuple[str, ...]


def write_index(
    folder: Path,
    vectors: Vectors,
    codes: np.ndarray,
    options: IndexOptions,
    *,
    carried: Carried | None = None,
    progress: ProgressCallback = silent,
) -> Written:
    """Write the index of the vectors into a gallery's new folder.

    Args:
        codes: (N,) number of each row's person, -1 without identity.
        carried: of the gallery before a change, whose kind is asked for, to save work.
    """
    if options.kind == FLAT or vectors.count < _TINY:
        if options.kind not in (FLAT, AUTO):
            _log.warning(
                "%d vectors are too few for --kind %s: the gallery is made flat, searched exactly",
                *(vectors.count, options.kind),
            )
        made = None
    elif options.kind == AUTO:
        made = _choose(folder, vectors, codes, options, progress)
    else:
        made = make_index(folder, vectors, codes, options, carried=carried, progress=progress)
        if _exact_fits(vectors, options) and made.exact_rate > made.tuning.queries_per_second:
            _log.warning(
                "%s answers %s queries a second here and exact search %s or more: --kind flat is "
                "faster, and misses nothing",
                *(made.tuning.factory, f"{made.tuning.queries_per_second:,.0f}"),
                f"{made.exact_rate:,.0f}",
            )
    if made is None:
        return _write_flat(folder, vectors, progress)
    if not made.reached:
        _warn_of_recall(made.tuning)
    made.write(folder)
    return Written(made.kind, made.tuning, made.files)


def _choose(
    folder: Path,
    vectors: Vectors,
    codes: np.ndarray,
    options: IndexOptions,
    progress: ProgressCallback,
) -> Made | None:
    """What `auto` takes; None for exact search."""
    options = replace(options, memory=options.budget)  # what is free changes meanwhile
    exact_fits = _exact_fits(vectors, options)
    if exact_fits and vectors.count < _SMALL:
        return None
    make = partial(make_index, folder, vectors, codes, progress=progress)
    lists = make(replace(options, kind=IVF), timed=options.budget if exact_fits else None)
    best = lists
    graph_fits = graph_bytes(vectors) <= options.budget
    if graph_fits and _promising(folder, vectors, codes, options, progress):
        graph = make(replace(options, kind=HNSW))
        if _beats(graph, lists, _CLEARLY):
            best = graph
    exact = lists.tuning.exact_queries_per_second
    best.tuning = replace(best.tuning, exact_queries_per_second=exact)
    if exact and not (best.reached and best.tuning.queries_per_second >= _WORTH * exact):
        for name in lists.files:  # those that memory does not hold are there already
            (folder / name).unlink(missing_ok=True)
        return None
    return best


def _exact_fits(vectors: Vectors, options: IndexOptions) -> bool:
    return 2 * vectors.bytes <= options.budget  # the file's pages, and rounded copies


def _promising(
    folder: Path,
    vectors: Vectors,
    codes: np.ndarray,
    options: IndexOptions,
    progress: ProgressCallback,
) -> bool:
    """Whether a graph may win, by trying both over some of the people; few are not worth that."""
    if vectors.count <= 2 * _TRIAL:
        return True

    def tell(p: Progress) -> None:
        progress(replace(p, stage=f"trial: {p.stage}"))

    rows = _of_whole_people(codes, np.random.default_rng(options.seed))
    with tempfile.TemporaryFile(dir=folder) as file:
        for first in range(0, len(rows), BLOCK_ROWS):
            file.write(vectors.rows(rows[first : first + BLOCK_ROWS]).data)
        file.flush()
        some = Vectors(file, "the trial", 0, len(rows), vectors.dim, thrifty=True)
        make = partial(make_index, folder, some, codes[rows], progress=tell)
        lists, graph = (make(replace(options, kind=kind)) for kind in (IVF, HNSW))
    return _beats(graph, lists, _PROMISING)


def _of_whole_people(codes: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Rows for a trial, in order: all pictures of people drawn by chance.

    Pictures drawn singly would lie further apart than the whole gallery's.
    """
    nobody = codes < 0
    people = codes.copy()
    people[nobody] = codes.max() + 1 + np.arange(nobody.sum())  # each may be somebody else
    turn = chance.permutation(int(people.max()) + 1)[people]
    return np.sort(np.argsort(turn, kind="stable")[:_TRIAL])


def _beats(graph: Made, lists: Made, factor: float) -> bool:
    fast = graph.tuning.queries_per_second >= factor * lists.tuning.queries_per_second
    return graph.reached and (fast or not lists.reached)


def _warn_of_recall(tuning: Tuning) -> None:
    _log.warning(
        "recall %.4f of %s is all that %s reaches, less than --target-recall %g; "
        "--kind flat is exact",
        tuning.reached,
        tuning.recall_of,
        tuning.factory,
        tuning.target_recall,
    )


def _write_flat(folder: Path, vectors: Vectors, progress: ProgressCallback) -> Written:
    write_flat(folder / INDEX, vectors.dim, _told(vectors, progress))
    return Written(FLAT, None, (INDEX,))


def _told(vectors: Vectors, progress: ProgressCallback) -> Iterator[np.ndarray]:
    for first, block in vectors.blocks():
        yield block
        progress(Progress("index", first + len(block), vectors.count, "vectors"))
