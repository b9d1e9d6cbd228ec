"""CSV and TSV: pairs with a label, and scores that were computed elsewhere.

Columns are found by name, in any letter case and order; others are ignored. Where a CSV has no
header, its three columns are two names and a label before or behind them. Cells are set apart by
commas, or by semicolons where the first line has no comma. Line ends may be mixed, and a byte order
mark is dropped. Tables know no comments: every line is a row.
"""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from faceidx.errors import InputError
from faceidx.evaluation.lists.gathered import Pairs, Scores
from faceidx.evaluation.lists.lines import (
    ListError,
    Rows,
    even_columns,
    read_blocks,
    shown,
    whole_number,
)
from faceidx.evaluation.lists.pairs import PairList, ScoreList
from faceidx.evaluation.lists.words import (
    Columns,
    Labels,
    columns_of,
    label_columns,
    label_value,
    name_columns,
    score_column,
)

DELIMITERS = {"tsv": "\t"}
_SEPARATORS = ("\t", ",", ";")
# Beyond it stand the largest floats, by which programs mean that there is no score.
_LARGEST = 1e300
Found = TypeVar("Found")
_Cells = Sequence[Sequence[str]]
_Rows = Iterator[tuple[int, list[str] | ListError]]


def read_table(path: Path, name: str) -> PairList:
    """Read pairs from a table with two columns of names, a label and perhaps a `fold`.

    A CSV may lack the header where it has no further columns.

    Args:
        name: the format, `csv` or `tsv`.

    Raises:
        ListError: the header does not say which column is which, or a row is not understood.
    """
    pairs, folds, labels = Pairs(), _Folds(), Labels()
    delimiter = DELIMITERS.get(name) or _comma(_first_line(path))

    def take(lines: Sequence[int], columns: Columns, cells: _Cells) -> None:
        left, right = ([cell.strip() for cell in cells[place]] for place in columns.names)
        if "" in left or "" in right:
            raise ListError(path, lines[0], "a picture's name is empty; name it or remove the row")
        pairs.extend(lines, left, right, _genuine(path, lines, labels, cells[columns.label]))
        if columns.fold >= 0:
            folds.extend(path, lines, cells[columns.fold])

    known = None if name in DELIMITERS else _without_header(path, delimiter)
    _read(path, delimiter, take, known, scores=False)
    return pairs.finish(path, name, folds=folds.finish(path))


def read_score_table(path: Path) -> ScoreList:
    """Read scores from a CSV or TSV with the columns `score` and a label, perhaps names.

    Raises:
        ListError: the header does not say which column is which, a row is not understood, or a
            score is no finite number.
    """
    scores, folds, labels = Scores(), _Folds(), Labels()

    def take(lines: Sequence[int], columns: Columns, cells: _Cells) -> None:
        numbers = all_finite(path, lines, cells[columns.score])
        genuine = _genuine(path, lines, labels, cells[columns.label])
        names = [[cell.strip() for cell in cells[place]] for place in columns.names]
        scores.extend(lines, numbers, genuine, names)
        if columns.fold >= 0:
            folds.extend(path, lines, cells[columns.fold])

    _read(path, delimiter_of(path), take, scores=True)
    return scores.finish(path, "scores", folds=folds.finish(path))


def has_scores(path: Path) -> bool:
    """Whether the first line names a column of scores."""
    first = _first_line(path)
    rows = ([c.strip(' \t\n"').lower() for c in first.split(by)] for by in _SEPARATORS)
    return any(score_column(cells, name_columns(cells)) >= 0 for cells in rows)


def finite(path: Path, line: int, text: str) -> float:
    """The finite number that a field holds.

    Raises:
        ListError: it holds none, or one that stands for none.
    """
    text = text.strip()
    try:
        # float() would also take underscores and the digits of other scripts.
        score = float(text if text.isascii() and "_" not in text else "none")
    except ValueError:
        raise ListError(path, line, f"{shown(text)} is no score; give a number") from None
    if not math.isfinite(score):
        raise ListError(path, line, f"the score {shown(text)} is not finite; give a number")
    if abs(score) > _LARGEST:
        raise ListError(
            path,
            line,
            f"the score {shown(text)} is so large that it stands for none; remove the row, or give "
            "a number below all others where the pair was rejected",
        )
    return score


def all_finite(path: Path, lines: Sequence[int], texts: Sequence[str]) -> array[float]:
    """The finite numbers that fields hold, the fast way.

    Raises:
        ListError: one of them holds none.
    """
    together = "".join(texts)
    if together.isascii() and "_" not in together:
        try:
            numbers = array("d", map(float, texts))
        except ValueError:
            pass  # told with its line below
        else:
            if np.abs(np.frombuffer(numbers)).max(initial=0) <= _LARGEST:
                return numbers
    return array("d", [finite(path, *field) for field in zip(lines, texts, strict=True)])


def delimiter_of(path: Path) -> str:
    """What sets the cells of a table apart: tabs where the header holds one, else commas.

    Semicolons do where the header holds no comma.
    """
    first = _first_line(path)
    return "\t" if "\t" in first else _comma(first)


def _comma(first: str) -> str:
    return ";" if ";" in first and "," not in first else ","


def _first_line(path: Path) -> str:
    return next((line for _, block in read_blocks(path) for line in block if line.strip()), "")


def _without_header(path: Path, delimiter: str) -> Columns | None:
    """The columns of a table that begins with a pair; None where it begins with a header."""
    try:
        row = next(csv.reader([_first_line(path)], delimiter=delimiter), [])
    except csv.Error:
        return None
    cells = [cell.strip().lower() for cell in row]
    names = name_columns(cells)
    if len(cells) != 3 or (names and label_columns(cells, names)):
        return None
    before, behind = (label_value(cells[place]) is not None for place in (0, 2))
    if before == behind:
        return None
    return Columns(names=(1, 2), label=0) if before else Columns(names=(0, 1), label=2)


def table_rows(
    path: Path, delimiter: str, find: Callable[[int, list[str]], Found], what: str
) -> Iterator[tuple[int, Found, tuple[str, ...]]]:
    """Yield (line on which the row starts, columns, cells) of every row under the header.

    Args:
        find: says which column is which, from the header's line and its cells, stripped and in
            lower case; raises `ListError` where the header does not say it.
        what: what the rows hold, for the message.

    Raises:
        ListError: the header or a row is not understood, or there is no row.
    """
    for lines, columns, cells in table_columns(path, delimiter, find, what):
        for line, row in zip(lines, zip(*cells, strict=True), strict=True):
            yield line, columns, row


def table_columns(
    path: Path,
    delimiter: str,
    find: Callable[[int, list[str]], Found],
    what: str,
    known: Found | None = None,
) -> Iterator[tuple[Sequence[int], Found, _Cells]]:
    """Yield what `table_rows` yields for many rows at a time: (lines, columns, cells by column).

    Args:
        known: the three columns of a table without header.
    """
    blocks = read_blocks(path)
    header = None if known is None else _Header(line=1, width=3, columns=known)
    rows = 0
    for first, block in blocks:
        lines: Sequence[int] = range(first, first + len(block))
        cells = None if header is None else _even_cells(block, header.width, delimiter)
        fault = None
        if cells is None:
            careful = _csv_rows(path, delimiter, first, block, blocks)
            header = header or _header(careful, find)
            if header is None:
                continue
            lines, cells, fault = _whole_rows(path, careful, header.width)
        if header is not None and lines:
            rows += len(lines)
            yield lines, header.columns, cells
        if fault is not None:  # after the rows before it, which may have faults of their own
            raise fault
    if not rows:
        raise ListError(
            path,
            header.line if header else 1,
            f"no {what} follow; give a list with at least one",
            understood=True,
        )


@dataclass(kw_only=True)
class _Header(Generic[Found]):
    line: int
    width: int
    columns: Found


def _header(rows: _Rows, find: Callable[[int, list[str]], Found]) -> _Header[Found] | None:
    """Take the header from the first of the rows, None where there is none."""
    for line, row in rows:
        if isinstance(row, ListError):
            raise row
        columns = find(line, [cell.strip().lower() for cell in row])
        return _Header(line=line, width=len(row), columns=columns)
    return None


def _even_cells(block: list[str], width: int, delimiter: str) -> _Cells | None:
    """The cells by column of a block in which every line is a row; None where some is not."""
    text = "".join(block)
    return None if '"' in text else even_columns(text, len(block), width, delimiter)


def _whole_rows(path: Path, rows: _Rows, width: int) -> tuple[list[int], _Cells, ListError | None]:
    """Return lines and cells by column of the rows up to the first with a fault, and the fault."""
    lines: list[int] = []
    cells: list[list[str]] = []
    fault = None
    for line, row in rows:
        if isinstance(row, ListError):
            fault = row
        elif len(row) != width:
            fault = ListError(
                path,
                line,
                f"has {len(row)} cells, but the header has {width}; correct the row, or put names "
                "that hold the separator in quotes",
            )
        else:
            lines.append(line)
            cells.append(row)
            continue
        break
    return lines, list(zip(*cells, strict=True)), fault


def _csv_rows(
    path: Path,
    delimiter: str,
    first: int,
    block: list[str],
    following: Iterator[tuple[int, list[str]]],
) -> _Rows:
    """Yield (line, cells) of the rows of a block, blank ones left out; at last perhaps an error.

    Where a quoted cell is still open at the block's end, the block that follows is read as well.
    """
    end = first + len(block)

    def lines() -> Iterator[str]:
        nonlocal end
        yield from block
        for _, more in following:
            end += len(more)
            yield from more

    reader = csv.reader(lines(), delimiter=delimiter, strict=True)
    while (line := first + reader.line_num) < end:
        try:
            row = next(reader)
        except csv.Error as error:
            # A quote that is never closed swallows the file: the fault is where the row starts.
            yield line, ListError(path, line, f"is no row of a table ({error}); correct it")
            return
        if len(row) > 1 or "".join(row).strip():
            yield line, row


def _read(
    path: Path,
    delimiter: str,
    take: Callable[[Sequence[int], Columns, _Cells], None],
    known: Columns | None = None,
    *,
    scores: bool,
) -> None:
    """Hand all rows to `take`, many at a time: (lines, columns, cells by column)."""

    def find(line: int, cells: list[str]) -> Columns:
        return columns_of(path, line, cells, scores=scores)

    batches = table_columns(path, delimiter, find, "pairs", known)
    for lines, columns, cells in batches:
        try:
            take(lines, columns, cells)
        except ListError:
            # Once more row by row: of several faults the first is told, and with its line.
            for line, row in zip(lines, zip(*cells, strict=True), strict=True):
                take([line], columns, [[cell] for cell in row])
            raise


def _genuine(
    path: Path, lines: Sequence[int], labels: Labels, texts: Sequence[str]
) -> Iterable[bool]:
    values = labels.values(texts)
    if values is None:
        raise ListError(path, lines[0], labels.fault(texts[0]))
    return map(values.__getitem__, texts)


class _Folds:
    """Folds as they are read."""

    def __init__(self) -> None:
        self._rows = Rows()
        self._folds = array("i")

    def extend(self, path: Path, lines: Sequence[int], texts: Sequence[str]) -> None:
        rows = {}
        for text in set(texts):
            number = whole_number(text.strip())
            if number is None:
                raise ListError(
                    path, lines[0], f"the fold {shown(text)} is no whole number; correct it"
                )
            rows[text] = self._rows[str(number)]
        self._folds.extend(map(rows.__getitem__, texts))

    def finish(self, path: Path) -> np.ndarray | None:
        """Folds numbered from 0 in the order of their numbers (P,) int16; None without any."""
        if not self._folds:
            return None
        if len(self._rows) > np.iinfo(np.int16).max:
            raise InputError(
                f"{path}: {len(self._rows)} folds are too many; rename the column `fold`"
            )
        numbers = np.array(list(self._rows), dtype=np.int64)
        rank = np.argsort(np.argsort(numbers)).astype(np.int16)
        return rank[np.frombuffer(self._folds, dtype=np.int32)]
