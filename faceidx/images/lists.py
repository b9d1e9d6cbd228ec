"""Reading lists of pictures: `.txt`, a path a line; `.csv` with the header `path[,identity]`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from faceidx.errors import InputError

LIST_EXTENSIONS = (".txt", ".csv")
_HEADERS = (["path"], ["path", "identity"], ["identity", "path"])


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a list, as it stands there."""

    line: int
    """Counted from 1; of an entry that spans lines, the first."""
    path: bytes
    identity: bytes | None
    """None where the list has no such column."""


def read_list(file: Path) -> list[Entry]:
    """Read a list of pictures in the order of its lines, blank ones skipped.

    Lists are UTF-8 with or without byte order mark; names in other encodings are kept byte by byte.
    Spaces at the ends of a name belong to it. A CSV has no other columns than `path` and
    `identity`: a misspelt `identity` is an error, rather than identities taken from elsewhere.

    Raises:
        InputError: the list cannot be read, is UTF-16, or a line is broken (naming file and line).
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}") from None
    data = data.removeprefix(b"\xef\xbb\xbf")
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise InputError(f"{file}:{line}: a zero byte; save the list as UTF-8 text")
    return list(_csv_entries(file, data) if file.suffix.lower() == ".csv" else _txt_entries(data))


def _txt_entries(data: bytes) -> Iterator[Entry]:
    for number, line in enumerate(data.split(b"\n"), start=1):
        path = line.removesuffix(b"\r")
        if path.strip():
            yield Entry(number, path, None)


def _csv_entries(file: Path, data: bytes) -> Iterator[Entry]:
    rows = _csv_rows(file, data.decode("utf-8", "surrogateescape"))
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


def _csv_rows(file: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (first line, fields) of each row that is not blank."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    first = 1
    try:
        for row in reader:
            if row:
                yield first, row
            first = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{file}:{first}: no valid CSV ({error})") from None
