from __future__ import annotations

import logging
import os
import signal
import time
from multiprocessing.connection import Connection

import pytest

from faceidx.children import Child, serve_parent


def serve(descriptor: int) -> None:
    serve_parent(descriptor, _work)


def _work(connection: Connection) -> str:
    assert connection.recv() == "begin"
    logging.getLogger("faceidx.some.part").warning("what the parent says as well")
    return "done"


def test_interrupts_are_for_the_parent_from_the_first_moment_on(
    capfd: pytest.CaptureFixture[str],
) -> None:
    for delay in (0.0, 0.01, 0.05, 0.2):
        child = Child(__name__, "serve")
        time.sleep(delay)
        os.kill(child.process.pid, signal.SIGINT)
        child.connection.send("begin")
        assert child.connection.recv() == "done"
        assert child.end() == 0
    assert capfd.readouterr().err == ""
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
