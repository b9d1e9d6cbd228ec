"""Lines of a list, and the fields and names that stand in them.

What holds for every list made of lines: the file is UTF-8 (a byte order mark is dropped, bytes
that are no UTF-8 are kept and escaped in the keys), or UTF-16 where its mark says so. Lines end in
LF, CR LF or CR, blank lines mean nothing, and a line that begins with a hash and a blank is a
comment. Fields are set apart by tabs where tabs alone give the right number of fields (names may
then hold blanks), else by runs of blanks and tabs.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO, TypeVar

import numpy as np

from faceidx.errors import InputError
from faceidx.images.keys import escape_key

_BLOCK_CHARACTERS = 1 << 17  # what is made of a block stays in the cache
_BLANKS = " \t"
_SHOWN = 60  # characters of a refused line that a message shows

Parsed = TypeVar("Parsed")


class ListError(InputError):
    """A line is not what the format wants.

    Args:
        line: from 1.
        understood: the line was understood as such, so the file is likely of this format.
    """

    def __init__(self, path: Path, line: int, what: str, *, understood: bool = False) -> None:
        super().__init__(f"{path}:{line}: {what}")
        self.progress = line + 0.5 * understood
        """How far the reader got; a file is most like the format that gets furthest."""


def open_text(path: Path) -> TextIO:
    """Open a list's file for reading.

    Raises:
        InputError: it is missing or cannot be read.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a list of pairs")
    try:
        with path.open("rb") as file:
            if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
                return path.open(encoding="utf-16")
        return path.open(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def read_blocks(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of the first line, lines with their ends) until the file is read.

    Raises:
        InputError: the file cannot be read.
        ListError: it is binary.
    """
    first = 1
    with open_text(path) as file:
        try:
            while block := file.readlines(_BLOCK_CHARACTERS):
                if "\0" in "".join(block):
                    number = next(n for n, line in enumerate(block, first) if "\0" in line)
                    raise ListError(
                        path, number, "holds a NUL byte; give a list as plain UTF-8 text"
                    )
                yield first, block
                first += len(block)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
        except UnicodeError:
            raise ListError(path, first, "is damaged UTF-16; save the list as UTF-8") from None


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (number, text without surrounding blanks) of every line that is not blank."""
    for first, block in read_blocks(path):
        yield from _filled(first, block)


def _filled(first: int, block: list[str]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(block, first):
        text = line.strip(" \t\n")
        if text:
            yield number, text


def parse_lines(
    path: Path, parse: Callable[[str], Parsed | None], wanted: str
) -> Iterator[tuple[int, Parsed]]:
    """Yield (number, what `parse` made of the line) of every line that is no comment.

    Args:
        parse: returns None for a line that is not understood.
        wanted: what a line should look like, for the message.

    Raises:
        ListError: a line is not understood, or is both a comment and a line of the list.
    """
    for first, block in read_blocks(path):
        yield from parse_block(path, first, block, parse, wanted)


def parse_block(
    path: Path, first: int, block: list[str], parse: Callable[[str], Parsed | None], wanted: str
) -> Iterator[tuple[int, Parsed]]:
    """Do what `parse_lines` does for the lines of one block, the first of which has a number."""
    for number, line in _filled(first, block):
        parsed = parse(line)
        if line[0] == "#" and is_comment(line):
            if parsed is not None:
                raise ListError(
                    path,
                    number,
                    "is a comment and a line of the list at once; write `./#` for a picture "
                    "named `#`, or reword the comment",
                )
        elif parsed is None:
            raise ListError(path, number, f"{shown(line)} is no {wanted}; correct the line")
        else:
            yield number, parsed


def is_comment(line: str) -> bool:
    """Whether a line without surrounding blanks begins with a hash and a blank, or is a hash."""
    return line == "#" or line[:2] in ("# ", "#\t")


def split(line: str, count: int) -> list[str] | None:
    """Split a line into `count` fields, or return None where it has more or fewer."""
    if "\t" in line:
        parts = [part.strip(_BLANKS) for part in line.split("\t")]
        if len(parts) == count and all(parts):
            return parts
        line = line.replace("\t", " ")
    # str.split() would also split names at no-break spaces and other characters of Unicode.
    parts = line.split(" ")
    if "" in parts:
        parts = [part for part in parts if part]
    return parts if len(parts) == count else None


def plain_columns(block: list[str], count: int) -> list[list[str]] | None:
    """The columns of a block whose lines all have `count` fields, set apart by one tab or blank.

    This is the fast way through regular lists. It gives what `split` gives for each line, or None
    where a line needs a closer look: a blank one, a comment, more blanks than one, both kinds.
    """
    text = "".join(block)
    if (" " in text) == ("\t" in text):
        return None
    columns = even_columns(text, len(block), count, " " if " " in text else "\t")
    if columns is None or "#" in columns[0] or any("" in column for column in columns):
        return None
    return columns


def even_columns(text: str, lines: int, count: int, separator: str) -> list[list[str]] | None:
    """The columns of lines that have `count` fields each; None where one has more or fewer."""
    if not text.endswith("\n"):
        text += "\n"
    # With line ends as fields of their own, one split gives all fields and shows whether every
    # line has the same number of them.
    fields = text.replace("\n", f"{separator}\n{separator}").split(separator)
    width = count + 1
    if len(fields) != lines * width + 1 or fields[count::width].count("\n") != lines:
        return None
    return [fields[place:-1:width] for place in range(count)]


def whole_number(text: str) -> int | None:
    """The number written in up to 18 ASCII digits, or None."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def shown(text: str) -> str:
    """A line as messages quote it."""
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")


class Rows(dict[str, int]):
    """Row of each name, in order of first appearance; asking for a new name gives it a row."""

    def __missing__(self, name: str) -> int:
        row = self[name] = len(self)
        return row


def keys_of(names: list[str]) -> tuple[list[str], np.ndarray]:
    """Return the unique keys of pictures' names, and the row in them of each name (N,) int64.

    Where no name holds a `/`, every `\\` is one: the list was made on Windows.
    """
    if not any("/" in name for name in names):
        names = [name.replace("\\", "/") for name in names]
    rows = Rows()
    places = np.fromiter(
        (rows[escape_key(name)] for name in names), dtype=np.int64, count=len(names)
    )
    return list(rows), places
