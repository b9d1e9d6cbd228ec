"""IJB-B and IJB-C, 1:1, in insightface's files: templates of faces, and pairs of templates.

`meta/NAME_face_tid_mid.txt`: `picture template media` a face. `meta/NAME_template_pair_label.txt`:
`template template 0|1` a pair, 15.7 million of them in IJB-C, so they are read a block at a time
by numpy, and line by line only where a block is not understood.
"""

from __future__ import annotations

import warnings
from array import array
from pathlib import Path

import numpy as np

from faceidx.errors import InputError
from faceidx.evaluation.lists.gathered import Pairs
from faceidx.evaluation.lists.lines import (
    ListError,
    parse_lines,
    read_blocks,
    shown,
    split,
    whole_number,
)
from faceidx.evaluation.lists.pairs import PairList, Templates

_FACES, _PAIRS = "_face_tid_mid.txt", "_template_pair_label.txt"
_WANTED = "pair of templates `template template 0|1`"
_Block = tuple[np.ndarray, np.ndarray]


def is_ijb(folder: Path) -> bool:
    """Whether a folder, or its folder `meta`, holds insightface's lists."""
    return bool(_face_lists(folder))


def read_ijb(folder: Path) -> PairList:
    """Read templates and pairs of templates; the keys are the templates' ids.

    Args:
        folder: the one that holds the two lists, or holds them in its folder `meta`.

    Raises:
        InputError: a list is missing, a line is not understood, or a pair names a template that
            has no faces.
    """
    lists = _face_lists(folder)
    if len(lists) != 1:
        found = " and ".join(shown(path.name) for path in lists[:2]) or "none"
        raise InputError(
            f"{folder}: one file named *{_FACES} should list the faces, but there is {found}; "
            "give the folder of IJB-B or of IJB-C"
        )
    faces = lists[0]
    pairs = faces.with_name(faces.name.removesuffix(_FACES) + _PAIRS)
    ids, templates = _read_faces(faces)
    left, right, genuine, lines = _read_pairs(pairs, ids)
    return PairList(
        path=folder,
        format="ijb",
        keys=[str(template) for template in ids.tolist()],
        left=left,
        right=right,
        genuine=genuine,
        lines=lines,
        templates=templates,
    )


def _face_lists(folder: Path) -> list[Path]:
    return [p for where in (folder, folder / "meta") for p in sorted(where.glob(f"*{_FACES}"))]


def _read_faces(path: Path) -> tuple[np.ndarray, Templates]:
    """Return the templates' ids (T,) int64 in order of first appearance, and their faces."""
    faces = Pairs()  # a face is read as a picture paired with itself, for its keys
    ids, media = array("q"), array("q")
    for line, (name, template, medium) in parse_lines(path, _face, "face `picture template media`"):
        faces.add(line, name, name, True)
        ids.append(template)
        media.append(medium)
    listed = faces.finish(path, "ijb")
    unique, first, places = np.unique(
        np.frombuffer(ids, dtype=np.int64), return_index=True, return_inverse=True
    )
    order = np.argsort(first)
    row = np.empty(len(order), dtype=np.int64)
    row[order] = np.arange(len(order))
    templates = Templates(
        pictures=listed.keys,
        picture=listed.left,
        template=row[places],
        media=np.frombuffer(media, dtype=np.int64),
    )
    return unique[order], templates


def _face(line: str) -> tuple[str, int, int] | None:
    fields = split(line, 3)
    if fields is None:
        return None
    template, media = whole_number(fields[1]), whole_number(fields[2])
    return None if template is None or media is None else (fields[0], template, media)


def _read_pairs(
    path: Path, ids: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return left and right rows in `ids`, labels and lines, (P,) each."""
    order = np.argsort(ids)
    left, right, genuine, lines = [], [], [], []
    for first, block in read_blocks(path):
        numbers, numbers_lines = _read_fast(first, block) or _read_slowly(path, first, block)
        rows = _rows(path, ids, order, numbers[:, :2], numbers_lines)
        left.append(rows[:, 0].astype(np.int32))
        right.append(rows[:, 1].astype(np.int32))
        genuine.append(numbers[:, 2] == 1)
        lines.append(numbers_lines.astype(np.int32))
    if not sum(map(len, lines)):
        raise InputError(f"{path}: holds no pairs; give a list with at least one")
    return (
        np.concatenate(left),
        np.concatenate(right),
        np.concatenate(genuine),
        np.concatenate(lines),
    )


def _read_fast(first: int, block: list[str]) -> _Block | None:
    """Read a block of which every line is a pair; None where some line is not, or is blank."""
    text = "".join(block)
    if not text.isascii() or text.encode().translate(None, b"0123456789 \t\n"):
        return None  # numpy would take more kinds of blanks, and signs
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            numbers = np.loadtxt(block, dtype=np.int64, comments=None, ndmin=2)
    except (ValueError, OverflowError, Warning):
        return None
    understood = numbers.shape == (len(block), 3) and numbers.min() >= 0
    if not understood or numbers[:, 2].max() > 1:
        return None
    return numbers, np.arange(first, first + len(block), dtype=np.int64)


def _read_slowly(path: Path, first: int, block: list[str]) -> _Block:
    """Read a block line by line, leaving out blank lines."""
    rows, lines = [], []
    for line, text in enumerate(block, first):
        if not text.strip(" \t\n"):
            continue
        numbers = [whole_number(field) for field in split(text.strip(" \t\n"), 3) or [""]]
        if None in numbers or numbers[2] not in (0, 1):
            raise ListError(path, line, f"{shown(text.strip())} is no {_WANTED}; correct the line")
        rows.append(numbers)
        lines.append(line)
    return np.array(rows, dtype=np.int64).reshape(-1, 3), np.array(lines, dtype=np.int64)


def _rows(
    path: Path, ids: np.ndarray, order: np.ndarray, wanted: np.ndarray, lines: np.ndarray
) -> np.ndarray:
    """Row in `ids` of each template of a block (n, 2)."""
    places = np.searchsorted(ids, wanted, sorter=order)
    rows = order[np.minimum(places, len(ids) - 1)]
    unknown = np.argwhere(ids[rows] != wanted)
    if len(unknown):
        pair, side = unknown[0]
        raise ListError(
            path,
            int(lines[pair]),
            f"the template {wanted[pair, side]} has no faces in *{_FACES}; take both lists from "
            "one set",
        )
    return rows
