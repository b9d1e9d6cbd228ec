"""Reading lists of pictures: `.txt`, a path a line; `.csv` with the header `path[,identity]`."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, AnyStr

from faceidx.errors import InputError

LIST_EXTENSIONS = (".txt", ".csv")
# What is longer is no list of paths, however it is named; Linux ends paths at 4096 bytes.
_LONGEST_LINE = 1 << 20
_HEADERS = (["path"], ["path", "identity"], ["identity", "path"])


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a list, as it stands there."""

    line: int
    """Counted from 1; of an entry that spans lines, the first."""
    path: bytes
    identity: bytes | None
    """None where the list has no such column."""


def read_list(file: Path) -> Iterator[Entry]:
    """Read a list of pictures in the order of its lines, blank ones skipped, a line at a time.

    Lists are UTF-8 with or without byte order mark; names in other encodings are kept byte by byte.
    Spaces at the ends of a name belong to it. A CSV has no other columns than `path` and
    `identity`: a misspelt `identity` is an error, rather than identities taken from elsewhere.

    Raises:
        InputError: the list cannot be read, is UTF-16, or a line is broken (naming file and line).
    """
    try:
        if file.suffix.lower() == ".csv":
            # newline="" keeps line breaks inside quotes as they are.
            with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
                yield from _csv_entries(file, text)
        else:
            with file.open("rb") as data:
                yield from _txt_entries(file, data)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}") from None


def _lines(file: Path, opened: IO[AnyStr], zero: AnyStr) -> Iterator[AnyStr]:
    """The lines of a file that is a list; anything else has some line that no list can have."""
    lines = iter(lambda: opened.readline(_LONGEST_LINE), zero[:0])
    for number, line in enumerate(lines, start=1):
        if zero in line:
            raise InputError(f"{file}:{number}: a zero byte; save the list as UTF-8 text")
        if len(line) == _LONGEST_LINE:
            raise InputError(f"{file}:{number}: too long for a path; give a path a line")
        yield line


def _txt_entries(file: Path, data: IO[bytes]) -> Iterator[Entry]:
    for number, line in enumerate(_lines(file, data, b"\0"), start=1):
        path = line.removesuffix(b"\n").removesuffix(b"\r")
        if number == 1:
            path = path.removeprefix(codecs.BOM_UTF8)
        if path.strip():
            yield Entry(number, path, None)


def _csv_entries(file: Path, text: IO[str]) -> Iterator[Entry]:
    rows = _csv_rows(file, text)
    line, header = next(rows, (1, []))
    columns = [name.strip().lower() for name in header]
    if columns not in _HEADERS:
        raise InputError(f"{file}:{line}: the header must be `path` or `path,identity`")
    for line, row in rows:
        if len(row) != len(columns):
            raise InputError(
                f"{file}:{line}: {len(row)} fields, but the header has {len(columns)}; "
                "put a name that holds commas in double quotes"
            )
        values = {
            name: value.encode("utf-8", "surrogateescape")
            for name, value in zip(columns, row, strict=True)
        }
        if not values["path"].strip():
            raise InputError(f"{file}:{line}: the path is empty")
        yield Entry(line, values["path"], values.get("identity"))


def _csv_rows(file: Path, text: IO[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield (first line, fields) of each row that is not blank."""
    reader = csv.reader(_lines(file, text, "\0"), strict=True)
    first = 1
    try:
        for row in reader:
            if row and (len(row) > 1 or row[0].strip()):
                yield first, row
            first = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{file}:{first}: no valid CSV ({error})") from None
