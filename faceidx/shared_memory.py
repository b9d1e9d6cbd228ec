"""Memory without a name that several processes see, and that ends with them."""

from __future__ import annotations

import mmap
import os

import numpy as np

can_share = hasattr(os, "memfd_create")
"""Whether this system has such memory."""


def new_memory(size: int) -> int:
    """A descriptor of so many bytes.

    Its size stays what it is: whoever made it smaller would kill those who read it.

    Raises:
        OSError: there is none.
    """
    import fcntl

    descriptor = os.memfd_create("faceidx", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def memory_seen(descriptor: int) -> np.ndarray:
    """(size,) uint8, the memory of a descriptor, which may be closed then."""
    return np.frombuffer(mmap.mmap(descriptor, os.fstat(descriptor).st_size), np.uint8)
