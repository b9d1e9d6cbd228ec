"""Results as rows of a CSV file, with the first of them kept to show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from faceidx.escape import write_csv
from faceidx.files import whole_file

_SHOWN = 20

Row = TypeVar("Row", bound=tuple)


def write_rows(out: Path | None, header: Sequence[str], rows: Iterable[Row]) -> list[Row]:
    """Write rows to a CSV file, whole or not at all; without `out` only run through them.

    Returns:
        The first 20 rows.
    """
    first: list[Row] = []

    def kept() -> Iterator[Row]:
        for row in rows:
            if len(first) < _SHOWN:
                first.append(row)
            yield row

    if out is None:
        for _ in kept():
            pass
        return first
    with whole_file(out) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        write_csv(file, header, kept())
    return first
