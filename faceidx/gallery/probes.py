"""Probes: faces to be looked up in a gallery, and how they are read in blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import NamedTuple

import numpy as np

from faceidx.embedding.store import EmbeddingFile, Origin, require_one_model
from faceidx.gallery.folder import Gallery
from faceidx.gallery.unit import require_dim, to_unit
from faceidx.progress import Progress, ProgressCallback

_BLOCK_ROWS = 4096


@dataclass(kw_only=True)
class Probes:
    """Faces to look up."""

    name: str
    """Of the file or folder they come from, for messages."""
    origin: Origin
    dim: int
    keys: Sequence[str]
    """(Q) keys of the pictures."""
    identities: Sequence[str]
    """(Q), empty where unknown."""
    blocks: Iterable[tuple[int, np.ndarray]]
    """(first row, (n, D) vectors), one after the other over all rows."""


class ProbeBlock(NamedTuple):
    """A part of the probes; those with NaN or of length zero are not usable."""

    vectors: np.ndarray
    """(u, D) unit rows of the usable probes."""
    usable: np.ndarray
    """(u,) rows of the usable probes within the block."""
    keys: Sequence[str]
    """(n) of all probes of the block."""
    identities: Sequence[str]


def probes_of_file(file: EmbeddingFile) -> Probes:
    """The rows of an open embeddings file as probes; vectors are read block by block."""
    return Probes(
        name=str(file.path),
        origin=file.origin,
        dim=file.dim,
        keys=file.paths(),
        identities=file.identities(),
        blocks=file.blocks(_BLOCK_ROWS),
    )


def every_probe_of_file(file: EmbeddingFile) -> Probes:
    """The rows of a file, and after them the pictures that it lists as failed or without a face."""
    rows = probes_of_file(file)
    left = [key for key, _ in file.left().reasons()]
    if not left:
        return rows
    # A row of NaN cannot be searched, so the picture comes out as a probe without an answer.
    nothing = np.full((len(left), file.dim), np.nan, np.float32)
    return replace(
        rows,
        keys=[*rows.keys, *left],
        identities=[*rows.identities, *file.identities_left()],
        blocks=chain(rows.blocks, [(file.count, nothing)]),
    )


def probe_blocks(
    gallery: Gallery, probes: Probes, stage: str, progress: ProgressCallback
) -> Iterator[ProbeBlock]:
    """Yield the probes in blocks, the usable ones scaled to unit length.

    Raises:
        InputError: the probes come from another model than the gallery.
    """
    require_one_model(gallery.origin, str(gallery.path), probes.origin, probes.name)
    require_dim(probes.dim, probes.name, gallery.dim, str(gallery.path))
    for first, vectors in probes.blocks:
        last = first + len(vectors)
        unit = to_unit(vectors)
        usable = np.flatnonzero(unit.usable)
        keys, identities = probes.keys[first:last], probes.identities[first:last]
        yield ProbeBlock(unit.vectors[usable], usable, keys, identities)
        progress(Progress(stage, last, len(probes.keys), "probes"))
