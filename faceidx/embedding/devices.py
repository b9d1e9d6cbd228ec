"""Several devices at once: a process each, with a model of its own."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

from faceidx.children import Child
from faceidx.embedding.crew import (
    Job,
    Line,
    Made,
    Member,
    SharedParts,
    make,
    run_crew,
    serve_line,
    split_cores,
)
from faceidx.embedding.feeders import make_by_feeders
from faceidx.embedding.pipeline import Waiting
from faceidx.models.open import ModelOptions, open_model


@dataclass(frozen=True, kw_only=True)
class _DeviceJob:
    job: Job
    model: ModelOptions
    feeders: int


def make_on(
    devices: Sequence[str],
    parts: SharedParts,
    job: Job,
    model: ModelOptions,
    *,
    feeders: int,
    waiting: Waiting,
    report: Callable[[Made], None],
) -> None:
    """Make the shards of all parts, each on one of the devices.

    Args:
        model: engine and precision settled; the device is each process's own.
        feeders: processes that hand pictures to each of them; 1 where it does so itself.

    Raises:
        FaceidxError: what went wrong in a process.
    """
    job = replace(job, pipeline=split_cores(job.pipeline, len(devices)))
    members = [
        Member(
            f"the process on {device}",
            Child("faceidx.embedding.devices", "serve"),
            _DeviceJob(job=job, model=replace(model, device=device), feeders=feeders),
        )
        for device in devices
    ]
    run_crew(members, parts, waiting=waiting, report=report)


def serve(descriptor: int) -> None:
    """Make shards as the process at the other end says, until it says no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is for the parent
    connection = Connection(descriptor)
    try:
        given: _DeviceJob = connection.recv()
    except (EOFError, OSError):
        return
    serve_line(connection, lambda: _make(Line(connection), given))


def _make(line: Line, given: _DeviceJob) -> Waiting:
    began = time.monotonic()
    model = open_model(given.model)
    opened = time.monotonic() - began
    if given.feeders > 1:
        waiting = Waiting()
        parts = SharedParts(line.parts())
        make_by_feeders(given.feeders, parts, given.job, model, waiting=waiting, report=line.say)
    else:
        waiting = make(line, model, given.job)
    waiting.open += opened
    return waiting
