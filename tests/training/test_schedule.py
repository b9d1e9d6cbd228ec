"""The learning rate, and when auxiliary losses come in."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from faceidx.training.schedule import auxiliary_share, has_flattened, rate_share


def test_the_rate_rises_in_a_line_and_falls_as_half_a_cosine() -> None:
    shares = [rate_share(step, steps=110, warmup=10) for step in range(110)]
    assert shares[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    middle = 0.01 + 0.99 * (1 + math.cos(math.pi / 2)) / 2
    assert shares[60] == pytest.approx(middle)
    assert shares[-1] == pytest.approx(0.01, abs=1e-3)
    assert all(a >= b for a, b in pairwise(shares[9:]))


def test_a_run_without_warm_up_starts_at_the_peak() -> None:
    assert rate_share(0, steps=100, warmup=0) == pytest.approx(1.0)


def test_a_curve_that_still_gains_is_not_flat() -> None:
    assert not has_flattened([0.5, 0.6, 0.7, 0.8, 0.85, 0.88], epochs=24)


def test_a_curve_that_stands_still_is_flat_once_that_fills_the_window() -> None:
    rising = [0.5, 0.7, 0.8, 0.85]
    assert not has_flattened([*rising, 0.85, 0.85], epochs=24)  # the window is 4 epochs
    assert has_flattened([*rising, 0.85, 0.851, 0.85, 0.85], epochs=24)


def test_a_gain_counts_relative_to_the_error_that_is_left_and_to_the_gain_so_far() -> None:
    gains = [0.9900, 0.9903, 0.9906, 0.9909, 0.9912]  # a tenth of the error
    assert not has_flattened(gains, epochs=8)
    assert has_flattened([value - 0.5 for value in gains], epochs=8)
    assert has_flattened([0.5, *gains], epochs=8)


def test_one_lucky_epoch_neither_makes_a_plateau_nor_hides_one() -> None:
    rising = [0.30, 0.40, 0.55, 0.47, 0.54, 0.61]
    flat = [0.50, 0.80, 0.80, 0.80, 0.83, 0.80]
    assert not has_flattened(rising[:5], epochs=12) and not has_flattened(rising, epochs=12)
    assert has_flattened(flat[:5], epochs=12) and has_flattened(flat, epochs=12)


@pytest.mark.parametrize("noise", [0.0, 0.005, 0.02])
def test_a_curve_flattens_at_about_the_same_epoch_whatever_its_noise(noise: float) -> None:
    epochs = np.arange(1, 21)
    rng = np.random.default_rng(0)
    found = []
    for _ in range(30):
        curve = 0.95 - 0.6 * np.exp(-epochs / 4) + noise * rng.standard_normal(20)
        flat = [n for n in range(1, 21) if has_flattened(curve[:n].tolist(), epochs=20)]
        found.append(flat[0] if flat else 99)
    assert 10 <= np.median(found) <= 15


def test_a_perfect_curve_is_flat() -> None:
    assert has_flattened([0.9, 1.0, 1.0, 1.0, 1.0], epochs=8)


def test_an_auxiliary_loss_grows_over_its_first_epoch() -> None:
    shares = [auxiliary_share(step, 2, steps_per_epoch=4) for step in range(16)]
    assert shares == [0.0] * 8 + [0.25, 0.5, 0.75, 1.0] + [1.0] * 4
    assert auxiliary_share(100, None, steps_per_epoch=4) == 0.0
