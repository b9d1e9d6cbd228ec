"""JPEGs decoded on the card by torchcodec (nvJPEG), beside the decoder that the command uses.

    python benchmarks/decode_gpu.py [--device cuda] [--network iresnet50] [--threads 1,2,4]
        [--folder FOLDER]

- ours: `decode`, by one core, and times the cores that there are;
- card: batches of JPEGs by so many threads, nothing else on the card;
- network: the model in bf16 on pictures in the machine's memory, alone, and while the fastest
  number of threads decodes as many as it takes.

That the card wins would take: more pictures a second than the cores decode, a network that is not
slowed by more than that gains, and embeddings that stay the same. Of the last the least cosine is
told, with the differences of the pixels. It needs torchcodec (`faceidx[card]`). What the command
itself tries where it is there is the whole way (`faceidx/embedding/decoding.py`).
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from embed import DATA, untrained

from faceidx.images.decode import decode
from faceidx.models.face_model import normalize
from faceidx.models.open import ModelOptions, open_model

BATCH = 256
SECONDS = 3.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--network", default="iresnet50")
    parser.add_argument("--threads", default="1,2,4")
    parser.add_argument("--folder", type=Path, default=DATA / "lfw-train")
    given = parser.parse_args()
    try:
        from torchcodec.decoders import decode_jpeg
    except ImportError as error:
        print(f"skipped: torchcodec cannot be loaded ({error})")
        return
    if not given.folder.is_dir() or (given.device != "cpu" and not torch.cuda.is_available()):
        print("skipped: there is no --folder, or no GPU here")
        return
    jpegs = [path.read_bytes() for path in sorted(given.folder.rglob("*.jpg"))[:BATCH]]
    pictures = np.stack([decode(jpeg) for jpeg in jpegs])

    def on_card() -> torch.Tensor:
        decoded: Any = decode_jpeg(jpegs, device=given.device)
        return torch.stack(decoded).permute(0, 2, 3, 1)

    cores = len(os.sched_getaffinity(0))
    one = rate(lambda: [decode(jpeg) for jpeg in jpegs])
    print(f"ours: {one:.0f} images/s by one core, {one * cores:.0f} by {cores} if all decode")
    rates = {}
    for threads in map(int, given.threads.split(",")):
        rates[threads] = rate(on_card, threads)
        print(f"card, {threads} threads: {rates[threads]:.0f} images/s")
    differences = np.abs(on_card().cpu().numpy().astype(np.int16) - pictures)
    print(f"pixels differ by {differences.max()} at the most, {differences.mean():.2f} on average")

    with tempfile.TemporaryDirectory() as temporary:
        model = open_model(
            ModelOptions(
                path=untrained(given.network, pictures, Path(temporary)),
                device=given.device,
                engine="torch",
                precision="bf16",
                compiled=given.device != "cpu",
            )
        )
    here, there = (normalize(model.raw_embed(p))[0] for p in (pictures, on_card().cpu().numpy()))
    print(f"embeddings: least cosine {(here * there).sum(1).min():.5f}")
    batch = pictures
    alone = rate(lambda: model.raw_embed(batch))
    beside = rate_beside(lambda: model.raw_embed(batch), on_card, max(rates, key=rates.__getitem__))
    print(f"network: {alone:.0f} images/s alone, {beside:.0f} while the card decodes as many")


def rate(work: Callable[[], object], threads: int = 1) -> float:
    """Pictures a second, where each call does a batch."""
    work()
    ends = time.perf_counter() + SECONDS

    def repeat(_: int) -> int:
        count = 0
        while time.perf_counter() < ends:
            work()
            count += BATCH
        return count

    with ThreadPoolExecutor(threads) as pool:
        began = time.perf_counter()
        total = sum(pool.map(repeat, range(threads)))
    return total / (time.perf_counter() - began)


def rate_beside(
    network: Callable[[], object], decoding: Callable[[], object], threads: int
) -> float:
    """Pictures a second of the network, for each batch of which another is decoded meanwhile."""
    wanted = threading.Semaphore(2 * threads)
    over = threading.Event()

    def decode_on() -> None:
        while wanted.acquire() and not over.is_set():
            decoding()

    workers = [threading.Thread(target=decode_on) for _ in range(threads)]
    for worker in workers:
        worker.start()

    def step() -> None:
        network()
        wanted.release()

    try:
        return rate(step)
    finally:
        over.set()
        wanted.release(threads)
        for worker in workers:
            worker.join()


if __name__ == "__main__":
    main()
