"""Letting a stage work while the one after it is busy."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

# How long the thread waits for room before it looks whether anyone still wants what it has.
_LOOK_UP = 0.2


@dataclass(frozen=True, slots=True)
class _Raised:
    error: BaseException


class _End(Generic[T]):
    pass


def ahead(items: Iterable[T], size: int) -> Generator[T, None, None]:
    """Yield the items, made in a thread of their own that is at most `size` items ahead.

    An error in making them is raised where they are taken. Closing the generator ends the thread.
    """
    waiting: queue.Queue[T | _Raised | _End[T]] = queue.Queue(size)
    closed = threading.Event()

    def put(item: T | _Raised | _End[T]) -> bool:
        while not closed.is_set():
            try:
                waiting.put(item, timeout=_LOOK_UP)
                return True
            except queue.Full:
                continue
        return False

    def make() -> None:
        source = iter(items)
        try:
            for item in source:
                if not put(item):
                    break
            else:
                put(_End())
        except BaseException as error:  # whatever it is, it belongs to the one who takes the items
            put(_Raised(error))
        finally:
            if isinstance(source, Generator):
                source.close()

    thread = threading.Thread(target=make, name="ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(item := waiting.get(), _End):
            if isinstance(item, _Raised):
                raise item.error
            yield item
    finally:
        closed.set()
        thread.join()
