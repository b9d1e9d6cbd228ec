"""When the learning rate falls, and when the auxiliary losses come in."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence

# Share of the peak rate that the schedule ends at.
_FINAL_SHARE = 0.01
# A validation curve is flat where its trend over this share of all epochs, and no fewer, gains no
# more than so much of the remaining error, or of what the curve has gained since its first epoch.
_WINDOW_SHARE, _LEAST_WINDOW = 1 / 6, 4
_GAIN_OF_REST, _GAIN_OF_PAST = 0.02, 0.05


def rate_share(step: int, *, steps: int, warmup: int) -> float:
    """Share of the peak learning rate at a step: a linear warm-up, then half a cosine.

    The cosine is that of SGDR without restarts (Loshchilov & Hutter 2017, arXiv:1608.03983).
    """
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return _FINAL_SHARE + (1 - _FINAL_SHARE) * (1 + math.cos(math.pi * min(1.0, done))) / 2


def can_flatten(epochs: int) -> bool:
    """Whether so many epochs are enough for a flat curve to be seen before the last one."""
    return _window(epochs) + 2 <= epochs


def _window(epochs: int) -> int:
    return max(_LEAST_WINDOW, round(epochs * _WINDOW_SHARE))


def has_flattened(values: Sequence[float], epochs: int) -> bool:
    """Whether a validation curve (higher is better, at most 1) has stopped gaining.

    The trend is the median of the slopes between all pairs of epochs (Theil 1950, Sen 1968), so
    that one lucky or unlucky epoch neither makes a plateau nor hides one.

    Args:
        values: one an epoch so far.
        epochs: of the whole run.
    """
    window = _window(epochs)
    if len(values) <= window:
        return False
    lately = values[-window:]
    pairs = itertools.combinations(range(window), 2)
    slope = statistics.median((lately[b] - lately[a]) / (b - a) for a, b in pairs)
    level = statistics.median(lately)
    enough = max(_GAIN_OF_REST * (1 - level), _GAIN_OF_PAST * (level - values[0]))
    return slope * (window - 1) <= enough


def auxiliary_share(step: int, started: int | None, steps_per_epoch: int) -> float:
    """Share of an auxiliary loss's weight: grows from 0 to 1 over the first epoch it is on.

    Args:
        step: counted from the start of the run.
        started: the epoch, from 0, in which the loss came in; None while it is off.
    """
    if started is None:
        return 0.0
    return min(1.0, max(0.0, (step + 1 - started * steps_per_epoch) / steps_per_epoch))
