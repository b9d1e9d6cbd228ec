"""Pictures for training: decoded once and kept in memory where they fit, else read as they come."""

from __future__ import annotations

import logging
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import torch

from faceidx.images.decode import PictureError
from faceidx.images.preprocess import load
from faceidx.images.sources import Picture
from faceidx.models.device import free_memory
from faceidx.progress import Progress, ProgressCallback
from faceidx.resources import usable_cores
from faceidx.threads import single_threads

logger = logging.getLogger(__name__)

# Share of the free memory that decoded pictures may take.
_MEMORY_SHARE = 0.4
# Where Linux has memory that processes share, and the share of what is free there.
_SHARED, _SHARED_SHARE = Path("/dev/shm"), 0.8
_PROGRESS_STEP = 64
# Batches that are ready or being made while one is in use: one that takes long holds nobody up.
_AHEAD = 2

Wanted = TypeVar("Wanted")
Made = TypeVar("Made")


class Fetched(NamedTuple):
    """Pictures out of a bank."""

    pictures: torch.Tensor
    """(n, H, W, 3) uint8 RGB; black where one cannot be read."""
    readable: np.ndarray
    """(n,) bool."""


class Bank(Protocol):
    """Pictures by row number."""

    def fetch(self, rows: np.ndarray) -> Fetched:
        """Get the pictures of (n,) row numbers."""

    def announce(self, rows: np.ndarray) -> None:
        """Say that the files which some pictures lie in are wanted soon."""

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Keys and reasons of the pictures that could not be read when they were fetched."""


@dataclass(kw_only=True)
class Chosen:
    """Some pictures of many, which stay where they are."""

    pictures: Sequence[Picture]
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Picture:
        return self.pictures[int(self.rows[number])]

    def __iter__(self) -> Iterator[Picture]:
        return (self.pictures[row] for row in self.rows.tolist())


@dataclass(kw_only=True)
class MemoryBank:
    """All pictures, decoded, in memory."""

    pictures: torch.Tensor
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """None: whoever fills the bank leaves out what cannot be read."""

    def fetch(self, rows: np.ndarray) -> Fetched:
        return Fetched(self.pictures[torch.from_numpy(rows)], np.ones(len(rows), bool))

    def announce(self, rows: np.ndarray) -> None:
        """They are in memory."""


@dataclass(kw_only=True)
class DiskBank:
    """Pictures that are decoded each time they are wanted, by a few threads."""

    pictures: Chosen | Sequence[Picture]
    size: tuple[int, int]
    unreadable: dict[str, str] = field(default_factory=dict)

    def fetch(self, rows: np.ndarray) -> Fetched:
        decoded = list(_decoders().map(self._decode, rows.tolist()))
        black = np.zeros((*self.size, 3), np.uint8)
        pictures = np.stack([black if p is None else p for p in decoded])
        return Fetched(torch.from_numpy(pictures), np.array([p is not None for p in decoded]))

    def announce(self, rows: np.ndarray) -> None:
        if not hasattr(os, "posix_fadvise"):
            return
        for path in {self.pictures[row].path for row in rows.tolist()}:
            with suppress(OSError), path.open("rb") as file:  # reading it says what is wrong
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)

    def _decode(self, row: int) -> np.ndarray | None:
        picture = self.pictures[row]
        loaded = _try_load(picture, self.size)
        if not isinstance(loaded, str):
            return loaded
        if picture.key not in self.unreadable:
            logger.debug("%s: %s", picture.key, loaded)
            self.unreadable[picture.key] = loaded
        return None


def open_bank(
    pictures: Chosen | Sequence[Picture],
    *,
    size: tuple[int, int],
    shared: bool,
    progress: ProgressCallback,
) -> tuple[Bank, list[tuple[int, str]]]:
    """Make pictures ready for training.

    Args:
        size: (height, width) to decode to.
        shared: have processes that this one starts see the same memory.

    Returns:
        The bank, a row a picture, and (row, reason) of those found unreadable. A bank on disk
        finds out while training.
    """
    needed = len(pictures) * size[0] * size[1] * 3
    room, where = _room(shared=shared)
    if needed > room:
        logger.warning(
            "%d pictures need %.1f GiB decoded, for which %s has no room, so they are read anew "
            "each epoch",
            len(pictures),
            needed / 2**30,
            where,
        )
        return DiskBank(pictures=pictures, size=size), []
    store = torch.zeros((len(pictures), *size, 3), dtype=torch.uint8)
    failed: list[tuple[int, str]] = []
    decoded = _decoders().map(lambda p: _try_load(p, size), pictures)
    for row, result in enumerate(decoded):
        if isinstance(result, str):
            failed.append((row, result))
        else:
            store[row] = torch.from_numpy(result)
        if row % _PROGRESS_STEP == 0:
            note = f"{len(failed)} unreadable" if failed else ""
            progress(Progress("decode", row + 1, len(pictures), note=note))
    return MemoryBank(pictures=store.share_memory_() if shared else store), failed


def look_ahead(make: Callable[[Wanted], Made], wanted: Iterable[Wanted]) -> Iterator[Made]:
    """Yield what is made of each, the next few being made while one is in use."""
    with single_threads(1, "ahead") as pool:
        waiting: deque[Future[Made]] = deque()
        for one in wanted:
            waiting.append(pool.submit(make, one))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _try_load(picture: Picture, size: tuple[int, int]) -> np.ndarray | str:
    try:
        return load(picture.data, size)
    except PictureError as error:
        return str(error)


def _room(*, shared: bool) -> tuple[float, str]:
    """Bytes that decoded pictures may take, and where."""
    rooms = [(_MEMORY_SHARE * free_memory("cpu"), "the memory")]
    if shared and _SHARED.is_dir():  # containers get 64 MB there by default
        rooms.append((_SHARED_SHARE * shutil.disk_usage(_SHARED).free, str(_SHARED)))
    return min(rooms)


@cache
def _decoders() -> ThreadPoolExecutor:
    """The threads of this process that decode: Pillow works outside Python's lock."""
    return ThreadPoolExecutor(min(8, usable_cores()))
