"""What a run would do and how long it would take, for `train --dry-run`. Nothing is written."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from itertools import islice
from statistics import median
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from faceidx.progress import ProgressCallback, silent
from faceidx.training.batches import Batch, batches
from faceidx.training.epoch import train_step
from faceidx.training.job import Job, settle_job
from faceidx.training.launch import PRECISIONS, Hardware, settle_hardware
from faceidx.training.options import TrainOptions
from faceidx.training.run import Run, assemble
from faceidx.training.state import State
from faceidx.training.stop import Stop
from faceidx.training.validate import pictures_to_embed

# The first steps take longer: memory is asked for, libraries choose their ways.
_WARM_UP, _TIMED = 2, 5


def make_plan(options: TrainOptions, progress: ProgressCallback = silent) -> dict[str, Any]:
    """Settle everything as a run would, and time a few steps of one process's part.

    Returns:
        Fields of JSON's types. `flops` are those of one picture forward, two for a multiplication
        and addition; a step takes some three times as many. `memory` are bytes a process needs on
        its device. `seconds` leave out what processes wait for each other.

    Raises:
        InputError: as a run would.
    """
    hardware = settle_hardware(options)
    job = settle_job(options, hardware, progress)
    run = _one_of(hardware, job)
    data, recipe = job.data, job.recipe
    timed = list(islice(batches(run), _WARM_UP + _TIMED))
    memory = _memory(run, timed[0], hardware.processes)
    seconds = [_seconds(run, batch) for batch in timed]
    step = median(seconds[_WARM_UP:] or seconds)
    steps = len(data.rows) // recipe.batch_size
    held_out = np.union1d(data.validation.classify_rows, data.validation.verify_rows)
    # Judging a picture takes the forward third of what learning from it takes.
    judging = step * pictures_to_embed(data) / recipe.batch_size / 3
    return {
        "stage": job.start.stage,
        "recipe": {"name": job.recipe_name, **asdict(recipe)},
        "parameters": _count(run.plain.backbone),
        "head_parameters": _count(run.plain.head),
        "flops": forward_flops(run),
        "memory": memory,
        "classes": len(data.class_names),
        "images": len(data.rows),
        "left_out": len(data.left_out),
        "held_out_people": data.held_out,
        "held_out_images": len(held_out),
        "device": str(run.fabric.device),
        "processes": hardware.processes,
        "precision": hardware.precision,
        "compiled": run.plain.compiled is not None,
        "steps_per_epoch": steps,
        "steps": steps * recipe.epochs,
        "images_per_second": recipe.batch_size / step,
        "seconds": recipe.epochs * (steps * step + judging),
    }


def _one_of(hardware: Hardware, job: Job) -> Run:
    """One process's part in the run, in this process, with its share of the batch."""
    device = hardware.devices if isinstance(hardware.devices, int) else hardware.devices[:1]
    fabric = Fabric(
        accelerator="cuda" if hardware.on_gpu else "cpu",
        devices=1 if isinstance(device, int) else device,
        precision=PRECISIONS[hardware.precision],  # type: ignore[arg-type]
    )
    share = max(1, job.recipe.batch_size // hardware.processes)
    recipe = replace(job.recipe, batch_size=share)
    return assemble(fabric, replace(job, recipe=recipe), State(), Stop())


def _seconds(run: Run, batch: Batch) -> float:
    began = time.perf_counter()
    train_step(run, batch)
    if run.fabric.device.type == "cuda":
        torch.cuda.synchronize(run.fabric.device)
    return time.perf_counter() - began


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def forward_flops(run: Run) -> int:
    """Of the backbone for one picture, two for a multiplication and addition."""
    height, width = run.job.preprocessing.image_size
    picture = torch.zeros((1, height, width, 3), device=run.fabric.device)
    run.plain.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run.plain.embed(picture)
    run.plain.train()
    return counter.get_total_flops()


def _memory(run: Run, batch: Batch, processes: int) -> int:
    """Weights, gradients, what the optimizer and the average keep, and what a step holds on to."""
    of_head = sum(p.numel() * p.element_size() for p in run.plain.head.parameters())
    weights = sum(p.numel() * p.element_size() for p in run.plain.parameters())
    if run.job.head_is_spread:
        weights -= of_head - of_head // processes
    moments = 2 if run.job.recipe.optimizer == "adamw" else 1
    copies = 2 + moments + (run.average is not None)
    held: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        return tensor

    # Some pictures stand for the others; the weights among what is held are counted already.
    some = batch.pictures[:4]
    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t), run.fabric.autocast():
        run.plain.embed(some)
    for parameter in run.plain.parameters():
        held.pop(parameter.untyped_storage().data_ptr(), None)
    of_one = sum(held.values()) / len(some)
    at_once = -(-len(batch.labels) // run.job.recipe.accumulate)
    return int(copies * weights + at_once * of_one)
