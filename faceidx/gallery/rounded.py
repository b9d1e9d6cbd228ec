"""Rounded vectors and their products: the cheap first pass of exact search.

CPUs with instructions for it (VNNI) multiply whole numbers of 8 bits several times as fast as
float32. The score s of two vectors that were rounded to such numbers is off by no more than

    e = |q - q'| |x'| + |q| |x - x'| + (D + 2) 2^-23 |q| |x'|

where q' and x' are the rounded vectors: Cauchy-Schwarz on the roundings, whose lengths are
computed, and something to spare for the float32 arithmetic around it.

Hardly any of the products are of use, and writing them down costs a third of the time. So oneDNN is
asked for a single byte each: 0 below what is wanted, and above it how far in steps. Looked at eight
at a time, those that are not 0 are found at little more than the cost of reading them. CPUs without
such instructions do the same with float32 and a smaller e, no faster than a plain search.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np

_LARGEST = 127  # of the numbers of 8 bits
_ZERO = 128  # what stands for 0 in the unsigned bytes that oneDNN wants on one side
_WORD = 8  # bytes that are looked at at once
_LEVELS = 254  # of a byte, above the one that stands for what is wanted
_FINEST = 2.0**-12  # of a step, in lengths: finer ones would be lost in float32
_FLOAT_UNIT = 2.0**-23
_TINY = 1e-30
_USUAL_ROWS = 16384  # for so many the queries are laid out


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows of the gallery."""

    first: int
    rows: Any
    """(n, D) tensor, uint8 (128 stands for 0) or float32."""
    scale: float
    """What the vectors were multiplied with before rounding."""
    length: float
    """Of the longest rounded row, in the scale of the exact ones."""
    residual: float
    """The length of the most that the rounding took from a row."""

    @classmethod
    def of(cls, first: int, vectors: np.ndarray) -> Block:
        """Round (n, D) float32 vectors, all in one scale."""
        import torch

        rounded = _round(vectors, by_row=False)
        rows = (rounded.rows + _ZERO).to(torch.uint8) if has_int8() else rounded.rows
        length, residual = (float(one.max()) for one in (rounded.length, rounded.residual))
        return cls(first, rows, float(rounded.scale), length, residual)


class Above(NamedTuple):
    """Pairs whose first-pass score is as wanted or higher, (P,) each."""

    query: np.ndarray
    row: np.ndarray
    score: np.ndarray
    """Float32."""
    error: np.ndarray
    """How far the score may be off the exact one, float32."""


class _Rounded(NamedTuple):
    rows: Any
    """(n, D) float32 tensor, whole numbers where the CPU is fast with them."""
    scale: np.ndarray
    """Number that the vectors were multiplied with before rounding, or one for each row."""
    length: np.ndarray
    """(n,) lengths of the rounded vectors, in the scale of the exact ones."""
    residual: np.ndarray
    """(n,) lengths of what the rounding took away."""


class Queries:
    """Rounded queries.

    Args:
        exact: (Q, D) float32.
    """

    def __init__(self, exact: np.ndarray) -> None:
        import torch

        self.count = len(exact)
        rounded = _round(exact, by_row=True)
        self._scale = rounded.scale.astype(np.float64)
        self._length, self._residual = rounded.length, rounded.residual
        rows = torch.nn.functional.pad(rounded.rows, (0, 0, 0, -len(exact) % _WORD))
        self._rows = rows.t()
        if has_int8():
            layout = [_USUAL_ROWS, exact.shape[1]]
            self._rows = torch.ops.onednn.qlinear_prepack(rows.to(torch.int8), layout)
            self._no_shift = torch.zeros(len(rows), dtype=torch.int64)

    def error(self, block: Block) -> np.ndarray:
        """How far a score with a row of the block may be off, (Q,) float32."""
        arithmetic = (block.rows.shape[1] + 2) * _FLOAT_UNIT * block.length
        whole = self._length + self._residual
        return self._residual * block.length + whole * (block.residual + arithmetic)

    def scores(self, block: Block) -> Any:
        """First-pass scores of a block, (n, Q or a little more) float32 tensor."""
        import torch

        if not has_int8():
            return block.rows @ self._rows
        factor = 1 / (self._scale * block.scale)
        return self._multiply(block, factor, np.zeros_like(factor), torch.float32)

    def reaching(self, block: Block, scores: Any, floor: np.ndarray) -> Above:
        """As `above`, by the scores that there are of the block."""
        import torch

        error = self.error(block)
        wanted = torch.full((scores.shape[1],), torch.inf)
        wanted[: self.count] = torch.from_numpy(floor - error)
        row, query, _ = _not_zero((scores >= wanted).view(torch.uint8))
        return Above(query, block.first + row, scores.numpy()[row, query], error[query])

    def above(self, block: Block, floor: np.ndarray) -> Above:
        """All pairs that may have an exact score of the query's floor or more.

        Args:
            floor: (Q,) float32; infinite to leave a query out.
        """
        import torch

        if not has_int8():
            return self.reaching(block, self.scores(block), floor)
        error, asked = self.error(block), np.isfinite(floor)
        wanted = np.where(asked, floor - error, 0).astype(np.float64)
        top = np.maximum(self._length.astype(np.float64) * block.length, _TINY)
        step = np.maximum((top - wanted) / _LEVELS, top * _FINEST)
        factor = np.where(asked, 1 / (self._scale * block.scale * step), 0)
        offset = np.where(asked, 1 - wanted / step, -1)
        row, query, level = _not_zero(self._multiply(block, factor, offset, torch.uint8))
        score = ((level - offset[query]) * step[query]).astype(np.float32)
        return Above(query, block.first + row, score, (error + step.astype(np.float32))[query])

    def _multiply(self, block: Block, factor: np.ndarray, offset: np.ndarray, dtype: Any) -> Any:
        """Products times a factor of each query plus an offset, (n, at least Q)."""
        import torch

        padded = torch.zeros((2, len(self._no_shift)))
        padded[0, : self.count] = torch.from_numpy(factor)
        padded[1, : self.count] = torch.from_numpy(offset)
        return torch.ops.onednn.qlinear_pointwise(
            block.rows, 1.0, _ZERO, self._rows, padded[0], self._no_shift, padded[1],
            1.0, 0, dtype, "none", [], "",
        )  # fmt: skip


@cache
def has_int8() -> bool:
    """Whether this CPU multiplies whole numbers of 8 bits faster than float32."""
    import torch

    return torch.cpu._is_vnni_supported() and torch.backends.mkldnn.is_available()


def _not_zero(levels: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns and values of the bytes that are not 0, (P,) each."""
    import torch

    words = levels.view(torch.int64).view(-1)
    word = words.nonzero().view(-1)
    cells = words[word].view(torch.uint8)
    found = cells.nonzero().view(-1)
    place = _WORD * word[found // _WORD] + found % _WORD
    row = place // levels.shape[1]
    return row.numpy(), (place - levels.shape[1] * row).numpy(), cells[found].numpy()


def _round(vectors: np.ndarray, *, by_row: bool) -> _Rounded:
    """Round (n, D) float32, each row in its own scale or all in one."""
    import torch

    exact = torch.from_numpy(vectors)
    if not has_int8():
        ones = np.ones(len(exact) if by_row else (), dtype=np.float32)
        return _Rounded(exact, ones, _lengths(exact), np.zeros(len(exact), dtype=np.float32))
    highest = exact.abs().amax(1) if by_row else exact.abs().max()
    scale = _LARGEST / highest.clamp(min=torch.finfo(torch.float32).tiny * _LARGEST)
    column = scale[:, None] if by_row else scale
    rows = (exact * column).round_()
    back = rows / column
    return _Rounded(rows, scale.numpy(), _lengths(back), _lengths(exact - back))


def _lengths(vectors: Any) -> np.ndarray:
    import torch

    lengths: np.ndarray = torch.linalg.vector_norm(vectors, dim=1).numpy()
    return lengths
