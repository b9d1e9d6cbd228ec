from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from faceidx.errors import InputError
from faceidx.gallery import fusion
from faceidx.gallery.build import AddOptions, BuildOptions, RemoveOptions, add, build, remove
from faceidx.gallery.calibrate import CalibrateOptions, calibrate
from faceidx.gallery.check import info, verify
from faceidx.gallery.folder import load_gallery
from faceidx.gallery.fusion import create_fusion
from faceidx.gallery.manifest import parse_manifest, render_manifest, with_checksum
from faceidx.gallery.open_set import open_set_threshold, people_needed
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
    monkeypatch.setattr(fusion, "_BLOCK_PROBES", 9)
    monkeypatch.setattr(fusion, "_BLOCK_ROWS", 7)
    with load_gallery(path) as gallery:
        best = create_fusion("best", gallery)
        scores = best.as_strangers(np.flatnonzero(gallery.codes >= 0))
    np.testing.assert_allclose(scores, _leave_one_person_out(vectors, names), atol=1e-6)


@pytest.mark.parametrize("fusion", ["best", "mean", "vote"])
@pytest.mark.parametrize("fpir", [0.5, 0.1, 0.02])
def test_what_is_stored_are_the_counts_at_the_threshold(
    mixed: tuple[Path, np.ndarray, list[str]], fpir: float, fusion: str
) -> None:
    path, _, names = mixed
    result = calibrate(CalibrateOptions(gallery=path, fpir=fpir, fusion=fusion))
    with load_gallery(path) as gallery:
        rows = np.flatnonzero(gallery.codes >= 0)
        scores = create_fusion(fusion, gallery).as_strangers(rows)
    assert result["trials"] == len(scores)
    assert result["without_identity"] == names.count("")
    assert result["identities"] == len(set(names) - {""})
    assert result["errors"] == (scores.astype(float) >= result["value"]).sum()
    assert result["fpir"] == result["errors"] / len(scores) <= fpir
    assert result["expected"] == pytest.approx(fpir, abs=0.06)
    assert result["expected"] <= fpir
    low, high = result["interval"]
    assert low <= result["expected"] <= high
    stored = info(path)["threshold"]
    assert stored["value"] == result["value"]
    assert (stored["fusion"], stored["method"]) == (fusion, result["method"])
    assert not stored["stale"]
    assert verify(path)["intact"]


def test_a_threshold_written_before_fusions_is_read(
    gallery_path: Path,
) -> None:
    calibrate(CalibrateOptions(gallery=gallery_path, fpir=0.3))
    manifest = parse_manifest((gallery_path / "manifest.json").read_bytes(), "m")
    fields = json.loads(render_manifest(manifest))
    for name in ("expected", "method", "fusion", "neighbours"):
        del fields["threshold"][name]
    del fields["checksum"]
    older = parse_manifest(with_checksum(fields), "m").threshold
    assert older is not None
    assert (older.value, older.fusion, older.expected) == (manifest.threshold.value, "best", None)  # type: ignore[union-attr]


def test_a_target_too_small_to_resolve_is_said(
    gallery_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        result = calibrate(CalibrateOptions(gallery=gallery_path, fpir=0.001))
    assert (result["errors"], result["trials"], result["method"]) == (0, 60, "extrapolated")
    assert "cannot be resolved by 60 searches for 12 people (it takes 1001 people)" in caplog.text


@pytest.mark.parametrize("fpir", [0.9, 0.5, 0.3, 0.1, 0.013, 0.01, 0.001])
def test_the_people_needed_are_the_fewest_that_can_be_counted(fpir: float) -> None:
    needed = people_needed(fpir)
    scores = np.linspace(0.1, 0.5, needed, dtype=np.float32)
    assert open_set_threshold(scores, np.arange(needed), fpir).method == "counted"
    if needed > 2:
        fewer = open_set_threshold(scores[1:], np.arange(needed - 1), fpir)
        assert (fewer.method, fewer.people_needed) == ("extrapolated", needed)


@pytest.mark.parametrize("fpir", [0.3, 0.1, 0.013, 0.01, 0.001])
def test_of_people_with_a_picture_each_more_are_needed(fpir: float) -> None:
    needed = people_needed(fpir, 2)
    assert needed >= 1.5 * people_needed(fpir)
    scores = np.repeat(np.linspace(0.1, 0.5, needed, dtype=np.float32), 2)
    assert open_set_threshold(scores[-needed:], np.arange(needed), fpir).method == "counted"
    fewer = open_set_threshold(scores[1 - needed :], np.arange(needed - 1), fpir)
    assert (fewer.method, fewer.people_needed) == ("extrapolated", needed)


def test_a_sample_searches_with_fewer_pictures_and_repeats_with_its_seed(
    gallery_path: Path,
) -> None:
    options = CalibrateOptions(gallery=gallery_path, fpir=0.1, sample=20, seed=5)
    one, two = calibrate(options), calibrate(options)
    assert one["trials"] == 20
    assert one["identities"] == 12  # of every person one before a second
    assert one["value"] == two["value"]


def test_a_sample_of_one_person_is_refused_and_of_two_is_enough(gallery_path: Path) -> None:
    options = CalibrateOptions(gallery=gallery_path, fpir=0.1, sample=2)
    assert calibrate(options)["identities"] == 2
    with pytest.raises(InputError, match="--sample 1: a threshold needs"):
        calibrate(replace(options, sample=1))


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


def test_a_change_of_refused_rows_alone_leaves_the_threshold_valid(
    gallery_path: Path, write_faces: WriteFaces
) -> None:
    value = calibrate(CalibrateOptions(gallery=gallery_path, fpir=0.1))["value"]
    nothing = np.full((1, clustered(1, 1).shape[1]), np.nan, np.float32)
    file = write_faces("bad.h5", nothing, ["x"])
    assert add(AddOptions(gallery=gallery_path, files=[file]))["refused"] == 1
    remove(RemoveOptions(gallery=gallery_path, identities=["x"]))
    threshold = info(gallery_path)["threshold"]
    assert (threshold["value"], threshold["stale"]) == (value, False)


def test_one_picture_under_two_names_is_said(
    tmp_path: Path, write_faces: WriteFaces, caplog: pytest.LogCaptureFixture
) -> None:
    vectors = clustered(12, 5)
    names = [f"person{n // 5:02}" for n in range(60)]
    for doubled in (False, True):
        vectors[7] = vectors[42] if doubled else vectors[7]
        out = tmp_path / f"g{doubled}"
        build(BuildOptions(files=[write_faces(f"{doubled}.h5", vectors, names)], out=out))
        with caplog.at_level(logging.DEBUG, "faceidx.gallery"):
            calibrate(CalibrateOptions(gallery=out, fpir=0.1))
        assert ("2 people have a picture that is somebody else's too" in caplog.text) == doubled
    assert "'person01' has a picture of somebody else's" in caplog.text


def test_one_person_is_not_enough(tmp_path: Path, write_faces: WriteFaces) -> None:
    file = write_faces("one.h5", clustered(1, 3), ["a", "a", ""])
    build(BuildOptions(files=[file], out=tmp_path / "g"))
    with pytest.raises(InputError, match="holds 1 people"):
        calibrate(CalibrateOptions(gallery=tmp_path / "g", fpir=0.1))
