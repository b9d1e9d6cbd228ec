"""How much memory a gallery's index may take, as it is given."""

from __future__ import annotations

import re

from faceidx.errors import InputError

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


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
