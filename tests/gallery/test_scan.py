from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from faceidx.gallery import scan as module
from faceidx.gallery.scan import Scan
from faceidx.gallery.vectors import Vectors
from tests.gallery.conftest import clustered, unit

Store = Callable[[np.ndarray], Vectors]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Vectors in a file, behind some bytes that make them lie unaligned."""

    def write(vectors: np.ndarray) -> Vectors:
        path = tmp_path / "vectors"
        path.write_bytes(b"odd" + vectors.astype("<f4").tobytes())
        return Vectors(path.open("rb", buffering=0), str(path), 3, *vectors.shape)

    return write


def _brute_force(queries: np.ndarray, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    scores = (queries.astype(np.float64) @ vectors.astype(np.float64).T).astype(np.float32)
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, rows, 1), rows


def _require_equal(
    found: tuple[np.ndarray, np.ndarray], queries: np.ndarray, vectors: np.ndarray
) -> None:
    scores, rows = found
    expected, _ = _brute_force(queries, vectors, rows.shape[1])
    np.testing.assert_allclose(scores, expected, atol=1e-6, rtol=0)
    # Whichever order near-ties come in, each row has the score that it is listed with, once.
    exact = np.einsum("qd,qkd->qk", queries.astype(np.float64), vectors[rows].astype(np.float64))
    np.testing.assert_allclose(scores, exact, atol=1e-6, rtol=0)
    assert all(len(set(row)) == len(row) for row in rows.tolist())
    assert (np.diff(scores, axis=1) <= 0).all()


@pytest.mark.parametrize("block_rows", [64, 16384])
@pytest.mark.parametrize("threads", [1, 8])
@pytest.mark.parametrize(("people", "pictures"), [(1, 5), (7, 9), (150, 10)])
@pytest.mark.parametrize("k", [1, 5, 40])
def test_the_scan_finds_what_brute_force_finds(
    store: Store,
    first_pass: str,
    monkeypatch: pytest.MonkeyPatch,
    block_rows: int,
    threads: int,
    people: int,
    pictures: int,
    k: int,
) -> None:
    monkeypatch.setattr(module, "_BLOCK_ROWS", block_rows)
    monkeypatch.setattr(module, "_WORTH_A_THREAD", 8)  # one thread or team, or one for each part
    monkeypatch.setattr(module, "_threads", lambda: threads)
    vectors = clustered(people, pictures, seed=people)
    queries = np.concatenate([clustered(people, 2, seed=people)[:60], clustered(20, 1, seed=99)])
    found = Scan(store(vectors), memory=1 << 30).search(queries, min(k, len(vectors)))
    _require_equal(found, queries, vectors)


def test_a_second_search_and_one_that_keeps_nothing_find_the_same(
    store: Store, first_pass: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BLOCK_ROWS", 128)
    vectors, queries = clustered(60, 10), clustered(60, 1, seed=5)
    kept, not_kept = (Scan(store(vectors), memory=m) for m in (1 << 30, 0))
    first = kept.search(queries, 7)
    for again in (kept.search(queries, 7), not_kept.search(queries, 7)):
        np.testing.assert_array_equal(first[0], again[0])
        np.testing.assert_array_equal(first[1], again[1])


def test_vectors_of_any_length_and_lopsided_ones_are_compared_rightly(
    store: Store, first_pass: str
) -> None:
    chance = np.random.default_rng(0)
    lopsided = np.where(chance.random((300, 24)) < 0.05, 50.0, 0.01) * chance.normal(size=(300, 24))
    vectors = np.concatenate([unit(lopsided), np.eye(24, dtype=np.float32)])
    queries = np.concatenate([unit(lopsided[:20]) * 3, np.zeros((1, 24)), -np.eye(24)[:5]])
    queries = queries.astype(np.float32)
    _require_equal(Scan(store(vectors), memory=0).search(queries, 9), queries, vectors)


def test_equal_vectors_by_the_thousand_are_ranked_in_full(
    store: Store, first_pass: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BLOCK_ROWS", 256)
    vectors = np.concatenate([np.tile(clustered(1, 1), (3000, 1)), clustered(30, 3, seed=2)])
    queries = np.concatenate([vectors[:1], vectors[-2:]])
    scores, rows = Scan(store(vectors), memory=1 << 30).search(queries, 6)
    assert rows[0].tolist() == [0, 1, 2, 3, 4, 5]
    _require_equal((scores, rows), queries, vectors)


def test_more_neighbours_than_a_block_can_bound_are_found_all_the_same(
    store: Store, first_pass: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BLOCK_ROWS", 64)
    vectors = clustered(20, 10)
    _require_equal(Scan(store(vectors), memory=0).search(vectors[:5], 180), vectors[:5], vectors)
