"""What follows an epoch: its line of the history, the models, the curves."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from faceidx.files import whole_file
from faceidx.losses.cosine import CosineHead
from faceidx.models.file import write_model
from faceidx.models.tensor_file import hand_over_rows
from faceidx.training import guard, history, run_folder
from faceidx.training.board import Board
from faceidx.training.epoch import mean_step
from faceidx.training.network import model_file
from faceidx.training.options import Recipe
from faceidx.training.run import Run
from faceidx.training.schedule import has_flattened
from faceidx.training.state import State
from faceidx.training.step import is_scaled

# The curves are drawn once more after so many seconds, and at the end.
_REDRAWN_AFTER = 10.0


def close_epoch(run: Run, results: dict[str, float | None]) -> None:
    """Turn the epoch's sums into a line of the history, and decide on the auxiliary losses."""
    job, state, recipe = run.job, run.state, run.job.recipe
    sums = state.sums
    images = run.steps * recipe.batch_size
    means = mean_step({**sums, "steps": run.steps})
    before = sum(line["seconds"] for line in state.history)
    line: dict[str, Any] = {
        "epoch": state.epoch + 1,
        "loss": means.pop("loss"),
        "train_accuracy": sums["correct"] / images,
        **results,
        "embedding_norm": means.pop("norm"),
        "lr": run.optimizer.param_groups[-1]["lr"],
        "seconds": state.seconds - before,
        "images_per_second": images / max(1e-9, state.seconds - before),
        "unreadable": len(state.unreadable),
    }
    line |= {f"loss_{name}": value for name, value in means.items()}
    if is_scaled(run.fabric):
        line["skipped_steps"] = sums["skipped"]
    if recipe.aux:
        line["aux_share"] = state.aux_share if guard.is_guarded(state) else 0.0
        back_here = [r for r in state.rollbacks if r["back_to"] == state.epoch]
        if back_here:
            line["aux_rollbacks"] = back_here
    state.history.append(line)
    values = history.curve(state.history, job.options.select)
    if recipe.aux and state.aux_started is None and has_flattened(values, recipe.epochs):
        state.aux_started = state.epoch + 1
        line["aux_started"] = True
    state.epoch, state.step, state.sums, state.looked = state.epoch + 1, 0, {}, {}
    state.finished = state.epoch == recipe.epochs


def write_epoch(run: Run, board: Board) -> None:
    """Write what an epoch leaves behind, but for the state; all processes take part."""
    job, state, folder = run.job, run.state, run.job.options.out
    line = state.history[-1]
    head = run.plain.head
    margin = {"margin": float(head.margin)} if isinstance(head, CosineHead) else {}
    training = {
        "stage": job.start.stage,
        "seed": job.options.seed,
        "split_seed": job.data.split_seed,
        "trained_on": job.data.trained_on,
        "images": len(job.data.rows),
        "epochs": job.recipe.epochs,
        "augment": job.recipe.augment,
        **margin,
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
    if state.finished or _is_old(folder / run_folder.CURVES):
        run_folder.draw_curves(folder, state.history)
    board.write(line)


def _is_old(drawing: Path) -> bool:
    """Whether it is time to draw once more: it takes as long as a short epoch."""
    return not drawing.exists() or time.time() - drawing.stat().st_mtime > _REDRAWN_AFTER


def auxiliary_summary(recipe: Recipe, state: State) -> dict[str, Any]:
    """What became of the auxiliary losses; empty for a run without any."""
    if not recipe.aux:
        return {}
    on = [line["epoch"] for line in state.history if line["aux_share"]]
    on += [event["back_to"] + 1 for event in state.rollbacks]
    return {
        "aux_started": min(on, default=None),
        "aux_share": state.aux_share if on else 0.0,
        "aux_rollbacks": state.rollbacks,
    }
