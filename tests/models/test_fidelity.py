from __future__ import annotations

import numpy as np

from faceidx.models.fidelity import compare


def test_the_cosine_of_each_row_counts_whatever_its_length() -> None:
    exact = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]])
    found = np.array([[5.0, 0.0], [0.0, 1.0], [4.0, 3.0]])
    fidelity = compare(found, exact)
    assert fidelity is not None
    np.testing.assert_allclose([fidelity.least, fidelity.mean], [0.96, (1 + 1 + 0.96) / 3])
    assert fidelity.pictures == 3


def test_a_row_that_breaks_counts_against_it_and_one_without_direction_does_not() -> None:
    exact = np.array([[1.0, 0.0], [0.0, 0.0], [np.nan, 1.0], [0.0, 1.0]])
    found = np.array([[np.nan, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    fidelity = compare(found, exact)
    assert fidelity is not None
    assert (fidelity.least, fidelity.mean, fidelity.pictures) == (-1.0, 0.0, 2)
    assert compare(found[:0], exact[:0]) is None
    assert compare(found[1:2], exact[1:2]) is None
