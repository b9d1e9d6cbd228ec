"""How much memory a gallery's index may take."""

from __future__ import annotations

import os
import re
from pathlib import Path

from faceidx.errors import InputError

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_MEMINFO = Path("/proc/meminfo")


def parse_bytes(text: str) -> int:
    """Read `4G`, `500M`, `1.5GiB` or a plain number of bytes.

    Raises:
        InputError: it is none of them, or zero.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    size = int(float(match[1]) * _UNITS[match[2].upper()]) if match else 0
    if not size:
        raise InputError(f"--memory {text} is no size; give one such as 4G or 500M")
    return size


def available_memory() -> int:
    """Bytes that can be had without swapping; half of all where the system does not say."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", _MEMINFO.read_text(), re.MULTILINE)
    except OSError:
        found = None
    if found:
        return int(found[1]) * 2**10
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
