"""Training, from the command's options to a model: read it top to bottom.

    faceidx train people/ --out run
    faceidx train people/ --out run --aux center --aux angle --pairs pairs.txt --pairs-root photos/
    faceidx train people/ --out run --devices 2 --device cpu

All chance follows from (seed, epoch, step), so an interrupted run ends like an unbroken one.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from lightning_fabric import Fabric

from faceidx.files import writer_lock
from faceidx.progress import ProgressCallback, silent
from faceidx.training import guard, history, run_folder
from faceidx.training.after_epoch import auxiliary_summary, close_epoch, write_epoch
from faceidx.training.board import Board
from faceidx.training.epoch import pool_unreadable, train_epoch
from faceidx.training.job import Job, settle_job
from faceidx.training.launch import is_first_process, launch, require_launcher, settle_hardware
from faceidx.training.network import head_record
from faceidx.training.options import TrainOptions
from faceidx.training.run import Run, set_up
from faceidx.training.state import State
from faceidx.training.stop import on_sigterm
from faceidx.training.validate import DivergedError, validate


def train(options: TrainOptions, progress: ProgressCallback = silent) -> dict[str, Any]:
    """Train a model, or go on with an unfinished run.

    Returns:
        The fields that the command's JSON promises, and `stage`, `left_out`, `pairs_auc`.

    Raises:
        InputError: options, model or data do not fit together, or the run is finished already.
        JobError: the training diverged, or the disk is full; the last good state survives.
    """
    hardware = settle_hardware(options)
    require_launcher(hardware)
    if is_first_process():
        run_folder.refuse_at_once(options.out, overwrite=options.overwrite)
    job = settle_job(options, hardware, progress)
    with ExitStack() as stack:
        if is_first_process():  # the others wait for it when they meet in `launch`
            stack.enter_context(writer_lock(options.out))
            run_folder.prepare_folder(options.out, job.settings, overwrite=options.overwrite)
            run_folder.write_config(options.out, options, job.recipe)
            run_folder.write_left_out(options.out, job.data.left_out)
        done = launch(hardware, fit, job, progress)
    return _summary(job, done)


def fit(fabric: Fabric, job: Job, progress: ProgressCallback) -> State:
    """The whole training in one process of possibly several."""
    with on_sigterm() as stop:
        run = set_up(fabric, job, stop, progress)
        events = job.options.out / run_folder.TENSORBOARD if fabric.is_global_zero else None
        with Board(events, run.state.epoch) as board:
            while run.state.epoch < job.recipe.epochs:
                _one_epoch(run, board, progress)
        if fabric.is_global_zero:
            run_folder.remove_good_state(job.options.out)
    return run.state


def _one_epoch(run: Run, board: Board, progress: ProgressCallback) -> None:
    """Train, judge and write an epoch; or go back, where an auxiliary loss did harm."""
    job, epoch = run.job, run.state.epoch + 1
    trouble = train_epoch(run, progress) or _judge_epoch(run)
    if trouble:
        guard.go_back(run, epoch, trouble)
        board.reopen(run.state.epoch)
        return
    write_epoch(run, board)
    if guard.is_to_go_back_to(run.state, job.options.select):
        run.save(run_folder.GOOD)
    run.save()  # comes last, as it says that all is there
    run.fabric.barrier()


def _judge_epoch(run: Run) -> str | None:
    """Validate and close an epoch; return what went wrong with an auxiliary loss on."""
    job = run.job
    head = head_record(run.plain, job.recipe)
    try:
        results = validate(run.fabric, run.judged, job.data, head, job.recipe.batch_size)
    except DivergedError as error:
        if not guard.is_guarded(run.state):
            raise guard.give_up(run, str(error)) from None
        return str(error)
    pool_unreadable(run)
    close_epoch(run, results)
    return guard.trouble_after_epoch(run.state, job.options.select)


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
        "left_out": len(job.data.left_out) + len(state.unreadable),
        "epochs": job.recipe.epochs,
        "best_epoch": best["epoch"],
        "train_accuracy": best["train_accuracy"],
        "val_accuracy": best["val_accuracy"],
        "val_auc": best["val_auc"],
        "pairs_auc": best["pairs_auc"],
        "images_per_second": trained * len(state.history) / max(1e-9, state.seconds),
        "seconds": state.seconds,
        **auxiliary_summary(job.recipe, state),
    }
