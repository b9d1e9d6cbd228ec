"""Putting shards together in a process of its own, while later ones are still being made.

Where several processes make shards, merging them afterwards would take a good part of the time.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from faceidx.children import Child, serve_parent
from faceidx.embedding.merge import merge_shards
from faceidx.embedding.store import Origin
from faceidx.errors import FaceidxError, JobError

# Seconds between two looks for a shard that is not there yet.
_LOOK = 0.02


class MergeAhead:
    """A process that writes the one promised file as shards appear. A context manager.

    Leaving it before `finish` leaves no file.

    Args:
        expected: rows that there will be, as far as is known.
        attributes: more attributes for the file.
    """

    def __init__(
        self,
        out: Path,
        origin: Origin,
        *,
        dtype: str,
        expected: int,
        attributes: Mapping[str, str],
    ) -> None:
        self._out, self._finished = out, False
        self._child = Child("faceidx.embedding.merge_ahead", "serve")
        facts = {"dtype": dtype, "expected": expected, "attributes": attributes}
        self._child.connection.send((out.absolute(), origin, facts))

    def __enter__(self) -> MergeAhead:
        return self

    def __exit__(self, *_: object) -> None:
        if self._finished:
            self._child.leave()
        else:
            self._child.end()

    def follow(self, shard: Path) -> None:
        """Name the next shard, in the order of keys, whether it is there yet or not."""
        try:
            self._child.connection.send(shard.absolute())
        except OSError:
            return  # it has ended, and `finish` will tell why

    def finish(self) -> None:
        """Wait for the file, when all shards are named and there.

        Raises:
            JobError: the disk is full, or the process died.
        """
        with suppress(OSError):  # its last words may still be read
            self._child.connection.send(None)
        try:
            last = self._child.connection.recv()
        except (EOFError, OSError):
            code = self._child.end()
            raise JobError(
                f"the process that writes {self._out} died ({code}); the same command goes on"
            ) from None
        if isinstance(last, FaceidxError):
            raise last
        self._finished = True


def serve(descriptor: int) -> None:
    """Merge the shards that the process at the other end names."""
    serve_parent(descriptor, _merge)


def _merge(connection: Connection) -> None:
    out, origin, facts = connection.recv()
    merge_shards(out, _appearing(connection), origin, **facts)


def _appearing(connection: Connection) -> Iterator[Path]:
    """Each shard once it is there; raises `EOFError` where the other process is no more."""
    named: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
    alone = threading.Event()

    def listen() -> None:
        try:
            while (path := connection.recv()) is not None:
                named.put(path)
        except (EOFError, OSError):
            alone.set()
        named.put(None)

    threading.Thread(target=listen, name="named", daemon=True).start()
    while (path := named.get()) is not None:
        while not path.exists():
            if alone.wait(_LOOK):
                break
        else:
            yield path
    if alone.is_set():
        raise EOFError
