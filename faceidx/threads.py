"""Threads in which torch works alone."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import torch


def single_threads(count: int, name: str) -> ThreadPoolExecutor:
    """Start `count` threads in each of which torch uses no further ones.

    By default each thread that computes brings a team of its own, as large as there are cores,
    whose members wait for the next work by spinning: two teams take the cores from one another.
    """
    others = torch.get_num_threads()
    started = threading.Barrier(count + 1)

    def start() -> None:
        torch.get_num_threads()  # a thread that has not asked yet takes up what others set later
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(count, thread_name_prefix=f"faceidx-{name}", initializer=start)
    for _ in range(count):
        pool.submit(int)
    started.wait()
    # It holds for a thread once that has begun, and for all that begin later: put it back.
    torch.set_num_threads(others)
    return pool
