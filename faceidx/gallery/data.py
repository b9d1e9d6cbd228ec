"""`gallery.h5`: the vectors and names of a gallery, read with distrust."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from faceidx.embedding.store import own_dataset, reading
from faceidx.errors import InputError


class Rows(NamedTuple):
    """A block of faces."""

    vectors: np.ndarray
    """(n, D) unit float32."""
    paths: list[str]
    identities: list[str]


class Refused(NamedTuple):
    """A row of a source that could not be taken into the gallery."""

    path: str
    identity: str
    reason: str


def data_shape(data: h5py.File, name: Path) -> tuple[int, int]:
    """Check the datasets of an open `gallery.h5` against each other; return (N, D).

    Raises:
        InputError: a dataset is missing, linked, of a wrong type or shape, or claims more rows
            than the file has bytes for.
    """
    with reading(name):
        vectors = own_dataset(data, "embeddings", name)
        if vectors.ndim != 2 or vectors.dtype.kind != "f" or not vectors.shape[1]:
            raise InputError(f"{name}: embeddings is no table of floats")
        count, dim = (int(n) for n in vectors.shape)
        filters = vectors.id.get_create_plist().get_nfilters()
        if filters or count * dim * vectors.dtype.itemsize > name.stat().st_size:
            # A few bytes of file may claim any number of rows: compressed, or never written.
            raise InputError(f"{name}: embeddings is compressed or claims more rows than it holds")
        for text in ("paths", "identities"):
            names = own_dataset(data, text, name)
            if names.shape != (count,) or h5py.check_string_dtype(names.dtype) is None:
                raise InputError(
                    f"{name}: {text} does not hold one text for each of {count} vectors"
                )
    return count, dim


def data_offset(data: h5py.File, name: Path) -> int:
    """Where in the file the vectors begin.

    Raises:
        InputError: they do not lie there in one piece as float32.
    """
    with reading(name):
        vectors = own_dataset(data, "embeddings", name)
        offset = vectors.id.get_offset()
        if vectors.dtype != np.dtype("<f4") or (offset is None and len(vectors)):
            raise InputError(
                f"{name}: embeddings do not lie in one piece; rebuild the gallery with "
                "`faceidx index import`"
            )
    return int(offset or 0)


def read_texts(data: h5py.File, dataset: str, name: Path) -> list[str]:
    """Read a column of text.

    Raises:
        InputError: it is linked, no text, or not UTF-8.
    """
    with reading(name):
        return [str(text) for text in own_dataset(data, dataset, name).asstr()[()]]


def read_refused(data: h5py.File, name: Path) -> list[Refused]:
    """Read the group `refused`; empty where there is none."""
    if "refused" not in data:
        return []
    columns = (read_texts(data, f"refused/{c}", name) for c in ("paths", "identities", "reasons"))
    with reading(name):
        return [Refused(*row) for row in zip(*columns, strict=True)]
