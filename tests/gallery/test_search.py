from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from faceidx.errors import InputError
from faceidx.gallery import folder as folder_module
from faceidx.gallery import search as search_module
from faceidx.gallery.build import BuildOptions, RemoveOptions, build, remove
from faceidx.gallery.folder import load_gallery
from faceidx.gallery.hits import SearchOptions, search_file
from faceidx.gallery.search import nearest_identities, search
from tests.gallery.conftest import DIM, WriteFaces, clustered, unit


@pytest.mark.parametrize("queries", [1, 25, 200])
def test_search_equals_brute_force(gallery_path: Path, queries: int) -> None:
    probes = unit(np.random.default_rng(4).normal(size=(queries, DIM)))
    with load_gallery(gallery_path) as gallery:
        scores, rows = search(gallery, probes, 7)
    every = probes.astype(np.float64) @ clustered(12, 5).astype(np.float64).T
    expected = np.argsort(-every, axis=1, kind="stable")[:, :7]
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(scores, np.take_along_axis(every, expected, 1), atol=1e-6)
    assert (scores.dtype, rows.dtype) == (np.float32, np.int64)


def test_results_do_not_depend_on_the_block(
    gallery_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probes = clustered(9, 7, seed=2)
    with load_gallery(gallery_path) as gallery:
        whole = search(gallery, probes, 5)
        monkeypatch.setattr(search_module, "_BLOCK_QUERIES", 10)
        parts = search(gallery, probes, 5)
    np.testing.assert_array_equal(whole[1], parts[1])
    np.testing.assert_allclose(whole[0], parts[0], atol=1e-6)


@pytest.mark.parametrize("k", [1, 3, 9])
def test_among_equal_scores_the_lower_row_comes_first(
    tmp_path: Path, write_faces: WriteFaces, k: int
) -> None:
    vectors = np.repeat(np.eye(3, DIM, dtype=np.float32), 4, axis=0)[[0, 4, 8] * 4]
    file = write_faces("same.h5", vectors, [f"p{n}" for n in range(12)])
    build(BuildOptions(files=[file], out=tmp_path / "g"))
    with load_gallery(tmp_path / "g") as gallery:
        _, rows = search(gallery, np.eye(1, DIM, dtype=np.float32), k)
    expected = [0, 3, 6, 9, 1, 2, 4, 5, 7, 8, 10, 11]
    assert rows[0].tolist() == expected[:k]


def test_more_neighbours_than_pictures_are_cut_with_a_warning(
    gallery_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with load_gallery(gallery_path) as gallery:
        scores, rows = search(gallery, clustered(1, 2), 1000)
    assert scores.shape == rows.shape == (2, 60)
    assert sorted(rows[0].tolist()) == list(range(60))
    assert "the gallery holds 60" in caplog.text


def test_many_hits_are_ranked_a_few_probes_at_a_time(
    gallery_path: Path, tmp_path: Path, write_faces: WriteFaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    probes = clustered(12, 5, seed=3)
    probes[[0, 7, 59]] = np.nan
    file = write_faces("probes.h5", probes, [""] * 60)
    options = SearchOptions(gallery=gallery_path, file=file, top_k=40, out=tmp_path / "hits.csv")
    whole = search_file(options)
    with (tmp_path / "hits.csv").open() as table:
        *expected, scores = zip(*csv.reader(table), strict=True)
    cells: list[int] = []

    def watched(*args: Any) -> tuple[np.ndarray, np.ndarray]:
        scores, rows = search(*args)
        cells.append(scores.size)
        return scores, rows

    monkeypatch.setattr(search_module, "search", watched)
    monkeypatch.setattr(search_module, "_BLOCK_CELLS", 200)
    again = search_file(replace(options, overwrite=True))
    assert max(cells) <= 200
    assert again.summary["hits"] == whole.summary["hits"] == 57 * 40
    with (tmp_path / "hits.csv").open() as table:
        *found, again_scores = zip(*csv.reader(table), strict=True)
    assert found == expected
    usable = np.array([[float(s or 0) for s in column[1:]] for column in (scores, again_scores)])
    np.testing.assert_allclose(usable[0], usable[1], atol=1e-6)


def test_an_empty_gallery_is_said_whatever_the_probes(
    gallery_path: Path, write_faces: WriteFaces
) -> None:
    remove(RemoveOptions(gallery=gallery_path, identities=[f"person{n:02}" for n in range(12)]))
    for probes in (clustered(1, 2), np.full((2, DIM), np.nan, np.float32)):
        file = write_faces("probes.h5", probes, ["", ""])
        with pytest.raises(InputError, match="is empty; add faces"):
            search_file(SearchOptions(gallery=gallery_path, file=file))


def test_bad_queries_are_refused(gallery_path: Path) -> None:
    with load_gallery(gallery_path) as gallery:
        with pytest.raises(InputError, match="NaN"):
            search(gallery, np.full((1, DIM), np.nan, dtype=np.float32), 1)
        with pytest.raises(InputError, match="7 numbers"):
            search(gallery, np.ones((1, 7), dtype=np.float32), 1)
    remove(RemoveOptions(gallery=gallery_path, identities=[f"person{n:02}" for n in range(12)]))
    with load_gallery(gallery_path) as gallery, pytest.raises(InputError, match="is empty"):
        search(gallery, clustered(1, 1), 1)


def _nearest_by_loop(
    probe: np.ndarray, vectors: np.ndarray, names: list[str], wanted: int
) -> list[tuple[str, int]]:
    best: dict[str, tuple[float, int]] = {}
    for row, (vector, name) in enumerate(zip(vectors, names, strict=True)):
        score = float(probe.astype(np.float64) @ vector.astype(np.float64))
        if name and (name not in best or score > best[name][0]):
            best[name] = (score, row)
    ranked = sorted((-score, row, name) for name, (score, row) in best.items())
    return [(name, row) for _, row, name in ranked[:wanted]]


@pytest.mark.parametrize("widest", [1024, 4])
@pytest.mark.parametrize("wanted", [1, 5, 100])
def test_nearest_people_equal_a_naive_loop(
    tmp_path: Path,
    write_faces: WriteFaces,
    monkeypatch: pytest.MonkeyPatch,
    widest: int,
    wanted: int,
) -> None:
    """One person has most pictures, so that few neighbours do not show enough people."""
    monkeypatch.setattr(search_module, "_MAX_NEIGHBOURS", widest)
    vectors = np.concatenate([clustered(1, 80, spread=0.1), clustered(9, 3, seed=1)])
    names = ["crowd"] * 80 + [f"p{n // 3}" if n % 7 else "" for n in range(27)]
    file = write_faces("faces.h5", vectors, names)
    build(BuildOptions(files=[file], out=tmp_path / "g"))
    probes = np.concatenate([clustered(1, 3, spread=0.1), clustered(9, 2, seed=1)])
    with load_gallery(tmp_path / "g") as gallery:
        found = nearest_identities(gallery, probes, wanted)
    for probe, candidates in zip(probes, found, strict=True):
        expected = _nearest_by_loop(probe, vectors, names, wanted)
        assert [(c.identity, c.row) for c in candidates] == expected
        for candidate in candidates:
            assert candidate.score == pytest.approx(float(probe @ vectors[candidate.row]), abs=1e-6)


def test_who_is_compared_with_everybody_gets_the_same_people_where_scores_are_equal(
    tmp_path: Path, write_faces: WriteFaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = np.tile(clustered(6, 2, seed=3), (4, 1))
    names = [f"p{n % 9}" if n % 5 else "" for n in range(48)]
    build(BuildOptions(files=[write_faces("f.h5", vectors, names)], out=tmp_path / "g"))
    with load_gallery(tmp_path / "g") as gallery:

        def found() -> list[list[tuple[str, int]]]:
            nearest = [nearest_identities(gallery, vectors[:12], wanted) for wanted in (1, 4, 9)]
            return [[(c.identity, c.row) for c in people] for some in nearest for people in some]

        expected = found()
        monkeypatch.setattr(search_module, "_MAX_NEIGHBOURS", 1)
        monkeypatch.setattr(search_module, "_BLOCK_ROWS", 7)
        assert found() == expected


def test_a_gallery_without_names_finds_nobody(tmp_path: Path, write_faces: WriteFaces) -> None:
    file = write_faces("faces.h5", clustered(1, 3), ["", "", ""])
    build(BuildOptions(files=[file], out=tmp_path / "g"))
    with load_gallery(tmp_path / "g") as gallery, pytest.raises(InputError, match="nobody to find"):
        nearest_identities(gallery, clustered(1, 1), 1)


def test_a_gpu_that_is_not_there_is_refused_and_auto_does_without(gallery_path: Path) -> None:
    probes = clustered(2, 2)
    with load_gallery(gallery_path, device="auto") as gallery:
        assert search(gallery, probes, 1)[0].shape == (4, 1)
    with (
        load_gallery(gallery_path, device="cuda:0") as gallery,
        pytest.raises(InputError, match="--device cpu"),
    ):
        search(gallery, probes, 1)


@pytest.mark.parametrize("fast", [True, False])
def test_whoever_searches_a_large_gallery_finds_the_same(
    gallery_path: Path, monkeypatch: pytest.MonkeyPatch, fast: bool
) -> None:
    probes = clustered(30, 3, seed=9)
    with load_gallery(gallery_path) as gallery:
        expected = search(gallery, probes, 9)  # by FAISS, as it is small
    monkeypatch.setattr(folder_module, "_FAISS_NUMBERS", 0)
    monkeypatch.setattr(folder_module, "has_int8", lambda: fast)
    with load_gallery(gallery_path) as gallery:
        found = search(gallery, probes, 9)
        assert (gallery.device_index is None) == fast
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_allclose(found[0], expected[0], atol=1e-6)
