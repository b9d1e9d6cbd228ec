"""What of a finished file can stay when it is brought up to date, and what is to be embedded."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from faceidx.embedding.merge import Kept
from faceidx.embedding.pipeline import PipelineOptions
from faceidx.embedding.roll import Counts
from faceidx.embedding.store import EmbeddingFile, Left
from faceidx.errors import InputError
from faceidx.images.pictures import Picture
from faceidx.images.prepare import FACE

_BLOCK = 8192


@dataclass(kw_only=True)
class Plan:
    """How a finished file is brought up to date."""

    todo: Sequence[Picture]
    kept: Kept
    pictures: int
    """Pictures whose rows are kept."""
    removed: int
    """Pictures of the file that the source does not hold any more."""

    @property
    def keeps_rows(self) -> bool:
        """Whether rows of the earlier file stay."""
        return bool(self.kept.rows.any())

    def counts(self) -> Counts:
        """What is kept."""
        left = self.kept.left
        return Counts(
            embedded=self.pictures,
            faces=int(self.kept.rows.sum()),
            failed=len(left.failed),
            no_face=len(left.no_face),
        )


class _Chosen(Sequence[Picture]):
    """Some of the pictures of a source, by their numbers, as lazy as the source."""

    def __init__(self, pictures: Sequence[Picture], numbers: np.ndarray) -> None:
        self._pictures, self._numbers = pictures, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, wanted: int | slice) -> Picture | _Chosen:  # type: ignore[override]
        if isinstance(wanted, slice):
            return _Chosen(self._pictures, self._numbers[wanted])
        return self._pictures[int(self._numbers[wanted])]

    def __iter__(self) -> Iterator[Picture]:
        return (self._pictures[int(number)] for number in self._numbers)

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)  # another process needs none but these


def require_own_columns(file: EmbeddingFile) -> None:
    """Raise `InputError` where a file's rows are not as they would be made now.

    It does not say when its pictures last changed, or somebody has added values of their own, which
    new rows would not have, or taken away some that they have.
    """
    columns = set(file.columns())
    if not file.count:
        return
    if "stamps" not in columns:
        raise InputError(
            f"{file.path} does not say when its pictures last changed; give --overwrite"
        )
    of_faces = set(FACE.names or ())
    if strange := sorted(columns - {"stamps", *of_faces}):
        raise InputError(
            f"{file.path} holds {strange[0]!r}, which new rows would lack; take it out, or embed "
            "into another file"
        )
    detected = file.origin.preprocessing.get("detect", "none") != "none"
    if lacking := sorted(of_faces - columns) if detected else []:
        raise InputError(f"{file.path} lacks {lacking[0]!r}, which new rows have; give --overwrite")


def plan_update(
    file: EmbeddingFile,
    pictures: Sequence[Picture],
    options: PipelineOptions,
    *,
    retry_failed: bool,
) -> Plan:
    """Compare a finished file with the pictures that are there now.

    What is new or has changed (in size, time or identity) is to be embedded, and what the source
    does not hold any more is dropped.

    Args:
        pictures: in the order of their keys.
        retry_failed: try pictures again that failed, though they have not changed.
    """
    before = file.left()
    failed = dict(before.failed)
    listed = {*failed, *before.no_face}
    keep = np.zeros(file.count, bool)
    known = _Cursor(file, options)
    stay: set[str] = set()
    todo = array("q")
    kept = seen = 0
    for number, picture in enumerate(pictures):
        key = options.stored_key(picture.key)
        stamp = picture.stamp()
        here = known.at(picture.key)
        seen += here is not None or key in listed
        identity = options.stored_identity(picture.identity)
        if here is not None and (here.stamp, here.identity) == (stamp, identity):
            keep[here.rows] = True
            kept += 1
        elif (
            key in listed
            and before.stamps.get(key) == stamp
            and not (retry_failed and key in failed)
        ):
            stay.add(key)
        else:
            todo.append(number)
    return Plan(
        todo=_Chosen(pictures, np.array(todo, np.int64)),
        kept=Kept(file=file, rows=keep, left=_part_of(before, stay)),
        pictures=kept,
        removed=known.count_all() + len(listed) - seen,
    )


def plan_retry(file: EmbeddingFile, pictures: Sequence[Picture], options: PipelineOptions) -> Plan:
    """Try those pictures again that failed, and keep all else as it is."""
    before = file.left()
    failed = dict(before.failed)
    todo = [n for n, picture in enumerate(pictures) if options.stored_key(picture.key) in failed]
    tried = {options.stored_key(pictures[number].key) for number in todo}
    return Plan(
        todo=_Chosen(pictures, np.array(todo, np.int64)),
        kept=Kept(
            file=file,
            rows=np.ones(file.count, bool),
            left=_part_of(before, {*failed, *before.no_face} - tried),
        ),
        pictures=_Cursor(file, options).count_all(),
        removed=0,
    )


def _part_of(left: Left, keys: set[str]) -> Left:
    return Left(
        failed=[(key, reason) for key, reason in left.failed if key in keys],
        no_face=[key for key in left.no_face if key in keys],
        stamps={key: stamp for key, stamp in left.stamps.items() if key in keys},
    )


@dataclass(frozen=True, slots=True)
class _Known:
    """A picture of the file, with the rows that it gave."""

    key: str
    """As the source has it."""
    stamp: str
    identity: str
    rows: slice


class _Cursor:
    """Goes once through the pictures of a file, in the order of their keys."""

    def __init__(self, file: EmbeddingFile, options: PipelineOptions) -> None:
        self._groups = _groups(file, options)
        self._next = next(self._groups, None)
        self._count = 0

    def at(self, key: str) -> _Known | None:
        """The picture of a key, None where the file has none; keys must come in order."""
        while self._next is not None and self._next.key < key:
            self._step()
        found = self._next
        return found if found is not None and found.key == key else None

    def count_all(self) -> int:
        """Pictures in the file."""
        while self._next is not None:
            self._step()
        return self._count

    def _step(self) -> None:
        self._count += 1
        self._next = next(self._groups, None)


def _groups(file: EmbeddingFile, options: PipelineOptions) -> Iterator[_Known]:
    """The pictures of a file with stamps; the rows of each lie one after another."""
    first: _Known | None = None
    for start in range(0, file.count, _BLOCK):
        rows = slice(start, start + _BLOCK)
        paths, identities = file.paths(rows), file.identities(rows)
        stamps = file.column("stamps", rows)
        for row, path in enumerate(paths, start=start):
            key = options.order_of(path)
            if first is not None and first.key == key:
                first = replace(first, rows=slice(first.rows.start, row + 1))
                continue
            if first is not None:
                yield first
            here = row - start
            first = _Known(key, str(stamps[here]), identities[here], slice(row, row + 1))
    if first is not None:
        yield first
