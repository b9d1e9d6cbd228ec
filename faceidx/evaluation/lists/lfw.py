"""LFW's own lists: `pairs.txt`, `pairsDevTrain.txt`, `pairsDevTest.txt`, and RFW's without header.

A genuine pair is `name a b`, an impostor pair `name a name b`, where `a` is the picture
`name/name_000a` with whatever suffix the picture has (README of LFW's view 2, section 3c).
A header `FOLDS N` announces FOLDS times N genuine, then N impostor pairs; a header `N` announces
one such block (view 1). Without a header the folds are the list's own where it consists of ten
equal blocks of genuine, then impostor pairs, which is how RFW publishes its lists.
Fields may be set apart by commas, below a line `name,imagenum1,imagenum2,`, as Kaggle has the list.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from faceidx.evaluation.lists.gathered import Pairs
from faceidx.evaluation.lists.lines import ListError, parse_lines, split, whole_number
from faceidx.evaluation.lists.pairs import PairList

_MOST_FOLDS = int(np.iinfo(np.int16).max)
_TITLE = re.compile("name,imagenum")
_WANTED = "pair `name a b` or `name a name b`, nor a header `FOLDS N` or `N`"


class _Header(NamedTuple):
    folds: int | None
    """None where the header gives one number only."""
    size: int
    """Genuine pairs of a fold, and as many impostor pairs."""

    @property
    def pairs(self) -> int:
        return 2 * self.size * (self.folds or 1)


class _Title(NamedTuple):
    """The line that names the columns of a table."""


class _Pair(NamedTuple):
    left: str
    a: int
    right: str
    b: int
    genuine: bool


def read_lfw(path: Path) -> PairList:
    """Read a list of LFW's format; its keys are stems.

    Raises:
        ListError: a line is not understood, or the header does not agree with the pairs.
    """
    pairs = Pairs()
    header: _Header | None = None
    line = 0
    lines: Iterator[tuple[int, _Pair | _Header | _Title]] = parse_lines(path, _parse, _WANTED)
    for place, (line, parsed) in enumerate(lines):
        if isinstance(parsed, _Header | _Title):
            if place:
                raise ListError(path, line, "only the first line may be a header; remove this one")
            header = _checked(path, line, parsed) if isinstance(parsed, _Header) else None
            continue
        if header:
            _check_place(path, line, header, len(pairs), parsed.genuine)
        if not parsed.genuine and parsed.left == parsed.right:
            raise ListError(
                path,
                line,
                "an impostor pair names one person twice; write a genuine pair as `name a b`",
            )
        left, right = _stem(parsed.left, parsed.a), _stem(parsed.right, parsed.b)
        pairs.add(line, left, right, parsed.genuine)
    if header and len(pairs) < header.pairs:
        raise ListError(
            path,
            line,
            f"the list ends after {len(pairs)} pairs, but its header announces {header.pairs}; "
            "correct the header or complete the list",
            understood=True,
        )
    result = pairs.finish(path, "lfw", stems=True)
    if header is None:
        result.folds = blocks_as_folds(result.genuine)
    elif header.folds is not None:
        result.folds = blocks_as_folds(result.genuine, header.folds)
    return result


def _parse(line: str) -> _Pair | _Header | _Title | None:
    if "," in line:
        if _TITLE.match(line.lower()):
            return _Title()
        cells = [cell.strip(" \t") for cell in line.rstrip(", \t").split(",")]
        if len(cells) not in (3, 4) or not all(cells):
            return None
        line = "\t".join(cells)
    fields = split(line, 3)
    if fields:
        a, b = whole_number(fields[1]), whole_number(fields[2])
        if a is not None and b is not None:
            return _Pair(fields[0], a, fields[0], b, True)
    fields = split(line, 4)
    if fields:
        a, b = whole_number(fields[1]), whole_number(fields[3])
        if a is not None and b is not None:
            return _Pair(fields[0], a, fields[2], b, False)
    if len(spaced := [field for field in line.replace("\t", " ").split(" ") if field]) > 3:
        return _spaced(spaced)
    folds, size = map(whole_number, split(line, 2) or ("1", line))
    if folds is None or size is None:
        return None
    return _Header(folds if split(line, 2) else None, size)


def _spaced(fields: list[str]) -> _Pair | None:
    """Parse a line with blanks in its names, where it can be read in one way only."""
    numbers = [whole_number(field) for field in fields]
    last = numbers[-1]
    # Places of the first picture's number: the last but one of a genuine pair, else further ahead.
    places = [place for place in range(1, len(fields) - 1) if numbers[place] is not None]
    if last is None or len(places) != 1:
        return None
    place, first = places[0], numbers[places[0]]
    assert first is not None
    left, right = (" ".join(part) for part in (fields[:place], fields[place + 1 : -1]))
    return _Pair(left, first, right or left, last, genuine=not right)


def _stem(name: str, number: int) -> str:
    return f"{name}/{name}_{number:04d}"


def _checked(path: Path, line: int, header: _Header) -> _Header:
    if header.size == 0 or header.folds == 0 or (header.folds or 1) > _MOST_FOLDS:
        raise ListError(
            path,
            line,
            f"a header announces one to {_MOST_FOLDS} folds of at least one genuine pair; "
            "correct the header",
        )
    return header


def _check_place(path: Path, line: int, header: _Header, before: int, genuine: bool) -> None:
    """Refuse a pair that the header does not announce in this place."""
    if before >= header.pairs:
        raise ListError(
            path,
            line,
            f"the header announces {header.pairs} pairs, but there are more; correct the header",
        )
    expected = before % (2 * header.size) < header.size
    if genuine != expected:
        kinds = ("genuine", "impostor") if expected else ("impostor", "genuine")
        raise ListError(
            path,
            line,
            f"by the header (blocks of {header.size}) pair {before + 1} is {kinds[0]}, but this "
            f"line is written as {kinds[1]}; correct the header or the line",
        )


def blocks_as_folds(genuine: np.ndarray, folds: int = 10) -> np.ndarray | None:
    """Fold of each pair (P,) int16, where the list consists of so many equal blocks.

    A block holds genuine pairs, then as many impostor pairs.
    """
    size, rest = divmod(len(genuine), 2 * folds)
    pattern = np.tile(np.repeat([True, False], size), folds)
    if rest or not np.array_equal(pattern, genuine):
        return None
    return np.repeat(np.arange(folds, dtype=np.int16), 2 * size)
