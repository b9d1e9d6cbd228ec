from __future__ import annotations

import csv
import json
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from faceidx.embedding import align as module
from faceidx.embedding import views
from faceidx.embedding.align import AlignOptions, align
from faceidx.embedding.pipeline import PipelineOptions
from faceidx.errors import InputError, JobError
from faceidx.images.decode import PictureError
from faceidx.images.detect import Detector
from faceidx.images.sources import open_source
from faceidx.images.templates import recorded_template
from faceidx.models.open import ModelOptions
from tests.conftest import RunCli
from tests.embedding.test_embed import _names
from tests.images.photos import draw_marked


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    draw_marked(root / "anna" / "one.png", (5, 6))
    draw_marked(root / "anna" / "two.png", (5, 6), (12, 8))
    draw_marked(root / "bert" / "three.png", (9, 7))
    draw_marked(root / "bert" / "none.png")
    (root / "bert" / "broken.png").write_bytes(b"no picture")
    return root


def _options(photos: Path, out: Path, detector: Detector, **more: object) -> AlignOptions:
    mode = str(more.pop("detect", "largest"))
    pipeline = PipelineOptions(detect=mode, detector=detector, workers=1)
    return AlignOptions(images=photos, out=out, pipeline=pipeline, **more)  # type: ignore[arg-type]


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and file.name != ".made-by-faceidx"
    }


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as table:
        return list(csv.DictReader(table))


def test_folders_stay_people_and_what_gave_no_face_is_listed(
    photos: Path, tmp_path: Path, detector: Detector
) -> None:
    out = tmp_path / "faces"
    result = align(_options(photos, out, detector, size=(112, 96)))
    assert (result["images"], result["faces"], result["no_face"], result["failed"]) == (5, 3, 1, 1)
    crops = {"anna/one.png", "anna/two.png", "bert/three.png"}
    assert set(_files(out)) == {*crops, "align.csv", "align.json", "left-out.csv"}
    with Image.open(out / "bert" / "three.png") as image:
        assert image.size == (96, 112)
    rows = _rows(out / "align.csv")
    assert {row["crop"] for row in rows} == crops
    assert float(rows[0]["left"]) == pytest.approx(34, abs=0.5)
    reasons = {row["path"]: row["reason"] for row in _rows(out / "left-out.csv")}
    assert reasons["bert/none.png"] == "no face was found in it"
    assert reasons["bert/broken.png"].startswith("not a picture")
    assert out.stat().st_mode & 0o777 == 0o700


def test_the_folder_says_how_its_faces_are_aligned(
    photos: Path, tmp_path: Path, detector: Detector
) -> None:
    align(_options(photos, tmp_path / "faces", detector, size=(160, 160)))
    assert recorded_template(tmp_path / "faces") == "facenet"
    assert recorded_template(photos) is None
    (photos / "align.json").write_text('{"template": "x"}')
    with pytest.raises(InputError, match="no alignment template 'x'"):
        recorded_template(photos)
    (photos / "align.json").write_text("[]")
    with pytest.raises(InputError, match=r"align\.json is damaged"):
        recorded_template(photos)


def test_all_faces_are_numbered_by_size(photos: Path, tmp_path: Path, detector: Detector) -> None:
    align(_options(photos, tmp_path / "faces", detector, detect="all"))
    crops = [row["crop"] for row in _rows(tmp_path / "faces" / "align.csv")]
    assert crops == ["anna/one#1.png", "anna/two#1.png", "anna/two#2.png", "bert/three#1.png"]
    assert all((tmp_path / "faces" / crop).is_file() for crop in crops)


def test_faces_of_others_in_the_folder_of_a_person_are_told_of(
    photos: Path, tmp_path: Path, detector: Detector, caplog: pytest.LogCaptureFixture
) -> None:
    align(_options(photos, tmp_path / "faces", detector, detect="all"))
    assert "1 of 3 pictures give several faces, and all of a picture get its" in caplog.text
    caplog.clear()
    align(_options(photos, tmp_path / "largest", detector))
    align(_options(photos / "anna", tmp_path / "bare", detector, detect="all"))
    assert caplog.text == ""


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_interrupted_work_goes_on_and_ends_like_an_unbroken_one(
    photos: Path,
    tmp_path: Path,
    detector: Detector,
    monkeypatch: pytest.MonkeyPatch,
    after: int,
) -> None:
    monkeypatch.setattr(module, "_PART", 2)
    align(_options(photos, tmp_path / "whole", detector))
    written = module.write_crop
    count = 0

    def interrupted(path: Path, crop: np.ndarray) -> None:
        nonlocal count
        if count == after:
            raise KeyboardInterrupt
        count += 1
        written(path, crop)

    monkeypatch.setattr(module, "write_crop", interrupted)
    out = tmp_path / "faces"
    if after < 3:
        with pytest.raises(KeyboardInterrupt):
            align(_options(photos, out, detector))
        assert not out.exists()
        assert (tmp_path / "faces.partial").is_dir()
        with pytest.raises(InputError, match="detect was largest, now all"):
            align(_options(photos, out, detector, detect="all"))
    monkeypatch.setattr(module, "write_crop", written)
    result = align(_options(photos, out, detector))
    assert result["resumed"] == {0: 0, 1: 0, 2: 4, 3: 0}[after]
    assert _files(out) == _files(tmp_path / "whole")
    assert not (tmp_path / "faces.partial").exists()


def test_work_that_was_interrupted_behind_its_sheet_goes_on(
    photos: Path, tmp_path: Path, detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = _options(photos, tmp_path / "faces", detector, sheet=tmp_path / "sheet.png")
    with monkeypatch.context() as patch:
        patch.setattr(module, "_remove_others", _interrupting)
        with pytest.raises(KeyboardInterrupt):
            align(options)
    assert (tmp_path / "sheet.png").exists()
    assert align(options)["resumed"] == 5
    with pytest.raises(InputError, match="exists already"):
        align(_options(photos, tmp_path / "other", detector, sheet=tmp_path / "sheet.png"))


def test_identities_that_are_no_folders_are_told_of(
    photos: Path, tmp_path: Path, detector: Detector, caplog: pytest.LogCaptureFixture
) -> None:
    table = tmp_path / "people.csv"
    table.write_text("path,identity\nanna/one.png,anna\nbert/three.png,Bert Dupont\n")
    align(_options(table, tmp_path / "faces", detector, root=photos))
    assert "1 of 2 pictures have an identity that is not their folder" in caplog.text
    assert "Dupont" not in caplog.text


def test_pictures_are_counted_not_their_faces(
    photos: Path, tmp_path: Path, detector: Detector
) -> None:
    draw_marked(photos / "bert" / f"{'x' * 251}.png", (5, 6), (12, 8))  # no room for a number
    done: list[int] = []
    options = _options(photos, tmp_path / "faces", detector, detect="all")
    result = align(options, lambda progress: done.append(progress.done))
    assert (result["images"], result["faces"], result["no_face"], result["failed"]) == (6, 4, 1, 2)
    assert done == [1, 2, 3, 4, 5, 6, 6]
    assert len(_rows(tmp_path / "faces" / "left-out.csv")) == 3


def test_a_face_costs_a_few_bytes_of_memory(tmp_path: Path) -> None:
    count = 10_000
    face = dict.fromkeys(module.COLUMNS, 123.456)
    parts = [tmp_path / f".part-{number}.jsonl" for number in range(0, count, 250)]
    for part in parts:
        names = [f"a person/{part.stem}-{number}.jpg" for number in range(250)]
        lines = [json.dumps({**face, "path": name, "crop": name}) + "\n" for name in names]
        part.write_text("".join(lines))
    tracemalloc.start()
    assert module._counted(parts).faces == count
    module._finish(tmp_path, parts, {})
    module._remove_others(tmp_path, parts)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(_rows(tmp_path / "align.csv")) == count
    assert peak / count < 300


def test_a_photo_that_is_gone_when_the_work_goes_on_leaves_no_crop(
    photos: Path, tmp_path: Path, detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    out = tmp_path / "faces"
    with monkeypatch.context() as patch:
        patch.setattr(module, "_finish", full)
        with pytest.raises(JobError, match=r"faces could not be written: No space left"):
            align(_options(photos, out, detector))
    (photos / "anna" / "one.png").unlink()
    (photos / "bert" / "three.png").unlink()
    align(_options(photos, out, detector))
    assert set(_files(out)) == {"anna/two.png", "align.csv", "align.json", "left-out.csv"}
    assert not (out / "bert").exists()


def test_a_photo_that_has_changed_when_the_work_goes_on_is_looked_at_again(
    photos: Path, tmp_path: Path, detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PART", 2)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_finish", _interrupting)
        with pytest.raises(KeyboardInterrupt):
            align(_options(photos, tmp_path / "faces", detector))
    draw_marked(photos / "anna" / "one.png", (11, 9))
    assert align(_options(photos, tmp_path / "faces", detector))["resumed"] == 3
    align(_options(photos, tmp_path / "whole", detector))
    assert _files(tmp_path / "faces") == _files(tmp_path / "whole")


def test_a_photo_of_which_a_face_cannot_be_written_is_a_listed_failure(
    photos: Path, tmp_path: Path, detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = module.write_crop

    def refusing(path: Path, crop: np.ndarray) -> None:
        if "#2" in path.name:
            raise PictureError("its name is too long for a crop's")
        written(path, crop)

    monkeypatch.setattr(module, "write_crop", refusing)
    result = align(_options(photos, tmp_path / "faces", detector, detect="all"))
    assert (result["faces"], result["failed"]) == (3, 2)
    reasons = {row["path"]: row["reason"] for row in _rows(tmp_path / "faces" / "left-out.csv")}
    assert reasons["anna/two.png"] == "its name is too long for a crop's"


def test_the_least_sure_faces_come_first_on_the_sheet(
    photos: Path, tmp_path: Path, detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = {"anna/one.png": 0.9, "anna/two.png": 0.7, "bert/three.png": 0.8}
    rows_of, shown = module._written, []

    def scored(*args: Any) -> Iterator[dict[str, Any]]:
        yield from ({**row, "score": scores.get(row["path"])} for row in rows_of(*args))

    def kept(_: Path, cells: Iterable[tuple[np.ndarray, str]]) -> None:
        shown.extend(text for _, text in cells)

    monkeypatch.setattr(module, "_written", scored)
    monkeypatch.setattr(module, "save_sheet", kept)
    align(_options(photos, tmp_path / "faces", detector, sheet=tmp_path / "sheet.png"))
    assert shown == ["0.70  anna/two.png", "0.80  bert/three.png", "0.90  anna/one.png"]


def test_only_what_align_wrote_is_replaced_and_only_when_asked_for(
    photos: Path, tmp_path: Path, detector: Detector
) -> None:
    out = tmp_path / "faces"
    align(_options(photos, out, detector))
    with pytest.raises(InputError, match="exists already"):
        align(_options(photos, out, detector))
    (photos / "anna" / "one.png").unlink()
    align(_options(photos, out, detector, overwrite=True))
    assert "anna/one.png" not in _files(out)
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(InputError, match="was not written by align"):
        align(_options(photos, other, detector, overwrite=True))


def test_a_link_as_output_stays_and_what_it_leads_to_is_made(
    photos: Path, tmp_path: Path, detector: Detector
) -> None:
    out, disk = tmp_path / "faces", tmp_path / "disk"
    disk.mkdir()
    out.symlink_to(disk / "faces")
    for overwrite in (False, True):
        align(_options(photos, out, detector, overwrite=overwrite))
        assert out.is_symlink()
        assert "anna/one.png" in _files(disk / "faces")
        assert [path.name for path in disk.iterdir()] == ["faces"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["disk", "faces", photos.name]


def test_no_face_at_all_is_a_failed_job_with_nothing_to_go_on_with(
    tmp_path: Path, detector: Detector
) -> None:
    draw_marked(tmp_path / "photos" / "none.png")
    out = tmp_path / "faces"
    with pytest.raises(JobError, match=r"no face in any of 1 pictures; the first: no face was"):
        align(_options(tmp_path / "photos", out, detector))
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
    with pytest.raises(JobError, match="no face in any"):
        align(_options(tmp_path / "photos", out, detector, detect="all"))


def test_the_command_writes_faces_and_a_sheet(
    run_cli: RunCli, photos: Path, toy: Path, tmp_path: Path
) -> None:
    out, sheet = tmp_path / "faces", tmp_path / "sheet.png"
    result = run_cli.json(
        *("align", photos, "--out", out, "--detector", toy, "--contact-sheet", sheet),
        *("--image-size", 160),
    )
    assert (result["faces"], result["template"]) == (3, "facenet")
    with Image.open(sheet) as image:
        assert image.format == "PNG"
    assert sheet.stat().st_mode & 0o777 == 0o600
    _, err = run_cli("align", photos, "--out", tmp_path / "b", "--detect", "none", code=2)
    assert "'none' is not one of" in err


def test_embed_leaves_crops_annotated_photos_and_a_sheet(
    run_cli: RunCli, photos: Path, fake_model_file: Path, toy: Path, tmp_path: Path
) -> None:
    crops, photos_with_boxes, sheet = (tmp_path / name for name in ("crops", "boxes", "s.png"))
    command = ("embed", photos, "--model", fake_model_file, "--detector", toy)
    wanted = ("--save-crops", crops, "--annotate", photos_with_boxes, "--contact-sheet", sheet)
    run_cli(*command, "--out", tmp_path / "a.h5", "--detect", "all", *wanted)
    assert set(_files(crops)) == {
        *("anna/one#1.png", "anna/two#1.png", "anna/two#2.png", "bert/three#1.png")
    }
    with Image.open(crops / "anna" / "two#1.png") as image:
        assert image.size == (16, 16)
    assert set(_files(photos_with_boxes)) == {"anna/one.png", "anna/two.png", "bert/three.png"}
    assert sheet.is_file()
    _, err = run_cli(*command, "--out", tmp_path / "b.h5", "--detect", "all", *wanted, code=2)
    assert "crops exists already" in err
    _, err = run_cli(*command, "--out", tmp_path / "b.h5", "--save-crops", tmp_path / "c", code=2)
    assert "without --detect nothing is found" in err


def test_only_what_was_written_here_is_replaced(
    run_cli: RunCli, photos: Path, fake_model_file: Path, toy: Path, tmp_path: Path
) -> None:
    words = ("embed", photos, "--model", fake_model_file, "--detector", toy, "--detect", "all")
    words = (*words, "--out", tmp_path / "a.h5", "--update")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "thesis").write_text("all of it")
    picture = tmp_path / "sheet.png"
    picture.write_bytes((photos / "anna" / "one.png").read_bytes())
    (tmp_path / "file").touch()
    for wanted in (
        ("--annotate", theirs),
        ("--save-crops", theirs),
        ("--save-crops", tmp_path / "file"),
        ("--contact-sheet", picture),
    ):
        before = _files(tmp_path)
        _, err = run_cli(*words, *wanted, code=2)
        assert f"{wanted[1]} was not written by faceidx, so it is not replaced" in err
        assert _files(tmp_path) == before
    _, err = run_cli(*words, "--save-crops", tmp_path, code=2)
    assert f"{photos} lies in --save-crops {tmp_path}, which is replaced as a whole" in err
    assert _files(tmp_path) == before
    ours = ("--save-crops", tmp_path / "c", "--contact-sheet", tmp_path / "s.png")
    for way in ((), (), ("--retry-failed",)):
        run_cli(*words, *way, *ours)
    assert "anna/two#1.png" in _files(tmp_path / "c")


def test_views_that_were_interrupted_are_gone_on_with_and_leave_nothing_behind(
    run_cli: RunCli,
    photos: Path,
    fake_model_file: Path,
    toy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ("embed", photos, "--model", fake_model_file, "--detector", toy, "--detect", "all")
    words = (*words, "--out", tmp_path / "a.h5", "--save-crops", tmp_path / "c")
    left = tmp_path / ".faceidx-tmp-0123456789ab-c"
    left.mkdir()
    (left / "face.png").touch()
    with monkeypatch.context() as patch:
        patch.setattr(views, "write_crop", _interrupting)
        run_cli(*words, code=130)
    assert (tmp_path / "a.h5").exists() and not (tmp_path / "c").exists()
    result = run_cli.json(*words)
    assert (result["kept"], result["embedded"]) == (3, 3)
    assert _names(tmp_path) == ["a.h5", "c", "photos"]
    _, err = run_cli(*words, code=2)
    assert "exists already" in err


def test_photos_that_cannot_be_shown_are_counted(
    run_cli: RunCli,
    photos: Path,
    fake_model_file: Path,
    toy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ("embed", photos, "--model", fake_model_file, "--detector", toy, "--detect", "all")
    run_cli(*words, "--out", tmp_path / "a.h5")
    (photos / "anna" / "one.png").write_bytes(b"no picture")
    pictures = [p for p in open_source(photos).pictures if p.key != "bert/three.png"]
    told: list[str] = []
    monkeypatch.setattr(views.logger, "warning", lambda text, *of: told.append(text % of))
    views.show_file(
        views.Views(crops=tmp_path / "c"),
        tmp_path / "a.h5",
        pictures,
        PipelineOptions(detect="all"),
        ModelOptions(path=fake_model_file),
    )
    assert set(_files(tmp_path / "c")) == {"anna/two#1.png", "anna/two#2.png"}
    assert told == ["2 of 3 photos could not be shown (-v says why)"]


def _interrupting(*_: object) -> None:
    raise KeyboardInterrupt


def test_pictures_are_not_written_among_those_that_they_are_made_of(
    run_cli: RunCli, photos: Path, fake_model_file: Path, toy: Path, tmp_path: Path
) -> None:
    before = _files(photos)
    (photos / "below").mkdir()
    for flag in ("--save-crops", "--annotate", "--contact-sheet"):
        inside = photos / "below" / "out.png"
        words = ("embed", photos, "--model", fake_model_file, "--detector", toy, "--detect", "all")
        _, err = run_cli(*words, "--out", tmp_path / "a.h5", flag, inside, code=2)
        assert f"{inside} lies in {photos}: what is written there would count" in err
    for inside in (photos / "out", photos):
        _, err = run_cli("align", photos, "--out", inside, "--detector", toy, code=2)
        assert f"{inside} " in err
    assert _files(photos) == before
    run_cli("align", photos, "--out", photos / ".faces", "--detector", toy)


def test_classify_draws_who_was_found(
    run_cli: RunCli, photos: Path, fake_model_file: Path, toy: Path, tmp_path: Path
) -> None:
    out, gallery, boxes = tmp_path / "f.h5", tmp_path / "gallery", tmp_path / "boxes"
    command = ("--model", fake_model_file, "--detector", toy)
    run_cli("embed", photos, *command, "--out", out, "--detect", "largest")
    run_cli("index", "build", out, "--out", gallery)
    probes = ("classify", photos, "--index", gallery, *command, "--threshold", "0.5")
    result = run_cli.json(*probes, "--annotate", boxes)
    assert result["annotate"] == str(boxes)
    assert set(_files(boxes)) == {"anna/one.png", "anna/two.png", "bert/three.png"}
    _, err = run_cli(*probes, "--annotate", boxes, code=2)
    assert "boxes exists already" in err


def test_classify_says_before_the_work_that_no_face_will_be_shown_and_loses_no_answer(
    run_cli: RunCli, photos: Path, fake_model_file: Path, toy: Path, tmp_path: Path
) -> None:
    out, gallery, boxes = tmp_path / "f.h5", tmp_path / "gallery", tmp_path / "boxes"
    command = ("--model", fake_model_file)
    run_cli("embed", photos, *command, "--out", out)
    run_cli("index", "build", out, "--out", gallery)
    told = ("--index", gallery, *command, "--threshold", "0.5", "--annotate", boxes)
    _, err = run_cli("classify", photos, *told, "--out", tmp_path / "a.csv", code=2)
    assert "taken as faces that are cut out already, so none is found that could be shown" in err
    assert not (tmp_path / "a.csv").exists()
    blank = tmp_path / "blank.png"
    Image.new("RGB", (64, 64)).save(blank)
    words = ("classify", blank, *told, "--detector", toy, "--detect", "largest", "--json")
    result, err = run_cli(*words, "--out", tmp_path / "b.csv")
    assert json.loads(result)["annotate"] is None and json.loads(result)["unknown"] == 1
    assert "no face was found in a photo" in err and not boxes.exists()
