"""CSV and TSV with a header: pairs with a label, and scores that were computed elsewhere.

Columns are found by name, in any letter case and order; others are ignored. Line ends may be
mixed, and a byte order mark is dropped. Tables know no comments: every line is a row.
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

DELIMITERS = {"csv": ",", "tsv": "\t"}
_NAMES = (
    ("left", "right"),
    ("path1", "path2"),
    ("path_1", "path_2"),
    ("a", "b"),
    ("img1", "img2"),
    ("img_1", "img_2"),
    ("image1", "image2"),
    ("image_1", "image_2"),
    ("file1", "file2"),
    ("file_1", "file_2"),
    ("file_x", "file_y"),
    ("path_a", "path_b"),
    ("left_path", "right_path"),
)
_LABELS = ("label", "genuine", "same", "issame", "is_same", "decision", "match")
_TRUE = ("1", "true", "yes", "same", "genuine")
_FALSE = ("0", "false", "no", "different", "impostor")
_VALUES = dict.fromkeys(_TRUE, True) | dict.fromkeys(_FALSE, False)

Columns = TypeVar("Columns")
_Cells = Sequence[Sequence[str]]
_Rows = Iterator[tuple[int, list[str] | ListError]]


@dataclass(kw_only=True)
class _Columns:
    """Places of the known columns in a row."""

    names: tuple[int, ...]
    """Both columns of names, or none."""
    label: int
    score: int
    """-1 where the table has none, as for `fold`."""
    fold: int


def read_table(path: Path, name: str) -> PairList:
    """Read pairs from a table with two columns of names, a label and perhaps a `fold`.

    Args:
        name: the format, `csv` or `tsv`.

    Raises:
        ListError: the header does not say which column is which, or a row is not understood.
    """
    pairs, folds = Pairs(), _Folds()

    def take(lines: Sequence[int], columns: _Columns, cells: _Cells) -> None:
        left, right = ([cell.strip() for cell in cells[place]] for place in columns.names)
        if "" in left or "" in right:
            raise ListError(path, lines[0], "a picture's name is empty; name it or remove the row")
        pairs.extend(lines, left, right, _labels(path, lines, cells[columns.label]))
        if columns.fold >= 0:
            folds.extend(path, lines, cells[columns.fold])

    _read(path, DELIMITERS[name], take, scores=False)
    return pairs.finish(path, name, folds=folds.finish(path))


def read_score_table(path: Path) -> ScoreList:
    """Read scores from a CSV or TSV with the columns `score` and a label, perhaps names.

    Raises:
        ListError: the header does not say which column is which, a row is not understood, or a
            score is no finite number.
    """
    scores, folds = Scores(), _Folds()

    def take(lines: Sequence[int], columns: _Columns, cells: _Cells) -> None:
        numbers = all_finite(path, lines, cells[columns.score])
        genuine = _labels(path, lines, cells[columns.label])
        scores.extend(lines, numbers, genuine, [cells[place] for place in columns.names])
        if columns.fold >= 0:
            folds.extend(path, lines, cells[columns.fold])

    _read(path, delimiter_of(path), take, scores=True)
    return scores.finish(path, "scores", folds=folds.finish(path))


def has_scores(path: Path) -> bool:
    """Whether the first line names a column `score`."""
    first = _first_line(path)
    return any(
        "score" in [cell.strip(' \t\n"').lower() for cell in first.split(delimiter)]
        for delimiter in DELIMITERS.values()
    )


def finite(path: Path, line: int, text: str) -> float:
    """The finite number that a field holds.

    Raises:
        ListError: it holds none.
    """
    text = text.strip()
    try:
        # float() would also take underscores and the digits of other scripts.
        score = float(text if text.isascii() and "_" not in text else "none")
    except ValueError:
        raise ListError(path, line, f"{shown(text)} is no score; give a number") from None
    if not math.isfinite(score):
        raise ListError(path, line, f"the score {shown(text)} is not finite; give a number")
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
            if all(map(math.isfinite, numbers)):
                return numbers
    return array("d", [finite(path, *field) for field in zip(lines, texts, strict=True)])


def delimiter_of(path: Path) -> str:
    """What sets the cells of a table apart: tabs where the header holds one, else commas."""
    return "\t" if "\t" in _first_line(path) else ","


def _first_line(path: Path) -> str:
    return next((line for _, block in read_blocks(path) for line in block if line.strip()), "")


def table_rows(
    path: Path, delimiter: str, find: Callable[[int, list[str]], Columns], what: str
) -> Iterator[tuple[int, Columns, tuple[str, ...]]]:
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
    path: Path, delimiter: str, find: Callable[[int, list[str]], Columns], what: str
) -> Iterator[tuple[Sequence[int], Columns, _Cells]]:
    """Yield what `table_rows` yields for many rows at a time: (lines, columns, cells by column)."""
    blocks = read_blocks(path)
    header: _Header[Columns] | None = None
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
class _Header(Generic[Columns]):
    line: int
    width: int
    columns: Columns


def _header(rows: _Rows, find: Callable[[int, list[str]], Columns]) -> _Header[Columns] | None:
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
    take: Callable[[Sequence[int], _Columns, _Cells], None],
    *,
    scores: bool,
) -> None:
    """Hand all rows to `take`, many at a time: (lines, columns, cells by column)."""
    batches = table_columns(
        path, delimiter, lambda line, cells: _columns(path, line, cells, scores), "pairs"
    )
    for lines, columns, cells in batches:
        try:
            take(lines, columns, cells)
        except ListError:
            # Once more row by row: of several faults the first is told, and with its line.
            for line, row in zip(lines, zip(*cells, strict=True), strict=True):
                take([line], columns, [[cell] for cell in row])
            raise


def named_twice(cells: list[str]) -> str | None:
    """What is wrong with a header that names a column twice; None where none is."""
    twice = next((cell for cell in cells if cell and cells.count(cell) > 1), None)
    return None if twice is None else f"the header names {shown(twice)} twice; rename one"


def _columns(path: Path, line: int, cells: list[str], scores: bool) -> _Columns:
    labels = [name for name in _LABELS if name in cells]
    names = [pair for pair in _NAMES if pair[0] in cells and pair[1] in cells]
    twice = named_twice(cells)
    fault = ""
    if not labels:
        fault = f"no column of the header is a label; name it one of {', '.join(_LABELS)}"
    elif len(labels) > 1 or len(names) > 1:
        several = " and ".join(labels if len(labels) > 1 else map("/".join, names))
        fault = f"the header has both {several}; keep one, rename the other"
    elif twice is not None:
        fault = twice
    elif scores and "score" not in cells:
        fault = "no column of the header is named `score`; name it so"
    elif not scores and not names:
        fault = "the header names no two columns of pictures; name them `left` and `right`"
    if fault:
        raise ListError(path, line, fault, understood=bool(labels) or "score" in cells)
    return _Columns(
        names=tuple(cells.index(name) for pair in names for name in pair),
        label=cells.index(labels[0]),
        score=cells.index("score") if "score" in cells else -1,
        fold=cells.index("fold") if "fold" in cells else -1,
    )


def _labels(path: Path, lines: Sequence[int], texts: Sequence[str]) -> Iterable[bool]:
    values = {}
    for text in set(texts):
        value = _VALUES.get(text.strip().lower())
        if value is None:
            known = ", ".join((*_TRUE, *_FALSE))
            raise ListError(
                path, lines[0], f"the label {shown(text)} is none of {known}; correct it"
            )
        values[text] = value
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
