"""CSV and TSV with a header: pairs with a label, and scores that were computed elsewhere.

Columns are found by name, in any letter case and order; others are ignored. Line ends may be
mixed, and a byte order mark is dropped. Tables know no comments: every line is a row.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from faceidx.errors import InputError
from faceidx.evaluation.lists.lines import ListError, Pairs, read_blocks, shown, whole_number
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
    pairs = Pairs()
    folds: list[int] = []
    for line, columns, row in _rows(path, DELIMITERS[name], scores=False):
        left, right = (row[place].strip() for place in columns.names)
        if not left or not right:
            raise ListError(path, line, "a picture's name is empty; name it or remove the row")
        pairs.add(line, left, right, _label(path, line, row[columns.label]))
        if columns.fold >= 0:
            folds.append(_fold(path, line, row[columns.fold]))
    return pairs.finish(path, name, folds=_fold_rows(path, folds))


def read_score_table(path: Path) -> ScoreList:
    """Read scores from a CSV or TSV with the columns `score` and a label, perhaps names.

    Raises:
        ListError: the header does not say which column is which, a row is not understood, or a
            score is no finite number.
    """
    lines: list[int] = []
    scores: list[float] = []
    genuine: list[bool] = []
    folds: list[int] = []
    names: tuple[list[str], list[str]] = ([], [])
    for line, columns, row in _rows(path, _delimiter(path), scores=True):
        lines.append(line)
        scores.append(finite(path, line, row[columns.score]))
        genuine.append(_label(path, line, row[columns.label]))
        for place, column in zip(columns.names, names, strict=False):
            column.append(row[place])
        if columns.fold >= 0:
            folds.append(_fold(path, line, row[columns.fold]))
    return ScoreList(
        path=path,
        format="scores",
        scores=np.array(scores, dtype=np.float64),
        genuine=np.array(genuine, dtype=bool),
        lines=np.array(lines, dtype=np.int64),
        folds=_fold_rows(path, folds),
        left=names[0] or None,
        right=names[1] or None,
    )


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


def _delimiter(path: Path) -> str:
    return "\t" if "\t" in _first_line(path) else ","


def _first_line(path: Path) -> str:
    return next((line for _, block in read_blocks(path) for line in block if line.strip()), "")


def _rows(path: Path, delimiter: str, *, scores: bool) -> Iterator[tuple[int, _Columns, list[str]]]:
    """Yield (line on which the row starts, columns, cells) of every row under the header."""
    reader = csv.reader(
        (line for _, block in read_blocks(path) for line in block), delimiter=delimiter, strict=True
    )
    columns: _Columns | None = None
    header_line = width = rows = 0
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            # A quote that is never closed swallows the file: the fault is where the row starts.
            raise ListError(path, line, f"is no row of a table ({error}); correct it") from None
        if row is None:
            break
        if len(row) <= 1 and not "".join(row).strip():
            continue
        if columns is None:
            columns, header_line, width = _columns(path, line, row, scores), line, len(row)
        elif len(row) != width:
            raise ListError(
                path,
                line,
                f"has {len(row)} cells, but the header has {width}; correct the row, or put names "
                "that hold the separator in quotes",
            )
        else:
            rows += 1
            yield line, columns, row
    if not rows:
        raise ListError(
            path,
            header_line or 1,
            "no pairs follow; give a list with at least one",
            understood=True,
        )


def _columns(path: Path, line: int, header: list[str], scores: bool) -> _Columns:
    cells = [cell.strip().lower() for cell in header]
    labels = [name for name in _LABELS if name in cells]
    names = [pair for pair in _NAMES if pair[0] in cells and pair[1] in cells]
    twice = next((cell for cell in cells if cell and cells.count(cell) > 1), None)
    fault = ""
    if not labels:
        fault = f"no column of the header is a label; name it one of {', '.join(_LABELS)}"
    elif len(labels) > 1 or len(names) > 1:
        several = " and ".join(labels if len(labels) > 1 else map("/".join, names))
        fault = f"the header has both {several}; keep one, rename the other"
    elif twice is not None:
        fault = f"the header names {shown(twice)} twice; rename one"
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


def _label(path: Path, line: int, text: str) -> bool:
    value = _VALUES.get(text.strip().lower())
    if value is None:
        raise ListError(
            path,
            line,
            f"the label {shown(text)} is none of {', '.join((*_TRUE, *_FALSE))}; correct it",
        )
    return value


def _fold(path: Path, line: int, text: str) -> int:
    fold = whole_number(text.strip())
    if fold is None:
        raise ListError(path, line, f"the fold {shown(text)} is no whole number; correct it")
    return fold


def _fold_rows(path: Path, folds: list[int]) -> np.ndarray | None:
    """Folds numbered from 0 in the order of their numbers (P,) int16."""
    if not folds:
        return None
    names, rows = np.unique(np.array(folds, dtype=np.int64), return_inverse=True)
    if len(names) > np.iinfo(np.int16).max:
        raise InputError(f"{path}: {len(names)} folds are too many; rename the column `fold`")
    return rows.astype(np.int16)
