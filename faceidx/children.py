"""Processes of our own: a new Python with one function of ours in it, at the end of a socket.

Not a fork: forking a process with a model's threads in it can block for ever. Not
`multiprocessing`, which would import the user's script once more.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from faceidx.errors import FaceidxError, JobError

_START = (
    "import importlib, sys; sys.path[:0] = sys.argv[4:]; "
    "getattr(importlib.import_module(sys.argv[1]), sys.argv[2])(int(sys.argv[3]))"
)


class Child:
    """A process that runs `function(descriptor)`, and the connection to it.

    Args:
        module: where the function is.
        function: its name; it is given the descriptor of its end of the socket, which is to be
            wrapped in a `multiprocessing.connection.Connection`. When the other end is closed, it
            has to return.
        environment: variables to set.

    Raises:
        JobError: no process can be started.
    """

    def __init__(
        self, module: str, function: str, *, environment: Mapping[str, str] | None = None
    ) -> None:
        self.connection, theirs = Pipe()
        # -P: the folder that the user is in, which may hold anything, is not searched.
        command = [sys.executable, "-P", "-c", _START, module, function, str(theirs.fileno())]
        options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        try:
            with theirs, _without_interrupts():
                self.process = subprocess.Popen(
                    [*command, *_checkout()],
                    pass_fds=[theirs.fileno()],
                    env={**os.environ, **(environment or {})},
                    **options,
                )
        except OSError as error:
            raise JobError(f"no process can be started ({error})") from None

    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def end(self) -> int:
        """End the process where it has not ended; returns its exit code."""
        self.connection.close()
        try:
            return self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def leave(self) -> None:
        """Have the process end, which is waited for beside what comes next."""
        threading.Thread(target=self.end, name="end").start()


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """What is started meanwhile never sees the terminal's Ctrl-C, which is for the parent."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def serve_parent(descriptor: int, work: Callable[[Connection], object]) -> None:
    """In such a process: do the work, and send what it returns, or the `FaceidxError` it raised.

    It ends silently where nobody is at the other end any more.
    """
    # What there is to be warned of the parent says, which opens the same model.
    logging.getLogger("faceidx").addHandler(logging.NullHandler())
    connection = Connection(descriptor)
    try:
        try:
            last = work(connection)
        except FaceidxError as error:
            last = error
        connection.send(last)
    except (EOFError, OSError):
        return


def _checkout() -> list[str]:
    """The folder that this package lies in, where Python does not look by itself."""
    folder = Path(__file__).resolve().parents[1]
    return [] if folder.name in ("site-packages", "dist-packages") else [str(folder)]
