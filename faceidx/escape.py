"""Make hostile text (names of pictures and people) safe for the place it is shown in.

HTML goes through the standard library's `html.escape`; here are the places it has nothing for.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from typing import TextIO

# A spreadsheet runs a cell that starts with one of these as a formula (OWASP, "CSV injection").
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def for_terminal(text: str) -> str:
    """Replace what could steer a terminal (control and format characters) by `\\xNN` escapes."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def for_csv(text: str) -> str:
    """Put a `'` before a name that a spreadsheet would run as a formula."""
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def write_csv(file: TextIO, header: Sequence[str], rows: Iterable[Sequence[object]]) -> int:
    """Write a header and rows, every text cell guarded by `for_csv`; return the number of rows.

    Floats are written with `repr`, so that reading them back gives the same value.
    """
    writer = csv.writer(file, lineterminator="\n")
    # Python up to 3.12 leaves a carriage return unquoted, at which every reader ends the row.
    quoting = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(header)
    count = 0
    for row in rows:
        cells = [_cell(value) for value in row]
        split = any(isinstance(cell, str) and "\r" in cell for cell in cells)
        (quoting if split else writer).writerow(cells)
        count += 1
    return count


def _cell(value: object) -> object:
    if isinstance(value, str):
        return for_csv(value)
    if isinstance(value, float):
        return repr(float(value))
    return "" if value is None else value
