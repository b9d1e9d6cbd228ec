"""Average linkage against SciPy's, and what a graph of neighbours adds to it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage

from faceidx.gallery import linkage as module
from faceidx.gallery.linkage import automatic_threshold, average_linkage, neighbour_graph
from tests.gallery.conftest import clustered


def _same_groups(one: np.ndarray, other: np.ndarray) -> bool:
    return len(set(zip(one, other, strict=True))) == len(set(one)) == len(set(other))


@pytest.mark.parametrize("threshold", [0.2, 0.4, 0.55, 0.7, 0.9])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_groups_are_those_of_scipys_average_linkage(threshold: float, seed: int) -> None:
    vectors = clustered(25, 6, seed=seed, spread=0.9)
    graph = neighbour_graph(vectors, len(vectors))
    found = average_linkage(vectors, *graph, threshold)
    condensed = (1 - vectors.astype(float) @ vectors.T)[np.triu_indices(len(vectors), 1)]
    wanted = fcluster(linkage(condensed, "average"), 1 - threshold, "distance")
    assert _same_groups(found, wanted)
    assert all(vectors[row] @ vectors[row] for row in found)
    assert (found <= np.arange(len(found))).all()
    assert 1 < len(set(found)) <= len(vectors)


def test_a_chain_of_look_alikes_does_not_join_two_people() -> None:
    """Single links would: each face of the chain is near to the next one."""
    angles = np.linspace(0, np.pi / 2, 40)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    found = average_linkage(vectors, *neighbour_graph(vectors, 8), 0.9)
    assert found[0] != found[-1]
    assert len(set(found)) >= 2


def test_neighbours_are_those_of_brute_force_without_oneself() -> None:
    vectors = clustered(10, 4, spread=0.8)
    vectors[5] = vectors[4] = vectors[3]  # among equal faces too
    scores, rows = neighbour_graph(vectors, 7)
    every = vectors @ vectors.T
    np.fill_diagonal(every, -9)
    np.testing.assert_allclose(scores, -np.sort(-every, axis=1)[:, :7], atol=1e-6)
    assert not (rows == np.arange(len(rows))[:, None]).any()


def test_many_faces_are_searched_in_cells_and_come_out_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vectors = clustered(300, 5, spread=0.5)
    whole = average_linkage(vectors, *neighbour_graph(vectors), 0.6)
    monkeypatch.setattr(module, "_EXACT_FACES", 1000)
    parts = average_linkage(vectors, *neighbour_graph(vectors), 0.6)
    assert np.mean(whole == parts) > 0.99


@pytest.mark.parametrize("count", [0, 1, 2])
def test_hardly_any_face_is_no_trouble(count: int) -> None:
    vectors = clustered(2, 1)[:count]
    threshold = automatic_threshold(vectors)
    found = average_linkage(vectors, *neighbour_graph(vectors), threshold)
    assert found.tolist() == list(range(count))


def test_the_automatic_threshold_lies_so_far_above_strangers() -> None:
    chance = np.random.default_rng(0)
    vectors = chance.normal(size=(3000, 64))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    # Cosines of directions drawn by chance have the deviation 1 / sqrt(64).
    assert automatic_threshold(vectors) == pytest.approx(3.5 / 8, abs=0.01)
    assert automatic_threshold(vectors) == automatic_threshold(vectors)
