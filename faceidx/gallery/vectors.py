"""Unit vectors in a file: streamed in blocks, or single rows fetched through a memory map."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from functools import cached_property
from typing import BinaryIO

import numpy as np

from faceidx.errors import InputError

BLOCK_ROWS = 16384
_FLOAT = np.dtype("<f4")


class Vectors:
    """(N, D) float32 vectors that lie row after row in a part of a file.

    Blocks are read, not mapped, so that running over all vectors leaves no pages resident.

    Args:
        file: stays open as long as this is used.
        offset: of the first number in the file; need not be aligned.
        thrifty: read single rows as well, which takes a little time. Of a map, Linux makes up to
            2 MiB resident around each row that is touched.

    Raises:
        InputError: the file is too short.
    """

    def __init__(
        self,
        file: BinaryIO,
        name: str,
        offset: int,
        count: int,
        dim: int,
        *,
        thrifty: bool = False,
    ) -> None:
        self._file = file
        self._name = name
        self._offset = offset
        self.count = count
        self.dim = dim
        self._thrifty = thrifty
        if offset < 0 or offset + self.bytes > os.fstat(file.fileno()).st_size:
            raise InputError(f"{name} does not hold {count} vectors of {dim} numbers")

    @property
    def bytes(self) -> int:
        """What all vectors take as float32."""
        return self.count * self.dim * _FLOAT.itemsize

    def block(self, first: int, last: int) -> np.ndarray:
        """Read rows `first` to `last`, (n, D) float32."""
        rows = np.empty((max(0, min(last, self.count) - first), self.dim), dtype=_FLOAT)
        if rows.size:
            self._read(rows.data.cast("B"), first)
        return rows

    def blocks(self, rows: int = BLOCK_ROWS) -> Iterator[tuple[int, np.ndarray]]:
        """Read all vectors, `rows` rows at a time: (first row, vectors)."""
        for first in range(0, self.count, rows):
            yield first, self.block(first, first + rows)

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Fetch single rows, (n, D) float32."""
        if not self._thrifty:
            return self._mapped[rows].view(_FLOAT).reshape(-1, self.dim)
        fetched = np.empty((len(rows), self.dim), dtype=_FLOAT)
        for place, row in enumerate(rows.tolist()):
            self._read(fetched[place].data.cast("B"), row)
        return fetched

    def _read(self, left: memoryview, first: int) -> None:
        """Fill `left` with rows from `first` on."""
        place = self._offset + first * self.dim * _FLOAT.itemsize
        while left:
            done = os.preadv(self._file.fileno(), [left], place)
            if not done:
                raise InputError(f"{self._name} was cut while it was read")
            left, place = left[done:], place + done

    @cached_property
    def _mapped(self) -> np.ndarray:
        """(N,) opaque items of a row each: any offset is aligned, and each is copied at once."""
        row = np.dtype((np.void, self.dim * _FLOAT.itemsize))
        if not self.count:
            return np.empty(0, row)
        whole = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(whole, row, self.count, self._offset)
