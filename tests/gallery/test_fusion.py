"""Each fusion against a loop over the definitions."""

from __future__ import annotations

import tracemalloc
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from faceidx.errors import InputError
from faceidx.gallery import fusion as module
from faceidx.gallery.build import BuildOptions, build
from faceidx.gallery.folder import Gallery, load_gallery
from faceidx.gallery.fusion import create_fusion
from faceidx.gallery.search import search
from tests.gallery.conftest import WriteFaces, clustered

_PROBES = clustered(20, 3, seed=0, spread=0.9)
_NEIGHBOURS = 4


@pytest.fixture
def mixed(tmp_path: Path, write_faces: WriteFaces) -> tuple[Path, np.ndarray, list[str]]:
    """People with a few pictures each, and some pictures of nobody known."""
    vectors = clustered(20, 4, spread=1.0)
    chance = np.random.default_rng(3)
    names = [f"p{n}" if n < 22 else "" for n in chance.integers(0, 24, len(vectors))]
    build(BuildOptions(files=[write_faces("m.h5", vectors, names)], out=tmp_path / "mixed"))
    return tmp_path / "mixed", vectors, names


def _naive(
    fusion: str, probe: np.ndarray, vectors: np.ndarray, names: list[str], without: str = ""
) -> dict[str, float]:
    """Score of every candidate, picture by picture."""
    pictures: dict[str, list[np.ndarray]] = defaultdict(list)
    for vector, name in zip(vectors, names, strict=True):
        if name not in ("", without):
            pictures[name].append(vector.astype(float))
    if fusion == "best":
        return {name: max(float(probe @ v) for v in own) for name, own in pictures.items()}
    if fusion == "mean":
        means = {name: np.mean(own, axis=0) for name, own in pictures.items()}
        return {name: float(probe @ m) / np.linalg.norm(m) for name, m in means.items()}
    scored = [(float(probe @ v), name) for name, own in pictures.items() for v in own]
    votes: dict[str, float] = defaultdict(float)
    for score, name in sorted(scored, reverse=True)[:_NEIGHBOURS]:
        votes[name] += max(score, 0) / _NEIGHBOURS
    return votes


@pytest.mark.parametrize("fusion", ["best", "mean", "vote"])
def test_people_are_ranked_as_a_naive_loop_ranks_them(
    mixed: tuple[Path, np.ndarray, list[str]], fusion: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, vectors, names = mixed
    monkeypatch.setattr(module, "_BLOCK_PROBES", 11)
    monkeypatch.setattr(module, "_BLOCK_ROWS", 7)
    with load_gallery(path) as gallery:
        found = create_fusion(fusion, gallery, _NEIGHBOURS).nearest(_PROBES, 5)
        assert len(found) == len(_PROBES)
        for probe, candidates in zip(_PROBES, found, strict=True):
            naive = _naive(fusion, probe, vectors, names)
            best = sorted(naive.values(), reverse=True)[:5]
            assert [c.score for c in candidates] == pytest.approx(best, abs=1e-5)
            for candidate in candidates:
                assert candidate.score == pytest.approx(naive[candidate.identity], abs=1e-5)
                assert gallery.identities[candidate.row] == candidate.identity


@pytest.mark.parametrize("fusion", ["best", "mean", "vote"])
def test_strangers_score_as_in_a_naive_loop_without_their_person(
    mixed: tuple[Path, np.ndarray, list[str]], fusion: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, vectors, names = mixed
    monkeypatch.setattr(module, "_BLOCK_PROBES", 9)
    monkeypatch.setattr(module, "_BLOCK_ROWS", 7)
    with load_gallery(path) as gallery:
        rows = np.flatnonzero(gallery.codes >= 0)
        scores = create_fusion(fusion, gallery, _NEIGHBOURS).as_strangers(rows)
    naive = [
        max(_naive(fusion, vectors[row], vectors, names, without=names[row]).values())
        for row in rows
    ]
    np.testing.assert_allclose(scores, naive, atol=1e-5)


def test_more_voters_than_pictures_and_negative_scores_do_no_harm(
    tmp_path: Path, write_faces: WriteFaces
) -> None:
    vectors = np.array([[1, 0], [-1, 0], [0, 1]], dtype=np.float32)
    build(BuildOptions(files=[write_faces("t.h5", vectors, ["a", "b", ""])], out=tmp_path / "g"))
    with load_gallery(tmp_path / "g") as gallery:
        vote = create_fusion("vote", gallery, 10)
        (found,) = vote.nearest(vectors[:1], 5)
        assert [(c.identity, c.score) for c in found] == [("a", pytest.approx(0.1)), ("b", 0)]
        assert vote.as_strangers(np.array([0, 1])).tolist() == [0, 0]


def test_many_voters_take_memory_in_proportion(gallery_path: Path) -> None:
    with load_gallery(gallery_path) as gallery:
        rows = np.arange(gallery.count)
        create_fusion("vote", gallery).as_strangers(rows)
        for voters in (50, 100_000):
            tracemalloc.start()
            create_fusion("vote", gallery, voters).as_strangers(rows)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 500_000  # of 60 x 60 pairs of pictures at most


def test_voters_among_many_nameless_pictures_are_found_without_ranking_all(
    tmp_path: Path, write_faces: WriteFaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = clustered(60, 5, spread=1.0)
    names = [f"p{n % 7}" if n % 12 == 0 else "" for n in range(len(vectors))]
    build(BuildOptions(files=[write_faces("c.h5", vectors, names)], out=tmp_path / "g"))
    widths: list[int] = []

    def watched(gallery: Gallery, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        widths.append(k)
        return search(gallery, queries, k)

    monkeypatch.setattr(module, "search", watched)
    monkeypatch.setattr(module, "_MAX_NEIGHBOURS", 20)
    monkeypatch.setattr(module, "_BLOCK_ROWS", 7)
    with load_gallery(tmp_path / "g") as gallery:
        found = create_fusion("vote", gallery, _NEIGHBOURS).nearest(_PROBES, 5)
    for probe, candidates in zip(_PROBES, found, strict=True):
        naive = dict(_naive("vote", probe, vectors, names))
        assert {c.identity: c.score for c in candidates} == pytest.approx(naive, abs=1e-5)
        assert all(gallery.identities[c.row] == c.identity for c in candidates)
    assert widths == [4, 16]


def test_an_unknown_fusion_and_no_voters_are_refused(gallery_path: Path) -> None:
    with load_gallery(gallery_path) as gallery:
        with pytest.raises(InputError, match="none of best, mean, vote"):
            create_fusion("median", gallery)
        with pytest.raises(InputError, match="less than 1"):
            create_fusion("vote", gallery, 0)
