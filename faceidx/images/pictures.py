"""A picture of a source, and all of them in order, however many."""

from __future__ import annotations

import hashlib
import multiprocessing.context
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from faceidx.images.decode import read_part
from faceidx.images.spill import Records

# Records that an iteration reads at a time.
_AHEAD = 1024


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a source: small, and sent to other processes as it is."""

    key: str
    """Path relative to the source, `/`-separated and escaped (`escape_key`)."""
    identity: str
    """Who it shows, escaped like the key; empty where unknown."""
    path: Path
    """The file that the bytes lie in: the picture's own, or a tar shard or packed set."""
    content: bytes | None = None
    """The bytes themselves, where they were read already."""
    part: tuple[int, int] | None = None
    """(offset, size) of the bytes, where they are a part of the file."""

    def __reduce__(self) -> tuple[Any, ...]:
        # What dataclasses with slots do by themselves takes several times as long.
        return Picture, (self.key, self.identity, self.path, self.content, self.part)

    @property
    def data(self) -> Path | bytes:
        """The bytes, or the file that holds nothing else: what `decode` takes.

        A part of a file is read now.

        Raises:
            PictureError: it cannot be read.
        """
        if self.content is not None:
            return self.content
        return self.path if self.part is None else read_part(self.path, *self.part)

    def stamp(self) -> str:
        """What changes when the picture does: size and time of its file, or the hash of its bytes.

        `unreadable` where the file cannot be asked.
        """
        if self.content is not None:
            return f"{len(self.content)}:{hashlib.sha256(self.content).hexdigest()[:16]}"
        try:
            status = self.path.stat()
        except (OSError, ValueError):
            return "unreadable"
        if self.part is None:
            return f"{status.st_size}:{status.st_mtime_ns}"
        offset, size = self.part
        return f"{status.st_mtime_ns}:{offset}:{size}"


class Pictures(Sequence[Picture]):
    """Pictures in the order of the UTF-8 bytes of their keys, made from records as they are read.

    Parts are as lazy as the whole. A child process that is being spawned gets what they stand for
    with them, any other process their records, so `make` must be one that can be pickled.
    """

    def __init__(
        self,
        records: Records,
        make: Callable[[bytes], Picture],
        rows: range | None = None,
    ) -> None:
        """Give the pictures of those `rows` of the records, by default of all.

        Args:
            records: each begins with its picture's key, and a zero byte where more follows.
        """
        self._records, self._make = records, make
        self._rows = range(len(records)) if rows is None else rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, wanted: int) -> Picture: ...
    @overload
    def __getitem__(self, wanted: slice) -> Pictures: ...
    def __getitem__(self, wanted: int | slice) -> Picture | Pictures:
        if isinstance(wanted, slice):
            return Pictures(self._records, self._make, self._rows[wanted])
        row = self._rows[wanted]
        return self._make(self._records.read(row, row + 1)[0])

    def __iter__(self) -> Iterator[Picture]:
        return map(self._make, self._read())

    def keys(self) -> Iterator[bytes]:
        """The keys alone, in UTF-8: a twentieth of the time that the pictures would take."""
        return (record.partition(b"\0")[0] for record in self._read())

    def _read(self) -> Iterator[bytes]:
        rows = self._rows
        if rows.step != 1:
            for row in rows:
                yield from self._records.read(row, row + 1)
            return
        for first in range(rows.start, rows.stop, _AHEAD):
            yield from self._records.read(first, min(first + _AHEAD, rows.stop))

    def __reduce__(self) -> tuple[Any, ...]:
        if multiprocessing.context.get_spawning_popen() is not None:
            return Pictures, (self._records, self._make, self._rows)
        return _sent, (list(self._read()), self._make)


def _sent(records: list[bytes], make: Callable[[bytes], Picture]) -> Pictures:
    return Pictures(Records(records), make)


def keys_of(pictures: Sequence[Picture]) -> Iterator[bytes]:
    """The keys of pictures, in UTF-8."""
    if isinstance(pictures, Pictures):
        return pictures.keys()
    return (picture.key.encode() for picture in pictures)
