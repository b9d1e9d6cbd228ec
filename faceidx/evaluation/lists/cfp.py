"""Celebrities in Frontal-Profile: the folder `Protocol` of the data set as published.

`Pair_list_F.txt` (frontal) and `Pair_list_P.txt` (profile) number the pictures, one `number path`
a line, the paths relative to `Protocol`. `Split/FF/NN` and `Split/FP/NN` hold a fold each:
`same.txt` and `diff.txt` with a pair of numbers `i,j` a line, `i` frontal, `j` frontal in FF and
profile in FP (Sengupta et al., Frontal to Profile Face Verification in the Wild, WACV 2016).
"""

from __future__ import annotations

import posixpath
from pathlib import Path

import numpy as np

from faceidx.errors import InputError
from faceidx.evaluation.lists.gathered import Pairs
from faceidx.evaluation.lists.lines import ListError, parse_lines, read_lines, whole_number
from faceidx.evaluation.lists.pairs import PairList

CFP_FORMATS = {"cfp-ff": ("FF", "F", "F"), "cfp-fp": ("FP", "F", "P")}
_PICTURES = "Data/Images/"


def cfp_formats(folder: Path) -> list[str]:
    """The formats for which a folder has the pairs, none where it is no copy of CFP."""
    protocol = _protocol(folder)
    if protocol is None:
        return []
    return [
        name for name, (kind, _, _) in CFP_FORMATS.items() if (protocol / "Split" / kind).is_dir()
    ]


def read_cfp(folder: Path, name: str) -> PairList:
    """Read the folds of CFP's frontal-frontal or frontal-profile protocol.

    Keys are relative to the data set's folder (`Data/Images/001/frontal/01.jpg`); `lines` count
    within each of the folds' files.

    Args:
        folder: the data set, or its folder `Protocol`.
        name: `cfp-ff` or `cfp-fp`.

    Raises:
        InputError: a file is missing, a line is not understood or names an unknown number.
    """
    protocol = _protocol(folder)
    if protocol is None:
        raise InputError(
            f"{folder}: no Protocol/Pair_list_F.txt; give the folder of CFP as published"
        )
    kind, left_list, right_list = CFP_FORMATS[name]
    left_pictures = _read_pictures(protocol / f"Pair_list_{left_list}.txt")
    right_pictures = _read_pictures(protocol / f"Pair_list_{right_list}.txt")
    pairs = Pairs()
    folds: list[int] = []
    for fold, split in enumerate(_splits(protocol / "Split" / kind)):
        for file_name, genuine in (("same.txt", True), ("diff.txt", False)):
            file = split / file_name
            before = len(pairs)
            for line, (i, j) in parse_lines(file, _numbers, "pair of numbers `i,j`"):
                left = _picture(file, line, left_pictures, i)
                pairs.add(line, left, _picture(file, line, right_pictures, j), genuine)
            if len(pairs) == before:
                raise InputError(f"{file}: holds no pairs; complete the folder")
            folds += [fold] * (len(pairs) - before)
    return pairs.finish(folder, name, folds=np.array(folds), prefix=_PICTURES)


def _protocol(folder: Path) -> Path | None:
    candidates = (folder / "Protocol", folder)
    return next((p for p in candidates if (p / "Pair_list_F.txt").is_file()), None)


def _read_pictures(path: Path) -> dict[int, str]:
    """Return the picture's name, relative to the data set, by number."""
    pictures: dict[int, str] = {}
    for line, text in read_lines(path):
        head = text.partition("\t")[0].partition(" ")[0]
        number = whole_number(head)
        name = posixpath.normpath(posixpath.join("Protocol", text[len(head) :].strip()))
        if number is None or name in ("Protocol", "."):
            raise ListError(path, line, "is no line `number path`; correct the line")
        if name.startswith(("/", "..")):
            raise ListError(path, line, "the picture lies outside the data set; correct the path")
        if number in pictures:
            raise ListError(path, line, f"the number {number} is given twice; correct one")
        pictures[number] = name
    return pictures


def _splits(folder: Path) -> list[Path]:
    splits = [s for s in folder.iterdir() if s.is_dir()] if folder.is_dir() else []
    if not splits:
        raise InputError(f"{folder}: no folds; give the folder of CFP as published")
    stranger = next((s for s in splits if whole_number(s.name) is None), None)
    if stranger is not None:
        raise InputError(f"{stranger}: the folder of a fold has a number as its name; rename it")
    return sorted(splits, key=lambda split: (int(split.name), split.name))


def _numbers(line: str) -> tuple[int, int] | None:
    numbers = [whole_number(text.strip(" \t")) for text in line.split(",")]
    if len(numbers) != 2 or numbers[0] is None or numbers[1] is None:
        return None
    return numbers[0], numbers[1]


def _picture(path: Path, line: int, pictures: dict[int, str], number: int) -> str:
    if number not in pictures:
        raise ListError(path, line, f"no picture has the number {number}; correct the line")
    return pictures[number]
