"""Several devices at once: a process each, with a model of its own."""

from __future__ import annotations

import os
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

# How the driver is told which GPUs a process may see: by number or by name.
_VISIBLE = "CUDA_VISIBLE_DEVICES"


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
    members = []
    for device in devices:
        environment, there = seen_alone(device)
        child = Child("faceidx.embedding.devices", "serve", environment=environment)
        given = _DeviceJob(job=job, model=replace(model, device=there), feeders=feeders)
        members.append(Member(f"the process on {device}", child, given))
    run_crew(members, parts, waiting=waiting, report=report)


def seen_alone(device: str) -> tuple[dict[str, str], str]:
    """The environment of a process that sees one GPU of several, and what it is called there.

    It is the first one there, as it is where one alone is used: torch finds what it has compiled by
    the number of the GPU too. And nothing of the process gets onto another.
    """
    kind, _, number = device.partition(":")
    if kind != "cuda" or not number:
        return {}, device
    seen = os.environ.get(_VISIBLE, "")
    names = [name.strip() for name in seen.split(",")] if seen else []
    if names and int(number) >= len(names):
        return {}, device
    return {_VISIBLE: names[int(number)] if names else number}, "cuda"


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
