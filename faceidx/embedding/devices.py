"""Several devices at once: a process each, with a model of its own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

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
    report: Report,
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
    serve_parent(descriptor, _make)


def _make(connection: Connection) -> Waiting:
    given: _DeviceJob = connection.recv()
    job, waiting, line = given.job, Waiting(), Line(connection)
    began = time.monotonic()
    model = open_model(given.model, batch_size=job.pipeline.batch_size)
    waiting.open += time.monotonic() - began
    if job.pipeline.card:
        job = replace(job, pipeline=replace(job.pipeline, card=model.device))
    if given.feeders > 1:
        parts = SharedParts(line.parts())
        make_by_feeders(given.feeders, parts, job, model, waiting=waiting, report=line.say)
    else:
        make(line.parts(), model, job, waiting, report=line.say)
    return waiting
