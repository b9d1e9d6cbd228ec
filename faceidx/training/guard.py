"""Divergence: noticed early and, where an auxiliary loss may be to blame, undone.

Auxiliary losses can pull a network apart. While one is on, the end of each healthy epoch is kept
beside the state; on trouble the run goes back there, and the losses come in anew at half their
weight. After several times they stay off.
"""

from __future__ import annotations

import itertools
import logging
import math
import statistics
from collections.abc import Mapping, Sequence

from faceidx.errors import JobError
from faceidx.training import history, run_folder
from faceidx.training.run import Run
from faceidx.training.state import State

logger = logging.getLogger(__name__)

NO_NUMBER = "its loss is no number any more"
# After so many halvings the losses are switched off.
HALVINGS = 3
# The classifier's loss, in the mean of some steps, may rise to so much of the epoch before it and
# this much more. Near zero a factor alone would see trouble in every hard batch.
_LOSS_FACTOR, _LOSS_ROOM = 2.0, 1.0
# The mean length of the embeddings may change by this factor since the losses came in.
_NORM_FACTOR = 10.0
# An epoch is bad that lies this share of the remaining error below the best before the losses came
# in, and so many times what the curve jumped from epoch to epoch; several in a row are trouble.
_LEAST_FALL, _JUMPS = 0.1, 4.0
_BAD_EPOCHS = 2
# Epochs that tell how much the curve jumps.
_LATELY = 8


def is_guarded(state: State) -> bool:
    """Whether an auxiliary loss is on."""
    return (
        state.aux_started is not None and state.aux_share > 0 and state.epoch >= state.aux_started
    )


def trouble_in_steps(state: State, means: Mapping[str, float]) -> str | None:
    """What is wrong with the last few steps, None where nothing is.

    Args:
        means: of their losses and embedding norms, as `step.learn` names them.
    """
    if not all(math.isfinite(value) for value in means.values()):
        return NO_NUMBER
    if not is_guarded(state):
        return None
    before = state.history[-1]["loss_head"] if state.history else state.first_loss
    if before is not None and means["head"] > _LOSS_FACTOR * before + _LOSS_ROOM:
        return f"its loss rose from {before:.3g} to {means['head']:.3g}"
    known = state.history[: state.aux_started] or state.history
    if not known:
        return None
    norm = known[-1]["embedding_norm"]
    if not norm / _NORM_FACTOR <= means["norm"] <= norm * _NORM_FACTOR:
        return f"the length of its embeddings went from {norm:.3g} to {means['norm']:.3g}"
    return None


def trouble_after_epoch(state: State, select: str) -> str | None:
    """What is wrong with the epochs of late, None where nothing is."""
    if not is_guarded(state):
        return None
    before = history.curve(state.history[: state.aux_started], select)
    since = history.curve(state.history[state.aux_started :], select)
    if not before or len(since) < _BAD_EPOCHS or max(since[-_BAD_EPOCHS:]) >= _floor(before):
        return None
    lately = " and ".join(f"{value:.4f}" for value in since[-_BAD_EPOCHS:])
    return f"validation fell from {max(before):.4f} to {lately}"


def is_to_go_back_to(state: State, select: str) -> bool:
    """Whether an auxiliary loss is on or comes in now, and the last epoch was well."""
    if not is_guarded(state):
        return False
    before = history.curve(state.history[: state.aux_started], select)
    since = history.curve(state.history[state.aux_started :], select)
    return not (before and since) or since[-1] >= _floor(before)


def _floor(values: Sequence[float]) -> float:
    """What a curve (higher is better, at most 1) should not fall below once it got so far."""
    best = max(values)
    lately = values[-_LATELY:]
    jumps = [abs(b - a) for a, b in itertools.pairwise(lately)]
    usual = statistics.median(jumps) if jumps else 0.0
    return best - _LEAST_FALL * (1 - best) - _JUMPS * usual


def give_up(run: Run, reason: str) -> JobError:
    """The error of a run that diverged with no auxiliary loss to blame."""
    return JobError(
        f"the training diverged in epoch {run.state.epoch + 1}: {reason}; give a lower --lr "
        f"(the state before it is kept in {run.job.options.out / run_folder.STATE})"
    )


def go_back(run: Run, epoch: int, reason: str) -> None:
    """Put the run where it was last well, with half the weight of the auxiliary losses, or none.

    Args:
        epoch: the one that went wrong, from 1.

    Raises:
        InputError: that state is damaged.
        JobError: it is gone.
    """
    left = run.state
    if not run.load(run_folder.GOOD):
        raise give_up(run, f"{reason}, and {run.job.options.out / run_folder.GOOD} is gone")
    state = run.state
    halvings = len(left.rollbacks) + 1
    state.aux_share = 0.5**halvings if halvings <= HALVINGS else 0.0
    state.aux_started = state.epoch
    state.seconds = left.seconds
    event = {
        "epoch": epoch,
        "back_to": state.epoch,
        "reason": reason,
        "share": state.aux_share,
    }
    state.rollbacks = [*left.rollbacks, event]
    run.save()
    if run.fabric.is_global_zero:
        logger.warning(
            "epoch %d: %s with auxiliary losses on; back to the end of epoch %d and on with %s",
            epoch,
            reason,
            state.epoch,
            f"{state.aux_share:g} of their weight" if state.aux_share else "none of them",
        )
