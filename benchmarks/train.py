"""Training, in turn in one run with a bare PyTorch loop on pictures that are in memory already.

    python benchmarks/train.py [--rounds 5]
    python benchmarks/train.py --device cuda --networks iresnet50@112 --batch-size 128

- ours: `train_epoch`, the loop of `faceidx train`, with the pictures in a `MemoryBank`: shuffling,
  fetching, augmentation, schedule, sums and the check that the loss is a number included;
- bare: a forward, backward and optimizer step after another on slices of one tensor, the same
  network, optimizer, batch and precision, without augmentation;
- float32: the bare loop in float32, uncompiled.

On a GPU the share of its matrix rate is told too: three times the operations of the network
forward, against a product of large matrices in the same precision, measured in the same run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from gpu import matrix_rate, wait
from lightning_fabric import Fabric

from faceidx.images.preprocess import Preprocessing
from faceidx.progress import silent
from faceidx.training.data import Judged, TrainingData
from faceidx.training.epoch import train_epoch
from faceidx.training.job import Job
from faceidx.training.launch import PRECISIONS, settle_hardware
from faceidx.training.network import Start
from faceidx.training.options import TrainOptions
from faceidx.training.pictures import MemoryBank
from faceidx.training.plan import forward_flops
from faceidx.training.recipes import settle_recipe
from faceidx.training.run import Run, assemble
from faceidx.training.state import State
from faceidx.training.stop import Stop

CLASSES = 600
HALF = (0.5, 0.5, 0.5)
# For the GPU's matrix rate: sides large enough that nothing but the product counts.


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--networks", default="resnet10@56,resnet18@112,iresnet18@112")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=6, help="a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--augment", help="by default the recipe's")
    parser.add_argument("--compile", default="off")
    given = parser.parse_args()
    for network in given.networks.split(","):
        compare(network, given)


def compare(network: str, given: argparse.Namespace) -> None:
    arch, _, side = network.partition("@")
    options = TrainOptions(
        data=Path("none"),
        out=Path("none"),
        arch=arch,
        image_size=int(side),
        batch_size=given.batch_size,
        augment=given.augment,
        device=given.device,
        compile=given.compile,
    )
    hardware = settle_hardware(options)
    pictures = given.steps * given.batch_size
    recipe_name, recipe = settle_recipe(options, pictures=pictures, on_gpu=hardware.on_gpu)
    job = Job(
        options=options,
        recipe=recipe,
        recipe_name=recipe_name,
        start=Start(stage="pretrain"),
        data=drawn(pictures, int(side)),
        preprocessing=Preprocessing(
            image_size=(int(side), int(side)), color="rgb", mean=HALF, std=HALF
        ),
        settings={},
        template=None,
        head_is_spread=False,
    )
    fabric = fabric_of(hardware.precision, given.device)
    run = assemble(fabric, job, State(), Stop())
    exact = assemble(fabric_of("fp32", given.device), job, State(), Stop())
    exact.plain.compiled = None
    ways: dict[str, Callable[[], None]] = {
        "ours": lambda: ours(run),
        "bare": lambda: bare(run),
        "float32": lambda: bare(exact),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for each in range(given.rounds + 1):  # the first one warms up
        for way, go in ways.items():
            began = time.perf_counter()
            go()
            wait(run.fabric.device)
            if each:
                seconds[way].append(time.perf_counter() - began)
    rates = {way: pictures / statistics.median(times) for way, times in seconds.items()}
    print(
        f"{network}, batch {given.batch_size}, {hardware.precision}, {recipe.augment} augmentation"
        f"{', compiled' if run.plain.compiled else ''}, median of {given.rounds}"
    )
    for way, rate in rates.items():
        print(f"  {way:<8} {rate:8.1f} images/s")
    print(f"  ours / bare    {rates['ours'] / rates['bare']:.3f}")
    print(f"  ours / float32 {rates['ours'] / rates['float32']:.2f}", flush=True)
    if hardware.on_gpu:
        share = 3 * forward_flops(run) * rates["ours"] / matrix_rate(hardware.precision)
        print(f"  share of the matrix rate {share:.1%}", flush=True)


def fabric_of(precision: str, device: str) -> Fabric:
    fabric = Fabric(
        accelerator=device,
        devices=1,
        precision=PRECISIONS[precision],  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric


def drawn(pictures: int, side: int) -> TrainingData:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (pictures, side, side, 3), np.uint8)
    bank = MemoryBank(pictures=torch.from_numpy(pixels))
    nobody = np.empty(0, np.int64)
    return TrainingData(
        bank=bank,
        rows=np.arange(pictures),
        labels=rng.integers(0, CLASSES, pictures),
        shards=None,
        class_names=[str(number) for number in range(CLASSES)],
        held_out=0,
        validation=Judged(
            bank=bank,
            classify_rows=nobody,
            classify_labels=nobody,
            verify_rows=nobody,
            verify_people=nobody,
        ),
    )


def ours(run: Run) -> None:
    train_epoch(run, silent)
    run.state = State(epoch=run.state.epoch + 1)


def bare(run: Run) -> None:
    """What one would write down; the network is ours, so that nothing but the loop differs."""
    job, device = run.job, run.fabric.device
    optimizer = run.kept.optimizer
    assert isinstance(job.data.bank, MemoryBank)
    every = job.data.bank.pictures.to(device)
    labels = torch.from_numpy(job.data.labels).to(device)
    run.plain.train()
    backbone: Any = run.plain.compiled or run.plain.backbone
    head: Any = run.plain.head
    for first in range(0, len(every), job.recipe.batch_size):
        some = slice(first, first + job.recipe.batch_size)
        batch = (every[some].permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
        with run.fabric.autocast():
            embeddings = backbone(batch.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(
                F.linear(embeddings, head.weight, head.bias).float(), labels[some]
            )
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


if __name__ == "__main__":
    main()
