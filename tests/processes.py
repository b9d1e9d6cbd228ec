"""Several processes on this machine, for tests of what they do together."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


def run_together(count: int, work: Callable[..., Any], folder: Path, *more: Any) -> list[Any]:
    """Run `work(number, *more)` in processes that know one another; return what each returns."""
    context = multiprocessing.get_context("spawn")
    arguments = [(number, count, work, folder, more) for number in range(count)]
    workers = [context.Process(target=_take_part, args=words) for words in arguments]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    return [torch.load(folder / f"{number}.pt", weights_only=True) for number in range(count)]


def _take_part(
    number: int, count: int, work: Callable[..., Any], folder: Path, more: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / f"store-{count}"), count)
    dist.init_process_group("gloo", store=store, rank=number, world_size=count)
    torch.save(work(number, *more), folder / f"{number}.pt")
    dist.barrier()
    dist.destroy_process_group()
