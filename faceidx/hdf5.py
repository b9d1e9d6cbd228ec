"""Writing HDF5 so that a full disk is an error like any other.

When a write fails beneath the HDF5 library, its cache keeps what it could not write; closing the
file then fails again, and the process dies of a segmentation fault. So the library is given a file
object that takes every write, and the error is raised when it is out of the library's hands.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

import h5py

if TYPE_CHECKING:
    from typing_extensions import Buffer


# Bytes between two flushes to the disk: what a system has gathered of a long job when that ends
# would take seconds then.
_FLUSH = 64 << 20


class NewHdf5(h5py.File):
    """A new HDF5 file, open for writing. A context manager.

    Raises:
        OSError: when closed, where the disk refused a part of it.
    """

    def __init__(self, path: Path) -> None:
        self._sink = _Sink(path)
        super().__init__(self._sink, "w")

    def check(self) -> None:
        """Raise the `OSError` of the first write that failed; to be called now and then in a long
        job, since what comes after that write is kept in memory."""
        if self._sink.error is not None:
            raise self._sink.error

    def close(self) -> None:
        was_open = bool(self.id)
        super().close()
        if was_open:
            self._sink.close()
            self.check()


class _Sink(io.RawIOBase):
    """A file object as h5py wants it; from the first failed write on, it lives in memory."""

    def __init__(self, path: Path) -> None:
        self.error: OSError | None = None
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        self._position = self._size = self._unflushed = 0
        self._unwritten: list[tuple[int, bytes]] = []

    def close(self) -> None:
        if not self.closed:
            super().close()
            os.close(self._descriptor)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def write(self, data: Buffer) -> int:
        view = memoryview(data).cast("B")
        written = 0
        try:
            while self.error is None and written < len(view):
                place = self._position + written
                written += os.pwrite(self._descriptor, view[written:], place)
            self._flush(written)
        except OSError as error:
            self.error = error
        if written < len(view):
            self._unwritten.append((self._position + written, bytes(view[written:])))
        self._position += len(view)
        self._size = max(self._size, self._position)
        return len(view)

    def _flush(self, written: int) -> None:
        self._unflushed += written
        if self._unflushed >= _FLUSH:
            os.fsync(self._descriptor)
            self._unflushed = 0

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer).cast("B")
        data = os.pread(self._descriptor, len(view), self._position)
        view[: len(data)] = data
        view[len(data) :] = bytes(len(view) - len(data))
        for place, missing in self._unwritten:
            first = max(place, self._position)
            last = min(place + len(missing), self._position + len(view))
            if first < last:
                part = missing[first - place : last - place]
                view[first - self._position : last - self._position] = part
        self._position += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        self._size = self._position if size is None else size
        try:
            if self.error is None:
                os.ftruncate(self._descriptor, self._size)
        except OSError as error:
            self.error = error
        return self._size
