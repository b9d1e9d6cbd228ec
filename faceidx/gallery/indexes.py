"""The kinds of index, and how one is made from the vectors of `gallery.h5`.

- `flat`: exact search.
- `ivf`: inverted lists of RaBitQ codes (a bit for each number; Gao & Long 2024): builds fast, takes
  a twenty-fifth of the vectors' size, changes without clustering again.
- `hnsw`: a graph over 8-bit codes.
- any other FAISS factory string.

All but `flat` rank their candidates by exact cosines and are tuned (`tune.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from faceidx.errors import InputError
from faceidx.gallery import inverted
from faceidx.gallery.clusters import (
    SAMPLE_PER_LIST,
    mean_centroids,
    nearest_centroids,
    train_centroids,
)
from faceidx.gallery.manifest import Tuning
from faceidx.gallery.tune import NEIGHBOURS, Truth, hold_out, hold_out_people, truth, tune
from faceidx.gallery.vectors import BLOCK_ROWS, Vectors
from faceidx.progress import Progress, ProgressCallback, silent
from faceidx.resources import available_memory

AUTO, FLAT, HNSW, IVF = "auto", "flat", "hnsw", "ivf"
INDEX = "index.faiss"
# Lists for N vectors: this many times the root of N, a power of two (FAISS's guidelines: 4 to 16).
_LISTS_PER_ROOT = 8
_MOST_LISTS = 65536
_LEAST_PER_LIST = 16
_LEARNED = 200_000  # vectors that an index of another kind is trained on
# Lists are found anew when there should be more than this many times as many.
_OUTGROWN = 2
# An index that takes new vectors up as they are is measured again with at least so many of them.
_ENOUGH = 2000
# What a graph takes for a vector beside its codes: 2 * 32 links of 4 bytes, levels, row number.
_GRAPH_BYTES = 280
_ANY_COUNT = 50_000  # to see whether FAISS knows a kind


@dataclass(kw_only=True, frozen=True)
class IndexOptions:
    """What index a gallery is to get."""

    kind: str = AUTO
    """`auto`, `flat`, `hnsw`, `ivf`, or a FAISS factory string."""
    target_recall: float = 0.99
    recall_of: str = NEIGHBOURS
    """`neighbours` or `identities`: which recall has to reach the target."""
    memory: int | None = None
    """Bytes that the index may take when it is searched; None: half of what is available."""
    seed: int = 0

    @property
    def budget(self) -> int:
        return available_memory() // 2 if self.memory is None else self.memory


@dataclass(kw_only=True)
class Carried:
    """What a changed gallery keeps of its old index."""

    index: Any
    tuning: Tuning
    lists: np.ndarray | None
    """The list of each of the first rows, (n,); None for an index without plain lists."""
    rows: int
    """How many rows at the beginning are in the index already."""


@dataclass(kw_only=True)
class Made:
    """An approximate index, made and tuned. All but lists that lie on disk is in memory only."""

    kind: str
    index: Any
    tuning: Tuning
    reached: bool
    """Whether the recall reaches the target."""
    exact_rate: float
    """Queries a second that exact search answered while it was tuned; 0 where it was not."""
    files: tuple[str, ...]
    """Names in the gallery's folder."""

    def write(self, folder: Path) -> None:
        """Write it into the folder that it was made for.

        Raises:
            OSError: the disk is full or failed.
        """
        import faiss

        if inverted.LISTS_DATA in self.files:
            # Where FAISS looks for it: beside the index, or in the current folder.
            inverted.name_lists(self.index, inverted.LISTS_DATA)
        try:
            faiss.write_index(self.index, str(folder / INDEX))
        except RuntimeError as error:  # it ends: `424601 != 512000 (No space left on device)`
            raise OSError(_reason(error).rpartition("(")[2].rstrip(")")) from None


def check_options(options: IndexOptions, dim: int) -> None:
    """Raise `InputError` where an index of these options could not be made."""
    if not 0 < options.target_recall <= 1:
        raise InputError(f"--target-recall {options.target_recall} is not between 0 and 1")
    if options.kind not in (AUTO, FLAT):
        _empty(_factory(options.kind, _ANY_COUNT), dim)


def make_index(
    folder: Path,
    vectors: Vectors,
    codes: np.ndarray,
    options: IndexOptions,
    *,
    carried: Carried | None = None,
    timed: int | None = None,
    progress: ProgressCallback = silent,
) -> Made:
    """Make and tune an approximate index of the vectors.

    Args:
        folder: the gallery's new folder, where lists come to lie that memory does not hold.
        codes: (N,) number of each row's person, -1 without identity.
        options: of any kind but `auto` and `flat`.
        carried: of the gallery before a change, to save work.
        timed: memory for exact search, to be timed beside the lists of `ivf`; None: it is not.
    """
    return _Work(folder, vectors, codes, options, carried, timed, progress).make()


def graph_bytes(vectors: Vectors) -> int:
    """What `hnsw` takes in memory while it is searched, with the vectors that it looks at."""
    return vectors.count * (vectors.dim + _GRAPH_BYTES) + vectors.bytes


class _Work:
    """An approximate index in the making."""

    def __init__(
        self,
        folder: Path,
        vectors: Vectors,
        codes: np.ndarray,
        options: IndexOptions,
        carried: Carried | None,
        timed: int | None,
        progress: ProgressCallback,
    ) -> None:
        self._folder = folder
        self._vectors = vectors
        self._codes = codes
        self._options = options
        self._carried = carried
        self._timed = timed
        self._progress = progress
        self._chance = np.random.default_rng(options.seed)
        self._factory = _factory(options.kind, vectors.count)
        self._files = [INDEX]
        self._exact_rate = 0.0

    def make(self) -> Made:
        empty = _empty(self._factory, self._vectors.dim)
        try:
            index, (tuning, reached) = (
                self._inverted(empty) if inverted.is_inverted(empty) else self._other(empty)
            )
        except RuntimeError as error:  # FAISS wants more vectors, or cannot do what is asked for
            raise InputError(f"--kind {self._factory}: {_reason(error)}") from None
        return Made(
            kind=self._options.kind,
            index=index,
            tuning=tuning,
            reached=reached,
            exact_rate=self._exact_rate,
            files=tuple(self._files),
        )

    def _inverted(self, index: Any) -> tuple[Any, tuple[Tuning, bool]]:
        every = np.arange(self._vectors.count)
        held_out = hold_out(every, self._chance)
        learned = np.delete(every, held_out)
        carried = self._carried
        if carried and carried.lists is not None and not self._outgrown(carried):
            lists = self._assigned(carried)
            centroids, lists = mean_centroids(self._vectors, lists, held_out)
            index = _empty(_with_lists(self._factory, len(centroids)), self._vectors.dim)
        else:
            size = min(len(learned), SAMPLE_PER_LIST * index.nlist)
            sample = np.sort(self._chance.choice(learned, size, replace=False))
            centroids = train_centroids(self._vectors, sample, index.nlist, self._options.seed)
            lists = self._nearest(centroids, 0)
        inverted.use_centroids(index, centroids, self._vectors, learned)
        if self._vectors.count * inverted.entry_bytes(index) > self._options.budget:
            self._files.append(inverted.LISTS_DATA)
            path = self._folder / inverted.LISTS_DATA
            inverted.fill_on_disk(index, self._vectors, lists, path)
        else:
            inverted.fill(index, self._vectors, lists)
        expected = truth(self._vectors, self._codes, held_out, indexed=True, memory=self._timed)
        return index, self._tuned(index, expected, _with_lists(self._factory, index.nlist))

    def _outgrown(self, carried: Carried) -> bool:
        wanted = _lists(self._vectors.count)
        return self._options.kind == IVF and carried.index.nlist * _OUTGROWN < wanted

    def _assigned(self, carried: Carried) -> np.ndarray:
        assert carried.lists is not None
        old = inverted.centroids_of(carried.index)
        return np.concatenate([carried.lists, self._nearest(old, carried.rows)])

    def _nearest(self, centroids: np.ndarray, start: int) -> np.ndarray:
        parts = [np.empty(0, dtype=np.int32)]
        for first in range(start, self._vectors.count, BLOCK_ROWS):
            block = self._vectors.block(first, first + BLOCK_ROWS)
            parts.append(nearest_centroids(block, centroids))
            done = first + len(block)
            self._progress(Progress("assign", done, self._vectors.count, "vectors"))
        return np.concatenate(parts)

    def _other(self, index: Any) -> tuple[Any, tuple[Tuning, bool]]:
        """An index that takes row numbers through a table, so that rows may come in any order."""
        import faiss

        carried = self._carried
        start = 0
        if carried and carried.lists is None and carried.rows:
            index, start = carried.index, carried.rows
        new = np.arange(start, self._vectors.count)
        if start and len(new) < _ENOUGH:
            assert carried
            self._add(index, new)
            return index, (carried.tuning, True)
        held_out = hold_out_people(new, self._codes, self._chance)
        learned = np.setdiff1d(new, held_out, assume_unique=True)
        if not start:
            few = learned[:: -(-len(learned) // _LEARNED)]
            index.train(self._vectors.rows(few))
            index = faiss.IndexIDMap2(index)
        self._add(index, learned)
        expected = truth(self._vectors, self._codes, held_out, indexed=False)
        tuned = self._tuned(index, expected, self._factory)
        self._add(index, held_out)
        return index, tuned

    def _add(self, index: Any, rows: np.ndarray) -> None:
        for first in range(0, len(rows), BLOCK_ROWS):
            part = rows[first : first + BLOCK_ROWS]
            index.add_with_ids(self._vectors.rows(part), part)
            self._progress(Progress("index", first + len(part), len(rows), "vectors"))

    def _tuned(self, index: Any, expected: Truth, factory: str) -> tuple[Tuning, bool]:
        options = self._options
        self._exact_rate = expected.rate
        return tune(
            index,
            self._vectors,
            self._codes,
            expected,
            target=options.target_recall,
            recall_of=options.recall_of,
            factory=factory,
        )


def _lists(count: int) -> int:
    wanted = min(_LISTS_PER_ROOT * math.sqrt(count), count / _LEAST_PER_LIST, _MOST_LISTS)
    return 2 ** max(0, round(math.log2(max(1.0, wanted))))


def _factory(kind: str, count: int) -> str:
    """FAISS's name of an index of some kind."""
    if kind == IVF:
        return f"IVF{_lists(count)},RaBitQ"
    return "HNSW32,SQ8" if kind == HNSW else kind


def _with_lists(factory: str, lists: int) -> str:
    """The same kind of index with another number of lists."""
    return f"IVF{lists},{factory.partition(',')[2]}"


def _empty(factory: str, dim: int) -> Any:
    import faiss

    if "NSG" in factory:
        raise InputError(f"--kind {factory}: FAISS adds no vectors to such a graph; give hnsw")
    try:
        return faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise InputError(
            f"--kind {factory} is none of auto, flat, hnsw, ivf, nor an index that FAISS makes "
            f"({_reason(error)})"
        ) from None


def _reason(error: RuntimeError) -> str:
    """What FAISS says, without the place in its source."""
    return str(error).splitlines()[0].rpartition(": ")[2]
