"""Pictures for training: decoded once and kept in memory where they fit, else read as they come."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from faceidx.images.decode import PictureError
from faceidx.images.preprocess import load
from faceidx.images.sources import Picture
from faceidx.progress import Progress, ProgressCallback

logger = logging.getLogger(__name__)

# Share of the free memory that decoded pictures may take.
_MEMORY_SHARE = 0.4
# Free memory that is assumed where the system does not tell.
_UNKNOWN_MEMORY = 4 << 30
_PROGRESS_STEP = 64


class Bank(Protocol):
    """Pictures by row number."""

    def fetch(self, rows: np.ndarray) -> torch.Tensor:
        """(n,) row numbers to (n, H, W, 3) uint8 RGB."""


@dataclass(kw_only=True)
class MemoryBank:
    """All pictures, decoded, in memory that child processes share."""

    pictures: torch.Tensor

    def fetch(self, rows: np.ndarray) -> torch.Tensor:
        return self.pictures[torch.from_numpy(rows)]


@dataclass(kw_only=True)
class DiskBank:
    """Pictures that are decoded each time they are wanted, by a few threads."""

    pictures: Sequence[Picture]
    size: tuple[int, int]
    unreadable: set[int] = field(default_factory=set)
    """Rows that failed to decode; a neighbour in the batch stands in for them."""

    def fetch(self, rows: np.ndarray) -> torch.Tensor:
        with ThreadPoolExecutor(_threads()) as pool:
            decoded = list(pool.map(self._decode, rows.tolist()))
        spare = next((p for p in decoded if p is not None), None)
        if spare is None:
            spare = np.zeros((*self.size, 3), np.uint8)
        return torch.from_numpy(np.stack([spare if p is None else p for p in decoded]))

    def _decode(self, row: int) -> np.ndarray | None:
        loaded = _try_load(self.pictures[row], self.size)
        if not isinstance(loaded, str):
            return loaded
        if row not in self.unreadable:
            logger.debug("%s: %s", self.pictures[row].key, loaded)
            self.unreadable.add(row)
        return None


def open_bank(
    pictures: Sequence[Picture], size: tuple[int, int], progress: ProgressCallback
) -> tuple[Bank, list[tuple[int, str]]]:
    """Make pictures ready for training.

    Args:
        size: (height, width) to decode to.

    Returns:
        The bank, a row a picture, and (row, reason) of those found unreadable. A bank on disk
        finds out while training.
    """
    needed = len(pictures) * size[0] * size[1] * 3
    if needed > _MEMORY_SHARE * _free_memory():
        logger.warning(
            "%d pictures need %.1f GiB decoded, so they are read anew each epoch",
            len(pictures),
            needed / 2**30,
        )
        return DiskBank(pictures=pictures, size=size), []
    store = torch.zeros((len(pictures), *size, 3), dtype=torch.uint8)
    failed: list[tuple[int, str]] = []
    with ThreadPoolExecutor(_threads()) as pool:
        for row, result in enumerate(pool.map(lambda p: _try_load(p, size), pictures)):
            if isinstance(result, str):
                failed.append((row, result))
            else:
                store[row] = torch.from_numpy(result)
            if row % _PROGRESS_STEP == 0:
                note = f"{len(failed)} unreadable" if failed else ""
                progress(Progress("decode", row + 1, len(pictures), note=note))
    return MemoryBank(pictures=store.share_memory_()), failed


def look_ahead(bank: Bank, batches: Iterator[np.ndarray]) -> Iterator[torch.Tensor]:
    """Yield the pictures of each batch, the next one being fetched while this one is in use."""
    with ThreadPoolExecutor(1) as pool:
        waiting: Future[torch.Tensor] | None = None
        for rows in batches:
            following = pool.submit(bank.fetch, rows)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()


def _try_load(picture: Picture, size: tuple[int, int]) -> np.ndarray | str:
    try:
        return load(picture.data, size)
    except PictureError as error:
        return str(error)


def _free_memory() -> int:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return _UNKNOWN_MEMORY


def _threads() -> int:
    return min(8, os.cpu_count() or 1)
