"""Writing the files of a gallery into a new folder, holding one block of vectors in memory."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np

from faceidx.embedding.store import TEXT, Origin, open_hdf5
from faceidx.errors import InputError
from faceidx.files import sha256_file
from faceidx.gallery.choose import write_index
from faceidx.gallery.data import Refused, Rows, data_offset
from faceidx.gallery.folder import DATA, now, write_manifest
from faceidx.gallery.indexes import Carried, IndexOptions
from faceidx.gallery.manifest import FORMAT, VERSION, FileRecord, Manifest, Threshold
from faceidx.gallery.vectors import Vectors
from faceidx.hdf5 import NewHdf5
from faceidx.progress import ProgressCallback, silent


def write_gallery(
    folder: Path,
    *,
    origin: Origin,
    dim: int,
    blocks: Iterable[Rows],
    count: int,
    refused: list[Refused],
    index: IndexOptions,
    carried: Carried | None = None,
    threshold: Threshold | None = None,
    progress: ProgressCallback = silent,
) -> Manifest:
    """Write a gallery's files into an empty folder.

    Args:
        count: how many rows will come.
        refused: read after the blocks have run out, so that their generator may fill it.
        carried: what is kept of the index of the gallery before a change.

    Raises:
        InputError: other than `count` rows came, as the source was changed meanwhile.
    """
    created = now()
    with NewHdf5(folder / DATA) as data:
        codes, people = _write_rows(data, dim, blocks, count)
        for column, name in enumerate(("paths", "identities", "reasons")):
            texts = [row[column] for row in refused]
            data.create_dataset(f"refused/{name}", (len(texts),), TEXT, data=texts or None)
        data.attrs["format"] = FORMAT
        data.attrs["version"] = VERSION
        data.attrs["model"] = origin.model
        data.attrs["fingerprint"] = origin.fingerprint
        data.attrs["preprocessing"] = json.dumps(origin.preprocessing, sort_keys=True)
        data.attrs["created"] = created
    with (
        open_hdf5(folder / DATA, FORMAT, VERSION) as data,
        (folder / DATA).open("rb", buffering=0) as file,
    ):
        offset = data_offset(data, folder / DATA)
        vectors = Vectors(file, str(folder / DATA), offset, count, dim, thrifty=True)
        written = write_index(folder, vectors, codes, index, carried=carried, progress=progress)
    manifest = Manifest(
        kind=written.kind,
        model=origin.model,
        fingerprint=origin.fingerprint,
        dim=dim,
        vectors=count,
        identities=people,
        refused=len(refused),
        recall_at_1=written.tuning.recall_at_1 if written.tuning else 1.0,
        files={n: _record(folder / n) for n in (*written.files, DATA)},
        threshold=threshold,
        created=created,
        tuning=written.tuning,
    )
    write_manifest(folder, manifest)
    return manifest


def _write_rows(
    data: h5py.File, dim: int, blocks: Iterable[Rows], count: int
) -> tuple[np.ndarray, int]:
    """Write vectors and names; return the number of each row's person, and how many there are."""
    # In one piece, so that the vectors can be mapped.
    vectors = data.create_dataset("embeddings", (count, dim), "<f4")
    paths, identities = (data.create_dataset(n, (count,), TEXT) for n in ("paths", "identities"))
    codes = np.full(count, -1, dtype=np.int64)
    number: dict[str, int] = {}
    first = 0
    for block in blocks:
        last = first + len(block.paths)
        if last > count:
            break
        if last == first:
            continue
        vectors[first:last] = block.vectors
        paths[first:last] = block.paths
        identities[first:last] = block.identities
        for row, name in enumerate(block.identities, start=first):
            if name:
                codes[row] = number.setdefault(name, len(number))
        data.check()
        first = last
    if first != count:
        raise InputError("a source was changed while it was read; run the command again")
    return codes, len(number)


def _record(path: Path) -> FileRecord:
    return FileRecord(size=path.stat().st_size, sha256=sha256_file(path))
