"""No output takes the place of an input, of another output, or of what somebody else wrote."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from faceidx.cli import paths
from faceidx.gallery import folder
from tests.conftest import RunCli
from tests.embedding.test_embed import _names
from tests.images.photos import write_toy_detector


@pytest.fixture
def embedded(run_cli: RunCli, pictures: Path, fake_model_file: Path, tmp_path: Path) -> Path:
    out = tmp_path / "faces.h5"
    run_cli("embed", pictures, "--model", fake_model_file, "--out", out)
    return out


def test_links_in_a_circle_are_refused_wherever_a_path_is_taken(
    run_cli: RunCli, embedded: Path, pictures: Path, fake_model_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "circle").symlink_to("circle")
    for circle in (tmp_path / "circle", tmp_path / "circle" / "x"):
        for words in (
            ("index", "build", embedded, "--out", circle),
            ("index", "add", circle, embedded),
            ("verify-pairs", circle, "--embeddings", embedded),
            ("train", pictures, "--out", circle),
            ("train", circle, "--out", tmp_path / "run"),
            ("embed", pictures, "--model", circle, "--out", tmp_path / "out.h5"),
        ):
            _, err = run_cli(*words, code=2)
            assert f"{circle} is a link that leads back to itself" in err


def test_outputs_that_are_inputs_are_refused(
    run_cli: RunCli, embedded: Path, pictures: Path, fake_model_file: Path, tmp_path: Path
) -> None:
    gallery, model = tmp_path / "gallery", tmp_path / "m.safetensors"
    model.write_bytes(fake_model_file.read_bytes())
    run_cli("index", "build", embedded, "--out", gallery)
    link = tmp_path / "link.csv"
    link.symlink_to(embedded)
    for words, message in (
        (("classify", embedded, "--index", gallery, "--out", embedded), "is given as PROBES too"),
        (("classify", embedded, "--index", gallery, "--out", link), "is given as PROBES too"),
        (("classify", pictures, "--model", model, "--out", model), "is given as --model too"),
        (("index", "search", gallery, embedded, "--out", embedded), "is given as FILE.h5 too"),
        (("cluster", embedded, "--out", embedded), "is given as FILE.h5 too"),
        (("models", "export", model, "--out", model), "is given as MODEL too"),
        (("classify", embedded, "--index", gallery, "--out", gallery / "gallery.h5"), "a gallery"),
    ):
        threshold = ("--threshold", "0.3") if words[0] == "classify" else ()
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        _, err = run_cli(*words, *threshold, "--overwrite", code=2)
        assert message in err
        assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_two_outputs_are_two_paths(
    run_cli: RunCli, pictures: Path, fake_model_file: Path, tmp_path: Path
) -> None:
    words = ("embed", pictures, "--model", fake_model_file, "--out", tmp_path / "a.h5")
    both = ("--save-crops", tmp_path / "x", "--annotate", tmp_path / "." / "x")
    _, err = run_cli(*words, *both, code=2)
    assert "--save-crops" in err and "is given as --annotate too" in err


def test_nothing_is_read_from_or_written_to_a_folder_that_is_replaced(
    run_cli: RunCli, pictures: Path, fake_model_file: Path, tmp_path: Path
) -> None:
    write_toy_detector(tmp_path / "toy.onnx")
    out = tmp_path / "out"
    shutil.copytree(pictures, out / "photos")
    (out / "list.csv").write_text("left,right,label,score\na,b,1,0.5\na,c,0,0.1\n")
    detector = ("--detector", tmp_path / "toy.onnx")
    embed = ("embed", "--model", fake_model_file, *detector, "--detect", "largest")
    inside = out / "inside.h5"
    for words, told in (
        (("align", out / "photos", "--out", out, *detector), "IMAGES"),
        (
            ("align", pictures, "--out", out, *detector, "--contact-sheet", inside),
            "--contact-sheet",
        ),
        ((*embed, out / "photos", "--out", tmp_path / "a.h5", "--save-crops", out), "IMAGES"),
        ((*embed, pictures, "--out", inside, "--annotate", out), "--out"),
        (("verify-pairs", out / "list.csv", "--report", out), "PAIRS"),
        (("index", "build", inside, "--out", out), "FILE.h5..."),
    ):
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        _, err = run_cli(*words, "--overwrite", code=2)
        assert f"{told} {out}" in err and "which is replaced as a whole" in err
        assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_embeddings_take_the_place_of_embeddings_alone(
    run_cli: RunCli, pictures: Path, fake_model_file: Path, embedded: Path
) -> None:
    picture = pictures / "p0" / "0.png"
    before = picture.read_bytes()
    words = ("embed", pictures, "--model", fake_model_file, "--overwrite", "--out")
    _, err = run_cli(*words, picture, code=2)
    assert "is no embeddings file, so it is not replaced" in err
    assert picture.read_bytes() == before
    renamed = embedded.rename(embedded.with_name("faces"))
    run_cli(*words, renamed)


def test_embeddings_are_known_whatever_they_are_called(
    run_cli: RunCli, embedded: Path, tmp_path: Path
) -> None:
    run_cli("index", "build", embedded, "--out", tmp_path / "gallery")
    probes = embedded.rename(tmp_path / "faces")
    words = ("--index", tmp_path / "gallery", "--threshold", "0.3")
    assert run_cli.json("classify", probes, *words)["probes"] == 11


def test_failed_pictures_are_named_on_request_alone(
    run_cli: RunCli, pictures: Path, fake_model_file: Path, tmp_path: Path
) -> None:
    (pictures / "p0" / "odd.png").write_text("this is no picture")
    words = ("embed", pictures, "--model", fake_model_file, "--out")
    assert "odd.png" not in run_cli(*words, tmp_path / "a.h5")[1]
    assert "p0/odd.png: not a picture" in run_cli(*words, tmp_path / "b.h5", "-v")[1]


def test_options_of_faces_without_detection_are_said_to_be_of_no_use(
    run_cli: RunCli, pictures: Path, fake_model_file: Path, tmp_path: Path
) -> None:
    words = ("embed", pictures, "--model", fake_model_file, "--out", tmp_path / "a.h5")
    _, err = run_cli(*words, "--min-face", 50, "--keep-identity")
    assert "--min-face is of no use without --detect" in err
    assert "--keep-identity is of no use without --detect all" in err


def test_unfinished_work_on_other_pictures_is_not_thrown_away(
    run_cli: RunCli, pictures: Path, fake_model_file: Path, tmp_path: Path
) -> None:
    words = ("--model", fake_model_file, "--out", tmp_path / "a.h5")
    others = tmp_path / "others"
    others.mkdir()
    (others / "0.png").write_bytes((pictures / "p0" / "0.png").read_bytes())
    partial = tmp_path / "a.h5.partial"
    partial.mkdir()
    job = {"images": str(pictures), "model": fake_model_file.name}
    (partial / "job.json").write_text(json.dumps(job))
    _, err = run_cli("embed", others, *words, code=2)
    assert "images was" in err and "give the same, or --overwrite" in err
    assert _names(partial) == ["job.json"]
    pictures.rename(tmp_path / "elsewhere")
    _, err = run_cli("embed", tmp_path / "elsewhere", *words, code=2)
    assert "images was" not in err  # they were moved, and what else differs is told


def test_a_classifier_says_that_it_is_not_for_flipped_embeddings(
    run_cli: RunCli, pictures: Path, fake_model_file: Path, tmp_path: Path
) -> None:
    words = ("--model", fake_model_file)
    run_cli("embed", pictures, *words, "--flip", "--out", tmp_path / "flipped.h5")
    _, err = run_cli("classify", tmp_path / "flipped.h5", *words, code=2)
    assert "was embedded with --flip; a classifier is for embeddings without it" in err
    run_cli("embed", pictures, *words, "--out", tmp_path / "plain.h5")
    result = run_cli.json("classify", (tmp_path / "plain.h5").rename(tmp_path / "plain"), *words)
    assert result["probes"] == 11 and result["fpir"]["value"] is None


def test_probes_that_were_made_in_another_way_warn(
    run_cli: RunCli, pictures: Path, fake_model_file: Path, tmp_path: Path
) -> None:
    words = ("embed", pictures, "--model", fake_model_file, "--engine", "torch", "--precision")
    for precision in ("fp32", "bf16"):
        run_cli(*words, precision, "--out", tmp_path / f"{precision}.h5")
    run_cli("index", "build", tmp_path / "fp32.h5", "--out", tmp_path / "g")
    for command in (
        ("classify", tmp_path / "bf16.h5", "--index", tmp_path / "g", "--threshold", "0.3"),
        ("index", "search", tmp_path / "g", tmp_path / "bf16.h5"),
    ):
        err = run_cli(*command)[1]
        assert "bf16.h5 was embedded with other precision (bf16, there fp32) than " in err
    words = ("--index", tmp_path / "g", "--threshold", "0.3", "--model", fake_model_file)
    _, err = run_cli("classify", pictures, *words, "--engine", "torch", "--precision", "bf16")
    assert "the probes are embedded with other precision (bf16, there fp32) than " in err
    words = (*words, "--batch-size", "3", "--engine", "torch", "--precision", "fp32")
    assert "embedded with other" not in run_cli("classify", pictures, *words)[1]


def test_the_files_of_a_gallery_are_known_by_their_names() -> None:
    assert set(paths._GALLERY) == {folder.DATA, folder.MANIFEST}
