"""Several processes that hand pictures to one model, which is faster than one could hand it them.

A feeder decodes, puts batches together and writes shards as any process does that makes them, but
its batches are computed by the process that has the model: pixels and rows go through memory that
both see, and nothing but the number of a slot goes along the line.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any

import numpy as np

from faceidx.children import Child, serve_parent
from faceidx.embedding.crew import (
    Job,
    Line,
    Member,
    Report,
    SharedParts,
    make,
    run_crew,
    split_cores,
)
from faceidx.embedding.pipeline import Waiting
from faceidx.images.preprocess import Preprocessing
from faceidx.models.face_model import FaceModel
from faceidx.shared_memory import memory_seen, new_memory

# Batches of a feeder that are on their way or wait for their shard to be put together.
_SLOTS = 4
_READY = "ready"


@dataclass(frozen=True, kw_only=True)
class _Facts:
    """What a feeder knows of the model."""

    preprocessing: Preprocessing
    template: str | None
    embedding_dim: int
    device: str
    batch_size: int


@dataclass(frozen=True, kw_only=True)
class _FeederJob:
    job: Job
    facts: _Facts


@dataclass(frozen=True, kw_only=True)
class _Request:
    """Compute the first `count` pictures of a slot."""

    slot: int
    count: int
    flip: bool


class _Slots:
    """Memory for batches on their way: the pixels there, and the rows back.

    Args:
        descriptor: of memory that another process gave; None makes some.
    """

    pixels: np.ndarray
    """(slots, batch, height, width, 3) uint8."""
    rows: np.ndarray
    """(slots, batch, D) float32."""
    descriptor: int
    """Of the memory, to be closed once all see it."""

    def __init__(self, facts: _Facts, descriptor: int | None = None) -> None:
        pixels = (facts.batch_size, *facts.preprocessing.image_size, 3)
        rows = (facts.batch_size, facts.embedding_dim)
        slot = np.dtype([("rows", np.float32, rows), ("pixels", np.uint8, pixels)], align=True)
        self.descriptor = new_memory(_SLOTS * slot.itemsize) if descriptor is None else descriptor
        slots = memory_seen(self.descriptor).view(slot)
        self.pixels, self.rows = slots["pixels"], slots["rows"]


# --- where the model is ------------------------------------------------------------------------


def make_by_feeders(
    count: int,
    parts: SharedParts,
    job: Job,
    model: FaceModel,
    *,
    waiting: Waiting,
    report: Report,
) -> None:
    """Make the shards of all parts by `count` processes, their batches by the model of this one.

    Args:
        job: its batch size settled.

    Raises:
        FaceidxError: what went wrong in a process or the model.
    """
    pipeline = split_cores(job.pipeline, count)
    assert pipeline.batch_size is not None
    facts = _Facts(
        preprocessing=model.preprocessing,
        template=model.template,
        embedding_dim=model.embedding_dim,
        device=model.device,
        batch_size=pipeline.batch_size,
    )
    given = _FeederJob(job=replace(job, pipeline=pipeline), facts=facts)
    beginning = threading.Lock()
    members = [_Feeder(given, model, beginning) for _ in range(count)]
    try:
        run_crew(members, parts, waiting=waiting, report=report)
        waiting.open += sum(member.opened for member in members) / count
    finally:
        for member in members:
            member.close()


class _Feeder(Member):
    """A feeder, as the process that has the model sees it.

    Args:
        beginning: held by the one that puts a batch into the model.
    """

    def __init__(self, given: _FeederJob, model: FaceModel, beginning: threading.Lock) -> None:
        child = Child("faceidx.embedding.feeders", "serve")
        super().__init__("a process that decodes", child, given)
        self._model, self._beginning = model, beginning
        self._slots = _Slots(given.facts)
        # Rows are waited for in the order in which their batches were begun.
        self._answering = ThreadPoolExecutor(1, thread_name_prefix="rows")
        self._failure: BaseException | None = None
        self._began = time.monotonic()
        self.opened = 0.0
        """Seconds until it could begin."""

    def begin(self) -> None:
        super().begin()
        send_handle(self.child.connection, self._slots.descriptor, self.child.process.pid)
        self.hear()
        self.opened = time.monotonic() - self._began

    def hear(self) -> Any:
        try:
            return super().hear()
        except (EOFError, OSError):
            if self._failure is not None:
                raise self._failure from None
            raise

    def take(self, word: _Request) -> None:
        pixels = self._slots.pixels[word.slot, : word.count]
        with self._beginning:
            rows = self._model.begin(pixels, flip=word.flip)
        self._answering.submit(self._answer, word, rows)

    def _answer(self, request: _Request, rows: Callable[[], np.ndarray]) -> None:
        try:
            self._slots.rows[request.slot, : request.count] = rows()
            self.say(request.slot)
        except BaseException as error:  # the model's, whatever it is, or nobody is there any more
            self._failure = self._failure or error
            self.child.process.kill()

    def close(self) -> None:
        """Let the memory go."""
        self._answering.shutdown(wait=True)
        os.close(self._slots.descriptor)


# --- the feeder --------------------------------------------------------------------------------


def serve(descriptor: int) -> None:
    """Make shards as the process at the other end says, whose model computes the batches."""
    serve_parent(descriptor, _feed)


def _feed(connection: Connection) -> Waiting:
    given: _FeederJob = connection.recv()
    model = _remote(given.facts, _Slots(given.facts, recv_handle(connection)))
    connection.send(_READY)
    line = Line(connection, model.answered, model.given_up)
    model.line = line
    waiting = Waiting()
    make(line.parts(), model, given.job, waiting, report=line.say)
    return waiting


def _remote(facts: _Facts, slots: _Slots) -> _RemoteModel:
    return _RemoteModel(
        name="",
        arch="",
        embedding_dim=facts.embedding_dim,
        preprocessing=facts.preprocessing,
        weights="",
        engine="",
        device=facts.device,
        precision="",
        template=facts.template,
        slots=slots,
    )


@dataclass(kw_only=True)
class _RemoteModel(FaceModel):
    """The model of the process at the other end."""

    slots: _Slots
    line: Line | None = None

    def __post_init__(self) -> None:
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._done = [queue.SimpleQueue[bool]() for _ in range(_SLOTS)]
        for slot in range(_SLOTS):
            self._free.put(slot)

    def answered(self, slot: int) -> None:
        """The rows of a slot are there."""
        self._done[slot].put(True)

    def given_up(self) -> None:
        """Nothing will be answered any more."""
        for slot, done in enumerate(self._done):
            done.put(False)
            self._free.put(slot)  # so that nobody waits for one

    def begin(self, pictures: np.ndarray, *, flip: bool = False) -> Callable[[], np.ndarray]:
        slot, count = self._free.get(), len(pictures)
        self.slots.pixels[slot, :count] = pictures
        assert self.line is not None
        self.line.say(_Request(slot=slot, count=count, flip=flip))

        def wait() -> np.ndarray:
            if not self._done[slot].get():
                raise EOFError("nobody computes any more")
            rows = self.slots.rows[slot, :count].copy()
            self._free.put(slot)
            return rows

        return wait

    def raw_embed(self, pictures: np.ndarray) -> np.ndarray:
        return self.begin(pictures)()
