"""Results as rows of a file, and the table of answers that `classify` gives."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple, TextIO, TypeVar

from faceidx.escape import for_terminal, write_csv
from faceidx.files import whole_file

ANSWER_HEADER = ("path", "rank", "identity", "score", "decision")
MATCH, UNKNOWN = "match", "unknown"
TOP_K = 5
"""People that are listed for each probe where no number is given."""
FIRST = 20
"""Rows that are shown on a terminal."""
# Of a table's columns of names, so that most lines of a table written as a stream are aligned.
_NARROWEST = {"path": 40, "match": 40, "identity": 24, "score": 9}

Row = TypeVar("Row", bound=tuple)


class Answer(NamedTuple):
    """Who a probe may be: a row of the table, in the order of `ANSWER_HEADER`."""

    path: str
    rank: int | None
    """None where the probe has no embedding to look up."""
    identity: str
    score: float | None
    """Cosine in a gallery, probability from a classifier."""
    decision: str
    """`match` or `unknown`."""


def write_rows(out: Path | None, header: Sequence[str], rows: Iterable[Row]) -> list[Row]:
    """Write rows to a file, whole or not at all; without `out` only run through them.

    The suffix says how: `.jsonl` (or `.ndjson`) an object a row with the header's names, `.txt` a
    table for reading, and all others CSV.

    Returns:
        The first of them, `FIRST` at most.
    """
    first: list[Row] = []

    def kept() -> Iterator[Row]:
        for row in rows:
            if len(first) < FIRST:
                first.append(row)
            yield row

    if out is None:
        for _ in kept():
            pass
        return first
    with whole_file(out) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        suffix = out.suffix.lower()
        if suffix in (".jsonl", ".ndjson"):
            _write_lines(file, header, kept())
        elif suffix == ".txt":
            _write_table(file, header, kept())
        else:
            write_csv(file, header, kept())
    return first


def _write_lines(file: TextIO, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    for row in rows:
        file.write(json.dumps(dict(zip(header, row, strict=True)), allow_nan=False) + "\n")


def _write_table(file: TextIO, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns start below their names; a long text pushes the rest of its line to the right."""
    widths = [max(_NARROWEST.get(name, 0), len(name)) for name in header]
    for cells in chain([header], rows):
        texts = (_cell(cell).ljust(width) for cell, width in zip(cells, widths, strict=True))
        file.write("  ".join(texts).rstrip() + "\n")


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6f}"
    return "" if value is None else for_terminal(str(value))
