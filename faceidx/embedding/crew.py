"""Processes that make shards, and the one that gives the work out.

Each asks for a part when its decoders have nothing left to do, while a model still has. It finds
out which shard that is to be, and reports the shard when it has committed it. The one that gives
the work out looks at no picture's file: on a fast GPU it has no time for that.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from faceidx.children import Child
from faceidx.embedding.batches import Part
from faceidx.embedding.pipeline import PipelineOptions, Waiting, embed_parts
from faceidx.embedding.roll import Named, News
from faceidx.embedding.shards import Committer, find_shard, name_shard
from faceidx.embedding.store import Origin
from faceidx.errors import FaceidxError, JobError
from faceidx.models.face_model import FaceModel
from faceidx.progress import ProgressCallback, silent
from faceidx.resources import usable_cores

_MORE = "more"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every process that makes shards needs to know."""

    folder: Path
    """Where shards lie."""
    pipeline: PipelineOptions
    origin: Origin
    dtype: str
    total: int
    """Pictures that all shards are for, as far as is known."""


Report = Callable[[News], None]


class SharedParts:
    """An iterator that several threads take from, until one of them has come to an end or grief."""

    def __init__(self, parts: Iterable[Part]) -> None:
        self._parts = iter(parts)
        self._lock = threading.Lock()
        self._closed = False

    def take(self) -> Part | None:
        """The next part; None where there is none, or no more is wanted."""
        with self._lock:
            return None if self._closed else next(self._parts, None)

    def close(self) -> None:
        """Give nothing out any more."""
        self._closed = True


class Member:
    """A process of the crew, as the one that gives the work out sees it.

    Args:
        name: for people, such as "the process on cuda:0".
        job: what it is sent first.
    """

    def __init__(self, name: str, child: Child, job: object) -> None:
        self.name, self.child = name, child
        self._job = job
        self._saying = threading.Lock()

    def begin(self) -> None:
        """Send it what it needs to know."""
        self.say(self._job)

    def say(self, word: object) -> None:
        """Send it something; any thread may."""
        with self._saying:
            self.child.connection.send(word)

    def hear(self) -> Any:
        """What it says next; raises the `FaceidxError` that it ended with."""
        word = self.child.connection.recv()
        if isinstance(word, FaceidxError):
            raise word
        return word

    def take(self, word: Any) -> None:
        """What else it may say than that it wants more or has made something."""
        raise JobError(f"{self.name} makes no sense")


def split_cores(pipeline: PipelineOptions, processes: int) -> PipelineOptions:
    """Options for each of several processes, which share those that decode."""
    decoders = pipeline.workers or usable_cores()
    return replace(pipeline, workers=max(1, decoders // processes))


def run_crew(
    members: Sequence[Member],
    parts: SharedParts,
    *,
    waiting: Waiting,
    report: Report,
) -> None:
    """Have the members make the shards of all parts.

    Args:
        waiting: gets what they waited for, on average.
        report: called for each part when it is named and, where that was to be done, when its
            shard is made; one call at a time.

    Raises:
        FaceidxError: what went wrong in one of them; the others are ended, and what was committed
            stays.
    """
    reporting = threading.Lock()

    def told(news: News) -> None:
        with reporting:
            report(news)

    def drive(member: Member) -> Waiting:
        try:
            return _drive(member, parts, told)
        finally:
            parts.close()

    with ThreadPoolExecutor(len(members), thread_name_prefix="crew") as threads:
        try:
            for one in threads.map(drive, members):
                for field in fields(Waiting):
                    share = getattr(one, field.name) / len(members)
                    setattr(waiting, field.name, getattr(waiting, field.name) + share)
        except BaseException:
            parts.close()
            for member in members:
                member.child.process.kill()
            raise


def _drive(member: Member, parts: SharedParts, report: Report) -> Waiting:
    """Give a member a part whenever it asks for one, until it says what it waited for."""
    try:
        member.begin()
        while not isinstance(word := member.hear(), Waiting):
            if word == _MORE:
                member.say(parts.take())
            elif isinstance(word, News):
                report(word)
            else:
                member.take(word)
        return word
    except (EOFError, OSError):
        _raise_last_words(member)
        code = member.child.end()
        raise JobError(f"{member.name} died ({code}); the same command goes on") from None
    finally:
        member.child.leave()


def _raise_last_words(member: Member) -> None:
    """Raise the error that a process sent before it ended, if it did."""
    try:
        while member.child.connection.poll():
            member.hear()
    except (EOFError, OSError):
        return


# --- in the process itself ---------------------------------------------------------------------


class Line:
    """The way to the process that gives the work out, from one of the crew.

    Args:
        on_answer: takes what is said that is no part.
        on_end: called when the other end is closed and nothing more will be said.
    """

    def __init__(
        self,
        connection: Connection,
        on_answer: Callable[[Any], None] = lambda _: None,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._connection = connection
        self._on_answer, self._on_end = on_answer, on_end
        self._saying = threading.Lock()
        self._parts: queue.SimpleQueue[Part | EOFError | None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, name="line", daemon=True).start()

    def say(self, word: object) -> None:
        """Send something; any thread may."""
        with self._saying:
            self._connection.send(word)

    def parts(self) -> Iterator[Part]:
        """Ask for parts until there are none.

        Raises:
            EOFError: the other end is closed.
        """
        while True:
            self.say(_MORE)
            part = self._parts.get()
            if isinstance(part, EOFError):
                raise part
            if part is None:
                return
            yield part

    def _listen(self) -> None:
        try:
            while True:
                word = self._connection.recv()
                if word is None or isinstance(word, Part):
                    self._parts.put(word)
                else:
                    self._on_answer(word)
        except (EOFError, OSError) as error:
            self._parts.put(EOFError(str(error)))
            self._on_end()


def make(
    parts: Iterable[Part],
    model: FaceModel,
    job: Job,
    waiting: Waiting,
    *,
    report: Report,
    progress: ProgressCallback = silent,
) -> None:
    """Make those shards of parts in this process that are not there, each written beside the next.

    Args:
        waiting: gets what decoding, the model and writing took.
        report: called for each part when it is named, and for each shard when it is committed; by
            any thread.
    """

    def missing() -> Iterator[Part]:
        for part in parts:
            named = name_shard(job.folder, part)
            assert named.path is not None
            condition, counts = find_shard(named.path)
            report(
                Named(
                    number=part.number,
                    path=named.path,
                    pictures=len(part.pictures),
                    condition=condition,
                    counts=counts,
                )
            )
            if condition != "whole":
                yield named

    with Committer(job.origin, job.dtype, waiting, report) as committer:
        for part, embedded in embed_parts(
            missing(), model, job.pipeline, total=job.total, waiting=waiting, progress=progress
        ):
            committer.commit(part, embedded)
