from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from faceidx.embedding.store import EmbeddingFile, Left, Origin, write_embeddings, write_left
from faceidx.errors import InputError
from faceidx.evaluation.roc import roc_curve, tar_at_far
from faceidx.evaluation.threshold import write_threshold
from faceidx.gallery import lookup
from faceidx.gallery.build import BuildOptions, RemoveOptions, build, remove
from faceidx.gallery.calibrate import CalibrateOptions, calibrate
from faceidx.gallery.classify import Classified, ClassifyOptions, classify
from faceidx.gallery.folder import load_gallery
from faceidx.gallery.lookup import LookupOptions, look_up
from faceidx.gallery.probes import probes_of_file
from faceidx.models.open import ModelOptions
from tests.conftest import RunCli
from tests.gallery.conftest import FINGERPRINT, WriteFaces, clustered


def _classify(gallery_path: Path, probes: Path, **options: object) -> Classified:
    with load_gallery(gallery_path) as gallery, EmbeddingFile(probes) as file:
        return classify(gallery, probes_of_file(file), ClassifyOptions(**options))  # type: ignore[arg-type]


@pytest.fixture
def probes(write_faces: WriteFaces) -> tuple[Path, np.ndarray, list[str]]:
    """Hard pictures of enrolled people, strangers, and pictures of nobody known."""
    chance = np.random.default_rng(7)
    enrolled = clustered(12, 5)[::2] + 0.3 * chance.normal(size=(30, 16))
    vectors = np.concatenate([enrolled, clustered(5, 4, seed=20)]).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = [f"person{2 * n // 5:02}" for n in range(30)]
    names += [f"stranger{n // 4}" for n in range(16)] + [""] * 4
    return write_faces("probes.h5", vectors, names), vectors, names


def test_figures_equal_a_naive_loop(
    gallery_path: Path, probes: tuple[Path, np.ndarray, list[str]]
) -> None:
    file, vectors, names = probes
    gallery = clustered(12, 5)
    threshold = 0.6
    wrong = {"rank1": 0, "rank5": 0, "fpir": 0, "fnir": 0}
    mated = non_mated = matched = 0
    for vector, name in zip(vectors, names, strict=True):
        best = [max(float(vector @ gallery[5 * n + i]) for i in range(5)) for n in range(12)]
        ranked = sorted(range(12), key=lambda n: -best[n])
        people = [f"person{n:02}" for n in ranked]
        accepted = best[ranked[0]] >= threshold
        matched += accepted
        if name.startswith("person"):
            mated += 1
            wrong["rank1"] += people[0] != name
            wrong["rank5"] += name not in people[:5]
            wrong["fnir"] += not (accepted and people[0] == name)
        elif name:
            non_mated += 1
            wrong["fpir"] += accepted
    # The top_k shown has no part in the figures.
    summary = _classify(gallery_path, file, threshold=threshold, top_k=1).summary
    assert (summary["probes"], summary["matched"], summary["unknown"]) == (
        50,
        matched,
        50 - matched,
    )
    for name, errors in wrong.items():
        trials = non_mated if name == "fpir" else mated
        share = errors / trials
        value = share if name in ("fpir", "fnir") else (trials - errors) / trials
        assert summary[name] == {"value": value, "errors": errors, "trials": trials}
    assert 0 < wrong["rank1"] < mated
    assert 0 < wrong["fpir"] < non_mated


def test_each_row_is_decided_by_its_own_score(
    gallery_path: Path, probes: tuple[Path, np.ndarray, list[str]], tmp_path: Path
) -> None:
    out = tmp_path / "answers.csv"
    summary = _classify(gallery_path, probes[0], threshold=0.55, top_k=3, out=out).summary
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "rank", "identity", "score", "decision"]
    assert len(rows) == 3 * 50
    for row in rows:
        assert row["decision"] == ("match" if float(row["score"]) >= 0.55 else "unknown")
    first = [row for row in rows if row["rank"] == "1"]
    assert sum(row["decision"] == "match" for row in first) == summary["matched"]
    assert len({row["identity"] for row in rows[:3]}) == 3
    with pytest.raises(InputError, match="--overwrite"):
        _classify(gallery_path, probes[0], threshold=0.55, out=out)


def test_a_score_equal_to_the_threshold_matches(
    gallery_path: Path, probes: tuple[Path, np.ndarray, list[str]]
) -> None:
    answer = _classify(gallery_path, probes[0], threshold=0.5).first[0]
    assert answer.score is not None
    again = _classify(gallery_path, probes[0], threshold=answer.score).first[0]
    above = _classify(gallery_path, probes[0], threshold=np.nextafter(answer.score, 2)).first[0]
    assert (again.decision, above.decision) == ("match", "unknown")


def test_probes_that_are_the_gallerys_own_pictures_are_said_to_find_themselves(
    gallery_path: Path, write_faces: WriteFaces, caplog: pytest.LogCaptureFixture
) -> None:
    vectors = clustered(12, 5)
    vectors[7:] = clustered(12, 5, seed=9)[7:]  # others, of the same names
    names = [f"person{n // 5:02}" for n in range(60)]
    for fusion in ("best", "mean"):
        caplog.clear()
        probes = write_faces(f"{fusion}.h5", vectors, names)
        found = _classify(gallery_path, probes, threshold=0.5, fusion=fusion)
        assert "7 of the 60 probes are pictures of the gallery itself" in caplog.text
        assert found.warnings[-1] in caplog.text
    caplog.clear()
    keys = [f"{name}/{n}.jpg" for n, name in enumerate(names)]
    unlabelled = write_faces("u.h5", vectors, [""] * 60, paths=keys)
    _classify(gallery_path, unlabelled, threshold=0.5)
    assert "themselves" not in caplog.text  # nothing is measured


def test_the_calibrated_threshold_is_used_and_asked_for_where_there_is_none(
    gallery_path: Path,
    probes: tuple[Path, np.ndarray, list[str]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(InputError, match=r"faceidx index calibrate .*gallery --fpir P"):
        _classify(gallery_path, probes[0])
    value = calibrate(CalibrateOptions(gallery=gallery_path, fpir=0.1))["value"]
    assert _classify(gallery_path, probes[0]).summary["threshold"] == value
    assert "changed since" not in caplog.text
    remove(RemoveOptions(gallery=gallery_path, identities=["person11"]))
    assert _classify(gallery_path, probes[0]).summary["threshold"] == value
    assert "changed since" in caplog.text


def test_probes_that_cannot_be_searched_are_unknown_counted_and_listed(
    gallery_path: Path, write_faces: WriteFaces
) -> None:
    vectors = clustered(12, 5)[:3].copy()
    vectors[1] = np.nan
    file = write_faces("bad.h5", vectors, ["person00"] * 3)
    summary, first = _classify(gallery_path, file, threshold=0.5, top_k=1)[:2]
    assert (summary["matched"], summary["unknown"], summary["refused"]) == (2, 1, 1)
    assert first[1] == ("person00/1.jpg", None, "", None, "unknown")
    # Somebody enrolled who cannot be searched for is missed.
    for name in ("rank1", "rank5"):
        assert summary[name] == {"value": 2 / 3, "errors": 1, "trials": 3}
    assert summary["fnir"] == {"value": 1 / 3, "errors": 1, "trials": 3}
    assert summary["fpir"] == {"value": None, "errors": 0, "trials": 0}
    assert (summary["identification"]["mated"], summary["identification"]["cmc"]) == (3, [2 / 3])


def test_a_stranger_who_cannot_be_searched_for_does_not_better_the_fpir(
    gallery_path: Path, write_faces: WriteFaces
) -> None:
    vectors = clustered(2, 2, seed=20)
    vectors[1] = np.nan
    file = write_faces("bad.h5", vectors, ["stranger"] * 4)
    assert _classify(gallery_path, file, threshold=-1).summary["fpir"]["trials"] == 3


def _file_with_left(write_faces: WriteFaces, names: list[str]) -> Path:
    paths = [f"person{n:02}/{n}.jpg" for n in range(3)]
    file = write_faces("probes.h5", clustered(12, 5)[:15:5], names, paths=paths)
    left = Left(failed=[("person00/torn.jpg", "truncated")], no_face=["stranger/wall.jpg"])
    with h5py.File(file, "r+") as opened:
        del opened["failed"], opened["no_face"]
        write_left(opened, left)
    return file


@pytest.mark.parametrize("own", [False, True], ids=["of folders", "of a list"])
def test_pictures_that_a_file_lists_as_left_out_are_probes_as_those_of_a_folder_are(
    gallery_path: Path, write_faces: WriteFaces, tmp_path: Path, own: bool
) -> None:
    names = ["person02", "person01", "person00"] if own else [f"person{n:02}" for n in range(3)]
    options = LookupOptions(
        probes=_file_with_left(write_faces, names),
        gallery=gallery_path,
        threshold=0.5,
        top_k=1,
        out=tmp_path / "who.csv",
    )
    summary, _ = look_up(options)
    assert (summary["probes"], summary["refused"], summary["failed"]) == (5, 2, 2)
    assert (summary["matched"], summary["unknown"]) == (3, 2)
    rows = (tmp_path / "who.csv").read_text().splitlines()
    assert rows[-2:] == ["person00/torn.jpg,,,,unknown", "stranger/wall.jpg,,,,unknown"]
    # Whose pictures they are follows from their folders only where the others' follow from theirs.
    assert summary["fnir"]["trials"] == (3 if own else 4)
    assert own or summary["fnir"]["errors"] == 1


def test_a_picture_of_somebody_enrolled_that_cannot_be_read_is_a_miss(
    run_cli: RunCli, pictures: Path, fake_model_file: Path, tmp_path: Path
) -> None:
    model = ("--model", fake_model_file)
    run_cli("embed", pictures, *model, "--out", tmp_path / "a.h5")
    run_cli("index", "build", tmp_path / "a.h5", "--out", tmp_path / "g")
    (pictures / "p0" / "torn.png").write_text("this is no picture")
    run_cli("embed", pictures, *model, "--out", tmp_path / "b.h5")
    words = ("--index", tmp_path / "g", "--threshold", "0.3")
    of_folder = run_cli.json("classify", pictures, *words, *model)
    of_file = run_cli.json("classify", tmp_path / "b.h5", *words)
    assert of_folder["fnir"] == of_file["fnir"]
    assert (of_file["fnir"]["errors"], of_file["failed"]) == (1, 1)
    # What was embedded already is not embedded otherwise.
    _, err = run_cli("classify", tmp_path / "b.h5", *words, "--flip")
    assert "--flip is of no use without --model" in err


def test_a_threshold_of_pairs_draws_a_warning_of_what_it_means_in_a_search(
    gallery_path: Path,
    probes: tuple[Path, np.ndarray, list[str]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    file = tmp_path / "pairs.json"
    origin = Origin(model="tiny", fingerprint=FINGERPRINT, preprocessing={})
    scores = np.linspace(-1, 1, 202, dtype=np.float32)
    roc = roc_curve(scores, np.arange(202) % 2 == 1)
    (point,) = tar_at_far(roc, [0.02])
    of_roc = {"roc": roc, "calibration": None, "min_cllr": None}
    write_threshold(file, point, Path("pairs.txt"), origin, **of_roc)
    summary = _classify(gallery_path, probes[0], threshold=str(file)).summary
    assert summary["threshold"] == point.threshold
    told = (
        "FMR of 0.02 is not an FPIR. With 60 pictures to compare with, up to 70.2 % of the searches"
    )
    assert told in caplog.text
    caplog.clear()
    (finer,) = tar_at_far(roc, [1e-4])  # than 101 pairs can show: none of them reaches it
    write_threshold(file, finer, Path("pairs.txt"), origin, **of_roc)
    _classify(gallery_path, probes[0], threshold=str(file))
    assert (
        "its FMR of 0.0001 is not an FPIR" in caplog.text and "up to 0.598 % of the" in caplog.text
    )
    caplog.clear()
    _classify(gallery_path, probes[0], threshold="0.5")
    assert "its FMR is not an FPIR" in caplog.text
    other = Origin(model="tiny", fingerprint="e" * 64, preprocessing={})
    write_threshold(file, point, Path("pairs.txt"), other, **of_roc)
    with pytest.raises(InputError, match="different models"):
        _classify(gallery_path, probes[0], threshold=str(file))
    for wrong, message in (
        ("nan", "is no number"),
        ("0,5", "neither a number nor a threshold"),
    ):
        with pytest.raises(InputError, match=message):
            _classify(gallery_path, probes[0], threshold=wrong)


def test_a_threshold_is_held_against_scores_of_its_own_fusion_alone(
    gallery_path: Path, probes: tuple[Path, np.ndarray, list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    values = {}
    for fusion in ("best", "mean", "vote"):
        calibrated = calibrate(CalibrateOptions(gallery=gallery_path, fpir=0.2, fusion=fusion))
        summary = _classify(gallery_path, probes[0]).summary
        assert (summary["fusion"], summary["threshold"]) == (fusion, calibrated["value"])
        values[fusion] = calibrated["value"]
    assert len(set(values.values())) == 3
    with pytest.raises(InputError, match=r"for --fusion vote .*--fpir 0.2 --fusion best`"):
        _classify(gallery_path, probes[0], fusion="best")
    with pytest.raises(InputError, match=r"--fpir 0.2 --fusion vote --neighbours 3`"):
        _classify(gallery_path, probes[0], neighbours=3)
    # A threshold given is one of pictures, unless it is the calibrated one.
    assert _classify(gallery_path, probes[0], threshold=0.5).summary["fusion"] == "best"
    again = _classify(gallery_path, probes[0], threshold=values["vote"]).summary
    assert again["fusion"] == "vote"
    assert caplog.text.count("is taken as given") == 1
    _classify(gallery_path, probes[0], threshold=values["vote"], fusion="best")
    assert caplog.text.count("is taken as given") == 2


def test_a_stale_threshold_is_to_be_calibrated_again_for_the_same_fusion(
    gallery_path: Path, probes: tuple[Path, np.ndarray, list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    cases = (("best", ""), ("vote", " --fusion vote --neighbours 3"))
    for number, (fusion, words) in enumerate(cases):
        options = CalibrateOptions(gallery=gallery_path, fpir=0.2, fusion=fusion, neighbours=3)
        value = calibrate(options)["value"]
        remove(RemoveOptions(gallery=gallery_path, paths=[f"person00/{number}.jpg"]))
        for threshold in (None, value):
            caplog.clear()
            _classify(gallery_path, probes[0], threshold=threshold)
            assert f"--fpir 0.2{words}` again" in caplog.text


def test_more_people_than_there_are_is_said_and_gives_all(
    gallery_path: Path,
    probes: tuple[Path, np.ndarray, list[str]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    out = tmp_path / "all.csv"
    _classify(gallery_path, probes[0], threshold=0.5, top_k=50, out=out)
    assert len(out.read_text().splitlines()) == 1 + 50 * 12
    assert "--top-k 50: the gallery holds 12 people" in caplog.text


def test_a_gallery_of_fewer_than_are_listed_by_default_draws_no_warning(
    gallery_path: Path, write_faces: WriteFaces, tmp_path: Path, run_cli: RunCli
) -> None:
    two = write_faces("two.h5", clustered(2, 2), list("aabb"))
    run_cli("index", "build", two, "--out", tmp_path / "g")
    for words in (
        ("classify", two, "--index", tmp_path / "g", "--threshold", "0.5"),
        ("index", "search", tmp_path / "g", two),
    ):
        assert "--top-k" not in run_cli(*words)[1]
        assert "--top-k 7: the gallery holds" in run_cli(*words, "--top-k", 7)[1]


def test_an_empty_gallery_and_one_without_names_are_refused(
    gallery_path: Path, probes: tuple[Path, np.ndarray, list[str]], write_faces: WriteFaces
) -> None:
    for fusion in ("best", "mean", "vote"):
        nameless = gallery_path.parent / f"nameless-{fusion}"
        file = write_faces(f"{fusion}.h5", clustered(1, 2), ["", ""])
        build(BuildOptions(files=[file], out=nameless))
        with pytest.raises(InputError, match="nobody to find"):
            _classify(nameless, probes[0], threshold=0.5, fusion=fusion)
    remove(RemoveOptions(gallery=gallery_path, identities=[f"person{n:02}" for n in range(12)]))
    for fusion in ("best", "mean", "vote"):
        with pytest.raises(InputError, match="is empty"):
            _classify(gallery_path, probes[0], threshold=0.5, fusion=fusion)


def test_whatever_can_be_refused_is_before_a_picture_is_embedded(
    gallery_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def embedded(*_: object) -> None:
        pytest.fail("the model was opened")

    monkeypatch.setattr(lookup, "open_model", embedded)
    picture, out = tmp_path / "somebody.png", tmp_path / "who.csv"
    Image.new("RGB", (112, 112)).save(picture)
    model = ModelOptions(path=tmp_path / "model.onnx")
    options = LookupOptions(probes=picture, gallery=gallery_path, model=model, threshold=0.5)
    with pytest.raises(InputError, match="does not exist; create it first"):
        look_up(replace(options, out=tmp_path / "nowhere" / "who.csv"))
    with pytest.raises(InputError, match="does not exist; create it first"):
        look_up(replace(options, report=tmp_path / "nowhere" / "who"))
    out.touch()
    with pytest.raises(InputError, match="exists already"):
        look_up(replace(options, out=out))
    remove(RemoveOptions(gallery=gallery_path, identities=[f"person{n:02}" for n in range(12)]))
    with pytest.raises(InputError, match="is empty"):
        look_up(options)


def test_the_suffix_says_how_answers_are_written(
    gallery_path: Path, probes: tuple[Path, np.ndarray, list[str]], tmp_path: Path
) -> None:
    outs = [tmp_path / f"answers{suffix}" for suffix in (".csv", ".jsonl", ".txt")]
    for out in outs:
        _classify(gallery_path, probes[0], threshold=0.5, top_k=2, out=out)
    with outs[0].open(newline="") as file:
        rows = list(csv.DictReader(file))
    objects = [json.loads(line) for line in outs[1].read_text().splitlines()]
    assert [{name: str(value) for name, value in one.items()} for one in objects] == rows
    lines = outs[2].read_text().splitlines()
    assert lines[0].split() == ["path", "rank", "identity", "score", "decision"]
    assert [line.split()[:3] for line in lines[1:]] == [
        [row["path"], row["rank"], row["identity"]] for row in rows
    ]


def test_probes_without_names_have_no_figures(gallery_path: Path, write_faces: WriteFaces) -> None:
    file = write_faces("nameless.h5", clustered(1, 3), ["", "", ""])
    assert "rank1" not in _classify(gallery_path, file, threshold=0.5).summary


def test_probes_of_another_model_are_refused(gallery_path: Path, write_faces: WriteFaces) -> None:
    file = write_faces("other.h5", clustered(1, 2), ["a", "a"], fingerprint="e" * 64)
    with pytest.raises(InputError, match="different models"):
        _classify(gallery_path, file, threshold=0.5)


def test_what_is_refused_draws_no_warning_of_how_it_was_embedded(
    gallery_path: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    file = tmp_path / "other.h5"
    origin = Origin(model="other", fingerprint="e" * 64, preprocessing={"size": 160})
    write_embeddings(
        file,
        origin=origin,
        vectors=clustered(1, 2),
        norms=np.ones(2),
        paths=["a", "b"],
        identities=["", ""],
    )
    for command in (
        ("classify", file, "--index", gallery_path, "--threshold", "0.5"),
        ("index", "search", gallery_path, file),
    ):
        err = run_cli(*command, code=2)[1]
        assert "come from different models" in err
        assert "was embedded with other" not in err


def test_names_that_a_spreadsheet_would_run_are_guarded(
    gallery_path: Path, write_faces: WriteFaces, tmp_path: Path
) -> None:
    file = write_faces("evil.h5", clustered(1, 1), [""], paths=["=cmd|' /C calc'!A0"])
    _classify(gallery_path, file, threshold=0.5, top_k=1, out=tmp_path / "o.csv")
    assert "\n'=cmd" in (tmp_path / "o.csv").read_text()


def test_a_terminal_shows_the_first_answers_and_says_that_there_are_more(
    gallery_path: Path, write_faces: WriteFaces, run_cli: RunCli
) -> None:
    file = write_faces("many.h5", clustered(12, 2), [""] * 24)
    shown, _ = run_cli("classify", file, "--index", gallery_path, "--threshold", "0.5")
    lines = shown.splitlines()
    assert len(lines) == 22
    assert lines[20] == "(the first 20 answers; --out FILE writes all)"
    assert lines[21].startswith("24 probes: ")
    shown, _ = run_cli(
        "classify", file, "--index", gallery_path, "--threshold", "0.5", "--top-k", "1",
        "--out", file.with_suffix(".csv"),
    )  # fmt: skip
    assert "the first" not in shown
