"""What keeping a fast model fed costs, in processor time a picture, by the kind of process.

    python benchmarks/feeding.py [--pictures 100000] [--feeders 2] [--rate 0]

The command embeds JPEGs (hard links to those of `--folder`), but its model computes nothing: each
batch is done at once, or, with `--rate`, as one by a device of so many pictures a second. What the
model's own process spends, it cannot spend on a GPU: Python runs one thread of it at a time.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from embed import DATA, link_pictures, untrained

from faceidx.embedding import embed as module
from faceidx.embedding.embed import EmbedOptions, embed
from faceidx.embedding.making import Crew
from faceidx.embedding.pipeline import PipelineOptions
from faceidx.images.decode import decode
from faceidx.models.open import ModelOptions

BATCH = 256
# A name in their command line -> what they do.
CHILDREN = {
    "embedding.feeders": "feeders",
    "images.worker": "decoders",
    "embedding.merge_ahead": "merging",
}
LOOK = 1.0


class Idle:
    """A model that computes nothing, but takes its time.

    Args:
        rate: pictures a second; 0 for no time at all.
    """

    def __init__(self, model: Any, rate: float) -> None:
        self._rows = np.random.default_rng(0).normal(size=(BATCH, model.embedding_dim))
        self._seconds = BATCH / rate if rate else 0.0
        self._free = 0.0
        self._lock = threading.Lock()

    def begin(self, pictures: np.ndarray, *, flip: bool = False) -> Callable[[], np.ndarray]:
        del flip
        count = len(pictures.copy())  # as into pinned memory
        with self._lock:
            self._free = done = max(self._free, time.monotonic()) + self._seconds

        def wait() -> np.ndarray:
            time.sleep(max(0.0, done - time.monotonic()))
            return self._rows[:count].astype(np.float32)

        return wait


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--feeders", type=int, default=2)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--folder", type=Path, default=DATA / "lfw-train")
    given = parser.parse_args()
    if not given.folder.is_dir():
        print("skipped: there is no --folder")
        return
    with tempfile.TemporaryDirectory() as temporary:
        links = Path(temporary, "pictures")
        paths = sorted(given.folder.rglob("*.jpg"))
        link_pictures(links, paths, given.pictures)
        some = np.stack([decode(path) for path in paths[:8]])
        options = EmbedOptions(
            images=links,
            out=Path(temporary, "out.h5"),
            model=ModelOptions(
                path=untrained("mobilefacenet", some, Path(temporary)),
                device="cpu",
                engine="torch",
                precision="fp32",
                compiled=False,
            ),
            pipeline=PipelineOptions(batch_size=BATCH),
        )
        measure(options, given)


def measure(options: EmbedOptions, given: argparse.Namespace) -> None:
    spent: dict[str, float] = defaultdict(float)
    choose, make = module.choose_model, module.make_shards

    def chosen(*arguments: Any, **named: Any) -> Any:
        model = choose(*arguments, **named)
        idle = Idle(model, given.rate)
        model.begin = idle.begin  # type: ignore[method-assign]
        model.rate = 1e6
        return model

    def made(*arguments: Any, **named: Any) -> None:
        over = threading.Event()
        seen: dict[str, tuple[str, float]] = {}

        def look() -> None:
            while not over.wait(LOOK):
                seen.update(children())

        threading.Thread(target=look, daemon=True).start()
        before = time.process_time()
        make(*arguments, **named)
        spent["the model's process"] = time.process_time() - before
        over.set()
        for kind, seconds in seen.values():
            spent[kind] += seconds

    with (
        mock.patch.object(module, "choose_model", chosen),
        mock.patch.object(module, "make_shards", made),
        mock.patch.object(module, "crew_for", lambda *_: Crew(["cpu"], given.feeders)),
    ):
        result = embed(options)
    took = result["seconds"] - result["waited"]["open"]
    print(f"{result['embedded']} pictures, {given.feeders} feeders, opening the model aside:")
    rate = result["embedded"] / took
    of_device = f", {rate / given.rate:.2f} of the device's {given.rate:.0f}" if given.rate else ""
    print(f"  {rate:.0f} images/s{of_device}")
    for kind, seconds in spent.items():
        print(f"  {kind}: {1e6 * seconds / result['embedded']:.1f} us of processor time a picture")


def children() -> dict[str, tuple[str, float]]:
    """What each process of ours has spent so far, in seconds."""
    found = {}
    tick = os.sysconf("SC_CLK_TCK")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_text("utf-8", "replace")
            fields = (process / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        for name, kind in CHILDREN.items():
            if f"faceidx.{name}" in command:
                found[process.name] = (kind, (int(fields[11]) + int(fields[12])) / tick)
    return found


if __name__ == "__main__":
    main()
