"""Finding pictures: files a second and memory, for folders, lists and tar shards of two sizes.

    python benchmarks/scan.py [--few 10000] [--many 200000] [--folder DIR]

Folders are hard links to a few pictures, a thousand a folder; lists name the same files; shards
hold pictures of 3 kB. Each source is opened by a process of its own, which then reads all pictures
in slices of 2048 as `embed` does; its peak memory is compared with that for the few.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_LINKS_A_FILE = 30_000  # ext4 allows 65,000
_FILES_A_FOLDER = 1000
_SHARD = 10_000
_PICTURE = bytes(3000)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--few", type=int, default=10_000)
    parser.add_argument("--many", type=int, default=200_000)
    parser.add_argument("--list", type=int, default=2_000_000, help="A list alone, of this length.")
    parser.add_argument("--folder", help="Where to make the files; by default the system's.")
    parser.add_argument("--open", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.open:
        print(*_opened(Path(given.open)))
        return
    print(f"{'source':8} {'pictures':>10} {'files/s':>10} {'peak MB':>8} {'growth MB':>10}")
    with tempfile.TemporaryDirectory(dir=given.folder) as temporary:
        first: dict[str, float] = {}
        for count in (given.few, given.many):
            root = Path(temporary) / str(count)
            root.mkdir()
            for kind, source in _sources(root, count):
                _report(kind, source, count, first)
        alone = Path(temporary) / "alone.txt"
        _write_list(alone, given.list)
        _report("list", alone, given.list, first)


def _report(kind: str, source: Path, count: int, first: dict[str, float]) -> None:
    command = [sys.executable, __file__, "--open", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found, seconds, peak = done.stdout.split()
    assert int(found) == count
    megabytes = float(peak)
    growth = megabytes - first.setdefault(kind, megabytes)
    rate = count / float(seconds)
    print(f"{kind:8} {count:10,} {rate:10,.0f} {megabytes:8.0f} {growth:10.1f}", flush=True)


def _opened(source: Path) -> tuple[int, float, float]:
    from faceidx.images.sources import open_source

    began = time.monotonic()
    pictures = open_source(source).pictures
    read = 0
    for first in range(0, len(pictures), 2048):
        read += sum(1 for _ in pictures[first : first + 2048])
    seconds = time.monotonic() - began
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return read, seconds, kilobytes / 1024


def _names(count: int) -> Iterator[str]:
    return (f"person-{n // _FILES_A_FOLDER:06}/picture-{n:08}.jpg" for n in range(count))


def _sources(root: Path, count: int) -> Iterator[tuple[str, Path]]:
    folder = root / "folder"
    pictures = [root / f"{n}.jpg" for n in range(count // _LINKS_A_FILE + 1)]
    for picture in pictures:
        picture.write_bytes(_PICTURE)
    for number, name in enumerate(_names(count)):
        if number % _FILES_A_FOLDER == 0:
            (folder / name).parent.mkdir(parents=True)
        os.link(pictures[number // _LINKS_A_FILE], folder / name)
    yield "folder", folder
    _write_list(root / "list.txt", count)
    yield "list", root / "list.txt"
    names = list(_names(count))
    shards = range(0, count, _SHARD)
    for number, first in enumerate(shards):
        with tarfile.open(root / f"{number:03}.tar", "w") as tar:
            for name in names[first : first + _SHARD]:
                info = tarfile.TarInfo(name)
                info.size = len(_PICTURE)
                tar.addfile(info, io.BytesIO(_PICTURE))
    yield "shards", root / f"{{000..{len(shards) - 1:03}}}.tar"


def _write_list(path: Path, count: int) -> None:
    with path.open("w") as file:
        # From the last to the first, so that there is something to sort.
        for number in range(count - 1, -1, -1):
            file.write(f"person-{number // _FILES_A_FOLDER:06}/picture-{number:08}.jpg\n")


if __name__ == "__main__":
    main()
