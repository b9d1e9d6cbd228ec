"""Unfinished embedding work on disk, so that nothing is done twice.

While the work is unfinished the folder `FILE.h5.partial` lies beside `FILE.h5`: `job.json` says
with which model and options it was begun, and each shard is a small embeddings file that was
renamed into place when it was whole. A shard is named after what it was made of, so that the same
command finds it again as long as its pictures are the same.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py

from faceidx.embedding.pipeline import Embedded
from faceidx.embedding.store import (
    EmbeddingFile,
    Left,
    Origin,
    create_datasets,
    write_attributes,
    write_embeddings,
    write_left,
)
from faceidx.errors import InputError
from faceidx.files import FOLDER_MODE, whole_file
from faceidx.hdf5 import NewHdf5
from faceidx.images.sources import Picture

# Pictures a shard: what an interruption can cost, against the price of a file.
SHARD_SIZE = 2048
_JOB = "job.json"


def partial_folder(out: Path) -> Path:
    """Where the unfinished work on `out` lies."""
    return out.with_name(f"{out.name}.partial")


def open_job(folder: Path, settings: Mapping[str, Any], *, overwrite: bool) -> None:
    """Begin or go on with the work in a folder.

    Args:
        settings: model and options that all shards must share, in JSON's types.
        overwrite: throw away unfinished work with other settings. Work with the same ones is gone
            on with all the same: it would come out the same again.

    Raises:
        InputError: unfinished work with other settings lies there.
    """
    difference = _difference(folder, settings)
    if difference and overwrite:
        shutil.rmtree(folder)
    elif difference:
        raise InputError(f"{difference}; give the same, or --overwrite")
    folder.mkdir(FOLDER_MODE, exist_ok=True)
    with whole_file(folder / _JOB) as temporary:
        temporary.write_text(json.dumps(settings, indent=1), "utf-8")


def _difference(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """What keeps the work in a folder from being gone on with, None where nothing does."""
    job = folder / _JOB
    if not job.exists():
        return None
    try:
        before = json.loads(job.read_text("utf-8"))
        if not isinstance(before, dict):
            raise ValueError("no JSON object")
    except (ValueError, OSError) as error:
        return f"{job} is damaged ({error})"
    # The fingerprint last: what it covers is named by the option where there is one.
    for name in sorted({*before, *settings}, key=lambda n: (n == "fingerprint", n)):
        if before.get(name) != settings.get(name):
            return (
                f"{folder} holds unfinished work with other options: {name} was "
                f"{before.get(name)}, now {settings.get(name)}"
            )
    return None


def split_into_shards(
    folder: Path, pictures: Sequence[Picture]
) -> Iterator[tuple[Path, Sequence[Picture]]]:
    """Yield the file of each shard and the pictures that go into it."""
    for number, first in enumerate(range(0, len(pictures), SHARD_SIZE)):
        part = pictures[first : first + SHARD_SIZE]
        yield folder / f"shard-{number:06d}-{_digest(part)}.h5", part


def _digest(pictures: Sequence[Picture]) -> str:
    """Short hash over keys, identities, sizes and times: another content, another name."""
    digest = hashlib.sha256()
    for p in pictures:
        try:
            status = p.path.stat()
            facts = f"{status.st_size}\0{status.st_mtime_ns}"
        except (OSError, ValueError):
            facts = "unreadable"
        digest.update(f"{p.key}\0{p.identity}\0{facts}\0".encode())
    return digest.hexdigest()[:16]


def write_shard(path: Path, embedded: Embedded, origin: Origin, dtype: str) -> None:
    """Commit a shard."""
    write_embeddings(
        path,
        origin=origin,
        vectors=embedded.vectors,
        norms=embedded.norms,
        paths=embedded.paths,
        identities=embedded.identities,
        left=embedded.left,
        dtype=dtype,
        attributes={"far": embedded.far},
    )


def merge_shards(out: Path, shards: Sequence[Path], origin: Origin, dim: int, dtype: str) -> None:
    """Write the one promised file from the shards, a shard at a time."""
    left, expected = Left(), sum(_rows(path) for path in shards)
    with whole_file(out) as temporary, NewHdf5(temporary) as file:
        create_datasets(file, dim=dim, dtype=dtype, rows=0, expected=expected)
        for path in shards:
            with EmbeddingFile(path) as shard:
                _append(file, shard)
                part = shard.left()
            file.check()
            left.failed += part.failed
            left.no_face += part.no_face
        write_left(file, left)
        write_attributes(file, origin)


def _rows(path: Path) -> int:
    with EmbeddingFile(path) as shard:
        return shard.count


def _append(file: h5py.File, shard: EmbeddingFile) -> None:
    first, rows = len(file["paths"]), shard.count
    columns = {
        "embeddings": shard.vectors(),
        "norms": shard.norms(),
        "paths": shard.paths(),
        "identities": shard.identities(),
    }
    for name, values in columns.items():
        file[name].resize(first + rows, axis=0)
        if rows:
            file[name][first:] = values
