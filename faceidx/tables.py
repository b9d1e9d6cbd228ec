"""Results as rows of a CSV file, and the table of answers that `classify` gives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from faceidx.escape import write_csv
from faceidx.files import whole_file

ANSWER_HEADER = ("path", "rank", "identity", "score", "decision")
MATCH, UNKNOWN = "match", "unknown"
_SHOWN = 20

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
