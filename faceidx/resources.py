"""What this process may take: of the machine, and of what a container or a batch system allows."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_MEMINFO, _GROUPS = Path("/proc/meminfo"), Path("/proc/self/cgroup")
# Where control groups lie (Linux: admin-guide/cgroup-v2.rst; cgroup-v1/memory.rst;
# scheduler/sched-bwc.rst): version 2 at the top, or apart where version 1 is there too.
_MOUNTED = Path("/sys/fs/cgroup")
# Of each version: the limits, what is taken, and what of that are files that can be read again.
_FILES = {
    1: (("memory.limit_in_bytes",), "memory.usage_in_bytes", r"total_(?:in)?active_file"),
    2: (("memory.max", "memory.high"), "memory.current", r"(?:in)?active_file"),
}


def available_memory() -> int:
    """Bytes that this process can take without swapping or being killed for it.

    That is what the machine has free, or what is left of the limit of one of the control groups
    that hold the process, whichever is least. Half of all where the system does not say.
    """
    left = (_left(folder, version) for version, folder in _groups("memory"))
    return min([_of_machine(), *(bytes_ for bytes_ in left if bytes_ is not None)])


def usable_cores() -> int:
    """Cores that this process may use, or has the time of."""
    return core_limit() or _cores()


def core_limit() -> int | None:
    """Cores that a container has the time of; None where it may use all that show.

    Libraries go by those that show, and their threads would take turns.
    """
    shares = [share for version, folder in _groups("cpu") if (share := _share(folder, version))]
    limit = max(1, math.ceil(min(shares))) if shares else None
    return limit if limit is not None and limit < _cores() else None


def limit_threads() -> None:
    """Have libraries that are loaded from now on start no more threads than there are cores for.

    Those of OpenMP, torch and FAISS among them. What the user says of it stands.
    """
    if limit := core_limit():
        os.environ.setdefault("OMP_NUM_THREADS", str(limit))


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _of_machine() -> int:
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", _MEMINFO.read_text(), re.MULTILINE)
    except OSError:
        found = None
    if found:
        return int(found[1]) * 2**10
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _groups(controller: str) -> Iterator[tuple[int, Path]]:
    """Version and folder of the process's own groups and of those that hold it, root first.

    As far as folders are seen here: in a container the root is often the group itself, whatever its
    path outside.
    """
    try:
        lines = _GROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            version, roots = 2, ["", "unified"]
        elif controller in controllers.split(","):
            version, roots = 1, [controller]
        else:
            continue
        for root in roots:
            folder = _MOUNTED / root
            for part in (".", *PurePosixPath(path).parts[1:]):
                folder = folder / part
                yield version, folder


def _left(folder: Path, version: int) -> int | None:
    """Bytes that are left of a group's limit; None where it has none."""
    limits, usage, files = _FILES[version]
    taken = _number(folder / usage)
    allowed = [limit for name in limits if (limit := _number(folder / name)) is not None]
    if taken is None or not allowed:
        return None
    return max(0, min(allowed) - max(0, taken - _of_files(folder / "memory.stat", files)))


def _share(folder: Path, version: int) -> float | None:
    """How many cores' time a group has; None where there is no limit."""
    if version == 2:
        try:
            numbers = [int(word) for word in (folder / "cpu.max").read_text().split()]
        except (OSError, ValueError):
            return None
    else:
        found = (_number(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        numbers = [number for number in found if number is not None]
    if len(numbers) != 2 or min(numbers) <= 0:
        return None
    return numbers[0] / numbers[1]


def _number(file: Path) -> int | None:
    """The number in a file; None where there is none, or it says `max`."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _of_files(stat: Path, names: str) -> int:
    """Bytes of files kept in memory, which the system lets go of before it runs short."""
    try:
        return sum(map(int, re.findall(rf"^{names} (\d+)$", stat.read_text(), re.MULTILINE)))
    except OSError:
        return 0
