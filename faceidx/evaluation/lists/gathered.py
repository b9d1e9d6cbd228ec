"""Pairs and scores as they are gathered from a file: a few bytes each, every name held once."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from faceidx.errors import InputError
from faceidx.evaluation.lists.lines import ListError, Rows, keys_of
from faceidx.evaluation.lists.pairs import Names, PairList, ScoreList


class _Gathered:
    """Labelled lines, and the two names of each."""

    def __init__(self) -> None:
        self._rows = Rows()
        self._names, self._lines = array("i"), array("i")
        self._genuine = bytearray()

    def __len__(self) -> int:
        return len(self._lines)

    def _extend(
        self, lines: Iterable[int], names: Iterable[Sequence[str]], genuine: Iterable[bool]
    ) -> None:
        self._lines.extend(lines)
        rows = list(map(self._rows.__getitem__, chain.from_iterable(names)))
        self._names.extend(array("i", rows))
        self._genuine.extend(genuine)

    # These share the memory of what was gathered.

    def _sides(self) -> tuple[np.ndarray, np.ndarray]:
        both = np.frombuffer(self._names, dtype=np.int32)
        return both[::2], both[1::2]

    def _labels(self) -> np.ndarray:
        return np.frombuffer(self._genuine, dtype=bool)

    def _numbers(self) -> np.ndarray:
        return np.frombuffer(self._lines, dtype=np.int32)


class Pairs(_Gathered):
    """Pairs as they are read."""

    def add(self, line: int, left: str, right: str, genuine: bool) -> None:
        """Add the pair that stands in a line."""
        self._lines.append(line)
        self._names.append(self._rows[left])
        self._names.append(self._rows[right])
        self._genuine.append(genuine)

    def extend(
        self,
        lines: Iterable[int],
        left: Sequence[str],
        right: Sequence[str],
        genuine: Iterable[bool],
    ) -> None:
        """Add the pairs that stand in many lines, the fast way."""
        self._extend(lines, zip(left, right, strict=True), genuine)

    def finish(
        self, path: Path, name: str, *, folds: np.ndarray | None = None, **more: Any
    ) -> PairList:
        """Return the list, its names turned into keys.

        Args:
            name: the list's format.
            folds: (P,) fold of each pair.
            more: other fields of `PairList`.

        Raises:
            InputError: there is not one pair.
        """
        if not self._lines:
            raise InputError(f"{path}: holds no pairs; give a list with at least one")
        keys, rows = keys_of(list(self._rows))
        left, right = self._sides()
        if len(keys) < len(rows):  # two names of one picture
            left, right = rows[left], rows[right]
        if "" in keys:
            nameless = np.flatnonzero((left == keys.index("")) | (right == keys.index("")))
            raise ListError(
                path, self._lines[nameless[0]], "a picture has no name; name it or remove the pair"
            )
        return PairList(
            path=path,
            format=name,
            keys=keys,
            left=left,
            right=right,
            genuine=self._labels(),
            lines=self._numbers(),
            folds=None if folds is None else np.asarray(folds, dtype=np.int16),
            **more,
        )


class Scores(_Gathered):
    """Scores as they are read."""

    def __init__(self) -> None:
        super().__init__()
        self._scores = array("d")

    def extend(
        self,
        lines: Iterable[int],
        scores: Iterable[float],
        genuine: Iterable[bool],
        names: Sequence[Sequence[str]] = (),
    ) -> None:
        """Add the scores that stand in many lines.

        Args:
            names: of their left and of their right pictures, where the file has them.
        """
        self._scores.extend(scores)
        self._extend(lines, zip(*names, strict=True), genuine)

    def finish(self, path: Path, name: str, *, folds: np.ndarray | None = None) -> ScoreList:
        """Return the list.

        Args:
            name: the list's format.
            folds: (P,) fold of each score.

        Raises:
            InputError: there is not one score, or only some of the pictures have names.
        """
        if not self._lines:
            raise InputError(f"{path}: holds no scores; give a list with at least one")
        keys = list(self._rows)
        if keys == [""]:  # as in a file that was written of scores without names
            keys = []
        elif "" in self._rows:
            nameless = self._names.index(self._rows[""]) // 2
            raise ListError(
                path,
                self._lines[nameless],
                "a picture's name is empty; name it, or leave out both columns of names",
            )
        left, right = (Names(keys, rows) if keys else None for rows in self._sides())
        return ScoreList(
            path=path,
            format=name,
            scores=np.frombuffer(self._scores, dtype=np.float64),
            genuine=self._labels(),
            lines=self._numbers(),
            folds=folds,
            left=left,
            right=right,
        )
