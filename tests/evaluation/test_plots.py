from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from faceidx.evaluation import plots
from faceidx.evaluation.roc import Roc, roc_curve


def _long(genuine: int, impostor: int) -> Roc:
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(1.5, 1, genuine), rng.normal(0, 1, impostor)])
    return roc_curve(scores, np.arange(genuine + impostor) < genuine)


@pytest.mark.parametrize(("genuine", "impostor"), [(40_000, 90_000), (90_000, 40_000)])
def test_long_curves_are_drawn_by_points_that_lie_close_together(
    genuine: int, impostor: int
) -> None:
    whole = _long(genuine, impostor)
    drawn = plots._drawn(whole)
    place = {score: i for i, score in enumerate(whole.thresholds.tolist())}
    kept = [place[score] for score in drawn.thresholds.tolist()]

    assert len(whole.thresholds) > 50_000
    assert len(kept) < 12_000
    assert (kept[0], kept[-1]) == (0, len(whole.thresholds) - 1)
    # Where points are left out, neither axis of either plot moves by as much as a pixel.
    left_out = [(i, k) for i, k in pairwise(range(len(kept))) if kept[k] - kept[i] > 1]
    missed = genuine - drawn.true_matches
    for along in (
        np.log(np.maximum(drawn.false_matches, 0.5)) / np.log(impostor),
        drawn.true_matches / genuine,
        np.log(np.maximum(missed, 0.5)) / np.log(genuine),
    ):
        assert max(abs(along[k] - along[i]) for i, k in left_out) < 1 / 1500


def test_short_curves_are_drawn_whole() -> None:
    roc = _long(300, 500)
    assert plots._drawn(roc) is roc
