"""Making the shards of a job: in this process, or by several, as suits the device."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from faceidx.embedding.batches import Part
from faceidx.embedding.crew import Job, Report, SharedParts, make
from faceidx.embedding.devices import make_on
from faceidx.embedding.feeders import make_by_feeders
from faceidx.embedding.pipeline import Waiting
from faceidx.embedding.roll import Named, News
from faceidx.models.device import all_devices
from faceidx.models.face_model import FaceModel
from faceidx.models.open import ModelOptions
from faceidx.progress import Progress, ProgressCallback
from faceidx.resources import usable_cores
from faceidx.shared_memory import can_share

# Processes that feed one GPU: pictures that each must have to do, cores that each must have to
# itself, and pictures a second that one can hand on (benchmarks/results.md).
_WORTH_A_FEEDER, _CORES_A_FEEDER, _HANDED_ON = 10_000, 3, 5000


class Crew(NamedTuple):
    """The processes that make shards."""

    devices: list[str]
    """What to run on: a process each, where there are several."""
    feeders: int
    """Processes that feed each device; 1 where that is done by the one that runs on it."""

    @property
    def several(self) -> bool:
        """Whether shards are made by others than this process."""
        return len(self.devices) * self.feeders > 1


def make_shards(
    parts: Iterable[Part],
    job: Job,
    model: FaceModel,
    wanted: ModelOptions,
    crew: Crew,
    *,
    waiting: Waiting,
    report: Report,
    progress: ProgressCallback,
) -> None:
    """Make the shards of all parts that are not there, each written while the next is in the model.

    Args:
        parts: made when they are needed, in another thread.
        model: opened as `wanted`.
        waiting: gets what decoding, the model and writing took.
        report: called for each part when it is named, and for each shard when it is made; by any
            thread.
    """
    if not crew.several:
        make(parts, model, job, waiting, report=report, progress=progress)
        return
    done = failed = 0

    def told(news: News) -> None:
        nonlocal done, failed
        report(news)
        if isinstance(news, Named):
            return
        done, failed = done + news.pictures, failed + news.counts.failed
        note = f"{failed} failed" if failed else ""
        progress(Progress("embed", done, job.total, note=note))

    shared = SharedParts(parts)
    if len(crew.devices) == 1:
        make_by_feeders(crew.feeders, shared, job, model, waiting=waiting, report=told)
        return
    settled = replace(
        wanted, engine=model.engine, precision=model.precision, compiled=model.compiled
    )
    make_on(crew.devices, shared, job, settled, feeders=crew.feeders, waiting=waiting, report=told)


def crew_for(model: FaceModel, wanted: ModelOptions, pictures: int) -> Crew:
    """The processes that suit a model and so many pictures.

    Every GPU, where the model runs on one and none was named, else the model's device alone. A GPU
    that is faster than one process can hand it pictures is fed by several.
    """
    if not model.device.startswith("cuda"):
        return Crew([model.device], 1)
    # One process calibrates int8, and others could not come to the same.
    devices = [model.device] if model.precision == "int8" else all_devices(wanted.device)
    feeders = min(
        math.ceil((model.rate or 0.0) / _HANDED_ON),
        usable_cores() // (_CORES_A_FEEDER * len(devices)),
        pictures // (_WORTH_A_FEEDER * len(devices)),
    )
    return Crew(devices, max(1, feeders if can_share else 1))
