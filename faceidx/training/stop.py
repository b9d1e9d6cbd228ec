"""SIGTERM: a machine that is taken away says so first; the run saves its state and leaves."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """Whether this process was asked to end."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self, signal_number: int, frame: FrameType | None) -> None:
        """Note the request; the loop sees it after the step that is under way."""
        self.asked = True


@contextmanager
def on_sigterm() -> Iterator[Stop]:
    """Note SIGTERM in place of dying by it. Only a main thread may; elsewhere nothing changes."""
    stop = Stop()
    with _handled_by(stop):
        yield stop


@contextmanager
def sigterm_to_children() -> Iterator[Stop]:
    """Hand SIGTERM on to the child processes, which save and end; this process waits for them.

    Raises:
        KeyboardInterrupt: at once where there are none yet.
    """
    stop = Stop()

    def hand_on(signal_number: int, frame: FrameType | None) -> None:
        stop.asked = True
        children = multiprocessing.active_children()
        if not children:
            raise KeyboardInterrupt
        for child in children:
            if child.pid is not None:
                os.kill(child.pid, signal.SIGTERM)

    with _handled_by(hand_on):
        yield stop


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
