"""How true an engine is to the model: the cosine to float32 on the user's pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from faceidx.models.face_model import normalize


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """Cosines between embeddings and those of float32, over a sample of pictures."""

    least: float
    mean: float
    pictures: int


ITSELF = Fidelity(least=1.0, mean=1.0, pictures=0)
"""Of float32, which is measured on no picture."""


def together(one: Fidelity, other: Fidelity) -> Fidelity:
    """Of embeddings made in two ways."""
    pictures = one.pictures + other.pictures
    total = one.mean * one.pictures + other.mean * other.pictures
    return Fidelity(
        least=min(one.least, other.least),
        mean=total / pictures if pictures else 1.0,
        pictures=pictures,
    )


def compare(embeddings: np.ndarray, exact: np.ndarray) -> Fidelity | None:
    """Compare embeddings with those of float32, row by row.

    Args:
        embeddings: (N, D), of any lengths.
        exact: (N, D), of any lengths.

    Returns:
        None where no picture can be compared: none is given, or float32 itself gives no
        direction. A row that is not finite while float32's is counts as a cosine of -1.
    """
    wanted, lengths = normalize(exact)
    usable = np.isfinite(wanted).all(axis=1) & (lengths > 0)
    if not usable.any():
        return None
    found, _ = normalize(embeddings)
    cosines = np.einsum("nd,nd->n", found[usable], wanted[usable], dtype=np.float64)
    cosines = np.clip(np.nan_to_num(cosines, nan=-1.0, posinf=-1.0, neginf=-1.0), -1.0, 1.0)
    return Fidelity(
        least=float(cosines.min()), mean=float(cosines.mean()), pictures=int(usable.sum())
    )
