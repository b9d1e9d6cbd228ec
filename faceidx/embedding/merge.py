"""Putting shards, and the rows of an earlier file that are kept, together into one file."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import itemgetter
from pathlib import Path

import numpy as np

from faceidx.embedding.shards import read_rows
from faceidx.embedding.store import (
    Column,
    EmbeddingFile,
    Left,
    Origin,
    append_rows,
    write_attributes,
    write_left,
)
from faceidx.files import whole_file
from faceidx.hdf5 import NewHdf5

# Rows that are read, put in order and written at a time.
_BLOCK = 4096
# A row: what it is sorted by, the block that it lies in, and where.
_Row = tuple[str, Mapping[str, Column], int]


@dataclass(kw_only=True)
class Kept:
    """What stays of an earlier file."""

    file: EmbeddingFile
    rows: np.ndarray
    """(N,) bool."""
    left: Left = field(default_factory=Left)


def merge_shards(
    out: Path,
    shards: Iterable[Path],
    origin: Origin,
    *,
    dtype: str,
    expected: int,
    kept: Kept | None = None,
    order_of: Callable[[str], str] = str,
    attributes: Mapping[str, str] | None = None,
) -> None:
    """Write the one promised file, in the order of the pictures' keys, a block at a time.

    Args:
        shards: in the order of their keys, none of which is in `kept`.
        expected: rows that there will be, as far as is known.
        order_of: from the key of a row to what rows are sorted by, the same for all of a picture.
        attributes: more attributes for the file.

    Raises:
        JobError: the disk is full.
    """
    left = Left()
    with whole_file(out) as temporary, NewHdf5(temporary) as file:
        new = _blocks(shards, left)
        blocks = new if kept is None else _interleaved(new, kept, order_of)
        for block in blocks:
            append_rows(file, block, dtype=dtype, expected=expected)
            file.check()
        write_left(file, _sorted(left, kept))
        write_attributes(file, origin, attributes)


def _blocks(shards: Iterable[Path], left: Left) -> Iterator[Mapping[str, Column]]:
    """The rows of each shard; what a shard lists as left out goes to `left`."""
    for path in shards:
        with EmbeddingFile(path) as shard:
            part = shard.left()
            left.failed += part.failed
            left.no_face += part.no_face
            left.stamps.update(part.stamps)
            if shard.count:
                yield read_rows(shard)


def _interleaved(
    new: Iterator[Mapping[str, Column]], kept: Kept, order_of: Callable[[str], str]
) -> Iterator[Mapping[str, Column]]:
    def rows_of(blocks: Iterator[Mapping[str, Column]]) -> Iterator[_Row]:
        for block in blocks:
            for row, key in enumerate(block["paths"]):
                yield order_of(key), block, row

    merged = heapq.merge(rows_of(_kept_blocks(kept)), rows_of(new), key=itemgetter(0))
    while part := list(islice(merged, _BLOCK)):
        yield {name: _gathered(name, part) for name in part[0][1]}


def _kept_blocks(kept: Kept) -> Iterator[Mapping[str, Column]]:
    for first in range(0, kept.file.count, _BLOCK):
        chosen = np.flatnonzero(kept.rows[first : first + _BLOCK])
        if not len(chosen):
            continue
        block = read_rows(kept.file, slice(first, first + _BLOCK))
        yield {
            name: values[chosen]
            if isinstance(values, np.ndarray)
            else [values[int(row)] for row in chosen]
            for name, values in block.items()
        }


def _gathered(name: str, rows: Sequence[_Row]) -> Column:
    values = [block[name][row] for _, block, row in rows]
    return np.stack(values) if isinstance(rows[0][1][name], np.ndarray) else values


def _sorted(left: Left, kept: Kept | None) -> Left:
    earlier = kept.left if kept else Left()
    return Left(
        failed=sorted([*left.failed, *earlier.failed]),
        no_face=sorted([*left.no_face, *earlier.no_face]),
        stamps={**left.stamps, **earlier.stamps},
    )
