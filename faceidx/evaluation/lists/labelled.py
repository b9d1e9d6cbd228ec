"""Lists in which a label stands beside the pictures' names, without header.

`pairs01`: `left right 0|1` (CMU 11-785, MagFace). `01pairs`: `0|1 left right` (VoxCeleb). The label
may also be a word (`same`, `nontarget`), and a line that names the columns may stand before them.
`calfw`, `cplfw`, `agedb`: two lines a pair, each `picture token`, the token 0 for an impostor pair
and else the fold, or 1, of a genuine one.

Names may hold blanks where it is clear where each ends: by tabs, or by the ending of a picture.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np

from faceidx.evaluation.lists.gathered import Pairs
from faceidx.evaluation.lists.lines import (
    ListError,
    is_comment,
    parse_block,
    parse_lines,
    plain_columns,
    read_blocks,
    split,
    whole_number,
)
from faceidx.evaluation.lists.pairs import PairList
from faceidx.evaluation.lists.words import Labels, label_columns, label_value, name_columns
from faceidx.images.keys import PICTURE_EXTENSIONS

_PICTURE_ENDS = re.compile(rf"\.(?:{'|'.join(sorted(PICTURE_EXTENSIONS))})(?=[ \t]|$)", re.I)
TWO_LINE_FORMATS = ("calfw", "cplfw", "agedb")
# Published lists have ten folds. A higher token is a person's number in a list of pictures.
_MOST_FOLDS = 10
_TWO_LINES_WANTED = f"line `picture token` with a token from 0 to {_MOST_FOLDS}"


def read_pairs01(path: Path) -> PairList:
    """Read lines `left right 0|1`.

    Raises:
        ListError: a line is not understood.
    """
    return _read(path, "pairs01", (0, 1, 2), "pair `left right 0|1`")


def read_01pairs(path: Path) -> PairList:
    """Read lines `0|1 left right`.

    Raises:
        ListError: a line is not understood.
    """
    return _read(path, "01pairs", (1, 2, 0), "pair `0|1 left right`")


def _read(path: Path, name: str, places: tuple[int, int, int], wanted: str) -> PairList:
    """Read three fields a line; `places` says which are left name, right name and label."""
    pairs, labels = Pairs(), Labels()
    begun = False
    for first, block in read_blocks(path):
        begun = begun or _begins(block, places)
        columns = None if _holds_commas(block) else plain_columns(block, 3)
        if columns is not None:
            left, right, said = (columns[place] for place in places)
            values = labels.values(said)
            if values is not None:
                genuine = map(values.__getitem__, said)
                pairs.extend(range(first, first + len(block)), left, right, genuine)
                continue
        parse = partial(_parse, labels, places)
        for line, fields in parse_block(path, first, block, parse, wanted):
            pairs.add(line, *fields)
    return pairs.finish(path, name)


def _begins(block: list[str], places: tuple[int, int, int]) -> bool:
    """Whether the list begins in this block; a line that names the columns is made a blank one."""
    lines = ((number, line.strip(" \t\n")) for number, line in enumerate(block))
    first = next((found for found in lines if found[1] and not is_comment(found[1])), None)
    if first is None:
        return False
    number, line = first
    cells = line.lower().split()
    names = name_columns(cells)
    if len(cells) == 3 and "\t" not in line and names == [places[:2]]:
        label = cells[places[2]]
        if label_columns(cells, names) == [places[2]] and label_value(label) is None:
            block[number] = "\n"
    return True


def _holds_commas(block: list[str]) -> bool:
    """Whether commas may set fields apart, which makes the list a table."""
    text = "".join(block)
    return ", " in text or ",\t" in text


def _parse(labels: Labels, places: tuple[int, int, int], line: str) -> tuple[str, str, bool] | None:
    fields = split(line, 3) or _spaced(line, label_first=places[2] == 0)
    if fields is None:
        return None
    left, right, label = (fields[place] for place in places)
    values = labels.values([label])
    return None if values is None or left.endswith(",") else (left, right, values[label])


def _spaced(line: str, *, label_first: bool) -> list[str] | None:
    """Split a line whose names hold blanks and end like pictures do."""
    label, names = _cut(line, first=label_first)
    both = spaced_pictures(names)
    if both is None:
        return None
    return [label, *both] if label_first else [*both, label]


def spaced_pictures(names: str) -> list[str] | None:
    """Part two names that hold blanks and end like pictures do."""
    ends = [end.end() for end in _PICTURE_ENDS.finditer(names)]
    if len(ends) != 2 or ends[1] != len(names):
        return None
    return [names[: ends[0]], names[ends[0] :].strip(" \t")]


def _cut(line: str, *, first: bool) -> tuple[str, str]:
    """Cut off the first or the last field of a line: (field, the rest)."""
    line = line.replace("\t", " ")
    head, _, tail = line.partition(" ") if first else line.rpartition(" ")
    field, rest = (head, tail) if first else (tail, head)
    return field, rest.strip(" ")


def read_two_lines(path: Path, name: str | None = None) -> PairList:
    """Read two lines `picture token` a pair.

    CALFW numbers the folds of its genuine pairs and gives every impostor pair the token 0. Where
    there are as many impostor as genuine pairs, the k-th impostor pair belongs to the fold of the
    k-th genuine one, which is how CALFW's ten folds are read in practice; else the list has none.

    Args:
        name: the format to report; by default the one that the file's name holds, or `calfw`.

    Raises:
        ListError: a line is not understood, the two lines of a pair differ, or one is missing.
    """
    pairs = Pairs()
    tokens = bytearray()
    first: tuple[int, str, int] | None = None
    for line, (picture, token) in parse_lines(path, _name_then_token, _TWO_LINES_WANTED):
        if first is None:
            first = line, picture, token
            continue
        if token != first[2]:
            raise ListError(
                path,
                line,
                f"the pair's first picture (line {first[0]}) has the token {first[2]}, this one "
                f"{token}; both lines of a pair carry the same",
            )
        pairs.add(first[0], first[1], picture, token > 0)
        tokens.append(token)
        first = None
    if first is not None:
        raise ListError(
            path, first[0], "the pair's second line is missing; complete the list", understood=True
        )
    return pairs.finish(path, name or _name_of(path), folds=_folds(np.frombuffer(tokens, np.uint8)))


def _name_then_token(line: str) -> tuple[str, int] | None:
    fields = split(line, 2) or _spaced_picture(line)
    token = whole_number(fields[1]) if fields else None
    if fields is None or token is None or token > _MOST_FOLDS:
        return None
    return fields[0], token


def _spaced_picture(line: str) -> list[str] | None:
    token, picture = _cut(line, first=False)
    ends = [end.end() for end in _PICTURE_ENDS.finditer(picture)]
    return [picture, token] if ends == [len(picture)] else None


def _name_of(path: Path) -> str:
    name = path.name.lower()
    return next((known for known in TWO_LINE_FORMATS if known in name), TWO_LINE_FORMATS[0])


def _folds(tokens: np.ndarray) -> np.ndarray | None:
    genuine = tokens[tokens > 0]
    names, places = np.unique(genuine, return_inverse=True)
    if len(names) < 2 or 2 * len(genuine) != len(tokens):
        return None
    folds = np.empty(len(tokens), dtype=np.int16)
    folds[tokens > 0] = places
    folds[tokens == 0] = places
    return folds
