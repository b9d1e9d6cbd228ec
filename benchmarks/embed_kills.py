"""`embed` killed with SIGKILL at random moments and started again until it is done.

    python benchmarks/embed_kills.py [--kills 200] [--pictures 40000] [--feeders 3]

At the end the datasets must equal, byte for byte, those of a run that nobody killed, and no shard
that was committed may ever have been made again. The command line runs as a user runs it, with a
small untrained network; a run is killed at a moment drawn from its whole length. With `--feeders`
so many processes make the shards, as they do for a GPU, the unbroken run aside.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from faceidx.images.preprocess import Preprocessing
from faceidx.models.file import ModelFile, write_model
from faceidx.models.record import ModelRecord
from faceidx.models.registry import create_backbone

SIZE = (16, 16)
DIFFERENT = 50  # pictures that differ; the others are links to them
# The command line with a crew that the CPU would not get.
FED = """
from faceidx.cli import run
from faceidx.embedding import embed, making
embed.crew_for = lambda *_: making.Crew(["cpu"], {})
run()
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--pictures", type=int, default=40_000)
    parser.add_argument("--feeders", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_pictures(folder / "pictures", arguments.pictures)
        model = make_model(folder / "tiny.safetensors")
        began = time.monotonic()
        run(folder, model, "unbroken.h5").wait()
        length = time.monotonic() - began
        print(f"{arguments.pictures} pictures in {length:.1f} s; killing {arguments.kills} times")
        kills, runs, committed, again = killed_until_done(folder, model, length, arguments)
        same = content(folder / "broken.h5") == content(folder / "unbroken.h5")
    print(f"kills {kills}, runs {runs}, shards seen committed {committed}, made again {again}")
    print(f"the datasets of both files are {'equal' if same else 'DIFFERENT'}")
    if again or not same:
        raise SystemExit(1)


def killed_until_done(
    folder: Path, model: Path, length: float, arguments: argparse.Namespace
) -> tuple[int, int, int, int]:
    """Kill and start again; when it is done before enough kills, begin anew."""
    chance = random.Random(arguments.seed)
    kills = runs = committed = again = 0
    out, seen = folder / "broken.h5", dict[str, tuple[int, int]]()
    while True:
        process = run(folder, model, out.name, arguments.feeders)
        runs += 1
        try:
            process.wait(timeout=chance.uniform(0, length if kills < arguments.kills else 1e6))
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
        for path in (folder / "broken.h5.partial").glob("shard-*.h5"):
            status = path.stat()
            facts = (status.st_ino, status.st_mtime_ns)
            again += seen.get(path.name, facts) != facts
            committed += path.name not in seen
            seen[path.name] = facts
        if out.exists():
            if kills >= arguments.kills:
                return kills, runs, committed, again
            out.unlink()
            seen.clear()


def run(folder: Path, model: Path, out: str, feeders: int = 1) -> subprocess.Popen[bytes]:
    words = ["embed", "pictures", "--model", model.name, "--out", out, "--device", "cpu"]
    words += ["--engine", "torch", "--precision", "fp32"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}  # so small a network gains nothing by two
    start = ["-m", "faceidx"] if feeders == 1 else ["-c", FED.format(feeders)]
    return subprocess.Popen(
        [sys.executable, *start, *words], cwd=folder, stdout=subprocess.DEVNULL, env=env
    )


def make_pictures(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir()
    originals = []
    for number in range(DIFFERENT):
        path = folder.parent / f"{number}.jpg"
        pixels = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        originals.append(path)
    for number in range(count):
        part = folder / f"{number // 1000:04}"
        part.mkdir(exist_ok=True)
        (part / f"{number:07}.jpg").hardlink_to(originals[number % DIFFERENT])


def make_model(path: Path) -> Path:
    half = (0.5, 0.5, 0.5)
    backbone = create_backbone("mobilefacenet", embedding_dim=64, image_size=SIZE)
    record = ModelRecord(
        arch="mobilefacenet",
        embedding_dim=64,
        preprocessing=Preprocessing(image_size=SIZE, color="rgb", mean=half, std=half),
    )
    write_model(path, ModelFile(record=record, backbone=backbone.state_dict(), head={}))
    return path


def content(path: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}

    def visit(name: str, node: object) -> None:
        if isinstance(node, h5py.Dataset):
            values = node[()]
            joined = values.tobytes() if values.dtype.kind != "O" else b"\0".join(values)
            found[name] = joined

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


if __name__ == "__main__":
    main()
