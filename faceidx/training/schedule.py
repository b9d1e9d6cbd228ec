"""When the learning rate falls, and when the auxiliary losses come in."""

from __future__ import annotations

import math
from collections.abc import Sequence

# Share of the peak rate that the schedule ends at.
_FINAL_SHARE = 0.01
# Shares of all epochs that a validation curve may pass without gaining before it counts as flat.
_PATIENCE_SHARE = 0.125
# A gain is this much of the remaining error or more.
_LEAST_GAIN = 0.02


def rate_share(step: int, *, steps: int, warmup: int) -> float:
    """Share of the peak learning rate at a step: a linear warm-up, then half a cosine.

    The cosine is that of SGDR without restarts (Loshchilov & Hutter 2017, arXiv:1608.03983).
    """
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return _FINAL_SHARE + (1 - _FINAL_SHARE) * (1 + math.cos(math.pi * min(1.0, done))) / 2


def has_flattened(values: Sequence[float], epochs: int) -> bool:
    """Whether a validation curve (higher is better, at most 1) has stopped gaining.

    Args:
        values: one an epoch so far.
        epochs: of the whole run; the patience is a share of it.
    """
    patience = max(2, round(epochs * _PATIENCE_SHARE))
    if len(values) <= patience:
        return False
    before, lately = max(values[:-patience]), max(values[-patience:])
    return lately - before <= _LEAST_GAIN * (1 - before)


def auxiliary_share(step: int, started: int | None, steps_per_epoch: int) -> float:
    """Share of an auxiliary loss's weight: grows from 0 to 1 over the first epoch it is on.

    Args:
        step: counted from the start of the run.
        started: the epoch, from 0, in which the loss came in; None while it is off.
    """
    if started is None:
        return 0.0
    return min(1.0, max(0.0, (step + 1 - started * steps_per_epoch) / steps_per_epoch))
