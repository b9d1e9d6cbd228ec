"""Tensors that several training processes share; with one process each function is the identity."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

# What is handed from process to process at once, so that none needs room for another's whole part.
_BLOCK_BYTES = 64 << 20

Held = TypeVar("Held")


def process_count() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process_number() -> int:
    """Which of them this one is, from 0."""
    return dist.get_rank() if process_count() > 1 else 0


def row_counts(rows: torch.Tensor) -> list[int]:
    """Number of rows that each process has."""
    if process_count() == 1:
        return [len(rows)]
    counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(process_count())]
    dist.all_gather(counts, torch.full_like(counts[0], len(rows)))
    return [int(count) for count in counts]


def gather_rows(rows: torch.Tensor, counts: list[int] | None = None) -> torch.Tensor:
    """(n, ...) of every process, each with an n of its own, to all rows in the order of ranks.

    No gradient flows through it.

    Args:
        counts: what `row_counts` says of these rows, where that is known already.
    """
    if process_count() == 1:
        return rows
    counts = counts or row_counts(rows)
    # Processes can only exchange what is of one length.
    mine = rows.new_zeros((max(counts), *rows.shape[1:]))
    mine[: len(rows)] = rows.detach()
    parts = [torch.empty_like(mine) for _ in counts]
    dist.all_gather(parts, mine)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def gather_objects(own: Held) -> list[Held]:
    """What every process holds, small and able to be pickled, in the order of ranks."""
    if process_count() == 1:
        return [own]
    everybodys: list[Any] = [None] * process_count()
    dist.all_gather_object(everybodys, own)
    return everybodys


def add_up(values: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor over all processes; gradients are summed the same way."""
    if process_count() == 1:
        return values
    total: torch.Tensor = _Sum.apply(values)
    return total


def largest(values: torch.Tensor) -> torch.Tensor:
    """The largest of each element over all processes; no gradient flows through it."""
    if process_count() > 1:
        values = values.clone()
        dist.all_reduce(values, dist.ReduceOp.MAX)
    return values


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(_: torch.autograd.function.FunctionCtx, values: torch.Tensor) -> torch.Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(  # type: ignore[override]
        _: torch.autograd.function.FunctionCtx, gradient: torch.Tensor
    ) -> torch.Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


@dataclass(kw_only=True)
class RowRange:
    """The rows, of many, that one process holds; the processes' ranges differ by one at most."""

    total: int
    processes: int = 1
    number: int = 0
    """Of this process."""

    @property
    def first(self) -> int:
        """The first row held."""
        return self.total * self.number // self.processes

    @property
    def last(self) -> int:
        """The row after the last one held."""
        return self.total * (self.number + 1) // self.processes

    def others(self) -> Iterator[RowRange]:
        """The ranges of the processes after this one."""
        for number in range(self.number + 1, self.processes):
            yield RowRange(total=self.total, processes=self.processes, number=number)


@dataclass(kw_only=True)
class SpreadRows:
    """A tensor whose rows lie in all processes, as `RowRange` says."""

    mine: torch.Tensor
    rows: RowRange

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole."""
        return (self.rows.total, *self.mine.shape[1:])

    def hand_over(self) -> None:
        """Send this process's rows to process 0, which must be in `blocks`."""
        for block in self._cut(self.mine):
            dist.send(block, 0)

    def blocks(self) -> Iterator[torch.Tensor]:
        """In process 0: all rows in order, on the CPU, a block at a time."""
        for block in self._cut(self.mine):
            yield block.cpu()
        for other in self.rows.others():
            room = self.mine.new_empty(self._at_once(), *self.mine.shape[1:])
            for first in range(other.first, other.last, len(room)):
                block = room[: min(len(room), other.last - first)]
                dist.recv(block, other.number)
                yield block.cpu()

    def _cut(self, tensor: torch.Tensor) -> Iterator[torch.Tensor]:
        for block in tensor.detach().split(self._at_once()):
            yield block.contiguous()

    def _at_once(self) -> int:
        each = self.mine.element_size() * self.mine[:1].numel()
        return max(1, _BLOCK_BYTES // max(1, each))
