"""Compiling the backbone for training, where that pays and can be done."""

from __future__ import annotations

import logging

import torch
from lightning_fabric import Fabric

from faceidx.errors import InputError
from faceidx.models.torch_runner import keep_compiled_code
from faceidx.training.job import Job
from faceidx.training.network import TrainingNetwork

logger = logging.getLogger(__name__)

# Compiling a deep backbone with its gradient takes a minute or two. In the time that a GPU takes
# for so many pictures, it is made up for.
_PAYS_FROM = 1_000_000


def wants_compiling(job: Job, *, on_gpu: bool) -> bool:
    """Whether to compile, by `--compile` and, with `auto`, by whether that pays.

    On CPUs the convolutions are a library's, compiled or not, and take nearly all of the time.

    Raises:
        InputError: `--compile` is none of auto, on, off.
    """
    wanted = job.options.compile
    if wanted not in ("auto", "on", "off"):
        raise InputError(f"--compile {wanted}: give auto, on or off")
    if wanted == "auto":
        return on_gpu and len(job.data.rows) * job.recipe.epochs >= _PAYS_FROM
    return wanted == "on"


def compile_backbone(fabric: Fabric, network: TrainingNetwork, job: Job) -> None:
    """Compile the backbone, and run it once there and back, which leaves nothing behind.

    Where that fails, one line says so and it trains uncompiled.
    """
    keep_compiled_code()
    backbone = network.backbone
    compiled = torch.compile(lambda batch: backbone(batch))
    parts = min(job.recipe.accumulate, job.recipe.batch_size // fabric.world_size)
    pictures = -(-job.recipe.batch_size // fabric.world_size // parts)
    blank = torch.zeros((pictures, 3, *job.preprocessing.image_size), device=fabric.device)
    buffers = {name: buffer.clone() for name, buffer in backbone.named_buffers()}
    try:
        with fabric.autocast():
            compiled(blank.to(memory_format=torch.channels_last)).sum().backward()
        network.compiled = compiled
    except Exception as error:  # compilers fail in any way there is
        reason = " ".join(str(error).split())[:120]
        logger.warning("torch trains the model uncompiled, which is slower (%s)", reason)
    backbone.zero_grad(set_to_none=True)
    with torch.no_grad():
        for name, buffer in backbone.named_buffers():
            buffer.copy_(buffers[name])
