"""What keeping a fast model fed costs, measured without one.

    python benchmarks/feeding.py [--pictures 100000] [--feeders 2] [--rate 26000]

- whole: the command embeds JPEGs (hard links to those of `--folder`), but its model computes
  nothing. Told is the processor time a picture of each kind of process. What the model's own spends
  it cannot spend on a GPU: Python runs one thread of a process at a time.
- hollow: feeders have their pictures at once, and the model is one of so many pictures a second
  that takes no processor time. Told is what share of that rate the model's process lets through.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from embed import DATA, link_pictures, untrained

from faceidx.children import Child, serve_parent
from faceidx.embedding import embed as module
from faceidx.embedding import feeders
from faceidx.embedding.batches import Part
from faceidx.embedding.crew import Job, Line, SharedParts
from faceidx.embedding.embed import EmbedOptions, embed
from faceidx.embedding.making import Crew
from faceidx.embedding.pipeline import PipelineOptions, Waiting
from faceidx.embedding.roll import Counts, Made, Named
from faceidx.embedding.shards import shard_size, split_into_shards
from faceidx.embedding.store import Origin
from faceidx.images.decode import decode
from faceidx.images.sources import open_source
from faceidx.models.face_model import FaceModel
from faceidx.models.open import ModelOptions, open_model

BATCH = 256
# A name in their command line -> what they do.
CHILDREN = {
    "embedding.feeders": "feeders",
    "images.worker": "decoders",
    "embedding.merge_ahead": "merging",
}
LOOK = 1.0
SECONDS = 10.0


class Device:
    """Stands in for a model's `begin`: computes nothing, but takes its time.

    Args:
        rate: pictures a second; 0 for no time at all. Every batch takes as long as a full one.
    """

    def __init__(self, model: FaceModel, rate: float) -> None:
        height, width = model.preprocessing.image_size
        self._pinned = np.empty((BATCH, height, width, 3), np.uint8)
        self._rows = np.random.default_rng(0).normal(size=(BATCH, model.embedding_dim))
        self._seconds = BATCH / rate if rate else 0.0
        self._lock = threading.Lock()
        self.began = 0.0
        self.ends = 0.0

    def begin(self, pictures: np.ndarray, *, flip: bool = False) -> Callable[[], np.ndarray]:
        del flip
        count = len(pictures)
        with self._lock:
            self._pinned[:count] = pictures
            now = time.monotonic()
            self.began = self.began or now
            self.ends = done = max(self.ends, now) + self._seconds

        def wait() -> np.ndarray:
            time.sleep(max(0.0, done - time.monotonic()))
            return self._rows[:count].astype(np.float32)

        return wait


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--feeders", type=int, default=2)
    parser.add_argument("--rate", type=float, default=26_000.0)
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
        model = ModelOptions(
            path=untrained("mobilefacenet", some, Path(temporary)),
            device="cpu",
            engine="torch",
            precision="fp32",
            compiled=False,
        )
        whole(links, model, given.feeders)
        hollow(links, model, given.feeders, given.rate)


# --- the whole command, its model aside --------------------------------------------------------


def whole(links: Path, wanted: ModelOptions, count: int) -> None:
    spent: dict[str, float] = defaultdict(float)
    choose, make = module.choose_model, module.make_shards

    def chosen(*arguments: Any, **named: Any) -> FaceModel:
        model = choose(*arguments, **named)
        model.begin = Device(model, 0.0).begin  # type: ignore[method-assign]
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
        mock.patch.object(module, "crew_for", lambda *_: Crew(["cpu"], count)),
    ):
        result = embed(
            EmbedOptions(
                images=links,
                out=links.with_name("out.h5"),
                model=wanted,
                pipeline=PipelineOptions(batch_size=BATCH),
            )
        )
    rate = result["embedded"] / (result["seconds"] - result["waited"]["open"])
    print(f"whole: {result['embedded']} pictures, {count} feeders, {rate:.0f} images/s")
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


# --- the model's process alone -----------------------------------------------------------------


def hollow(links: Path, wanted: ModelOptions, count: int, rate: float) -> None:
    pictures = open_source(links).pictures
    model = open_model(wanted)
    device = Device(model, rate)
    model.begin = device.begin  # type: ignore[method-assign]
    made = 0

    def parts() -> Iterator[Part]:
        while time.monotonic() < device.began + SECONDS or not device.began:
            yield from split_into_shards(pictures, shard_size("cuda", rate))

    def report(news: Named | Made) -> None:
        nonlocal made
        made += news.counts.embedded

    class Hollow(Child):
        def __init__(self, *_: str) -> None:
            here = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
            super().__init__("feeding", "serve", environment=here)

    job = Job(
        folder=links,
        pipeline=PipelineOptions(batch_size=BATCH),
        origin=Origin(model="", fingerprint="", preprocessing={}),
        dtype="float32",
        total=len(pictures),
    )
    with mock.patch.object(feeders, "Child", Hollow):
        feeders.make_by_feeders(
            count, SharedParts(parts()), job, model, waiting=Waiting(), report=report
        )
    share = made / (device.ends - device.began) / rate
    print(f"hollow: {made} pictures, {count} feeders, {share:.3f} of a device of {rate:.0f}")


def serve(descriptor: int) -> None:
    """A feeder that decodes and writes nothing."""
    serve_parent(descriptor, _feed)


def _feed(connection: Connection) -> Waiting:
    given = connection.recv()
    model = feeders._remote(given.facts, feeders._Slots(given.facts, recv_handle(connection)))
    connection.send(feeders._READY)
    model.line = line = Line(connection, model.answered, model.given_up)

    def take(slot: int) -> None:
        model._done[slot].get()
        model._free.put(slot)

    for part in line.parts():
        under_way: deque[int] = deque()
        for first in range(0, len(part.pictures), BATCH):
            size = min(BATCH, len(part.pictures) - first)
            under_way.append(model._free.get())
            line.say(feeders._Request(slot=under_way[-1], count=size, flip=False))
            if len(under_way) > 2:
                take(under_way.popleft())
        while under_way:
            take(under_way.popleft())
        line.say(Made(pictures=len(part.pictures), counts=Counts(embedded=len(part.pictures))))
    return Waiting()


if __name__ == "__main__":
    main()
