"""What follows an epoch: its line of the history, the models, the curves."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from faceidx.files import whole_file
from faceidx.models.file import write_model
from faceidx.models.tensor_file import hand_over_rows
from faceidx.training import history, run_folder
from faceidx.training.network import model_file
from faceidx.training.run import Run
from faceidx.training.schedule import has_flattened
from faceidx.training.state import State


def close_epoch(run: Run, results: dict[str, float | None]) -> None:
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
        "unreadable": len(state.unreadable),
    }
    line |= {f"loss_{name}": value for name, value in means.items()}
    state.history.append(line)
    values = history.curve(state.history, job.options.select)
    if recipe.aux and state.aux_started is None and has_flattened(values, recipe.epochs):
        state.aux_started = state.epoch + 1
        line["aux_started"] = True
    state.epoch, state.step, state.sums = state.epoch + 1, 0, {}
    state.finished = state.epoch == recipe.epochs


def write_epoch(run: Run, board: Any) -> None:
    """Write what an epoch leaves behind, but for the state; all processes take part."""
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
    if not run.fabric.is_global_zero:
        hand_over_rows(content.tensors())
        return
    write_model(folder / run_folder.LAST, content)
    if history.best(state.history, job.options.select) is line:
        with whole_file(folder / run_folder.MODEL) as temporary:
            shutil.copyfile(folder / run_folder.LAST, temporary)
    run_folder.write_metrics(folder, state.history)
    run_folder.write_left_out(folder, [*job.data.left_out, *sorted(state.unreadable.items())])
    run_folder.draw_curves(folder, state.history)
    for name, value in line.items():
        if isinstance(value, float):
            board.add_scalar(name, value, line["epoch"])
    board.flush()


def open_board(run: Path, state: State) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(run / run_folder.TENSORBOARD, purge_step=state.epoch + 1)
