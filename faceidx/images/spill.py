"""Records in sorted order, however many: in memory while they are few, else on disk.

Sorting is the external merge sort of Knuth (The Art of Computer Programming, volume 3, 5.4): runs
that fit into memory are sorted and written one behind the other, then all of them are merged. The
files have no name: they are unlinked while open, for their owner only, and gone with the process.
"""

from __future__ import annotations

import heapq
import os
import struct
import tempfile
import weakref
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import IO, Any

from faceidx.errors import JobError

# Records that are sorted, or kept, in memory: some 70 MB as names go, and a bound for long ones. To
# write, merge and write again takes as long as to find them, which a fast GPU would wait for.
RUN = 1 << 20
_RUN_BYTES = 1 << 25
# Records that are taken in, or written, at once.
_PART = 1024
# Bytes of each run that are in memory while runs are merged: 100 million records are 100 runs.
_CHUNK = 1 << 16
# Every so many records the place of one is remembered; what lies between is read along with it.
_BLOCK = 64
_LENGTH = struct.Struct("<I")


class Records:
    """Records in the order they come in, to be read by number; what is on disk goes with it."""

    def __init__(self, records: Iterable[bytes], folder: Path | None = None) -> None:
        """Take records in.

        Args:
            folder: where to put them when they are more than fit; by default the system's folder
                for temporary files (`TMPDIR`).

        Raises:
            JobError: the disk is full.
        """
        self._kept: list[bytes] = []
        self._file: _Nameless | None = None
        self._places = array("Q")  # of the first record of each block, and of the end
        self._count = kept_bytes = 0
        for part in _parts(records):
            self._kept += part
            self._count += len(part)
            kept_bytes += sum(map(len, part))
            if _is_full(self._kept, kept_bytes):
                self._write(folder)
                kept_bytes = 0
        if self._file is not None:
            self._write(folder)
            self._places.append(self._file.size)

    def __len__(self) -> int:
        return self._count

    def read(self, first: int, last: int) -> list[bytes]:
        """The records numbered `first` to `last` - 1."""
        if self._file is None:
            return self._kept[first:last]
        if first >= last:
            return []
        block = first // _BLOCK
        begin = self._places[block]
        end = self._places[-(-last // _BLOCK)]
        data = self._file.read(end - begin, begin)
        return list(_split(data))[first - block * _BLOCK : last - block * _BLOCK]

    def _write(self, folder: Path | None) -> None:
        self._file = self._file or _Nameless(folder)
        place = self._file.size
        for number, record in enumerate(self._kept, self._count - len(self._kept)):
            if number % _BLOCK == 0:
                self._places.append(place)
            place += _LENGTH.size + len(record)
        self._file.append(self._kept)
        self._kept = []


class Sorter:
    """Takes records in any order and gives them back sorted by their bytes."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder` as for `Records`."""
        self._folder = folder
        self._run: list[bytes] = []
        self._run_bytes = 0
        self._file: _Nameless | None = None
        self._ends = [0]

    def add(self, record: bytes) -> None:
        """Take a record in.

        Raises:
            JobError: the disk is full.
        """
        self._run.append(record)
        self._run_bytes += len(record)
        if _is_full(self._run, self._run_bytes):
            self._write()

    def extend(self, records: Iterable[bytes]) -> None:
        """Take many records in; raises as `add` does."""
        for part in _parts(records):
            self._run += part
            self._run_bytes += sum(map(len, part))
            if _is_full(self._run, self._run_bytes):
                self._write()

    def merged(self) -> Iterator[bytes]:
        """All records in order; called once, when all are in."""
        if self._file is None:
            self._run.sort()
            return iter(self._run)
        self._write()
        runs = zip(self._ends, self._ends[1:], strict=False)
        return heapq.merge(*(_stream(self._file, *run) for run in runs))

    def _write(self) -> None:
        self._run.sort()
        self._file = self._file or _Nameless(self._folder)
        self._file.append(self._run)
        self._ends.append(self._file.size)
        self._run, self._run_bytes = [], 0


def _parts(records: Iterable[bytes]) -> Iterator[list[bytes]]:
    source = iter(records)
    while part := list(islice(source, min(_PART, RUN))):
        yield part


def _is_full(records: list[bytes], size: int) -> bool:
    return len(records) >= RUN or size >= _RUN_BYTES


class _Nameless:
    """A file without a name, for its owner only, that ends with the last object that has it.

    A child process that is being spawned gets the same file.
    """

    def __init__(self, folder: Path | None, handed: tuple[Any, int] | None = None) -> None:
        """`handed`: the descriptor of such a file of another process, as it came, and its size."""
        self._folder = folder
        with self._reasons():
            if handed is None:
                self._file: IO[bytes] = tempfile.TemporaryFile(  # noqa: SIM115 (closed below)
                    dir=folder, prefix=".faceidx-", buffering=0
                )
                self.size = 0
            else:
                self._file = os.fdopen(handed[0].detach(), "r+b", buffering=0)
                self.size = handed[1]
        weakref.finalize(self, self._file.close)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Nameless, (self._folder, (DupFd(self._file.fileno()), self.size))

    def append(self, records: list[bytes]) -> None:
        for part in _parts(records):
            left = memoryview(b"".join([x for r in part for x in (_LENGTH.pack(len(r)), r)]))
            self.size += len(left)
            with self._reasons():
                while left:
                    left = left[self._file.write(left) :]

    def read(self, size: int, place: int) -> bytes:
        """Bytes at a place, without moving one: threads and child processes share the file."""
        parts: list[bytes] = []
        while size > 0:
            part = os.pread(self._file.fileno(), size, place)
            if not part:
                raise JobError("the file that holds the names of the pictures was cut short")
            parts.append(part)
            size -= len(part)
            place += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    @contextmanager
    def _reasons(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise JobError(
                "the names of the pictures could not be kept in "
                f"{self._folder or tempfile.gettempdir()}: {error.strerror or error}; set TMPDIR "
                "to a folder with room"
            ) from error


def _split(data: bytes) -> Iterator[bytes]:
    """The whole records that data begins with."""
    begin, size = 0, len(data)
    while begin + _LENGTH.size <= size:
        (length,) = _LENGTH.unpack_from(data, begin)
        end = begin + _LENGTH.size + length
        if end > size:
            return
        yield data[begin + _LENGTH.size : end]
        begin = end


def _stream(file: _Nameless, begin: int, end: int) -> Iterator[bytes]:
    """The records between two places of a file, a chunk at a time."""
    size = _CHUNK
    while begin < end:
        before = begin
        for record in _split(file.read(min(size, end - begin), begin)):
            begin += _LENGTH.size + len(record)
            yield record
        size = _CHUNK if begin > before else 2 * size  # a record longer than the chunk
