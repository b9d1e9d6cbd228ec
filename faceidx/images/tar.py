"""The members of a tar archive, found by reading its headers alone: names and where the data lie.

The formats are those of POSIX.1-2001 (pax interchange format, ustar) and of GNU tar's manual
("Basic Tar Format"). An archive is hostile input: whatever its headers claim, nothing is read that
is larger than a header has reason to be, and reading always moves forward.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from faceidx.errors import InputError

_BLOCK = 512
# Names of that length no file system has; GNU tar and pax headers hold little else.
_LONGEST_EXTENSION = 1 << 20
# After the end GNU tar fills up with zeros to a multiple of 10 KiB; an archive that was appended
# with `cat` begins there.
_LOOK_BEHIND_END = 1 << 16
_COMPRESSED = {
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ": "unxz",
    b"\x28\xb5\x2f\xfd": "unzstd",
}

_FILES = (b"0", b"\0", b"7")
_FOLDER = b"5"
# Links, devices and pipes have no data, whatever size they claim.
_WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")
_SPARSE = b"S"
_LONG_NAME, _LONG_LINK = b"L", b"K"
_PAX, _PAX_FOR_ALL = (b"x", b"X"), b"g"


@dataclass(frozen=True, slots=True)
class Member:
    """What one header says."""

    name: bytes
    offset: int
    """Of the data, from the beginning of the archive."""
    size: int
    is_file: bool
    """Whether the data are the file: not so with links, devices and sparse files."""
    is_folder: bool


class Archive:
    """An open tar archive."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size

    def read(self, place: int, size: int) -> bytes:
        """The bytes at a place.

        Raises:
            InputError: the archive ends before.
        """
        data = os.pread(self._descriptor, size, place) if place + size <= self._size else b""
        if len(data) < size:
            raise self._truncated()
        return data

    def members(self) -> Iterator[Member]:
        """Yield all members in their order.

        Raises:
            InputError: the archive is compressed, damaged, truncated or no tar at all.
        """
        place = 0
        for_all: dict[bytes, bytes] = {}
        said: dict[bytes, bytes] = {}  # about the next member, by headers of their own
        while True:
            if place + _BLOCK > self._size:
                raise InputError(
                    f"{self.path}: truncated: the archive has no end, so pictures may be missing; "
                    "fetch or write it again (truncate -s +10240 FILE gives it one)"
                )
            block = self.read(place, _BLOCK)
            if not block.strip(b"\0"):
                self._check_end(place)
                return
            kind, size = self._kind_and_size(block, place)
            place += _BLOCK
            if kind in (_LONG_NAME, _LONG_LINK, _PAX_FOR_ALL, *_PAX):
                data = self._extension(place, size)
                place += _padded(size)
                if kind == _LONG_NAME:
                    said[b"path"] = data.partition(b"\0")[0]
                elif kind != _LONG_LINK:
                    (for_all if kind == _PAX_FOR_ALL else said).update(self._pax(data, place))
                continue
            place = self._after_sparse_map(kind, block, place)
            member = self._member(kind, size, block, place, {**for_all, **said})
            said = {}
            if place + member.size > self._size:
                raise self._truncated()
            yield member
            place += _padded(member.size)

    def _kind_and_size(self, block: bytes, place: int) -> tuple[bytes, int]:
        try:
            # The checksum is taken with its own field blank.
            wanted = _number(block[148:156])
            if wanted != sum(block) - sum(block[148:156]) + 8 * ord(" "):
                raise ValueError("another checksum")
            return block[156:157], _number(block[124:136])
        except ValueError:
            if place:
                raise self._damaged(place) from None
            for magic, tool in _COMPRESSED.items():
                if block.startswith(magic):
                    raise compressed(self.path, tool) from None
            raise InputError(f"{self.path} is no tar archive; give shards as tar makes") from None

    def _extension(self, place: int, size: int) -> bytes:
        if size > _LONGEST_EXTENSION:
            raise self._damaged(place - _BLOCK)
        return self.read(place, size)

    def _pax(self, data: bytes, place: int) -> dict[bytes, bytes]:
        """Records `LENGTH KEYWORD=VALUE\\n`, of which the length counts all of it."""
        found: dict[bytes, bytes] = {}
        begin = 0
        while data[begin : begin + 1].strip(b"\0"):
            length, space, _ = data[begin : begin + 8].partition(b" ")
            if not space or not length.isdigit():
                raise self._damaged(place)
            end = begin + int(length)
            record = data[begin + len(length) + 1 : end]
            keyword, equals, value = record.partition(b"=")
            if end > len(data) or not equals or not value.endswith(b"\n"):
                raise self._damaged(place)
            found[keyword] = value[:-1]
            begin = end
        return found

    def _after_sparse_map(self, kind: bytes, block: bytes, place: int) -> int:
        """Where the data begin: the map of a GNU sparse file may go on behind its header."""
        goes_on = kind == _SPARSE and block[482]
        while goes_on:
            goes_on = self.read(place, _BLOCK)[504]
            place += _BLOCK
        return place

    def _member(
        self, kind: bytes, size: int, block: bytes, place: int, said: dict[bytes, bytes]
    ) -> Member:
        name = said.get(b"path") or _name(block)
        if said.get(b"size"):
            if not said[b"size"].isdigit() or len(said[b"size"]) > 19:
                raise self._damaged(place)
            size = int(said[b"size"])
        if b"\0" in name:
            raise self._damaged(place)
        is_sparse = kind == _SPARSE or any(keyword.startswith(b"GNU.sparse.") for keyword in said)
        is_folder = kind == _FOLDER or (kind in _FILES and name.endswith(b"/"))
        return Member(
            name=said.get(b"GNU.sparse.name", name),
            offset=place,
            size=0 if kind in _WITHOUT_DATA else size,
            is_file=kind in _FILES and not is_sparse and not is_folder,
            is_folder=is_folder,
        )

    def _check_end(self, place: int) -> None:
        behind = os.pread(self._descriptor, _LOOK_BEHIND_END, place)
        if behind.strip(b"\0"):
            raise InputError(
                f"{self.path}: more follows the archive's end at byte {place}, as when archives "
                "are joined with cat; give them one by one"
            )

    def _truncated(self) -> InputError:
        return InputError(
            f"{self.path}: truncated: it ends within a member; fetch or write it again"
        )

    def _damaged(self, place: int) -> InputError:
        return InputError(
            f"{self.path}: damaged: no tar header at byte {place}; fetch or write it again"
        )


def compressed(shard: Path, tool: str) -> InputError:
    """What to say of a compressed shard."""
    return InputError(
        f"{shard} is compressed, so that no picture in it can be found without reading all before; "
        f"unpack it ({tool}) and give the .tar"
    )


@contextmanager
def open_tar(path: Path) -> Iterator[Archive]:
    """Open an archive for reading.

    Raises:
        InputError: there is no such file, or it cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file or folder") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {_why(error)}") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise InputError(f"{path} is no file; give shards as tar makes")
        yield Archive(path, descriptor)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {_why(error)}") from None
    finally:
        os.close(descriptor)


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _name(block: bytes) -> bytes:
    name = block[:100].partition(b"\0")[0]
    # GNU's own format has a blank in its magic, and other things where ustar has the prefix.
    prefix = block[345:500].partition(b"\0")[0] if block[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _number(field: bytes) -> int:
    """An octal number, or one of base 256 where that was too short."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip() or b"0"
    if not digits.isdigit():
        raise ValueError("no number")
    return int(digits, 8)
