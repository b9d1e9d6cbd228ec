"""Rows fit for cosine search: finite, of unit length, float32."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from faceidx.errors import InputError

NOT_FINITE = "holds NaN or infinity"
ZERO = "has length zero"
# A shorter row has no direction to speak of.
_SHORTEST = 1e-6
# What float32 rounding leaves of a unit row's length; such rows are kept bit for bit.
_ROUNDING = 1e-6
# float16 storage moves a unit row's length by up to 2**-11; what is further off was never unit.
_TOLERANCE = 1e-3


@dataclass(kw_only=True, slots=True)
class UnitRows:
    """Rows after `to_unit`."""

    vectors: np.ndarray
    """(N, D) float32; unit where `usable`, else as they came."""
    usable: np.ndarray
    """(N,) bool: False for rows that no cosine exists for."""
    reasons: list[tuple[int, str]]
    """Row and reason of each row that is not usable."""
    renormalised: int
    """How many rows were further from unit length than float16 storage explains."""


def usable(vectors: np.ndarray) -> np.ndarray:
    """Which rows can be scaled to unit length, (N,) bool."""
    lengths = _lengths(np.asarray(vectors, dtype=np.float32))
    return np.isfinite(lengths) & (lengths > _SHORTEST)


def to_unit(vectors: np.ndarray) -> UnitRows:
    """Scale rows to unit length in float32 and say which ones cannot be.

    Rows of unit length within float32 rounding come back bit for bit.

    Args:
        vectors: (N, D) of any float type.
    """
    vectors = np.asarray(vectors, dtype=np.float32)
    lengths = _lengths(vectors)
    finite = np.isfinite(lengths)
    usable = finite & (lengths > _SHORTEST)
    drift = np.abs(np.where(usable, lengths, 1.0) - 1.0)
    off = drift > _ROUNDING
    if off.any():
        vectors = vectors.copy()
        vectors[off] = vectors[off] / lengths[off, None]
    reasons = [(int(r), ZERO if finite[r] else NOT_FINITE) for r in np.flatnonzero(~usable)]
    return UnitRows(
        vectors=vectors,
        usable=usable,
        reasons=reasons,
        renormalised=int(np.count_nonzero(drift > _TOLERANCE)),
    )


def _lengths(vectors: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", over="ignore"):
        return np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))


def require_dim(dim: int, name: str, gallery_dim: int, gallery_name: str) -> None:
    """Raise `InputError` unless two dimensions are equal."""
    if dim != gallery_dim:
        raise InputError(
            f"{name} has vectors of {dim} numbers, {gallery_name} of {gallery_dim}; "
            "embed both with the same model"
        )
