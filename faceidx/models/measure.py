"""How many pictures a second a model runs, measured on a few: here, or in a process apart.

In a process apart where what runs it may crash: that process dies alone, and the way is closed.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np

from faceidx.children import Child, serve_parent
from faceidx.errors import FaceidxError
from faceidx.models.engines import Way, build
from faceidx.models.face_model import FaceModel
from faceidx.models.open import ModelOptions, open_exact
from faceidx.models.remembered import CLOSED, Measured

logger = logging.getLogger(__name__)

_SECONDS = 1.0
# What a process apart may take, to open, to compile and to measure, before it counts as hanging.
_LONGEST = 300.0


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A way to run a model, and what it is tried on."""

    options: ModelOptions
    way: Way
    device: str
    batch_size: int | None
    sample: np.ndarray
    """(N, H, W, 3) uint8 RGB of the model's input size."""
    enough: float = 0.0
    """As in `rate_of`."""


def rate_of(
    model: FaceModel, sample: np.ndarray, *, enough: float = 0.0, longest: float = _SECONDS
) -> float:
    """Images/s of a model; of one that is slower than `enough`, only roughly.

    Args:
        sample: (N, H, W, 3) uint8 RGB of the model's input size, taken again and again.
        longest: seconds in which to do so.
    """
    # A GPU takes as long for half a batch where its kernels were settled for a whole one.
    whole = model.device.startswith("cuda")
    count = max(1, model.best_batch // (1 if whole else 2))
    batch = np.resize(sample, (count, *sample.shape[1:]))
    best, spent = math.inf, 0.0
    for run in range(1000):
        began = time.perf_counter()
        model.raw_embed(batch)
        seconds = time.perf_counter() - began
        best, spent = min(best, seconds), spent + seconds
        # The first run sets things up, and is no measurement of any but a slow model.
        slow = count / best < (enough if run else enough / 2)
        if slow or (run and spent > longest):
            break
    return count / best


def measure_apart(trial: Trial) -> Measured:
    """Measure a way in a process of its own; `CLOSED` where it fails, crashes or hangs there.

    Raises:
        JobError: no process can be started.
    """
    child = Child("faceidx.models.measure", "serve")
    try:
        child.connection.send(trial)
        reply = child.connection.recv() if child.connection.poll(_LONGEST) else None
    except (EOFError, OSError):
        reply = None
    finally:
        code = child.end()
    if isinstance(reply, Measured):
        return reply
    logger.debug("%s: %s", trial.way, reply or f"its process ended with exit code {code}")
    return CLOSED


def serve(descriptor: int) -> None:
    """Measure the way that the process at the other end names, and answer."""
    serve_parent(descriptor, _measure)


def _measure(connection: Connection) -> Measured:
    trial: Trial = connection.recv()
    exact = open_exact(trial.options)
    began = time.perf_counter()
    model = build(exact, trial.way, device=trial.device, batch_size=trial.batch_size)
    seconds = time.perf_counter() - began
    if model.compiled != trial.way.compiled:
        raise FaceidxError(f"{trial.way} is closed here")
    return Measured(rate=rate_of(model, trial.sample, enough=trial.enough), seconds=seconds)
