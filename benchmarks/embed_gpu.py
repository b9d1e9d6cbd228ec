"""`embed` on a GPU, in turn in one run with the bare network on pictures that are there already.

    python benchmarks/embed_gpu.py [--networks iresnet50,iresnet100] [--pictures 1000000]
        [--folder FOLDER] [--runs 2] [--feeders 4,5,6] [--device cuda]

- bare: the network in bf16, its norms folded, compiled by torch, one batch of pictures on the card
  again and again, and nothing copied back;
- lane: the command's own model on pictures that are in the machine's memory, one batch begun before
  the last one's rows are taken;
- ours: the whole command, from a folder of JPEGs (hard links to copies of those of `--folder`) to
  the finished file. Opening the model, with compiling, and starting the processes that feed it are
  told apart and not counted, as they do not grow with the pictures. `--feeders` tries several
  numbers of these processes; left out, the command chooses;
- steady: the same between the first and the last quarter of its shards. What is lost beyond that
  is told in seconds: finding the pictures, until the first shard is there, and after the last one.
  And how often the card had nothing to do when a batch came: then it waited for pictures.

The share of the card's matrix rate is that of the network's products, norms and pictures aside.
With `--device cpu` and few pictures it shows no more than that the script works.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from embed import DATA, link_pictures, untrained
from gpu import matrix_rate, wait
from torch.utils.flop_counter import FlopCounterMode

from faceidx.embedding import embed as module
from faceidx.embedding.embed import EmbedOptions, embed
from faceidx.embedding.making import Crew
from faceidx.embedding.pipeline import PipelineOptions
from faceidx.embedding.roll import Made, News, Roll
from faceidx.images.decode import decode
from faceidx.models.engines import Way, build
from faceidx.models.gpu_lane import GpuLane
from faceidx.models.open import ModelOptions, open_exact
from faceidx.models.torch_model import TorchModel

BATCH = 256
SECONDS = 3.0


@dataclass
class Watched:
    """When what happened in a run of the command, in seconds since it began."""

    began: float = field(default_factory=time.monotonic)
    found: float = 0.0
    made: list[tuple[float, int]] = field(default_factory=list)
    batches: int = 0
    idle: int = 0
    """Batches that came when the card had nothing to do."""

    def now(self) -> float:
        return time.monotonic() - self.began

    def steady(self) -> float:
        """Pictures a second between the first and the last quarter of the shards."""
        times, counts = zip(*sorted(self.made), strict=True)
        first, last = len(times) // 4, len(times) - 1 - len(times) // 4
        return max(1, sum(counts[first + 1 : last + 1])) / max(times[last] - times[first], 1e-9)

    def __str__(self) -> str:
        first, last = min(self.made)[0], max(self.made)[0]
        return (
            f"pictures found in {self.found:.2f} s, first shard after {first:.2f}, last after "
            f"{last:.2f}, the end after {self.now():.2f}; the card was idle for {self.idle} of "
            f"{self.batches} batches"
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", default="iresnet50,iresnet100")
    parser.add_argument("--pictures", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--feeders", type=lambda given: [int(n) for n in given.split(",")])
    parser.add_argument("--folder", type=Path, default=DATA / "lfw-train")
    parser.add_argument("--device", default="cuda")
    given = parser.parse_args()
    on_gpu = given.device != "cpu"
    if (on_gpu and not torch.cuda.is_available()) or not given.folder.is_dir():
        print("skipped: there is no GPU here, or no --folder")
        return
    with tempfile.TemporaryDirectory() as temporary:
        links = Path(temporary, "pictures")
        paths = sorted(given.folder.rglob("*.jpg"))
        began = time.monotonic()
        link_pictures(links, paths, given.pictures)
        print(f"{given.pictures} links in {time.monotonic() - began:.0f} s", flush=True)
        pictures = np.stack([decode(path) for path in paths[:BATCH]])
        for name in given.networks.split(","):
            compare(name, pictures, links, Path(temporary), given)


def compare(
    name: str, pictures: np.ndarray, links: Path, temporary: Path, given: argparse.Namespace
) -> None:
    device = given.device
    options = ModelOptions(path=untrained(name, pictures, temporary), device=device)
    way = Way(engine="torch", precision="bf16", compiled=True)
    began = time.monotonic()
    model = build(open_exact(options), way, device=device, batch_size=BATCH)
    assert isinstance(model, TorchModel)
    captured = model.runner.captured
    print(f"{name}: compiled in {time.monotonic() - began:.0f} s, as a CUDA graph: {captured}")
    settled = replace(options, engine="torch", precision="bf16", compiled=True)
    compiled: Any = torch.compile(model.runner.network, dynamic=False)
    batch = torch.from_numpy(pictures).to(device)
    seconds: dict[str, list[float]] = defaultdict(list)
    for _ in range(given.runs):
        seconds["bare"].append(bare(compiled, batch))
        seconds["lane"].append(lane(model, pictures))
        print(f"  bare {1 / seconds['bare'][-1]:.0f}, lane {1 / seconds['lane'][-1]:.0f} images/s")
        for count in given.feeders or [0]:
            which = f"ours, {count} feeders" if count else "ours"
            watched, result = whole(links, temporary / "out.h5", settled, count, device)
            spent = result["seconds"] - result["waited"]["open"]
            seconds[which].append(spent / result["embedded"])
            seconds[f"{which}, steady"].append(1 / watched.steady())
            print(f"  {which}: {watched}; waited {result['waited']}", flush=True)
    rates = {which: 1 / statistics.median(times) for which, times in seconds.items()}
    print(f"{name}, {result['embedded']} pictures, batch {BATCH}, bf16, median of {given.runs}")
    print(f"  bare {rates['bare']:8.0f} images/s{share_of_card(model, batch, rates['bare'])}")
    for which, rate in rates.items():
        if which != "bare":
            print(f"  {which} {rate:8.0f} images/s, {rate / rates['bare']:.3f} of bare")
    print(f"  fidelity {result['fidelity']}", flush=True)


def share_of_card(model: TorchModel, batch: torch.Tensor, rate: float) -> str:
    if batch.device.type == "cpu":
        return ""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.runner.network(batch)
    share = counter.get_total_flops() / len(batch) * rate / matrix_rate("bf16")
    return f", {share:.0%} of the matrix rate"


def whole(
    links: Path, out: Path, settled: ModelOptions, feeders: int, device: str
) -> tuple[Watched, dict[str, Any]]:
    """Run the command; what of it was watched, and its result."""
    out.unlink(missing_ok=True)
    watched = Watched()
    with watching(watched, Crew([device], feeders) if feeders else None):
        result = embed(
            EmbedOptions(
                images=links,
                out=out,
                model=settled,
                pipeline=PipelineOptions(batch_size=BATCH),
            )
        )
    assert result["compiled"] is True, "it was not compiled"
    return watched, result


@contextmanager
def watching(watched: Watched, crew: Crew | None) -> Iterator[None]:
    """Watch the command, with a crew of ours where one is given."""
    find, begin, choose = module.open_source, GpuLane.begin, module.crew_for
    last: list[torch.cuda.Event] = []

    class WatchedRoll(Roll):
        def take(self, news: News) -> None:
            if isinstance(news, Made):
                watched.made.append((watched.now(), news.pictures))
            super().take(news)

    def finding(*arguments: Any, **named: Any) -> Any:
        began = watched.now()
        source = find(*arguments, **named)
        watched.found = watched.now() - began
        return source

    def beginning(lane: GpuLane, pictures: np.ndarray) -> Callable[[], np.ndarray]:
        watched.batches += 1
        watched.idle += all(event.query() for event in last)
        rows = begin(lane, pictures)
        last[:] = [lane._computing.record_event()]
        return rows

    with (
        mock.patch.object(module, "open_source", finding),
        mock.patch.object(module, "Roll", WatchedRoll),
        mock.patch.object(module, "crew_for", lambda *given: crew or choose(*given)),
        mock.patch.object(GpuLane, "begin", beginning),
    ):
        yield


def bare(run: Any, batch: torch.Tensor) -> float:
    """Seconds a picture."""
    count = 0
    with torch.inference_mode():
        for _ in range(5):
            run(batch)
        wait(batch.device)
        began = time.perf_counter()
        while time.perf_counter() - began < SECONDS:
            for _ in range(10):
                run(batch)
            wait(batch.device)
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
