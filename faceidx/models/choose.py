"""Which engine and precision run a model, settled on the user's own pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from faceidx.models.face_model import FaceModel
from faceidx.models.fidelity import Fidelity, compare
from faceidx.models.open import ModelOptions, open_model

__all__ = ["Fidelity", "choose_model"]


def choose_model(
    options: ModelOptions,
    sample: np.ndarray,
    *,
    images: int,
    batch_size: int | None,
    flip: bool = False,
    remember: bool = True,
) -> FaceModel:
    """Open a model for many pictures, with the engine and precision that suit them.

    Args:
        sample: (N, H, W, 3) uint8 RGB of the model's input size: some of the pictures.
        images: how many pictures are to be embedded in all.
        batch_size: pictures a batch; None leaves it to the engine.

    Returns:
        The model, whose `fidelity` says how true it is to float32; None where it is float32.

    Raises:
        InputError: as `open_model`.
    """
    model = open_model(options)
    if model.precision != "fp32" and len(sample):
        exact = open_model(replace(options, precision="fp32"))
        model.fidelity = compare(model.embed(sample, flip=flip), exact.embed(sample, flip=flip))
    return model
