"""Which group each picture of a list belongs to: `--groups FILE.csv`, and how its names are found.

The file is a table with a header, a row for each person (`identity,group`) or each picture
(`path,group`). Columns are found by name, in any letter case and order; others are ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from faceidx.errors import InputError
from faceidx.evaluation.lists.finding import find_names
from faceidx.evaluation.lists.lines import ListError, keys_of, shown
from faceidx.evaluation.lists.pairs import PairList, ScoreList
from faceidx.evaluation.lists.table import delimiter_of, table_rows
from faceidx.evaluation.lists.words import named_twice
from faceidx.evaluation.scoring import people_of
from faceidx.images.keys import escape_bytes, escape_key

Kind = Literal["identity", "path"]
# The second of two names counts only where a table has neither `identity` nor `path`.
_COLUMNS: tuple[dict[str, Kind], ...] = (
    {"identity": "identity", "path": "path"},
    {"name": "identity", "picture": "path"},
)
_GROUP = "group"


@dataclass(frozen=True, kw_only=True)
class GroupTable:
    """The groups of people or of pictures."""

    path: Path
    kind: Kind
    keys: list[str]
    """(N,) unique identities or pictures, escaped as in embeddings files."""
    groups: list[str]
    """(N,) the group of each."""


@dataclass(frozen=True, kw_only=True)
class Members:
    """The pictures (or templates) of a list and their groups."""

    table: GroupTable
    names: list[str]
    """(K,) what the table is asked for: people or pictures."""
    groups: list[str]
    """(G,) every group of the table, sorted."""
    group: np.ndarray
    """(K,) int64, row in `groups`, or -1 where the table does not have the name."""
    left: np.ndarray
    """(P,) integers, row in `names`."""
    right: np.ndarray
    """(P,) integers, row in `names`."""


def read_groups(path: Path) -> GroupTable:
    """Read the groups of people or of pictures from a CSV or TSV.

    Raises:
        InputError: the file is missing, the header does not say which column is which, a cell is
            empty, or a name stands in two groups; the message names file and line.
    """
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; give a CSV with the columns `identity,group` or `path,group`"
        )
    kind: Kind = "path"
    lines, names, groups = [], [], []
    rows_of_table = table_rows(
        path, delimiter_of(path), lambda line, cells: _columns(path, line, cells), "groups"
    )
    for line, columns, row in rows_of_table:
        kind = columns.kind
        lines.append(line)
        names.append(_filled(path, line, row[columns.name], kind))
        groups.append(_filled(path, line, row[columns.group], _GROUP))
        if not _is_utf8(groups[-1]):
            raise ListError(path, line, "the group is not written in UTF-8; save the file so")
    keys = _keys(names, kind)
    first: dict[str, int] = {}  # row in which each key stands first
    for place, key in enumerate(keys):
        before = first.setdefault(key, place)
        if groups[before] != groups[place]:
            raise ListError(
                path,
                lines[place],
                f"{shown(names[place])} is in the group {shown(groups[place])} here, but in "
                f"{shown(groups[before])} in line {lines[before]}; keep one of the two",
            )
    return GroupTable(
        path=path, kind=kind, keys=list(first), groups=[groups[place] for place in first.values()]
    )


def members_of(
    table: GroupTable, listed: PairList | ScoreList, people: Sequence[str] | None = None
) -> Members:
    """Find the group of every picture of a list.

    A table of people is asked for the person of each picture. A table of pictures is asked for the
    picture as `resolve` looks for it; for templates it may name the templates by their ids, or
    their pictures, of which the first that it names counts.

    Args:
        people: (K,) the person of each key of a list of pairs, empty where unknown. For scores
            they are the folders of the names.

    Raises:
        InputError: the scores come without names, or a name fits two pictures of the table.
    """
    if isinstance(listed, PairList):
        keys, left, right = listed.keys, listed.left, listed.right
    elif listed.left is None or listed.right is None:
        raise InputError(f"{listed.path} does not name the pictures; --groups needs their names")
    else:
        names, left, right = listed.numbered()
        keys = [escape_key(name) for name in names]
    if table.kind == "identity":
        names = list(people) if people is not None else people_of(keys, [""] * len(keys))
    else:
        names = keys
    rows = _find(table, names, listed)
    if table.kind == "path" and isinstance(listed, PairList) and listed.templates is not None:
        of_picture = _find(table, listed.templates.pictures, listed)
        standing = of_picture[listed.templates.first_pictures(of_picture >= 0)]
        rows = np.where(rows >= 0, rows, standing)
    groups = sorted(set(table.groups))
    number = {group: row for row, group in enumerate(groups)}
    of_key = np.array([number[group] for group in table.groups] + [-1], dtype=np.int64)
    return Members(
        table=table,
        # A picture of an unknown person is told by its own name.
        names=[name or key for name, key in zip(names, keys, strict=True)],
        groups=groups,
        group=of_key[rows],
        left=left,
        right=right,
    )


class _Columns(NamedTuple):
    """Places of the known columns in a row."""

    kind: Kind
    name: int
    group: int


def _columns(path: Path, line: int, cells: list[str]) -> _Columns:
    kinds = next((kinds for kinds in _COLUMNS if kinds.keys() & set(cells)), {})
    found = [name for name in kinds if name in cells]
    if twice := named_twice(cells):
        fault = twice
    elif len(found) > 1:
        fault = f"the header has both {' and '.join(found)}; keep one, rename the other"
    elif not found:
        fault = "no column of the header is named `identity` or `path`; name one of them so"
    elif _GROUP not in cells:
        fault = f"no column of the header is named `{_GROUP}`; name it so"
    else:
        return _Columns(kinds[found[0]], cells.index(found[0]), cells.index(_GROUP))
    raise ListError(path, line, fault)


def _filled(path: Path, line: int, cell: str, column: str) -> str:
    cell = cell.strip()
    if not cell:
        raise ListError(path, line, f"the {column} is empty; fill it in or remove the row")
    return cell


def _is_utf8(text: str) -> bool:
    return not any("\udc80" <= letter <= "\udcff" for letter in text)


def _keys(names: list[str], kind: Kind) -> list[str]:
    """Escape names as lists of pairs and sources of pictures do: (N,), as many as names."""
    if kind == "identity":
        return [escape_bytes(name.encode("utf-8", "surrogateescape")) for name in names]
    keys, rows = keys_of(names)
    return [keys[row] for row in rows]


def _find(table: GroupTable, names: Sequence[str], listed: PairList | ScoreList) -> np.ndarray:
    """Find names in a table, also as if its author had escaped them already: (K,) row or -1."""
    prefix = listed.prefix if isinstance(listed, PairList) else ""
    stems = isinstance(listed, PairList) and listed.stems and table.kind == "path"

    def where(_: int) -> str:
        return str(table.path)

    rows = find_names(where, names, table.keys, prefix=prefix, stems=stems)
    missing = np.flatnonzero(rows < 0)
    if len(missing) and any("%25" in key for key in table.keys):
        keys = [key.replace("%25", "%") for key in table.keys]
        lacking = [names[place] for place in missing.tolist()]
        rows[missing] = find_names(where, lacking, keys, prefix=prefix, stems=stems)
    return rows
