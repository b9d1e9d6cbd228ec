"""Unfinished embedding work on disk, so that nothing is done twice.

While the work is unfinished the folder `FILE.h5.partial` lies beside `FILE.h5`: `job.json` says
with which model and options it was begun, and each shard is a small embeddings file that was
renamed into place when it was whole. A shard is named after what it was made of, so that the same
command finds it again as long as its pictures are the same.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from faceidx.embedding.batches import Part
from faceidx.embedding.pipeline import Embedded, Waiting
from faceidx.embedding.roll import Condition, Counts, Made
from faceidx.embedding.store import Column, EmbeddingFile, Left, Origin, write_embeddings
from faceidx.errors import InputError
from faceidx.files import FOLDER_MODE, is_temporary, remove_folder, whole_file
from faceidx.images.keys import unescape_key
from faceidx.images.pictures import Picture, keys_of

logger = logging.getLogger(__name__)

# Pictures a shard, on average: what an interruption can cost, against the price of a file and of a
# last batch that is not full.
SHARD_SIZE = 512
# On a GPU shards are so many times as large, and larger where one takes less than some seconds.
_ON_GPU, _ON_FAST_GPU, _SECONDS = 4, 32, 0.25
# No shard is larger than this many times the average; one in seven would be. Where they are larger,
# several processes may make them, and all wait for the one that is last: there none is larger than
# such a share of the pictures that are left, nor smaller than so many for that.
_LARGEST = 2
_SHARE_LEFT, _SMALLEST = 12, 1024
_JOB = "job.json"
_TOLD_FIRST = ("images", "model")
CREATED = "created"
"""When work was begun: it tells a job from all others, and the file from those that others made."""
# What a run takes over from the work that it goes on with.
_TAKEN_OVER = {"batch_size": int, "shard_size": int, "dtype": str, "engine": str, "precision": str}


def partial_folder(out: Path) -> Path:
    """Where the unfinished work on `out` lies."""
    return out.with_name(f"{out.name}.partial")


def read_job(folder: Path) -> dict[str, Any] | None:
    """Return the settings of the unfinished work in a folder, None where there is none.

    Raises:
        InputError: they cannot be read.
    """
    job = folder / _JOB
    if not job.exists():
        return None
    try:
        settings = json.loads(job.read_text("utf-8"))
        if not isinstance(settings, dict):
            raise ValueError("no JSON object")
        _require_types(settings)
    except (ValueError, OSError) as error:
        raise InputError(f"{job} is damaged ({error}); give --overwrite to begin anew") from None
    return settings


def _require_types(settings: Mapping[str, Any]) -> None:
    """Raise `ValueError` where what is gone on with is not of the type that it was written as."""
    for name, kind in _TAKEN_OVER.items():
        value = settings.get(name)
        usable = type(value) is kind and (value > 0 if isinstance(value, int) else value)
        if value is not None and not usable:
            raise ValueError(f"{name} is {value!r}")


def is_finished(out: Path) -> bool:
    """Whether the work beside `out` became `out`, but was interrupted before all was done."""
    try:
        job = read_job(partial_folder(out))
        if job is None or not out.exists():
            return False
        with EmbeddingFile(out) as file:
            return file.attribute(CREATED) == job.get(CREATED, "")
    except InputError:
        return False


def drop_finished_work(out: Path) -> None:
    """Remove work that became `out` and was interrupted before it was removed."""
    if is_finished(out):
        logger.info("%s is finished; what was left of the work on it is removed", out)
        remove_folder(partial_folder(out), beside=out)


def open_job(folder: Path, settings: Mapping[str, Any], *, overwrite: bool) -> str:
    """Begin or go on with the work in a folder.

    Args:
        settings: model and options that all shards must share, in JSON's types.
        overwrite: throw away unfinished work with other settings. Work with the same ones is gone
            on with all the same: it would come out the same again.

    Returns:
        What tells this work from all other, for the attribute `CREATED` of its output.

    Raises:
        InputError: unfinished work with other settings lies there, or something else does.
    """
    _require_own(folder)
    before = None
    try:
        before = read_job(folder)
        differing = difference(folder, before, settings)
    except InputError:
        if not overwrite:
            raise
        differing = "it cannot be read"
    if differing and overwrite:
        remove_folder(folder, beside=folder.with_suffix(""))
    elif differing:
        raise InputError(f"{differing}; give the same, or --overwrite")
    folder.mkdir(FOLDER_MODE, exist_ok=True)
    known = None if differing or before is None else before.get(CREATED)
    created = str(known or datetime.now(UTC).isoformat(timespec="microseconds"))
    with whole_file(folder / _JOB) as temporary:
        temporary.write_text(json.dumps({**settings, CREATED: created}, indent=1), "utf-8")
    return created


def _require_own(folder: Path) -> None:
    """Raise `InputError` where something of the user's own has the folder's name."""
    if not folder.exists() or (folder / _JOB).exists():
        return
    if not folder.is_dir() or not all(is_temporary(entry.name) for entry in folder.iterdir()):
        raise InputError(
            f"{folder} is where unfinished work is kept, and holds something else; move it away"
        )


def difference(
    folder: Path, before: Mapping[str, Any] | None, settings: Mapping[str, Any]
) -> str | None:
    """What keeps the work in a folder from being gone on with, None where nothing does."""
    if before is None:
        return None
    # What is an option is named before what follows from it, and the fingerprint last.
    names = {*before, *settings} - {CREATED}
    for name in sorted(
        names, key=lambda n: (*(n != first for first in _TOLD_FIRST), n == "fingerprint", n)
    ):
        if name == "images" and not _is_there(before.get(name)):
            continue  # the pictures were moved
        if before.get(name) != settings.get(name):
            return (
                f"{folder} holds unfinished work with other options: {name} was "
                f"{before.get(name)}, now {settings.get(name)}"
            )
    return None


def _is_there(path: object) -> bool:
    return isinstance(path, str) and os.path.lexists(unescape_key(path))


def shard_size(device: str, rate: float | None) -> int:
    """Pictures a shard, for a model of so many pictures a second.

    On a CPU, where rates vary, always the same: a run that is measured anew makes the same shards.
    """
    if not device.startswith("cuda"):
        return SHARD_SIZE
    fast = rate is not None and rate * _SECONDS > SHARD_SIZE * _ON_GPU
    return SHARD_SIZE * (_ON_FAST_GPU if fast else _ON_GPU)


def split_into_shards(pictures: Sequence[Picture], size: int | None = None) -> Iterator[Part]:
    """Yield the pictures of each shard, which has no name yet.

    Where a shard ends is said by the hash of its last key: a picture that comes or goes changes one
    shard, and leaves those after it as they are.

    Args:
        size: pictures a shard, on average.
    """
    size = size or SHARD_SIZE
    begin = number = 0
    most = _most(size, len(pictures))
    for end, key in enumerate(keys_of(pictures), start=1):
        if zlib.crc32(key) % size == 0 or end - begin == most or end == len(pictures):
            yield Part(pictures=pictures[begin:end], number=number)
            begin, number = end, number + 1
            most = _most(size, len(pictures) - begin)


def _most(size: int, left: int) -> int:
    """Pictures that the next shard may hold, of shards of an average size, with so many left."""
    if size <= SHARD_SIZE:
        return _LARGEST * size
    # By powers of two: whole batches, and the same where a picture comes or goes.
    share = 1 << (left // _SHARE_LEFT).bit_length() >> 1
    return min(_LARGEST * size, max(_SMALLEST, share))


def name_shard(folder: Path, part: Part) -> Part:
    """The part with the file that it goes into, which is named after what it is made of.

    That is keys, identities, sizes and times.
    """
    pictures = list(part.pictures)
    stamps = [picture.stamp() for picture in pictures]
    digest = hashlib.sha256()
    for picture, stamp in zip(pictures, stamps, strict=True):
        digest.update(f"{picture.key}\0{picture.identity}\0{stamp}\0".encode())
    path = folder / f"shard-{digest.hexdigest()[:24]}.h5"
    return replace(part, pictures=pictures, stamps=stamps, path=path)


def write_shard(path: Path, embedded: Embedded, origin: Origin, dtype: str) -> None:
    """Commit a shard: from now on it is never made again."""
    write_embeddings(
        path,
        origin=origin,
        vectors=embedded.vectors,
        norms=embedded.norms,
        paths=embedded.paths,
        identities=embedded.identities,
        columns=embedded.columns(),
        left=embedded.left,
        dtype=dtype,
        attributes={"far": embedded.far, "pictures": embedded.pictures},
        seal=_seal,
    )


class Committer:
    """Writes shards in a thread of its own, one at a time. A context manager.

    Args:
        waiting: gets what was waited for them.
        report: called in that thread for each when it is committed.
    """

    def __init__(
        self, origin: Origin, dtype: str, waiting: Waiting, report: Callable[[Made], None]
    ) -> None:
        self._origin, self._dtype, self._waiting = origin, dtype, waiting
        self._report = report
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="write")
        self._running: Future[None] | None = None

    def __enter__(self) -> Committer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._thread.shutdown(wait=True)
        if kind is None:
            self._wait()

    def commit(self, part: Part, embedded: Embedded) -> None:
        """Begin to write a shard, when the one before is written."""
        self._wait()
        self._running = self._thread.submit(self._write, part, embedded)

    def _write(self, part: Part, embedded: Embedded) -> None:
        assert part.path is not None
        write_shard(part.path, embedded, self._origin, self._dtype)
        self._report(Made(pictures=len(part.pictures), counts=counts_of(embedded)))

    def _wait(self) -> None:
        began = time.monotonic()
        if self._running is not None:
            self._running.result()
        self._waiting.write += time.monotonic() - began


def find_shard(path: Path) -> tuple[Condition, Counts]:
    """Whether a shard is there, as it was committed or damaged, and what it holds.

    A damaged one is removed.
    """
    if not path.exists():
        return "missing", Counts()
    if not _is_sealed(path):
        path.unlink()
        return "damaged", Counts()
    with EmbeddingFile(path) as shard:
        pictures, far = int(shard.attribute("pictures")), int(shard.attribute("far"))
        return "whole", _counts(pictures, shard.count, shard.left(), far)


def left_out(path: Path) -> Left:
    """What did not become an embedding in a shard."""
    with EmbeddingFile(path) as shard:
        return shard.left()


def counts_of(embedded: Embedded) -> Counts:
    """What the shard of these embeddings holds."""
    return _counts(embedded.pictures, len(embedded.paths), embedded.left, embedded.far)


def _counts(pictures: int, faces: int, left: Left, far: int) -> Counts:
    failed, no_face = len(left.failed), len(left.no_face)
    return Counts(embedded=pictures, faces=faces, failed=failed, no_face=no_face, far=far)


def read_rows(file: EmbeddingFile, rows: slice = slice(None)) -> dict[str, Column]:
    """The values of every dataset in a range of rows."""
    return {
        "embeddings": file.stored_vectors(rows),
        "norms": file.norms(rows),
        "paths": file.paths(rows),
        "identities": file.identities(rows),
        **{name: file.column(name, rows) for name in file.columns()},
    }


def _seal(path: Path) -> None:
    """Append the digest of a file to it; HDF5 reads no further than where its own data end."""
    with path.open("r+b") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
        file.write(digest)


def _is_sealed(path: Path) -> bool:
    """Whether a file is what it was when it was sealed: told without HDF5.

    Of damaged metadata the library makes anything, up to a loop without end.
    """
    try:
        data = path.read_bytes()
    except OSError:
        return False
    size = hashlib.sha256().digest_size
    return hashlib.sha256(data[:-size]).digest() == data[-size:]
