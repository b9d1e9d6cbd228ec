"""From pictures to batches of faces: decoding, and putting together what a model takes at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, repeat
from pathlib import Path

import numpy as np

from faceidx.embedding.store import Left
from faceidx.images.pictures import Picture
from faceidx.images.prepare import Prepare, Prepared
from faceidx.images.workers import Workers


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """Pictures that are embedded together: batches never hold pictures of two parts."""

    pictures: Sequence[Picture]
    number: int = 0
    """Counted in the order of keys."""
    stamps: Sequence[str] | None = None
    """What changes when a picture does (`Picture.stamp`), where that is to be remembered."""
    path: Path | None = None
    """Where the embeddings are to lie."""


@dataclass(frozen=True, slots=True)
class Face:
    """A row in the making."""

    picture: Picture
    stamp: str
    number: int
    """Counted from 1 within its picture."""
    found: np.ndarray | None
    """(1,) where and how it was found; None without detection."""


@dataclass(kw_only=True)
class Batch:
    """Faces that go through the model together, and what happened on the way to them."""

    part: Part
    faces: list[Face] = field(default_factory=list)
    crops: list[np.ndarray] = field(default_factory=list)
    """A crop a face, (height, width, 3) uint8 RGB, until `pixels` holds them all."""
    pixels: np.ndarray | None = None
    """(n, height, width, 3) uint8 RGB."""
    left: Left = field(default_factory=Left)
    far: int = 0
    pictures: int = 0
    """Pictures that were dealt with since the batch before."""
    last: bool = False
    """Whether it is the last of its part; that one may be empty."""


def batches(
    parts: Iterable[Part], prepare: Prepare, workers: Workers, *, batch_size: int, total: int
) -> Iterator[Batch]:
    """Yield batches of `batch_size` faces; the last of each part may be smaller, and marks its end.

    Args:
        total: pictures in all parts together, as far as is known.
    """
    pictures = (
        ((part, stamp), picture)
        for part in parts
        for stamp, picture in zip(part.stamps or repeat(""), part.pictures, strict=False)
    )
    # Two batches ahead, the model never waits for a picture that could have been decoded meanwhile.
    results = workers.prepare(pictures, prepare, ahead=2 * batch_size, total=total)
    for part, group in groupby(results, key=lambda result: result[0][0]):
        batch = Batch(part=part)
        for (_, stamp), picture, result in group:
            for face, crop in _faces(picture, stamp, result):
                if len(batch.faces) == batch_size:
                    yield _stacked(batch)
                    batch = Batch(part=part)
                batch.faces.append(face)
                batch.crops.append(crop)
            _note(batch, picture, stamp, result)
        batch.last = True
        yield _stacked(batch)


def _note(batch: Batch, picture: Picture, stamp: str, result: Prepared | str) -> None:
    batch.pictures += 1
    if isinstance(result, str):
        batch.left.failed.append((picture.key, result))
    elif not len(result.crops):
        batch.left.no_face.append(picture.key)
    else:
        batch.far += result.far
        return
    batch.left.stamps[picture.key] = stamp


def _faces(
    picture: Picture, stamp: str, result: Prepared | str
) -> Iterator[tuple[Face, np.ndarray]]:
    if isinstance(result, str):
        return
    for number, crop in enumerate(result.crops, start=1):
        found = None if result.faces is None else result.faces[number - 1 : number]
        yield Face(picture, stamp, number, found), crop


def _stacked(batch: Batch) -> Batch:
    if batch.crops:
        batch.pixels = np.stack(batch.crops)
        batch.crops.clear()
    return batch
