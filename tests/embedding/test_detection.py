"""Embedding what a detector finds: a toy detector that takes red squares for faces."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from faceidx.embedding.pipeline import PipelineOptions, embed_pictures, origin_of
from faceidx.errors import InputError
from faceidx.images.detect import Detector, open_detector
from faceidx.images.prepare import FACE
from faceidx.images.sources import open_source
from tests.conftest import FakeModel, RunCli
from tests.images.photos import draw_marked, write_toy_detector


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    draw_marked(root / "anna" / "one.png", (5, 6))
    draw_marked(root / "anna" / "two#1.png", (5, 6), (12, 8))
    draw_marked(root / "bert" / "none.png")
    (root / "bert" / "broken.png").write_bytes(b"no picture")
    return root


def test_the_nearest_to_the_middle_is_embedded_and_what_has_no_face_is_listed_apart(
    photos: Path, fake_model: FakeModel, detector: Detector
) -> None:
    options = PipelineOptions(detect="central", detector=detector, workers=1)
    found = embed_pictures(open_source(photos).pictures, fake_model, options)
    assert found.paths == ["anna/one.png", "anna/two#1.png"]
    assert found.identities == ["anna", "anna"]
    assert found.left.no_face == ["bert/none.png"]
    assert [key for key, _ in found.left.failed] == ["bert/broken.png"]
    assert found.found is not None and found.found.dtype == FACE
    boxes = found.found["boxes"]
    assert boxes[0] == pytest.approx([44 - 10, 52 - 10, 20, 20], abs=0.5)
    assert boxes[1] == pytest.approx([100 - 10, 68 - 10, 20, 20], abs=0.5)


@pytest.mark.parametrize("keep", [False, True])
def test_all_faces_are_numbered_and_have_no_identity_unless_it_is_kept(
    photos: Path, fake_model: FakeModel, detector: Detector, keep: bool
) -> None:
    options = PipelineOptions(detect="all", detector=detector, keep_identity=keep, workers=1)
    found = embed_pictures(open_source(photos).pictures, fake_model, options)
    assert found.paths == ["anna/one.png#1", "anna/two%231.png#1", "anna/two%231.png#2"]
    assert found.identities == (["anna"] * 3 if keep else [""] * 3)


def test_how_faces_were_found_is_recorded_and_no_part_of_the_fingerprint(
    fake_model: FakeModel, detector: Detector
) -> None:
    plain = origin_of(fake_model, PipelineOptions())
    options = PipelineOptions(detect="largest", detector=detector, min_face=50, min_score=0.8)
    origin = origin_of(fake_model, options)
    assert origin.fingerprint == plain.fingerprint
    assert plain.preprocessing["detect"] == "none"
    recorded = {
        "detect": "largest",
        "detector": detector.sha256,
        "detect_template": "arcface",
        "min_face": 50,
        "min_score": 0.8,
    }
    assert origin.preprocessing == {**plain.preprocessing, **recorded}


def test_of_its_own_accord_faces_are_found_in_photos_of_an_aligned_model_only(
    photos: Path, fake_model: FakeModel, detector: Detector
) -> None:
    crop = photos / "anna" / "crop.png"
    Image.fromarray(np.full((16, 16, 3), 70, np.uint8)).save(crop)
    pictures = open_source(photos).pictures
    options = PipelineOptions(detect="auto", detector=detector, workers=1)
    of_unknown = embed_pictures(pictures, fake_model, options)
    assert (len(of_unknown.paths), of_unknown.left.no_face) == (4, [])
    fake_model.template = "arcface"
    found = embed_pictures(pictures, fake_model, options)
    assert found.paths == ["anna/crop.png", "anna/one.png", "anna/two#1.png"]
    assert found.left.no_face == ["bert/none.png"]
    assert found.found is not None and np.isnan(found.found["boxes"][0]).sum() == 0
    assert np.isnan(found.found["landmarks"][0]).all()
    without = embed_pictures(pictures, fake_model, PipelineOptions(detect="auto", workers=1))
    assert (len(without.paths), without.far) == (4, 3)


def test_degenerate_landmarks_are_a_listed_failure(
    photos: Path, fake_model: FakeModel, tmp_path: Path
) -> None:
    write_toy_detector(tmp_path / "line.onnx", on_a_line=True)
    options = PipelineOptions(
        detect="largest", detector=open_detector(tmp_path / "line.onnx"), workers=1
    )
    found = embed_pictures(open_source(photos).pictures, fake_model, options)
    assert found.paths == []
    assert dict(found.left.failed)["anna/one.png"] == "degenerate landmarks: all on a line"


def test_a_photo_larger_than_the_limit_is_a_listed_failure(
    photos: Path, fake_model: FakeModel, detector: Detector
) -> None:
    options = PipelineOptions(detect="largest", detector=detector, workers=1, max_pixels=1000)
    found = embed_pictures(open_source(photos).pictures, fake_model, options)
    reason = dict(found.left.failed)["anna/one.png"]
    assert reason == "oversized: 160 x 120 pixels, more than 1000 in all"


def test_detection_without_a_detector_is_refused(fake_model: FakeModel) -> None:
    with pytest.raises(InputError, match="--detect all needs a detector: give --detector FILE"):
        embed_pictures([], fake_model, PipelineOptions(detect="all"))


def test_the_file_holds_where_each_face_was_found(
    run_cli: RunCli, photos: Path, fake_model_file: Path, toy: Path, tmp_path: Path
) -> None:
    out = tmp_path / "faces.h5"
    result = run_cli.json(
        *("embed", photos, "--model", fake_model_file, "--out", out),
        *("--detect", "all", "--detector", toy, "--keep-identity"),
    )
    assert (result["images"], result["embedded"], result["failed"], result["no_face"]) == (
        (4, 2, 1, 1)
    )
    with h5py.File(out) as file:
        for name in FACE.names or ():
            assert file[name].shape == (3, *FACE[name].shape)
        assert file["no_face/paths"].asstr()[:].tolist() == ["bert/none.png"]
        assert json.loads(file.attrs["preprocessing"])["detect"] == "all"
        landmarks, box = file["landmarks"][0], file["boxes"][0]
        assert (landmarks >= box[:2]).all() and (landmarks <= box[:2] + box[2:]).all()


def test_unfinished_work_and_files_with_other_detection_are_not_gone_on_with(
    run_cli: RunCli, photos: Path, fake_model_file: Path, toy: Path, tmp_path: Path
) -> None:
    out = tmp_path / "faces.h5"
    command = ("embed", photos, "--model", fake_model_file, "--out", out, "--detector", toy)
    run_cli(*command, "--detect", "all")
    _, err = run_cli(*command, "--detect", "largest", "--update", code=2)
    assert "detect was all, now largest" in err
    # Rows that stay may hold other faces than would be found now: said though nothing is added.
    _, err = run_cli(*command, "--detect", "all", "--min-face", "200", "--update")
    assert "min_face was 16, and is 200 for what is added alone; --overwrite finds all" in err
    draw_marked(photos / "carl" / "new.png", (9, 7))
    _, err = run_cli(*command, "--detect", "all", "--min-score", "0.6", "--update")
    assert "min_score was 0.7, and is 0.6 for what is added" in err


def test_a_file_that_lacks_what_new_rows_have_is_not_added_to(
    run_cli: RunCli, photos: Path, fake_model_file: Path, toy: Path, tmp_path: Path
) -> None:
    out = tmp_path / "faces.h5"
    command = ("embed", photos, "--model", fake_model_file, "--out", out, "--detector", toy)
    run_cli(*command, "--detect", "all")
    with h5py.File(out, "a") as file:
        del file["sharpness"]
    draw_marked(photos / "aa" / "new.png", (9, 7))
    _, err = run_cli(*command, "--detect", "all", "--update", code=2)
    assert "faces.h5 lacks 'sharpness', which new rows have; give --overwrite" in err


def test_photos_are_not_warned_about_where_faces_are_found(
    run_cli: RunCli, photos: Path, fake_model_file: Path, toy: Path, tmp_path: Path
) -> None:
    command = ("embed", photos, "--model", fake_model_file, "--out")
    _, err = run_cli(*command, tmp_path / "a.h5", "--detect", "largest", "--detector", toy)
    assert "far from the model's shape" not in err
    _, err = run_cli(*command, tmp_path / "b.h5")
    assert "far from the model's shape" in err and "--detect" in err


def test_a_least_score_of_nan_is_no_reason_to_find_nothing(
    run_cli: RunCli, photos: Path, fake_model_file: Path, toy: Path, tmp_path: Path
) -> None:
    of_faces = ("--detector", toy, "--min-score", "nan", "--out", tmp_path / "out")
    for command in (("embed", photos, "--model", fake_model_file), ("align", photos)):
        _, err = run_cli(*command, "--detect", "all", *of_faces, code=2)
        assert "--min-score nan is no score" in err
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("out")]


def test_a_wrong_detector_is_one_line(
    run_cli: RunCli, photos: Path, fake_model_file: Path, tmp_path: Path
) -> None:
    command = ("embed", photos, "--model", fake_model_file, "--out", tmp_path / "x.h5")
    for wrong in (photos / "anna" / "one.png", tmp_path / "missing.onnx"):
        _, err = run_cli(*command, "--detect", "all", "--detector", wrong, code=2)
        assert err.count("\n") == 1
