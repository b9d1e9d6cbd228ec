"""The batches of an epoch: which pictures, in what order, fetched and changed ahead of use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from faceidx.errors import JobError
from faceidx.training.augment import Chance, augment, strength_named
from faceidx.training.data import TrainingData
from faceidx.training.pictures import look_ahead
from faceidx.training.run import Run
from faceidx.training.split import WINDOW, epoch_order
from faceidx.training.step import parts_of_batch

# So many unreadable pictures behind one another are no accident: the data are gone.
_MOST_UNREADABLE = 100


@dataclass(frozen=True, kw_only=True)
class Batch:
    """This process's part of one batch, on the device."""

    step: int
    """Within the epoch."""
    pictures: torch.Tensor
    """(n, H, W, 3) float32 in 0..255, changed at random."""
    labels: torch.Tensor
    """(n,) int64."""


def batches(run: Run) -> Iterator[Batch]:
    """This process's part of every batch that is left in the epoch.

    Order and changes follow from seed, epoch and step alone.

    Raises:
        JobError: the pictures cannot be read any more.
    """
    fabric, job, epoch = run.fabric, run.job, run.state.epoch
    data, total = job.data, job.recipe.batch_size
    strength = strength_named(job.recipe.augment)
    rng = np.random.default_rng([job.options.seed, epoch])
    order = epoch_order(data.labels, job.recipe.sampling, rng, data.shards)
    parts = parts_of_batch(total, job.recipe.accumulate, fabric.world_size, fabric.global_rank)
    part = np.concatenate(parts)
    whose = torch.from_numpy(part)
    first = run.state.step
    now_and_then = max(1, WINDOW // 8 // total)
    announced: set[int] = set()

    def make(step: int) -> Batch:
        if (step - first) % now_and_then == 0:
            _announce(data, order[step * total :][: WINDOW + total * now_and_then], announced)
        pictures, places = _fetch(data, order[step * total : (step + 1) * total][part])
        chance = Chance(derived_seed(job.options.seed, epoch, step), total, whose)
        return Batch(
            step=step,
            pictures=augment(pictures.to(fabric.device), strength, chance),
            labels=torch.from_numpy(data.labels[places]).to(fabric.device),
        )

    return look_ahead(make, range(first, run.steps))


def derived_seed(*numbers: int) -> int:
    """One seed out of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _fetch(data: TrainingData, places: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
    """The pictures of some places, and the places they are of.

    For one that cannot be read the next one that can stands in, with its own label. Which that is
    depends on the data alone: neither on the batch nor on the number of processes.
    """
    pictures, readable = data.bank.fetch(data.rows[places])
    if readable.all():
        return pictures, places
    places = places.copy()
    for at in np.flatnonzero(~readable):
        for _ in range(_MOST_UNREADABLE):
            places[at] = (places[at] + 1) % len(data.rows)
            other, usable = data.bank.fetch(data.rows[places[at : at + 1]])
            if usable[0]:
                pictures[at] = other[0]
                break
        else:
            raise JobError(
                f"{_MOST_UNREADABLE} pictures behind one another cannot be read any more; see that "
                "the data are there, and run the same command again to go on"
            )
    return pictures, places


def _announce(data: TrainingData, soon: np.ndarray, announced: set[int]) -> None:
    """Have the system read the shards of pictures that come soon, from end to end.

    Within them pictures are wanted in random order, which a disk or network alone is slow at.
    """
    if data.shards is None or len(data.shards) <= WINDOW:
        return
    shards, firsts = np.unique(data.shards[soon], return_index=True)
    new = [at for shard, at in zip(shards.tolist(), firsts, strict=True) if shard not in announced]
    announced.update(shards.tolist())
    if new:
        data.bank.announce(data.rows[soon[new]])
