"""One process's part in a run: what it trains, and where the run stands."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule
from torch.nn.parallel import DistributedDataParallel

from faceidx.losses.scoring_head import ScoringHead
from faceidx.progress import ProgressCallback, silent
from faceidx.training import run_folder
from faceidx.training.average import Average
from faceidx.training.closed_form import fit_closed_form
from faceidx.training.compiling import compile_backbone, wants_compiling
from faceidx.training.job import Job
from faceidx.training.network import TrainingNetwork, build_network
from faceidx.training.optimizer import build_optimizer
from faceidx.training.shared_norm import settle_norms
from faceidx.training.state import Kept, State, load_tensors, read_state, save_state
from faceidx.training.stop import Stop


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

    def save(self, name: str = run_folder.STATE) -> None:
        """Write everything that is needed to go on from here to a folder of the run.

        All processes take part.
        """
        folder = self.job.options.out / name
        save_state(folder, self.state, self.kept, self.job.settings)

    def load(self, name: str = run_folder.STATE) -> bool:
        """Go on from what was saved in a folder of the run; False where nothing was.

        Raises:
            InputError: it is damaged.
        """
        folder = self.job.options.out / name
        saved = read_state(folder)
        if saved:
            self.state = saved[0]
            load_tensors(folder, self.kept)
        return saved is not None


def set_up(fabric: Fabric, job: Job, stop: Stop, progress: ProgressCallback = silent) -> Run:
    """Build the network, and put it where the run stands."""
    run = assemble(fabric, job, State(), stop)
    known = run.load()
    fabric.barrier()  # all have looked before the first one writes
    if not known:
        began = time.monotonic()
        fit_closed_form(fabric, job, run.plain, progress)
        run.state.seconds += time.monotonic() - began
        if job.options.aux_start != "auto" and job.recipe.aux:
            run.state.aux_started = int(job.options.aux_start) - 1
            if run.state.aux_started == 0:
                run.save(run_folder.GOOD)
        run.save()
    return run


def assemble(fabric: Fabric, job: Job, state: State, stop: Stop) -> Run:
    """Build everything that trains, the weights as they are at the start."""
    options, recipe = job.options, job.recipe
    torch.manual_seed(options.seed)
    rows = job.head_rows(fabric.world_size, fabric.global_rank)
    classes = len(job.data.class_names)
    plain = build_network(recipe, job.start, job.preprocessing, classes, rows)
    plain = plain.to(memory_format=torch.channels_last)
    if fabric.world_size > 1:
        at_once = recipe.batch_size // recipe.accumulate // fabric.world_size
        settle_norms(plain, options.sync_bn, on_gpu=fabric.device.type != "cpu", pictures=at_once)
    if wants_compiling(job, on_gpu=fabric.device.type == "cuda"):
        compile_backbone(fabric, plain.to(fabric.device), job)
    # What each process has for itself DDP neither compares nor adds up.
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(plain, plain.spread_names())
    moves = build_optimizer(plain, recipe, job.start.stage)
    if plain.shard:
        plain.shard.attach(cast(ScoringHead, plain.head), moves)
    network, optimizer = fabric.setup(plain, moves)
    average = Average(plain, recipe.ema) if recipe.ema else None
    kept = Kept(
        network=plain,
        optimizer=moves,
        average=average.network if average else None,
        scaler=fabric.strategy.precision,
    )
    return Run(
        fabric=fabric,
        job=job,
        state=state,
        plain=plain,
        network=network,
        optimizer=optimizer,
        average=average,
        kept=kept,
        stop=stop,
    )
