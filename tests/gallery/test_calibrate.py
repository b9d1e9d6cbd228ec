from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faceidx.errors import InputError
from faceidx.gallery import calibrate as module
from faceidx.gallery.build import AddOptions, BuildOptions, RemoveOptions, add, build, remove
from faceidx.gallery.calibrate import (
    CalibrateOptions,
    calibrate,
    non_mated_scores,
    threshold_at,
    wilson_interval,
)
from faceidx.gallery.check import info, verify
from faceidx.gallery.folder import load_gallery
from tests.gallery.conftest import WriteFaces, clustered


@pytest.fixture
def mixed(tmp_path: Path, write_faces: WriteFaces) -> tuple[Path, np.ndarray, list[str]]:
    """People with 1 to 5 pictures, and some pictures of nobody known."""
    vectors = clustered(20, 4, spread=1.0)
    chance = np.random.default_rng(3)
    names = [f"p{n}" if n < 22 else "" for n in chance.integers(0, 24, len(vectors))]
    file = write_faces("mixed.h5", vectors, names)
    build(BuildOptions(files=[file], out=tmp_path / "mixed"))
    return tmp_path / "mixed", vectors, names


def _leave_one_person_out(vectors: np.ndarray, names: list[str]) -> np.ndarray:
    scores = []
    for probe, name in zip(vectors, names, strict=True):
        others = [
            float(probe @ vector)
            for vector, other in zip(vectors, names, strict=True)
            if other not in (name, "")
        ]
        if name:
            scores.append(max(others))
    return np.array(scores)


def test_scores_equal_a_naive_leave_one_person_out_loop_in_any_blocks(
    mixed: tuple[Path, np.ndarray, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, vectors, names = mixed
    monkeypatch.setattr(module, "_BLOCK_PROBES", 9)
    monkeypatch.setattr(module, "_BLOCK_ROWS", 7)
    with load_gallery(path) as gallery:
        scores = non_mated_scores(gallery, np.flatnonzero(gallery.codes >= 0))
    np.testing.assert_allclose(scores, _leave_one_person_out(vectors, names), atol=1e-6)


@pytest.mark.parametrize("fpir", [0.5, 0.1, 0.05, 0.02])
def test_the_threshold_is_the_smallest_that_keeps_the_fpir(
    mixed: tuple[Path, np.ndarray, list[str]], fpir: float
) -> None:
    path, _, names = mixed
    result = calibrate(CalibrateOptions(gallery=path, fpir=fpir))
    with load_gallery(path) as gallery:  # checked against a naive loop above, up to rounding
        scores = non_mated_scores(gallery, np.flatnonzero(gallery.codes >= 0))
    assert result["trials"] == len(scores)
    assert result["without_identity"] == names.count("")
    assert result["identities"] == len(set(names) - {""})
    assert result["fpir"] <= fpir
    for score in np.sort(scores):
        errors = (scores > score).sum()
        if errors / len(scores) <= fpir:
            break
    assert result["errors"] == errors
    assert result["value"] == np.nextafter(score, np.float32(np.inf))
    low, high = result["interval"]
    assert low <= result["fpir"] <= high
    stored = info(path)["threshold"]
    assert stored["value"] == result["value"]
    assert not stored["stale"]
    assert verify(path)["intact"]


@given(
    st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=60),
    st.floats(1e-4, 0.9999),
)
def test_fpir_is_never_above_the_target_and_one_step_lower_would_be(
    scores: list[float], fpir: float
) -> None:
    found = np.array(scores, dtype=np.float32)
    threshold = threshold_at(found, fpir)
    assert (found >= threshold).sum() / len(found) <= fpir
    lower = np.nextafter(np.float32(threshold), np.float32(-2))
    assert (found >= lower).sum() / len(found) > fpir


def test_the_allowed_errors_do_not_suffer_from_rounding() -> None:
    scores = np.arange(100, dtype=np.float32)
    assert sum(scores >= threshold_at(scores, 0.29)) == 29  # 0.29 * 100 is 28.999999999999996


def test_wilson_intervals_are_those_of_the_textbook() -> None:
    # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_a_target_too_small_to_resolve_is_said(
    gallery_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        result = calibrate(CalibrateOptions(gallery=gallery_path, fpir=0.001))
    assert (result["errors"], result["trials"]) == (0, 60)
    assert "cannot be resolved by 60 searches" in caplog.text


def test_a_sample_searches_with_fewer_pictures_and_repeats_with_its_seed(
    gallery_path: Path,
) -> None:
    options = CalibrateOptions(gallery=gallery_path, fpir=0.1, sample=20, seed=5)
    one, two = calibrate(options), calibrate(options)
    assert one["trials"] == 20
    assert one["value"] == two["value"]


def test_adding_and_removing_make_the_threshold_stale(
    gallery_path: Path, write_faces: WriteFaces
) -> None:
    options = CalibrateOptions(gallery=gallery_path, fpir=0.1)
    value = calibrate(options)["value"]
    remove(RemoveOptions(gallery=gallery_path, paths=["person00/0.jpg"]))
    assert info(gallery_path)["threshold"]["stale"]
    assert info(gallery_path)["threshold"]["value"] == value
    calibrate(options)
    assert not info(gallery_path)["threshold"]["stale"]
    file = write_faces("more.h5", clustered(1, 1, seed=4), ["x"])
    add(AddOptions(gallery=gallery_path, files=[file]))
    assert json.loads((gallery_path / "manifest.json").read_text())["threshold"]["stale"]


def test_one_person_is_not_enough(tmp_path: Path, write_faces: WriteFaces) -> None:
    file = write_faces("one.h5", clustered(1, 3), ["a", "a", ""])
    build(BuildOptions(files=[file], out=tmp_path / "g"))
    with pytest.raises(InputError, match="holds 1 people"):
        calibrate(CalibrateOptions(gallery=tmp_path / "g", fpir=0.1))
