"""Peak memory of `embed` for few and for many pictures.

    python benchmarks/embed_memory.py [--few 10000] [--many 200000]

Each run is a process of its own, with a small untrained network on hard links to a few pictures of
16 pixels. What is printed is the peak of the process itself, its decoders aside: those hold a few
pictures each.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from embed_kills import make_model, make_pictures

_RUN = """
import resource, sys
from faceidx.cli import run
try:
    run()
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def peak(folder: Path, model: Path) -> int:
    words = ["embed", str(folder), "--model", str(model), "--device", "cpu", "--engine", "torch"]
    words += ["--precision", "fp32", "--out", str(folder.parent / f"{folder.name}.h5")]
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *words], capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--few", type=int, default=10_000)
    parser.add_argument("--many", type=int, default=200_000)
    arguments = parser.parse_args()
    peaks = []
    for count in (arguments.few, arguments.many):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "pictures"
            make_pictures(folder, count)
            peaks.append(peak(folder, make_model(Path(temporary) / "tiny.safetensors")))
        print(f"{count:>9,} pictures: peak {peaks[-1]} MB", flush=True)
    print(f"growth: {peaks[1] - peaks[0]} MB")


if __name__ == "__main__":
    main()
