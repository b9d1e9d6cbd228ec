"""Several devices at once: a process each, with a model of its own, that makes shard after shard.

Each process asks for a part when its decoders have nothing left to do, while its model still has,
and reports every shard.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

from faceidx.children import Child
from faceidx.embedding.batches import Part
from faceidx.embedding.pipeline import PipelineOptions, Waiting, embed_parts
from faceidx.embedding.shards import Committer
from faceidx.embedding.store import Origin
from faceidx.errors import FaceidxError, JobError
from faceidx.images.workers import usable_cores
from faceidx.models.open import ModelOptions, open_model
from faceidx.progress import Progress, ProgressCallback

_MORE = "more"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every process needs to know."""

    model: ModelOptions
    """Engine and precision settled; the device is the process's own."""
    pipeline: PipelineOptions
    origin: Origin
    dtype: str


def make_on(
    devices: Sequence[str],
    parts: Iterable[Part],
    job: Job,
    *,
    total: int,
    waiting: Waiting,
    progress: ProgressCallback,
) -> None:
    """Make the shards of all parts, each on one of the devices.

    Raises:
        FaceidxError: what went wrong in a process.
    """
    shared = _Shared(parts)
    cores = max(1, usable_cores() // len(devices))
    pipeline = replace(job.pipeline, workers=job.pipeline.workers or cores)
    done, lock = 0, threading.Lock()

    def report(pictures: int) -> None:
        nonlocal done
        with lock:
            done += pictures
            progress(Progress("embed", done, total))

    def drive(device: str, child: Child) -> Waiting:
        model = replace(job.model, device=device)
        try:
            return _drive(child, replace(job, model=model, pipeline=pipeline), shared, report)
        finally:
            shared.close()

    children = [Child("faceidx.embedding.devices", "serve") for _ in devices]
    with ThreadPoolExecutor(len(devices)) as threads:
        try:
            for one in threads.map(drive, devices, children):
                waiting.decode += one.decode / len(devices)
                waiting.model += one.model / len(devices)
                waiting.write += one.write / len(devices)
        except BaseException:
            shared.close()
            for child in children:
                child.process.kill()  # what they have committed stays
            raise


class _Shared:
    """An iterator that several threads take from, until one of them has come to an end or grief."""

    def __init__(self, parts: Iterable[Part]) -> None:
        self._parts = iter(parts)
        self._lock = threading.Lock()
        self._closed = False

    def take(self) -> Part | None:
        with self._lock:
            return None if self._closed else next(self._parts, None)

    def close(self) -> None:
        self._closed = True


def _drive(child: Child, job: Job, parts: _Shared, report: Callable[[int], None]) -> Waiting:
    """Give one process a part whenever it asks for one, until it says what it waited for."""
    try:
        child.connection.send(job)
        while not isinstance(reply := _reply(child), Waiting):
            if reply == _MORE:
                child.connection.send(parts.take())
            else:
                report(reply)
        return reply
    except (EOFError, OSError):
        _raise_last_words(child)
        raise JobError(
            f"the process on {job.model.device} died ({child.end()}); the same command goes on"
        ) from None
    finally:
        child.end()


def _reply(child: Child) -> Any:
    reply = child.connection.recv()
    if isinstance(reply, FaceidxError):
        raise reply
    return reply


def _raise_last_words(child: Child) -> None:
    """Raise the error that a process sent before it ended, if it did."""
    try:
        while child.connection.poll():
            _reply(child)
    except (EOFError, OSError):
        return


def serve(descriptor: int) -> None:
    """Make shards as the process at the other end says, until it says no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is for the parent
    connection = Connection(descriptor)
    try:
        job: Job = connection.recv()
        connection.send(_make(connection, job))
    except FaceidxError as error:
        connection.send(error)
    except (EOFError, ConnectionError):
        return


def _make(connection: Connection, job: Job) -> Waiting:
    waiting, lock = Waiting(), threading.Lock()
    model = open_model(job.model)

    def say(word: str | int) -> None:
        with lock:  # parts are asked for in the thread of the decoders
            connection.send(word)

    def parts() -> Iterator[Part]:
        while True:
            say(_MORE)
            if (part := connection.recv()) is None:
                return
            yield part

    with Committer(job.origin, job.dtype, waiting) as committer:
        for part, embedded in embed_parts(parts(), model, job.pipeline, total=0, waiting=waiting):
            committer.commit(part, embedded)
            say(len(part.pictures))
    return waiting
