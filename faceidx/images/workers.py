"""Decoding in other processes, so that a picture that kills its decoder fails alone.

A worker is a Python of its own with nothing but the decoder in it. Idle ones are kept for the next
call.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from multiprocessing.reduction import send_handle
from pathlib import Path
from typing import TypeVar

import numpy as np

from faceidx.children import Child
from faceidx.errors import JobError
from faceidx.images.pictures import Picture
from faceidx.images.prepare import Prepare, Prepared, WholePicture
from faceidx.images.worker import READY, SECONDS_A_PICTURE, read_reply
from faceidx.resources import usable_cores
from faceidx.shared_memory import can_share, memory_seen, new_memory

Tag = TypeVar("Tag")

# Pictures a request: enough that the way to the worker and back costs little beside the decoding.
_MOST_A_REQUEST = 16
# Pictures that are worth a further worker, which takes a fifth of a second to start.
_FEWEST_A_WORKER = 16
# Bytes for the faces of a request, which take up no more memory than there are; where they are more
# they go through the socket.
_ROOM = 4 << 20
# Of so many, finding out what the first ones are may take as long as starting all workers does.
_MANY = 10_000

# How often one is started that somebody kills meanwhile.
_STARTS, _SECONDS_TO_START_AGAIN = 5, 0.5

# A worker is one thread among as many workers as there are cores.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class Workers:
    """A number of workers. A context manager: leaving it waits for what is under way."""

    def __init__(self, count: int | None = None, *, at_once: int = _MOST_A_REQUEST) -> None:
        """Prepare for `count` workers, by default one a core; each starts when it is needed.

        Args:
            at_once: pictures that one is given at a time, at the most.
        """
        self.count, self._request = count or usable_cores(), at_once
        self._threads = ThreadPoolExecutor(self.count, thread_name_prefix="decode")

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    def prepare(
        self, pictures: Iterable[tuple[Tag, Picture]], prepare: Prepare, *, ahead: int, total: int
    ) -> Iterator[tuple[Tag, Picture, Prepared | str]]:
        """Yield for each picture, in order, its faces or the reason why there are none.

        Args:
            pictures: each with whatever the caller wants to have beside the result.
            ahead: pictures that may be under way or wait to be taken: what bounds memory.
            total: pictures that there are, as far as is known: few are not spread thinly.

        Raises:
            JobError: no worker can be started.
        """
        source = iter(pictures)
        # So small that every worker gets its share of the window and of few pictures.
        share = min(ahead // (2 * self.count), total // (4 * self.count))
        request = max(1, min(self._request, share))
        at_once = min(self.count, 1 + total // _FEWEST_A_WORKER)
        depth = max(at_once, ahead // request)
        waiting: deque[tuple[list[tuple[Tag, Picture]], Future[list[Prepared | str]]]] = deque()

        def submit() -> bool:
            if part := list(islice(source, request)):
                alone = [picture for _, picture in part]
                waiting.append((part, self._threads.submit(_faces_of, alone, prepare)))
            return bool(part)

        if total >= _MANY:
            for _ in range(self.count):
                self._threads.submit(_start_one)
        while len(waiting) < depth and submit():
            continue
        while waiting:
            part, future = waiting.popleft()
            submit()
            for (tag, picture), result in zip(part, future.result(), strict=True):
                yield tag, picture, result


def _faces_of(pictures: Sequence[Picture], prepare: Prepare) -> list[Prepared | str]:
    together = _attempt(pictures, prepare)
    if not isinstance(together, int):
        return together
    # One of them kills its worker, or somebody else did: alone each shows. By the cores, as else a
    # GPU that has no memory left, say, would be held against each of them.
    if isinstance(prepare, WholePicture):
        prepare = replace(prepare, card="")
    return [_faces_of_one(picture, prepare) for picture in pictures]


def survives(pictures: Sequence[Picture], prepare: Prepare) -> bool:
    """Whether a worker can be asked for the faces of these pictures without coming to grief."""
    return not isinstance(_attempt(pictures, prepare), int)


def _faces_of_one(picture: Picture, prepare: Prepare) -> Prepared | str:
    result = _attempt([picture], prepare)
    if not isinstance(result, int):
        return result[0]
    if result == -signal.SIGPROF:
        return f"takes more than {SECONDS_A_PICTURE} s to decode"
    return f"kills its decoder ({_name_of(result)})"


def _name_of(code: int) -> str:
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"exit code {code}"


def _attempt(pictures: Sequence[Picture], prepare: Prepare) -> list[Prepared | str] | int:
    """Ask a worker; returns its exit code where it came to grief over them."""
    worker = _take()
    try:
        results = worker.ask(pictures, prepare)
    except (EOFError, OSError, ValueError, TypeError, LookupError, AttributeError):
        # It has died, or what it sends makes no sense.
        return worker.end()
    except BaseException:
        worker.end()
        raise
    _give_back(worker)
    return results


# --- one worker, and those that are idle -------------------------------------------------------


class _KilledError(JobError):
    """Somebody ended a worker while it started."""


class _Worker:
    def __init__(self) -> None:
        self._child = Child("faceidx.images.worker", "serve", environment=_ONE_THREAD)
        try:
            ready = self._child.connection.recv_bytes() == READY
            self._room = self._shared() if ready else np.empty(0, np.uint8)
        except (EOFError, OSError):
            ready = False
        if not ready:
            code = self.end()
            kind = _KilledError if code < 0 else JobError
            raise kind(f"the process that decodes pictures ended at its start ({code})")

    def _shared(self) -> np.ndarray:
        """Memory that it leaves faces in: a socket would have them copied four times."""
        connection = self._child.connection
        try:
            descriptor = new_memory(_ROOM) if can_share else None
        except OSError:
            descriptor = None
        connection.send(descriptor is not None)
        if descriptor is None:
            return np.empty(0, np.uint8)
        try:
            send_handle(connection, descriptor, self._child.process.pid)
            return memory_seen(descriptor)
        finally:
            os.close(descriptor)

    def ask(self, pictures: Sequence[Picture], prepare: Prepare) -> list[Prepared | str]:
        self._child.connection.send((_folder(), prepare, pictures))
        return read_reply(self._child.connection, len(pictures), prepare.size, self._room)

    def is_alive(self) -> bool:
        return self._child.is_alive()

    def close(self) -> None:
        self._child.connection.close()

    def end(self) -> int:
        return self._child.end()


def _folder() -> str:
    """What relative paths are relative to."""
    try:
        return str(Path.cwd())
    except FileNotFoundError:  # it was removed, and nothing can be relative to it
        return os.sep


_idle: list[_Worker] = []
_lock = threading.Lock()


def _take() -> _Worker:
    with _lock:
        while _idle:
            worker = _idle.pop()
            if worker.is_alive():
                return worker
            worker.end()
    for _ in range(_STARTS - 1):
        try:
            return _Worker()
        except _KilledError:  # as the system kills decoders first where memory runs out
            time.sleep(_SECONDS_TO_START_AGAIN)
    return _Worker()


def _start_one() -> None:
    """Have one ready; whether there can be one is seen when it is needed."""
    with suppress(JobError):
        _give_back(_take())


def _give_back(worker: _Worker) -> None:
    with _lock:
        _idle.append(worker)


def _end_all() -> None:
    for worker in _idle:
        worker.close()  # all of them first, so that they end side by side
    while _idle:
        _idle.pop().end()


atexit.register(_end_all)
os.register_at_fork(after_in_child=_idle.clear)  # a child must not talk to its parent's workers
