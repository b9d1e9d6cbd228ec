"""Rows of an embeddings file are of length 1, or their products are no cosines."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from faceidx.errors import InputError

# Half precision makes rows of length 1 up to 1.0005 long. Of longer ones than this all pairs might
# have products beyond `counted.LARGEST`.
_OFF_UNIT = 0.01


def require_unit(vectors: np.ndarray, rows: np.ndarray, path: Path) -> None:
    """Raise `InputError` where rows of a file are not of length 1: products would be no cosines.

    Args:
        vectors: (n, D) float32.
        rows: (n,) of the file.
    """
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    if not np.isfinite(lengths).all():
        raise InputError(f"{path} holds embeddings that are no finite numbers; embed again")
    wrong = np.flatnonzero(np.abs(lengths - 1) > _OFF_UNIT)
    if len(wrong):
        raise InputError(
            f"{path}: row {rows[wrong[0]]} has the length {lengths[wrong[0]]:.4g}; all rows "
            "must be of length 1; embed again"
        )
