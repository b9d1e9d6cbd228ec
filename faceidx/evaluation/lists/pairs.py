"""What every reader of lists returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np


@dataclass(kw_only=True)
class Templates:
    """Faces that are averaged before they are compared: over each media first, then over media.

    F faces belong to the templates that are the `keys` of the `PairList`.
    """

    pictures: list[str]
    """Unique picture keys in order of first appearance."""
    picture: np.ndarray
    """(F,) int64, row in `pictures`."""
    template: np.ndarray
    """(F,) int64, row in the list's `keys`."""
    media: np.ndarray
    """(F,) int64, the media's own id; the same id in two templates means two groups."""

    def first_pictures(self, known: np.ndarray) -> np.ndarray:
        """Choose a picture for each template: its first that is known, or else its first.

        Args:
            known: bool, one a row of `pictures`.

        Returns:
            (K,) int64, row in `pictures`.
        """
        known_first = np.argsort(~known[self.picture], kind="stable")
        _, first = np.unique(self.template[known_first], return_index=True)
        return self.picture[known_first[first]]


@dataclass(kw_only=True)
class PairList:
    """P pairs over K keys, in the order of the file; self pairs and repeated pairs are kept."""

    path: Path
    format: str
    """The recognised format, one of `FORMATS`."""
    keys: list[str]
    """Unique keys in order of first appearance: pictures, escaped as in embeddings files, or
    templates where `templates` is given."""
    left: np.ndarray
    """(P,) int32 (half of what int64 takes for 10^8 pairs), row in `keys`."""
    right: np.ndarray
    """(P,) int32, row in `keys`."""
    genuine: np.ndarray
    """(P,) bool."""
    lines: np.ndarray
    """(P,) int32, from 1: the line of each pair, the first where a pair takes two; the pair's
    number in a file without lines."""
    folds: np.ndarray | None = None
    """(P,) int16, from 0, where the list has folds of its own."""
    stems: bool = False
    """The keys lack their suffix: `A/A_0001` stands for `A/A_0001.jpg`, `A/A_0001.png`, ..."""
    prefix: str = ""
    """The pictures may be known without this beginning of their keys (a folder read from deeper
    down)."""
    templates: Templates | None = None
    pictures: list[bytes] | None = None
    """The pictures themselves, encoded, one a key, where the list carries them."""


class Names(Sequence[str]):
    """P names, each different one held once.

    Args:
        different: (K) the different names.
        rows: (P,) int32, row in `different`.
    """

    def __init__(self, different: list[str], rows: np.ndarray) -> None:
        self.different, self.rows = different, rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Names: ...
    def __getitem__(self, place: int | slice) -> str | Names:
        if isinstance(place, slice):
            return Names(self.different, self.rows[place])
        return self.different[self.rows[place]]


@dataclass(kw_only=True)
class ScoreList:
    """P scores that were computed elsewhere; a higher score means more alike."""

    path: Path
    format: str
    scores: np.ndarray
    """(P,) float64, finite."""
    genuine: np.ndarray
    """(P,) bool."""
    lines: np.ndarray
    """(P,) int32, the line of each score, from 1."""
    folds: np.ndarray | None = None
    """(P,) int16, from 0, where the list has folds of its own."""
    left: Sequence[str] | None = None
    """Name of each score's left picture (P), where the file has one; as written but for blanks at
    its ends."""
    right: Sequence[str] | None = None
    people: tuple[np.ndarray, np.ndarray] | None = None
    """Number of the person on each side of each score, (P,) int32 each, where the file says it."""

    def numbered(self) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Number the names: (K) unique names, and the row in them of both sides, (P,) each.

        Without names there are none, and no rows.
        """
        if isinstance(self.left, Names) and isinstance(self.right, Names):
            return self.left.different, self.left.rows, self.right.rows
        rows: dict[str, int] = {}
        left, right = (
            np.array([rows.setdefault(name, len(rows)) for name in side or ()], dtype=np.int64)
            for side in (self.left, self.right)
        )
        return list(rows), left, right
