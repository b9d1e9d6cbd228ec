"""One epoch of training, or what is left of it: batch after batch, saving now and then."""

from __future__ import annotations

import math
import time

import torch
from lightning_fabric import Fabric

from faceidx.errors import JobError
from faceidx.losses.registry import AUXILIARY_WEIGHTS
from faceidx.processes import add_up, gather_objects
from faceidx.progress import Progress, ProgressCallback
from faceidx.training import run_folder
from faceidx.training.batches import Batch, batches, derived_seed
from faceidx.training.job import Job
from faceidx.training.options import TrainOptions
from faceidx.training.run import Run
from faceidx.training.schedule import auxiliary_share, rate_share
from faceidx.training.state import State
from faceidx.training.step import learn

# Within an epoch the state is saved this often, so that little is lost of a long one.
_SAVE_STEPS = 500
_REPORT_STEPS = 10
# Tells this chance from what the processes draw, whose seeds end with their numbers.
_CLASSES_OF_A_STEP = 1 << 31


def train_epoch(run: Run, progress: ProgressCallback) -> None:
    """What is left of the epoch; the state holds its sums afterwards."""
    fabric, job, state = run.fabric, run.job, run.state
    began = time.monotonic()
    run.plain.train()
    sums = {n: torch.tensor(v, dtype=torch.float64) for n, v in state.sums.items()}
    if not fabric.is_global_zero:
        sums = {}  # what was saved are the sums of all, and rank 0 has taken them up
    for batch in batches(run):
        for name, value in train_step(run, batch).items():
            sums[name] = sums.get(name, 0) + value
        state.step = batch.step + 1
        leave = _asked_to_leave(run, batch.step)
        if batch.step % _REPORT_STEPS == 0:
            _require_finite(sums, state, job.options)
            progress(_report(job, state, run.steps, float(sums["loss"]) / state.step))
        if leave or (state.step % _SAVE_STEPS == 0 and state.step < run.steps):
            state.seconds, began = state.seconds + time.monotonic() - began, time.monotonic()
            sums = _pool(fabric, sums, state)
            pool_unreadable(run)
            run.save()
        if leave:
            fabric.barrier()  # nobody leaves before the state is written
            raise KeyboardInterrupt
    _require_finite(sums, state, job.options)
    _pool(fabric, sums, state)
    state.seconds += time.monotonic() - began


def train_step(run: Run, batch: Batch) -> dict[str, torch.Tensor]:
    """Learn from a batch; return its losses as `learn` does."""
    job, state = run.job, run.state
    at = state.epoch * run.steps + batch.step
    weights = _set_rates(run, at)
    seed = job.options.seed, state.epoch, batch.step
    torch.manual_seed(derived_seed(*seed, run.fabric.global_rank))
    run.plain.prepare(batch.labels, derived_seed(*seed, _CLASSES_OF_A_STEP))
    losses = learn(
        run.fabric,
        run.network,
        run.optimizer,
        batch.pictures,
        batch.labels,
        weights,
        job.recipe,
    )
    if run.average:
        run.average.follow(run.plain, at)
    return losses


def _asked_to_leave(run: Run, step: int) -> bool:
    """Whether any process was asked to end; the same in all of them."""
    if run.fabric.world_size == 1:
        return run.stop.asked
    if step % _REPORT_STEPS:
        return False
    return bool(add_up(torch.tensor(float(run.stop.asked), device=run.fabric.device)))


def _set_rates(run: Run, at: int) -> dict[str, float]:
    """Set the learning rates of a step; return the weights of the auxiliary losses."""
    job, steps_per_epoch = run.job, run.steps
    recipe = job.recipe
    share = rate_share(
        at,
        steps=recipe.epochs * steps_per_epoch,
        warmup=round(recipe.warmup_epochs * steps_per_epoch),
    )
    for group in run.optimizer.param_groups:
        group["lr"] = recipe.lr * share * group["rate"]
    grown = auxiliary_share(at, run.state.aux_started, steps_per_epoch)
    given = job.options.aux_weight
    return {
        name: grown * (AUXILIARY_WEIGHTS[name] if given is None else given) for name in recipe.aux
    }


def _pool(fabric: Fabric, sums: dict[str, torch.Tensor], state: State) -> dict[str, torch.Tensor]:
    """Add up the sums of all processes into the state; return what each goes on with."""
    together = {name: add_up(value) for name, value in sums.items()}
    state.sums = {name: float(value) for name, value in together.items()}
    return together if fabric.is_global_zero else {}


def pool_unreadable(run: Run) -> None:
    """Tell the state of the pictures that any process found unreadable."""
    for bank in run.job.data.banks:
        for found in gather_objects(dict(bank.unreadable)):
            run.state.unreadable |= found


def _require_finite(sums: dict[str, torch.Tensor], state: State, options: TrainOptions) -> None:
    """Raise `JobError` where the loss is no number any more."""
    if not math.isfinite(float(sums["loss"])):
        raise JobError(
            f"the training diverged in epoch {state.epoch + 1}: its loss is no number any more; "
            f"give a lower --lr (the state before it is kept in {options.out / run_folder.STATE})"
        )


def _report(job: Job, state: State, steps_per_epoch: int, loss: float) -> Progress:
    size = job.recipe.batch_size
    done = (state.epoch * steps_per_epoch + state.step) * size
    note = f"epoch {state.epoch + 1}/{job.recipe.epochs} loss {loss:.3f}"
    if state.history and (auc := state.history[-1]["val_auc"]) is not None:
        note += f" val_auc {auc:.4f}"
    return Progress("train", done, job.recipe.epochs * steps_per_epoch * size, note=note)
