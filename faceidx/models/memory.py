"""How much memory can be had: of the machine, and of what a container or a batch system allows."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_MEMINFO, _GROUPS = Path("/proc/meminfo"), Path("/proc/self/cgroup")
# Where control groups lie (Linux: admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst): version 2 at
# the top, or apart where version 1 is there too.
_MOUNTED = Path("/sys/fs/cgroup")
_ROOTS = {1: ("memory",), 2: ("", "unified")}
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
    return min([_of_machine(), *_of_groups()])


def _of_machine() -> int:
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", _MEMINFO.read_text(), re.MULTILINE)
    except OSError:
        found = None
    if found:
        return int(found[1]) * 2**10
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _of_groups() -> Iterator[int]:
    """What is left of each limit, of the process's own group and of those that hold it."""
    try:
        lines = _GROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            version = 2
        elif "memory" in controllers.split(","):
            version = 1
        else:
            continue
        for root in _ROOTS[version]:
            yield from _left_on_the_way(_MOUNTED / root, path, version)


def _left_on_the_way(folder: Path, path: str, version: int) -> Iterator[int]:
    """What is left of the limits from a root down to a group, as far as folders are seen here.

    In a container the root is often the group itself, whatever its path outside.
    """
    limits, usage, files = _FILES[version]
    for part in (".", *PurePosixPath(path).parts[1:]):
        folder = folder / part
        taken = _number(folder / usage)
        allowed = [limit for name in limits if (limit := _number(folder / name)) is not None]
        if taken is not None and allowed:
            yield max(0, min(allowed) - max(0, taken - _of_files(folder / "memory.stat", files)))


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
