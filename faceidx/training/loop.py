"""Training, from the command's options to a model: read it top to bottom.

    faceidx train people/ --out run
    faceidx train people/ --out run --aux center --aux angle --pairs pairs.txt --pairs-root photos/
    faceidx train people/ --out run --devices 2 --device cpu

All chance follows from (seed, epoch, step), so an interrupted run ends like an unbroken one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule

from faceidx.errors import InputError, JobError
from faceidx.files import writer_lock
from faceidx.images.preprocess import Preprocessing
from faceidx.images.templates import recorded_template
from faceidx.losses.registry import AUXILIARY_WEIGHTS
from faceidx.models.file import write_model
from faceidx.processes import add_up
from faceidx.progress import Progress, ProgressCallback, silent
from faceidx.training import history, run_folder
from faceidx.training.augment import Chance, augment, strength_named
from faceidx.training.average import Average
from faceidx.training.data import TrainingData, load_data, scan
from faceidx.training.launch import is_first_process, launch, settle_hardware
from faceidx.training.network import (
    Start,
    TrainingNetwork,
    adopt_facts,
    build_network,
    head_record,
    model_file,
    settle_stage,
)
from faceidx.training.optimizer import build_optimizer
from faceidx.training.options import Recipe, TrainOptions, settle_recipe
from faceidx.training.pictures import look_ahead
from faceidx.training.schedule import auxiliary_share, has_flattened, rate_share
from faceidx.training.shared_norm import share_statistics
from faceidx.training.split import epoch_order
from faceidx.training.state import Kept, State, load_tensors, read_state, save_state
from faceidx.training.step import learn
from faceidx.training.stop import Stop, on_sigterm
from faceidx.training.validate import validate

# Within an epoch the state is saved this often, so that little is lost of a long one.
_SAVE_STEPS = 500
_REPORT_STEPS = 10
# Pixel statistics do not matter for a network trained from scratch; a symmetric range does.
_MEAN = _STD = (0.5, 0.5, 0.5)


@dataclass(kw_only=True)
class Job:
    """All that a process needs to take part in a run."""

    options: TrainOptions
    recipe: Recipe
    start: Start
    data: TrainingData
    preprocessing: Preprocessing
    settings: dict[str, Any]
    template: str | None  # alignment of the faces, where it is known


def train(options: TrainOptions, progress: ProgressCallback = silent) -> dict[str, Any]:
    """Train a model, or go on with an unfinished run.

    Returns:
        The fields that the command's JSON promises, and `stage`, `left_out`, `pairs_auc`.

    Raises:
        InputError: options, model or data do not fit together, or the run is finished already.
        JobError: the training diverged, or the disk is full; the last good state survives.
    """
    hardware = settle_hardware(options)
    source = scan(options)
    start = settle_stage(options, {p.identity for p in source.pictures if p.identity})
    recipe = settle_recipe(options, pictures=len(source.pictures), on_gpu=hardware.on_gpu)
    recipe = adopt_facts(recipe, start, options)
    strength_named(recipe.augment)
    start_epoch = options.aux_start
    if start_epoch != "auto" and not (start_epoch.isdigit() and int(start_epoch) >= 1):
        raise InputError(f"--aux-start {options.aux_start}: give auto or an epoch, from 1")
    if options.select == "pairs" and not options.pairs:
        raise InputError("--select pairs chooses by a pair list; give --pairs")
    side = recipe.image_size
    preprocessing = Preprocessing(image_size=(side, side), color="rgb", mean=_MEAN, std=_STD)
    record = start.content.record if start.content else None
    if record:
        preprocessing = record.preprocessing
    data = load_data(options, source, start.classes, preprocessing.image_size, progress)
    recipe.batch_size = min(recipe.batch_size, len(data.rows))
    if hardware.processes > recipe.batch_size:
        raise InputError(
            f"{hardware.processes} processes for batches of {recipe.batch_size}; give fewer "
            "--devices or a larger --batch-size"
        )
    # What cannot be built fails here, before a file is made.
    build_network(recipe, start, preprocessing, len(data.class_names))
    settings = run_folder.settings_of(options, recipe, data.digest)
    job = Job(
        options=options,
        recipe=recipe,
        start=start,
        data=data,
        preprocessing=preprocessing,
        settings=settings,
        template=record.template if record else recorded_template(options.data),
    )
    with ExitStack() as stack:
        if is_first_process():  # the others wait for it when they meet in `launch`
            stack.enter_context(writer_lock(options.out))
            run_folder.prepare_folder(options.out, settings, overwrite=options.overwrite)
            run_folder.write_config(options.out, options, recipe)
            run_folder.write_left_out(options.out, data.left_out)
        done = launch(hardware, fit, job, progress)
    return _summary(job, done)


@dataclass(kw_only=True)
class Run:
    """One process's part in a run, set up."""

    fabric: Fabric
    job: Job
    state: State
    plain: TrainingNetwork
    """The network itself, whose weights are saved."""
    network: _FabricModule
    """The same as Fabric wraps it, to be trained."""
    optimizer: torch.optim.Optimizer
    average: Average | None
    kept: Kept
    stop: Stop

    @property
    def judged(self) -> TrainingNetwork:
        """What is validated and written as the model."""
        return self.average.network if self.average else self.plain

    @property
    def steps(self) -> int:
        """Steps an epoch."""
        return len(self.job.data.rows) // self.job.recipe.batch_size

    def save(self) -> None:
        """Write everything that is needed to go on from here."""
        if self.fabric.is_global_zero:
            folder = self.job.options.out / run_folder.STATE
            save_state(folder, self.state, self.kept, self.job.settings)


def fit(fabric: Fabric, job: Job, progress: ProgressCallback) -> State:
    """The whole training in one process of possibly several."""
    with on_sigterm() as stop:
        run = _set_up(fabric, job, stop)
        state, data, recipe = run.state, job.data, job.recipe
        board = _board(job.options.out, state) if fabric.is_global_zero else None
        while state.epoch < recipe.epochs:
            _epoch(run, progress)
            head = head_record(run.plain, recipe)
            results = validate(fabric, run.judged, data, head, recipe.batch_size)
            _close_epoch(run, results)
            if fabric.is_global_zero:
                _write_epoch(run, board)
            run.save()  # comes last, as it says that all is there
            fabric.barrier()
    if board:
        board.close()
    return state


def _set_up(fabric: Fabric, job: Job, stop: Stop) -> Run:
    """Build the network, and put it where the run stands."""
    options, recipe = job.options, job.recipe
    torch.manual_seed(options.seed)
    plain = build_network(recipe, job.start, job.preprocessing, len(job.data.class_names))
    plain = plain.to(memory_format=torch.channels_last)
    if fabric.world_size > 1 and fabric.device.type == "cpu":
        share_statistics(plain)
    moves = build_optimizer(plain, recipe, job.start.stage)
    network, optimizer = fabric.setup(plain, moves)
    average = Average(plain, recipe.ema) if recipe.ema else None
    kept = Kept(
        network=plain,
        optimizer=moves,
        average=average.network if average else None,
        scaler=fabric.strategy.precision,
    )
    folder = options.out / run_folder.STATE
    saved = read_state(folder)
    run = Run(
        fabric=fabric,
        job=job,
        state=saved[0] if saved else State(),
        plain=plain,
        network=network,
        optimizer=optimizer,
        average=average,
        kept=kept,
        stop=stop,
    )
    fabric.barrier()  # all have looked before the first one writes
    if saved:
        load_tensors(folder, kept)
    else:
        run.save()
    if options.aux_start != "auto" and recipe.aux:
        run.state.aux_started = int(options.aux_start) - 1
    return run


def _epoch(run: Run, progress: ProgressCallback) -> None:
    """What is left of the epoch; the state holds its sums afterwards."""
    fabric, job, state = run.fabric, run.job, run.state
    strength = strength_named(job.recipe.augment)
    began = time.monotonic()
    run.plain.train()
    sums = {n: torch.tensor(v, dtype=torch.float64) for n, v in state.sums.items()}
    if not fabric.is_global_zero:
        sums = {}  # what was saved are the sums of all, and rank 0 has taken them up
    for step, pictures, labels, chance in _batches(run):
        at = state.epoch * run.steps + step
        weights = _set_rates(run, at)
        torch.manual_seed(_seed(job.options.seed, state.epoch, step, fabric.global_rank))
        changed = augment(pictures.to(fabric.device), strength, chance)
        losses = learn(
            fabric,
            run.network,
            run.optimizer,
            changed,
            labels.to(fabric.device),
            weights,
            job.recipe,
        )
        if run.average:
            run.average.follow(run.plain, at)
        for name, value in losses.items():
            sums[name] = sums.get(name, 0) + value
        state.step = step + 1
        leave = _asked_to_leave(run, step)
        if step % _REPORT_STEPS == 0:
            _require_finite(sums, state, job.options)
            progress(_report(job, state, run.steps, float(sums["loss"]) / state.step))
        if leave or (state.step % _SAVE_STEPS == 0 and state.step < run.steps):
            state.seconds, began = state.seconds + time.monotonic() - began, time.monotonic()
            sums = _pool(fabric, sums, state)
            run.save()
        if leave:
            fabric.barrier()  # nobody leaves before the state is written
            raise KeyboardInterrupt
    _require_finite(sums, state, job.options)
    _pool(fabric, sums, state)
    state.seconds += time.monotonic() - began


def _asked_to_leave(run: Run, step: int) -> bool:
    """Whether any process was asked to end; the same in all of them."""
    if run.fabric.world_size == 1:
        return run.stop.asked
    if step % _REPORT_STEPS:
        return False
    return bool(add_up(torch.tensor(float(run.stop.asked), device=run.fabric.device)))


def _batches(run: Run) -> Iterator[tuple[int, torch.Tensor, torch.Tensor, Chance]]:
    """This process's part of every batch left in the epoch: (step, pictures, labels, chance)."""
    fabric, job, state = run.fabric, run.job, run.state
    data, total = job.data, job.recipe.batch_size
    rng = np.random.default_rng([job.options.seed, state.epoch])
    order = epoch_order(data.labels, job.recipe.sampling, rng)
    part = slice(
        total * fabric.global_rank // fabric.world_size,
        total * (fabric.global_rank + 1) // fabric.world_size,
    )
    left = range(state.step, run.steps)
    chosen = [order[step * total : (step + 1) * total][part] for step in left]
    pictures = look_ahead(data.bank, (data.rows[places] for places in chosen))
    for step, places, batch in zip(left, chosen, pictures, strict=True):
        chance = Chance(_seed(job.options.seed, state.epoch, step), total, part)
        yield step, batch, torch.from_numpy(data.labels[places]), chance


def _seed(*numbers: int) -> int:
    """One seed out of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


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


def _require_finite(sums: dict[str, torch.Tensor], state: State, options: TrainOptions) -> None:
    """Raise `JobError` where the loss is no number any more."""
    if not math.isfinite(float(sums["loss"])):
        raise JobError(
            f"the training diverged in epoch {state.epoch + 1}: its loss is no number any more; "
            f"give a lower --lr (the state before it is kept in {options.out / run_folder.STATE})"
        )


def _close_epoch(run: Run, results: dict[str, float | None]) -> None:
    """Turn the epoch's sums into a line of the history, and decide on the auxiliary losses."""
    job, state, recipe = run.job, run.state, run.job.recipe
    sums = state.sums
    images = run.steps * recipe.batch_size
    means = {n: v / run.steps for n, v in sums.items() if n != "correct"}
    before = sum(line["seconds"] for line in state.history)
    line: dict[str, Any] = {
        "epoch": state.epoch + 1,
        "loss": means.pop("loss"),
        "train_accuracy": sums["correct"] / images,
        **results,
        "lr": run.optimizer.param_groups[-1]["lr"],
        "seconds": state.seconds - before,
        "images_per_second": images / max(1e-9, state.seconds - before),
    }
    line |= {f"loss_{name}": value for name, value in means.items()}
    state.history.append(line)
    values = history.curve(state.history, job.options.select)
    if recipe.aux and state.aux_started is None and has_flattened(values, recipe.epochs):
        state.aux_started = state.epoch + 1
        line["aux_started"] = True
    state.epoch, state.step, state.sums = state.epoch + 1, 0, {}
    state.finished = state.epoch == recipe.epochs


def _write_epoch(run: Run, board: Any) -> None:
    """Write what an epoch leaves behind, but for the state."""
    job, state, folder = run.job, run.state, run.job.options.out
    line = state.history[-1]
    training = {
        "stage": job.start.stage,
        "seed": job.options.seed,
        "images": len(job.data.rows),
        "epochs": job.recipe.epochs,
        "augment": job.recipe.augment,
        **line,
    }
    content = model_file(run.judged, job.recipe, job.data.class_names, training, job.template)
    write_model(folder / run_folder.LAST, content)
    if history.best(state.history, job.options.select) is line:
        write_model(folder / run_folder.MODEL, content)
    run_folder.write_metrics(folder, state.history)
    run_folder.draw_curves(folder, state.history)
    for name, value in line.items():
        if isinstance(value, float):
            board.add_scalar(name, value, line["epoch"])
    board.flush()


def _board(run: Path, state: State) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(run / run_folder.TENSORBOARD, purge_step=state.epoch + 1)


def _report(job: Job, state: State, steps_per_epoch: int, loss: float) -> Progress:
    size = job.recipe.batch_size
    done = (state.epoch * steps_per_epoch + state.step) * size
    note = f"epoch {state.epoch + 1}/{job.recipe.epochs} loss {loss:.3f}"
    if state.history and (auc := state.history[-1]["val_auc"]) is not None:
        note += f" val_auc {auc:.4f}"
    return Progress("train", done, job.recipe.epochs * steps_per_epoch * size, note=note)


def _summary(job: Job, state: State) -> dict[str, Any]:
    best = history.best(state.history, job.options.select)
    trained = len(job.data.rows) // job.recipe.batch_size * job.recipe.batch_size
    return {
        "model": str(job.options.out / run_folder.MODEL),
        "arch": job.recipe.arch,
        "stage": job.start.stage,
        "classes": len(job.data.class_names),
        "held_out_people": job.data.held_out,
        "images": len(job.data.rows),
        "left_out": len(job.data.left_out),
        "epochs": job.recipe.epochs,
        "best_epoch": best["epoch"],
        "train_accuracy": best["train_accuracy"],
        "val_accuracy": best["val_accuracy"],
        "val_auc": best["val_auc"],
        "pairs_auc": best["pairs_auc"],
        "images_per_second": trained * len(state.history) / max(1e-9, state.seconds),
        "seconds": state.seconds,
    }
