"""What a tuned index says of itself holds for probes that it has never seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from faceidx.gallery.build import BuildOptions, build
from faceidx.gallery.check import info
from faceidx.gallery.folder import load_gallery
from faceidx.gallery.indexes import IndexOptions
from faceidx.gallery.search import search
from faceidx.gallery.tune import hold_out_people, truth
from faceidx.gallery.vectors import Vectors
from tests.gallery.conftest import DIM, WriteFaces, unit

PICTURES = 5


def _people(number: int, pictures: int, seed: int) -> np.ndarray:
    """Pictures of people who have more numbers to differ in than a list has to tell them apart."""
    chance = np.random.default_rng(seed)
    centres = chance.normal(size=(number, 64))
    noise = 0.5 * chance.normal(size=(number * pictures, 64))
    return unit(np.repeat(centres, pictures, axis=0) + noise)


@pytest.mark.parametrize("kind", ["ivf", "hnsw", "IVF64,Flat"])
@pytest.mark.parametrize("people", [60, 300])
def test_the_recall_of_a_small_gallery_holds_for_enrolled_people_and_for_strangers(
    tmp_path: Path, write_faces: WriteFaces, kind: str, people: int
) -> None:
    everybody = _people(people + 100, PICTURES + 1, seed=people)
    pictures = np.arange(len(everybody)) % (PICTURES + 1)
    person = np.arange(len(everybody)) // (PICTURES + 1)
    enrolled = everybody[(person < people) & (pictures < PICTURES)]
    names = [f"p{n // PICTURES}" for n in range(len(enrolled))]
    file = write_faces("faces.h5", enrolled, names)
    out = tmp_path / "gallery"
    claimed = build(BuildOptions(files=[file], out=out, index=IndexOptions(kind=kind)))
    recall = info(out)["tuning"]["recall"]
    assert claimed["recall_at_1"] == min(recall["neighbours"], recall["strangers"]) >= 0.99
    mated = everybody[(person < people) & (pictures == PICTURES)]
    strangers = everybody[person >= people]
    with load_gallery(out) as gallery:
        for probes in (mated, strangers):
            found = search(gallery, probes, 1)[0][:, 0]
            right = found >= (probes @ enrolled.T).max(1) - 1e-5
            assert right.mean() >= 0.97  # a few hundred probes show no more of 0.99


def _vectors(tmp_path: Path, rows: np.ndarray) -> Vectors:
    (tmp_path / "rows").write_bytes(rows.tobytes())
    return Vectors((tmp_path / "rows").open("rb"), "rows", 0, len(rows), rows.shape[1])


def test_the_own_people_of_a_stranger_are_no_answer(tmp_path: Path) -> None:
    rows = _people(30, 4, seed=1)[:, :DIM].copy()
    rows = unit(rows)
    codes = np.repeat(np.arange(30), 4)
    codes[:4] = -1
    held_out = np.array([0, 5, 6, 50])
    expected = truth(_vectors(tmp_path, rows), codes, held_out, indexed=True)
    for place, row in enumerate(held_out):
        scores = rows @ rows[row]
        assert expected.score[place] == pytest.approx(np.delete(scores, row).max(), abs=1e-6)
        others = scores[codes != codes[row]].max() if codes[row] >= 0 else -np.inf
        assert expected.strange[place] == pytest.approx(others, abs=1e-6)
    assert expected.mated.all()


def test_a_graph_is_measured_with_people_of_whom_it_holds_nothing_yet(tmp_path: Path) -> None:
    rows = unit(_people(30, 4, seed=1)[:, :DIM])
    codes = np.repeat(np.arange(30), 4)
    held_out = hold_out_people(np.arange(120), codes, np.random.default_rng(0))
    assert len(set(held_out.tolist())) == 30
    assert (np.diff(held_out) > 0).all()
    expected = truth(_vectors(tmp_path, rows), codes, held_out, indexed=False)
    alone = ~np.isin(codes[held_out], np.delete(codes, held_out))
    assert alone.sum() >= 12  # half of them, but for one person's who is not held out whole
    np.testing.assert_array_equal(expected.mated, ~alone)
    np.testing.assert_array_equal(np.isfinite(expected.strange), alone)
    left = np.delete(rows, held_out, axis=0)
    best = (rows[held_out] @ left.T).max(1)
    np.testing.assert_allclose(expected.score, best, atol=1e-6)
    np.testing.assert_allclose(expected.strange[alone], best[alone], atol=1e-6)
