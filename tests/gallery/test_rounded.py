from __future__ import annotations

import numpy as np
import pytest

from faceidx.gallery.rounded import Block, Queries
from tests.gallery.conftest import unit


def _vectors(chance: np.random.Generator, rows: int, dim: int) -> np.ndarray:
    """Vectors of all kinds; of every second one few large numbers spoil the rounding."""
    even, heavy = chance.normal(size=(rows, dim)), chance.standard_t(2, size=(rows, dim))
    return unit(np.where(np.arange(rows)[:, None] % 2, even, heavy))


def _exact(queries: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """(N, Q) float64."""
    scores: np.ndarray = vectors.astype(np.float64) @ queries.T.astype(np.float64)
    return scores


@pytest.mark.parametrize("dim", [1, 24, 96, 2048])
@pytest.mark.parametrize("length", [1e-3, 1, 40])
def test_scores_are_off_by_no_more_than_the_bound(first_pass: str, dim: int, length: float) -> None:
    chance = np.random.default_rng(dim)
    vectors, exact = _vectors(chance, 401, dim), length * _vectors(chance, 41, dim)
    block, queries = Block.of(0, vectors), Queries(exact)
    scores, bound = queries.scores(block)[:, :41].numpy(), queries.error(block)
    off = np.abs(scores - _exact(exact, vectors))
    assert (off <= bound).all()
    if first_pass == "whole numbers" and dim > 1:
        assert off.max() > bound.min() / 50, "a bound so far from the truth filters nothing"


@pytest.mark.parametrize("count", [1, 7, 8, 41])
@pytest.mark.parametrize("floor", [-0.9, 0.0, 0.1, 0.4, 0.99])
def test_every_pair_that_reaches_the_floor_is_named_with_its_score(
    first_pass: str, count: int, floor: float
) -> None:
    chance = np.random.default_rng(count)
    vectors = _vectors(chance, 500, 96)
    exact = np.concatenate(
        [vectors[:1], unit(vectors[1:count] + 0.3 * vectors[count : 2 * count - 1])]
    )
    exact *= chance.uniform(0.5, 2, (count, 1)).astype(np.float32)
    floors = (floor * np.linalg.norm(exact, axis=1)).astype(np.float32)
    block = Block.of(1003, vectors[3:490])
    queries, scores = Queries(exact), _exact(exact, vectors)
    above = queries.above(block, floors)
    assert len(np.unique(above.query * 10_000 + above.row)) == len(above.row)
    off = np.abs(above.score - scores[above.row - 1000, above.query])
    assert (off <= above.error).all()
    named = np.zeros(scores.shape, dtype=bool)
    named[above.row - 1000, above.query] = True
    assert named[3:490][scores[3:490] >= floors].all()
    assert not named[:3].any() and not named[490:].any()
    far = scores < floors - 3 * queries.error(block)
    assert not named[far].any(), "rows far below the floor should be left out"


def test_queries_with_an_infinite_floor_are_left_out(first_pass: str) -> None:
    vectors = _vectors(np.random.default_rng(0), 64, 24)
    floor = np.full(10, -1, dtype=np.float32)
    floor[[2, 9]] = np.inf
    above = Queries(vectors[:10]).above(Block.of(0, vectors), floor)
    assert set(above.query.tolist()) == set(range(10)) - {2, 9}
    assert len(above.query) == 8 * 64


def test_empty_directions_reach_a_floor_of_zero(first_pass: str) -> None:
    vectors = np.zeros((16, 24), dtype=np.float32)
    above = Queries(vectors[:3]).above(Block.of(0, vectors), np.zeros(3, dtype=np.float32))
    assert len(above.query) == 3 * 16
    np.testing.assert_allclose(above.score, 0, atol=1e-6)
