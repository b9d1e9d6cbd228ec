"""Indexes of inverted lists (FAISS `IndexIVF`), filled from lists that are known beforehand.

Whatever the index holds is derived from the vectors that are in the gallery now: on every change
the lists are filled anew from `gallery.h5`, so that nothing of a removed vector is left in codes,
centroids or trained ranges. That costs one run over the vectors, but no clustering.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from faceidx.errors import InputError
from faceidx.gallery.vectors import Vectors

LISTS_DATA = "index.ivfdata"
# What trains the codes (ranges of scalar quantisers, product quantisers), beside the centroids.
_CODE_SAMPLE = 32768
_ID_BYTES = 8


def is_inverted(index: Any) -> bool:
    """Whether an index has plain inverted lists over a flat table of centroids."""
    import faiss

    if not isinstance(index, faiss.IndexIVF) or isinstance(index, faiss.IndexIVFFastScan):
        return False
    return isinstance(faiss.downcast_index(index.quantizer), faiss.IndexFlat)


def entry_bytes(index: Any) -> int:
    """What a vector takes in the lists."""
    return int(index.code_size) + _ID_BYTES


def use_centroids(
    index: Any, centroids: np.ndarray, vectors: Vectors, learn_from: np.ndarray
) -> None:
    """Give an empty index its centroids, and train its codes on a sample of some rows."""
    index.quantizer.reset()
    index.quantizer.add(centroids)
    few = learn_from[:: -(-len(learn_from) // _CODE_SAMPLE)]
    index.train(vectors.rows(few))


def fill(index: Any, vectors: Vectors, lists: np.ndarray) -> None:
    """Add all vectors to a trained index in memory.

    Args:
        lists: (N,) the list of each row.
    """
    import faiss

    for first, block in vectors.blocks():
        rows = np.arange(first, first + len(block), dtype=np.int64)
        of_block = lists[rows].astype(np.int64)
        index.add_core(len(block), *(faiss.swig_ptr(a) for a in (block, rows, of_block)))


def fill_on_disk(index: Any, vectors: Vectors, lists: np.ndarray, path: Path) -> None:
    """Write all vectors' codes to a file of lists that FAISS maps (`OnDiskInvertedLists`).

    The size of every list is known, so each block's codes go to their final places at once and no
    more than a block is in memory. A list is its codes and then its row numbers.
    """
    import faiss

    sizes = np.bincount(lists, minlength=index.nlist)
    starts = np.cumsum(sizes * entry_bytes(index)) - sizes * entry_bytes(index)
    done = np.zeros_like(sizes)
    width = int(index.code_size)
    with path.open("wb") as file:
        file.truncate(int(sizes.sum()) * entry_bytes(index))
        for first, block in vectors.blocks():
            of_block = lists[first : first + len(block)].astype(np.int64)
            codes = np.empty((len(block), width), dtype=np.uint8)
            pointers = (faiss.swig_ptr(a) for a in (block, of_block, codes))
            index.encode_vectors(len(block), *pointers, False)
            order = np.argsort(of_block, kind="stable")
            codes, rows = codes[order], first + order
            present, at = np.unique(of_block[order], return_index=True)
            ends = [*at[1:].tolist(), len(order)]
            for number, begin, end in zip(present.tolist(), at.tolist(), ends, strict=True):
                place = int(starts[number])
                _write_at(file, place + int(done[number]) * width, codes[begin:end])
                ids = place + int(sizes[number]) * width + int(done[number]) * _ID_BYTES
                _write_at(file, ids, rows[begin:end].astype("<i8"))
                done[number] += end - begin
    mapped: Any = faiss.OnDiskInvertedLists()
    mapped.nlist, mapped.code_size = index.nlist, width
    for size, start in zip(sizes.tolist(), starts.tolist(), strict=True):
        one = faiss.OnDiskOneList()
        one.size, one.capacity, one.offset = size, size, start
        mapped.lists.push_back(one)
    mapped.totsize = int(sizes.sum()) * entry_bytes(index)
    mapped.read_only = True
    index.replace_invlists(mapped, True)
    mapped.thisown = False
    index.ntotal = vectors.count
    map_lists(index, str(path))


def map_lists(index: Any, path: str) -> None:
    """Map the file that an index keeps its lists in."""
    lists = name_lists(index, path)
    lists.read_only = True
    lists.do_mmap()


def name_lists(index: Any, path: str) -> Any:
    """Say where the lists of an index lie; return them."""
    import faiss

    lists: Any = faiss.downcast_InvertedLists(index.invlists)
    lists.filename = path
    return lists


def centroids_of(index: Any) -> np.ndarray:
    """(lists, D) float32."""
    return np.asarray(index.quantizer.reconstruct_n(0, index.nlist))


def lists_of(index: Any, name: str) -> np.ndarray:
    """The list of each row, (N,) int32.

    Raises:
        InputError: not every row is in the lists exactly once.
    """
    import faiss

    lists = np.full(index.ntotal, -1, dtype=np.int32)
    inverted = index.invlists
    counted = 0
    for number in range(index.nlist):
        size = inverted.list_size(number)
        if not size:
            continue
        rows = faiss.rev_swig_ptr(inverted.get_ids(number), size)
        if rows.min() < 0 or rows.max() >= len(lists):
            break
        lists[rows] = number
        counted += size
    if counted != len(lists) or (lists < 0).any():
        raise InputError(f"{name} does not hold every vector of the gallery once")
    return lists


def _write_at(file: Any, place: int, values: np.ndarray) -> None:
    file.seek(place)
    file.write(np.ascontiguousarray(values).data.cast("B"))
