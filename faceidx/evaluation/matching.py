"""The same pairs in two files of scores: which score of one belongs to which of the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from faceidx.errors import InputError
from faceidx.evaluation.lists.lines import shown
from faceidx.evaluation.lists.pairs import ScoreList


def match_pairs(first: ScoreList, other: ScoreList) -> np.ndarray:
    """Find the pairs of the first file in the other one.

    Where both name the pictures, a pair is known by its two names, in either order, and its label;
    one that is listed k times must be so in both, and the k-th belongs to the k-th. Where one has
    no names, rows belong together as they come, and must agree in every label.

    Returns:
        (P,) int64, the row in the other file of each row of the first.

    Raises:
        InputError: the files do not hold the same pairs; the message names the first that one of
            them lacks, and how many each does.
    """
    return (
        _by_names(first, other) if has_names(first) and has_names(other) else _by_rows(first, other)
    )


def has_names(listed: ScoreList) -> bool:
    """Whether the scores say which pictures they are of."""
    return bool(listed.left) and bool(listed.right)


def short_names(paths: Sequence[Path]) -> list[str]:
    """Name files by their stems, or by as much of their ends as tells them apart."""
    names, parts = [path.stem for path in paths], 0
    while len(set(names)) < len(names) and parts < max(len(path.parts) for path in paths):
        parts += 1
        names = [str(Path(*path.parts[-parts:])) for path in paths]
    return names


class _Coded(NamedTuple):
    """The pairs of a file as numbers that are the same in both files."""

    codes: np.ndarray
    """(P,) int64: the two names, and the label in the lowest bit."""
    order: np.ndarray
    """(P,) rows by rising code; of equals those in the same order of names, then as they come."""
    sorted: np.ndarray
    """(P,) the codes in this order."""


def _by_names(first: ScoreList, other: ScoreList) -> np.ndarray:
    ours, theirs = _coded(first, other)
    if not np.array_equal(ours.sorted, theirs.sorted):
        raise _difference(first, ours, other, theirs)
    rows = np.empty(len(ours.order), dtype=np.int64)
    rows[ours.order] = theirs.order
    return rows


def _coded(first: ScoreList, other: ScoreList) -> tuple[_Coded, _Coded]:
    names, left, right = first.numbered()
    numbers = {name: number for number, name in enumerate(names)}
    other_names, *other_sides = other.numbered()
    renumbered = np.array(
        [numbers.setdefault(name, len(numbers)) for name in other_names], dtype=np.int64
    )
    other_left, other_right = (renumbered[side] for side in other_sides)
    return (
        _code(left.astype(np.int64), right.astype(np.int64), first.genuine, len(numbers)),
        _code(other_left, other_right, other.genuine, len(numbers)),
    )


def _code(left: np.ndarray, right: np.ndarray, genuine: np.ndarray, names: int) -> _Coded:
    codes = (np.minimum(left, right) * names + np.maximum(left, right)) * 2 + genuine
    order = np.lexsort((left > right, codes))
    return _Coded(codes, order, codes[order])


def _difference(first: ScoreList, ours: _Coded, other: ScoreList, theirs: _Coded) -> InputError:
    """Say what the two files do not share, by the first pair that one of them lacks."""
    lacking, lacking_there = _lacking(ours, theirs), _lacking(theirs, ours)
    contradicted = lacking[np.isin(ours.codes[lacking] ^ 1, theirs.codes[lacking_there])]
    if len(contradicted):
        row = int(contradicted[0])
        there = int(lacking_there[theirs.codes[lacking_there] == ours.codes[row] ^ 1][0])
        return InputError(
            f"{_place(other, there)}: {_pair(other, there)} is {_kind(not first.genuine[row])} "
            f"here, but {_kind(first.genuine[row])} in {_place(first, row)}; correct one of the two"
        )
    if len(lacking) == len(ours.codes):
        return InputError(
            f"{other.path} and {first.path} have no pair in common: {_place(first, 0)} names "
            f"{_pair(first, 0)}, {_place(other, 0)} {_pair(other, 0)}; compare scores of the same "
            "pairs, their pictures named alike"
        )
    if len(lacking):
        lister, lacker, coded, row = first, other, theirs, int(lacking[0])
        code = ours.codes[row]
    else:
        lister, lacker, coded, row = other, first, ours, int(lacking_there[0])
        code = theirs.codes[row]
    is_there = "is not so often" if np.any(coded.codes == code) else "is not"
    return InputError(
        f"{_place(lister, row)}: {_pair(lister, row)} {is_there} in {lacker.path}; "
        f"{other.path} lacks {len(lacking):,} of the {len(ours.codes):,} pairs of {first.path}, "
        f"which lacks {len(lacking_there):,} of its {len(theirs.codes):,}; compare scores of the "
        "same pairs (where a system found no face in some pictures, write them with "
        "--missing reject)"
    )


def _lacking(ours: _Coded, theirs: _Coded) -> np.ndarray:
    """Rows of our pairs that they do not have, or not so often; rising."""
    begin, end = (np.searchsorted(theirs.sorted, ours.sorted, side) for side in ("left", "right"))
    earlier = np.arange(len(ours.sorted)) - np.searchsorted(ours.sorted, ours.sorted, "left")
    return np.sort(ours.order[earlier >= end - begin])


def _by_rows(first: ScoreList, other: ScoreList) -> np.ndarray:
    way_out = (
        "name the pictures in columns left and right, or list the same pairs in the same order"
    )
    if len(first.scores) != len(other.scores):
        raise InputError(
            f"{other.path} holds {len(other.scores):,} scores and {first.path} "
            f"{len(first.scores):,}, and not both name their pictures; {way_out}"
        )
    wrong = np.flatnonzero(first.genuine != other.genuine)
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"{_place(other, row)}: score {row + 1:,} is of {_kind(other.genuine[row])} here, but "
            f"of {_kind(first.genuine[row])} in {_place(first, row)}, and not both name their "
            f"pictures; {len(wrong):,} labels differ; {way_out}"
        )
    return np.arange(len(first.scores))


def _place(listed: ScoreList, row: int) -> str:
    return f"{listed.path}:{listed.lines[row]}"


def _pair(listed: ScoreList, row: int) -> str:
    assert listed.left is not None and listed.right is not None
    return f"the pair {shown(listed.left[row])} and {shown(listed.right[row])}"


def _kind(genuine: bool | np.bool_) -> str:
    return "one person" if genuine else "two people"
