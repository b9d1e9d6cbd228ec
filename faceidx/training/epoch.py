"""One epoch of training, or what is left of it: batch after batch, saving now and then."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import torch

from faceidx.losses.registry import AUXILIARY_WEIGHTS
from faceidx.processes import add_up, gather_objects
from faceidx.progress import Progress, ProgressCallback
from faceidx.training import guard
from faceidx.training.batches import Batch, batches, derived_seed
from faceidx.training.job import Job
from faceidx.training.run import Run
from faceidx.training.schedule import auxiliary_share, rate_share
from faceidx.training.state import State
from faceidx.training.step import learn

# The loss is looked at and reported this often: on a GPU that means waiting for it.
_REPORT_STEPS = 10
# Tells this chance from what the processes draw, whose seeds end with their numbers.
_CLASSES_OF_A_STEP = 1 << 31


def train_epoch(run: Run, progress: ProgressCallback) -> str | None:
    """Do what is left of the epoch; the state holds its sums afterwards.

    Returns:
        What went wrong with an auxiliary loss on, None where nothing did.

    Raises:
        JobError: it diverged with none on.
        KeyboardInterrupt: the run was asked to end; its state is saved.
    """
    fabric, job, state = run.fabric, run.job, run.state
    began = time.monotonic()
    run.plain.train()
    # What was saved are the sums of all processes, and rank 0 takes them up.
    taken_up = state.sums if fabric.is_global_zero else {}
    sums = {n: torch.tensor(v, dtype=torch.float64) for n, v in taken_up.items()}
    for batch in batches(run):
        for name, value in train_step(run, batch).items():
            sums[name] = sums.get(name, 0) + value
        state.step = batch.step + 1
        leave = _asked_to_leave(run, batch.step)
        ends = state.step == run.steps
        save = ends or leave or state.step % job.options.save_steps == 0
        regular = batch.step % _REPORT_STEPS == 0
        if not save and not regular:
            continue
        trouble = _look(run, sums, judge=ends or regular, closely=save)
        if trouble:
            return trouble
        progress(_report(job, state, run.steps, state.sums["loss"] / state.step))
        state.seconds, began = state.seconds + time.monotonic() - began, time.monotonic()
        if leave or (save and not ends):
            pool_unreadable(run)
            run.save()
        if leave:
            fabric.barrier()  # nobody leaves before the state is written
            raise KeyboardInterrupt
    return None


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
    grown = auxiliary_share(at, run.state.aux_started, steps_per_epoch) * run.state.aux_share
    given = job.options.aux_weight
    return {
        name: grown * (AUXILIARY_WEIGHTS[name] if given is None else given) for name in recipe.aux
    }


def _look(run: Run, sums: dict[str, torch.Tensor], *, judge: bool, closely: bool) -> str | None:
    """Add up the sums of all processes into the state, and see whether all is well.

    Args:
        judge: the steps since this was last done; asked for at the same steps however often the
            state is saved.
        closely: look at the weights too, as what is saved must be sound.

    Returns:
        What is wrong with an auxiliary loss on, None where nothing is; the same in all processes.

    Raises:
        JobError: something is wrong with none on.
    """
    state, device = run.state, run.fabric.device
    names = sorted(sums)
    unsound = torch.tensor(float(closely and not _is_sound(run.plain)), dtype=torch.float64)
    mine = torch.stack([value.to(device) for value in (*(sums[n] for n in names), unsound)])
    *totals, unsound_ones = add_up(mine).tolist()
    state.sums = dict(zip(names, totals, strict=True))
    trouble = guard.NO_NUMBER if unsound_ones else None
    if judge and not trouble:
        lately = {n: v - state.looked.get(n, 0.0) for n, v in state.sums.items()}
        lately["steps"] = state.step - state.looked.get("steps", 0.0)
        state.looked = {**state.sums, "steps": state.step}
        now = mean_step(lately)
        if state.first_loss is None:
            state.first_loss = now["head"]
        trouble = guard.trouble_in_steps(state, now)
    if trouble and not guard.is_guarded(state):
        raise guard.give_up(run, trouble)
    return trouble


def pool_unreadable(run: Run) -> None:
    """Tell the state of the pictures that any process found unreadable."""
    for bank in run.job.data.banks:
        for found in gather_objects(dict(bank.unreadable)):
            run.state.unreadable |= found


def mean_step(sums: Mapping[str, float]) -> dict[str, float]:
    """Sums over `steps` to means a step, of the losses and the norm.

    A step that fp16 skipped because its loss overflowed does not count.
    """
    counted = sums["steps"] - sums.get("skipped", 0.0)
    left_alone = ("correct", "steps", "skipped")
    return {n: v / counted if counted else math.nan for n, v in sums.items() if n not in left_alone}


def _is_sound(network: torch.nn.Module) -> bool:
    values = [v for v in network.state_dict().values() if v.is_floating_point()]
    return bool(torch.stack([v.isfinite().all() for v in values]).all())


def _report(job: Job, state: State, steps_per_epoch: int, loss: float) -> Progress:
    size = job.recipe.batch_size
    done = (state.epoch * steps_per_epoch + state.step) * size
    note = f"epoch {state.epoch + 1}/{job.recipe.epochs} loss {loss:.3f}"
    if state.history and (auc := state.history[-1]["val_auc"]) is not None:
        note += f" val_auc {auc:.4f}"
    return Progress("train", done, job.recipe.epochs * steps_per_epoch * size, note=note)
