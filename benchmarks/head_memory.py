"""Peak memory of a classifier of very many people: whole, spread over two processes, sampled.

    python benchmarks/head_memory.py [--classes 100000 1000000] [--batch 128] [--dim 512]

Each line is three steps (forward, backward, SGD with momentum) of ArcFace on drawn embeddings, in
processes of their own. What is printed is the peak of the largest of them, libraries and
all; in the last column also while process 0 writes the whole classifier to a file.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist

from faceidx.losses.registry import create_head
from faceidx.losses.scoring_head import ScoringHead
from faceidx.losses.sharded import ClassShard, create_shard
from faceidx.models.tensor_file import hand_over_rows, write_tensors
from faceidx.processes import RowRange, SpreadRows

_STEPS = 3
# Processes, share of the classes in a step, and whether the head is the plain one.
_WAYS = {
    "plain head, 1 process": (1, 1.0, True),
    "spread over 2 processes": (2, 1.0, False),
    "a tenth of the classes a step, 1 process": (1, 0.1, False),
    "a tenth of the classes a step, 2 processes": (2, 0.1, False),
}


def peak() -> int:
    """Largest memory of this process so far, in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def work(number: int, processes: int, folder: Path, way: str, given: Any, queue: Any) -> None:
    torch.set_num_threads(1)
    if processes > 1:
        store = dist.FileStore(str(folder / "store"), processes)
        dist.init_process_group("gloo", store=store, rank=number, world_size=processes)
    _, rate, plain = _WAYS[way]
    rows = RowRange(total=given.classes_now, processes=processes, number=number)
    torch.manual_seed(0)
    before = peak()
    shard = None
    if plain:
        head = cast(ScoringHead, create_head("arcface", dim=given.dim, classes=rows.total))
        trained = list(head.parameters())
    else:
        head = create_shard("arcface", dim=given.dim, rows=rows)
        shard = ClassShard(head, rows, rate)
        trained = shard.trained(head)
    optimizer = torch.optim.SGD(trained, lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    if shard:
        shard.attach(head, optimizer)
    for step in range(_STEPS):
        drawn = torch.Generator().manual_seed(step * processes + number)
        labels = torch.randint(rows.total, (given.batch // processes,), generator=drawn)
        embeddings = torch.randn(len(labels), given.dim, generator=drawn, requires_grad=True)
        if shard:
            shard.draw(head, labels, step)
            loss, _ = shard.loss(head, embeddings, labels)
        else:
            loss, _ = head(embeddings, labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    trained_at = peak()
    weight = head.weight.detach()
    tensors: dict[str, Any] = {
        "head.weight": SpreadRows(mine=weight, rows=rows) if shard else weight
    }
    if number:
        hand_over_rows(tensors)
    else:
        write_tensors(folder / "head.safetensors", tensors)
    queue.put((trained_at, peak(), before))
    if processes > 1:
        dist.barrier()
        dist.destroy_process_group()


def measure(way: str, given: Any) -> tuple[int, int, int]:
    """Peaks in MiB after training and after writing, and before either, of the largest process."""
    context = multiprocessing.get_context("spawn")
    processes, queue = _WAYS[way][0], context.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        words = (processes, Path(folder), way, given, queue)
        workers = [context.Process(target=work, args=(n, *words)) for n in range(processes)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        found = [queue.get() for _ in workers if worker.exitcode == 0]
    trained, written, before = (max(column) for column in zip(*found, strict=True))
    return trained, written, before


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--classes", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--first", type=int, default=0, help="Leave so many ways out.")
    given = parser.parse_args()
    for classes in given.classes:
        given.classes_now = classes
        print(f"{classes:,} classes of {given.dim}, batch {given.batch}: peak MiB a process")
        for way in list(_WAYS)[given.first :]:
            trained, written, before = measure(way, given)
            print(
                f"  {way:44} training {trained:>7,}, writing {written:>7,}, libraries {before:>5,}",
                flush=True,
            )


if __name__ == "__main__":
    main()
