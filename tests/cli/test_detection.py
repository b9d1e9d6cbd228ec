"""Commands that compare pictures find faces by themselves as the gallery or the record says."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceidx.embedding.pipeline import PipelineOptions
from faceidx.images import detector_file
from faceidx.images.detector_file import YUNET, cached_file
from faceidx.images.templates import TEMPLATES
from tests.conftest import RunCli
from tests.images.photos import MARK, write_toy_detector
from tests.models.onnx_graphs import mean_color_graph


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("toy") / "toy.onnx"
    write_toy_detector(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three people with two photos each; the face is a patch of noise with the detector's mark."""
    root = tmp_path / "photos"
    for person in range(3):
        face = np.random.default_rng(person).integers(0, 90, (56, 56, 3), dtype=np.uint8)
        face[24:32, 24:32] = MARK
        for number, (x, y) in enumerate([(16, 32), (96, 56)]):
            photo = np.full((120, 160, 3), 40 + 50 * number, np.uint8)
            photo[y : y + 56, x : x + 56] = face
            (root / f"p{person}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(photo).save(root / f"p{person}" / f"{number}.png")
    Image.fromarray(np.full((120, 160, 3), 90, np.uint8)).save(root / "p0" / "none.png")
    return root


@pytest.fixture(autouse=True)
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def _gallery(run_cli: RunCli, photos: Path, model: Path, toy: Path, folder: Path) -> Path:
    out, gallery = folder / "faces.h5", folder / "gallery"
    run_cli(
        *("embed", photos, "--model", model, "--out", out),
        *("--detect", "largest", "--detector", toy),
    )
    run_cli("index", "build", out, "--out", gallery)
    return gallery


def test_probes_are_prepared_as_the_gallery_was(
    run_cli: RunCli, photos: Path, fake_model_file: Path, toy: Path, tmp_path: Path
) -> None:
    gallery = _gallery(run_cli, photos, fake_model_file, toy, tmp_path)
    answers = tmp_path / "who.csv"
    command = ("classify", photos, "--index", gallery, "--model", fake_model_file)
    _, err = run_cli(*command, "--threshold", "0.9", code=2)
    assert "faceidx models get yunet" in err
    result = run_cli.json(
        *command, "--threshold", "0.99", "--detector", toy, "--out", answers, "--top-k", "1"
    )
    assert (result["probes"], result["matched"], result["failed"]) == (7, 6, 1)
    rows = {row["path"]: row for row in csv.DictReader(answers.open())}
    assert rows["p1/0.png"]["identity"] == "p1"
    assert rows["p0/none.png"]["decision"] == "unknown"
    _, err = run_cli(*command, "--threshold", "0.9", "--detect", "none")
    assert "detect (none, there largest)" in err


def test_two_photos_are_compared_by_the_faces_found_in_them(
    run_cli: RunCli, photos: Path, fake_model_file: Path, toy: Path
) -> None:
    # The record of the model names its alignment, and the photos are no crops.
    command = ("verify", "--model", fake_model_file, "--detector", toy)
    same = run_cli.json(*command, photos / "p0" / "0.png", photos / "p0" / "1.png")
    assert same["score"] == pytest.approx(1, abs=1e-3)
    other = run_cli.json(*command, photos / "p0" / "0.png", photos / "p1" / "1.png")
    assert other["score"] < 0.99
    _, err = run_cli(*command, photos / "p0" / "0.png", photos / "p0" / "none.png", code=2)
    assert "none.png cannot be compared: no face was found in it" in err
    two = (photos / "p0" / "0.png", photos / "p0" / "1.png")
    _, err = run_cli(*command, *two, "--detect", "all", code=2)
    assert "give --detect largest or central" in err


def _fetched(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the toy detector the one that `models get yunet` has fetched."""
    data = toy.read_bytes()
    published = replace(YUNET, sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    monkeypatch.setattr(detector_file, "YUNET", published)
    cached_file(published).parent.mkdir(parents=True)
    cached_file(published).write_bytes(data)


def test_faces_are_looked_for_where_a_foreign_models_preset_or_option_names_its_alignment(
    run_cli: RunCli, photos: Path, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fetched(toy, monkeypatch)
    model = mean_color_graph(tmp_path / "m.onnx")
    command = ("verify", "--model", model, "--image-size", "32")
    two = (photos / "p0" / "0.png", photos / "p0" / "none.png")
    assert run_cli.json(*command, "--preset", "imagenet", *two)["score"] is not None
    for given in (("insightface",), ("imagenet", "--template", "arcface")):
        _, err = run_cli(*command, "--preset", *given, *two, code=2)
        assert "none.png cannot be compared: no face was found in it" in err
    imported = tmp_path / "imported.onnx"
    given = ("--preset", "imagenet", "--template", "facenet", "--image-size", "32")
    assert run_cli.json("models", "import", model, *given, "--out", imported)["template"]
    _, err = run_cli("verify", "--model", imported, *two, code=2)
    assert "no face was found in it" in err


def test_faces_are_looked_for_with_a_detector_that_is_given_whatever_is_known_of_the_model(
    run_cli: RunCli, photos: Path, toy: Path, tmp_path: Path
) -> None:
    model = mean_color_graph(tmp_path / "m.onnx")
    command = ("verify", "--model", model, "--image-size", "32", "--preset", "imagenet")
    two = (photos / "p0" / "0.png", photos / "p0" / "none.png")
    _, err = run_cli(*command, "--detector", toy, *two, code=2)
    assert "no face was found in it" in err


def test_photos_that_are_compared_whole_draw_a_warning(
    run_cli: RunCli, photos: Path, fake_model_file: Path, tmp_path: Path
) -> None:
    pairs, model = tmp_path / "pairs.csv", ("--model", fake_model_file)
    pairs.write_text("left,right,label\np0/0.png,p0/1.png,1\np0/0.png,p1/0.png,0\n")
    run_cli("embed", photos, *model, "--out", tmp_path / "whole.h5")
    run_cli("index", "build", tmp_path / "whole.h5", "--out", tmp_path / "gallery")
    for command in (
        ("verify-pairs", pairs, "--images", photos),
        ("eval", "--pairs", pairs, "--images", photos),
        ("eval", "--data", photos),
        ("classify", photos),
        ("classify", photos, "--index", tmp_path / "gallery", "--threshold", "0.5"),
    ):
        _, err = run_cli(*command, *model)
        assert "are far from the model's shape (16 x 16)" in err


def test_a_pair_whose_photo_has_no_face_is_missing_with_the_reason(
    run_cli: RunCli, photos: Path, fake_model_file: Path, toy: Path, tmp_path: Path
) -> None:
    pairs = tmp_path / "pairs.csv"
    pairs.write_text(
        "left,right,label\np0/0.png,p0/1.png,1\np0/0.png,p1/0.png,0\n"
        "p1/0.png,p1/1.png,1\np0/none.png,p2/0.png,0\n"
    )
    result = run_cli.json(
        *("verify-pairs", pairs, "--images", photos, "--model", fake_model_file),
        *("--detect", "central", "--detector", toy),
    )
    assert (result["pairs"], result["missing"]) == (4, 1)
    assert result["missing_pairs"][0]["reason"].endswith("no face was found in it")
    assert (result["engine"], result["detect"]) == ("torch", "central")
    assert result["auc"] == 1.0


def test_the_help_names_all_templates(run_cli: RunCli) -> None:
    for command in ("embed", "align", "train"):
        assert f"--template [{'|'.join(TEMPLATES)}]" in run_cli(command, "--help")[0]


@pytest.mark.parametrize("command", ["embed", "align", "verify-pairs"])
def test_the_help_shows_the_bounds_that_the_library_goes_by(command: str, run_cli: RunCli) -> None:
    shown = " ".join(run_cli(command, "--help")[0].split())
    library = PipelineOptions()
    assert f"[default: {library.min_face}; x>=8]" in shown
    assert f"[default: {library.min_score}; 0.1<=x<=1]" in shown
    assert f"[default: {library.max_pixels}; x>=1]" in shown
