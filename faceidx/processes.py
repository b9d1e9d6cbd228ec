"""Tensors that several training processes share; with one process each function is the identity."""

from __future__ import annotations

import torch
import torch.distributed as dist


def process_count() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_rows(rows: torch.Tensor) -> torch.Tensor:
    """(n, ...) of every process, the same n in all, to (processes * n, ...) in the order of ranks.

    No gradient flows through it.
    """
    if process_count() == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(process_count())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


def add_up(values: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor over all processes; gradients are summed the same way."""
    if process_count() == 1:
        return values
    total: torch.Tensor = _Sum.apply(values)
    return total


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
