"""`embed` on a GPU, in turn in one run with the bare network on pictures that are there already.

    python benchmarks/embed_gpu.py [--networks iresnet50,iresnet100] [--pictures 1000000]
        [--folder FOLDER] [--runs 3] [--feeders 3,4,5]

- bare: the network in bf16, its norms folded, compiled by torch, one batch of pictures on the card
  again and again, and nothing copied back;
- lane: the command's own model on pictures that are in the machine's memory, one batch begun before
  the last one's rows are taken;
- ours: the whole command, from a folder of JPEGs (hard links to those of `--folder`) to the
  finished file. Opening the model, with compiling, and starting the processes that feed it are told
  apart and not counted, as they do not grow with the pictures. The last shards and the end of the
  file are counted, some second in all: for a tenth of the pictures that would be much. `--feeders`
  tries several numbers of these processes; left out, the command chooses.

The share of the card's matrix rate is that of the network's products, norms and pictures aside.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from embed import DATA, link_pictures, untrained
from torch.utils.flop_counter import FlopCounterMode
from train import matrix_rate

from faceidx.embedding import making
from faceidx.embedding.embed import EmbedOptions, embed
from faceidx.embedding.pipeline import PipelineOptions
from faceidx.images.decode import decode
from faceidx.models.engines import Way, build
from faceidx.models.open import ModelOptions, open_exact
from faceidx.models.torch_model import TorchModel

BATCH = 256
SECONDS = 3.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", default="iresnet50,iresnet100")
    parser.add_argument("--pictures", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--feeders", type=lambda given: [int(n) for n in given.split(",")])
    parser.add_argument("--folder", type=Path, default=DATA / "lfw-train")
    given = parser.parse_args()
    if not torch.cuda.is_available() or not given.folder.is_dir():
        print("skipped: there is no GPU here, or no --folder")
        return
    with tempfile.TemporaryDirectory() as temporary:
        links = Path(temporary, "pictures")
        paths = sorted(given.folder.rglob("*.jpg"))
        link_pictures(links, paths, given.pictures)
        pictures = np.stack([decode(path) for path in paths[:BATCH]])
        for name in given.networks.split(","):
            compare(name, pictures, links, Path(temporary), given.runs, given.feeders or [0])


def compare(
    name: str, pictures: np.ndarray, links: Path, temporary: Path, runs: int, feeders: list[int]
) -> None:
    options = ModelOptions(path=untrained(name, pictures, temporary), device="cuda")
    way = Way(engine="torch", precision="bf16", compiled=True)
    model = build(open_exact(options), way, device="cuda", batch_size=BATCH)
    assert isinstance(model, TorchModel)
    settled = replace(options, engine="torch", precision="bf16", compiled=True)
    compiled: Any = torch.compile(model.runner.network, dynamic=False)
    batch = torch.from_numpy(pictures).cuda()
    chosen = making.crew_for
    seconds: dict[str, list[float]] = defaultdict(list)
    waited: dict[str, Any] = {}
    result: dict[str, Any] = {}
    for _ in range(runs):
        seconds["bare"].append(bare(compiled, batch))
        seconds["lane"].append(lane(model, pictures))
        for count in feeders:
            which = f"ours, {count} feeders" if count else "ours"
            crew = chosen if not count else lambda *_, n=count: making.Crew(["cuda"], n)
            with mock.patch("faceidx.embedding.embed.crew_for", crew):
                result = embed(
                    EmbedOptions(
                        images=links,
                        out=temporary / "out.h5",
                        model=settled,
                        pipeline=PipelineOptions(batch_size=BATCH),
                        overwrite=True,
                    )
                )
            waited[which] = result["waited"]
            spent = result["seconds"] - result["waited"]["open"]
            seconds[which].append(spent / result["embedded"])
    rates = {which: 1 / statistics.median(times) for which, times in seconds.items()}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.runner.network(batch)
    share = counter.get_total_flops() / BATCH * rates["bare"] / matrix_rate("bf16")
    print(f"{name}, {result['embedded']} pictures, batch {BATCH}, bf16, median of {runs}")
    bare_rate = rates.pop("bare")
    print(f"  bare {bare_rate:8.0f} images/s, {share:.0%} of the matrix rate")
    for which, rate in rates.items():
        print(f"  {which} {rate:8.0f} images/s, {rate / bare_rate:.2f} of bare")
        if which in waited:
            print(f"    the last one waited {waited[which]}")
    print(f"  fidelity {result['fidelity']}", flush=True)


def bare(run: Any, batch: torch.Tensor) -> float:
    """Seconds a picture."""
    count = 0
    with torch.inference_mode():
        for _ in range(5):
            run(batch)
        torch.cuda.synchronize()
        began = time.perf_counter()
        while time.perf_counter() - began < SECONDS:
            for _ in range(10):
                run(batch)
            torch.cuda.synchronize()
            count += 10 * len(batch)
    return (time.perf_counter() - began) / count


def lane(model: TorchModel, pictures: np.ndarray) -> float:
    """Seconds a picture."""
    count = 0
    last = model.begin(pictures)
    began = time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        before, last = last, model.begin(pictures)
        before()
        count += len(pictures)
    last()
    return (time.perf_counter() - began) / count


if __name__ == "__main__":
    main()
