from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from faceidx.embedding.store import Origin, write_embeddings
from faceidx.gallery import check
from tests.conftest import RunCli

_DIM = 8


def _write(path: Path, people: int, *, fingerprint: str = "f" * 64, seed: int = 0) -> Path:
    chance = np.random.default_rng(seed)
    vectors = np.repeat(chance.normal(size=(people, _DIM)), 3, axis=0)
    vectors += 0.3 * chance.normal(size=vectors.shape)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = [f"p{n // 3}" for n in range(3 * people)]
    write_embeddings(
        path,
        origin=Origin(model="tiny", fingerprint=fingerprint),
        vectors=vectors.astype(np.float32),
        norms=np.ones(len(names), dtype=np.float32),
        paths=[f"{name}/{n}.jpg" for n, name in enumerate(names)],
        identities=names,
    )
    return path


@pytest.fixture
def cli(run_cli: RunCli) -> RunCli:
    return run_cli.of("index")


@pytest.fixture
def gallery(cli: RunCli, tmp_path: Path) -> Path:
    cli("build", _write(tmp_path / "people.h5", 10), "--out", tmp_path / "gallery")
    return tmp_path / "gallery"


def test_build_reports_the_promised_fields(cli: RunCli, tmp_path: Path) -> None:
    result = cli.json("build", _write(tmp_path / "a.h5", 4), "--out", tmp_path / "g")
    files = [tmp_path / "g" / name for name in ("index.faiss", "gallery.h5")]
    assert result.pop("seconds") >= 0
    assert result == {
        "out": str(tmp_path / "g"),
        "vectors": 12,
        "identities": 4,
        "dim": _DIM,
        "kind": "flat",
        "recall_at_1": 1.0,
        "bytes": sum(file.stat().st_size for file in files),
        "refused": 0,
        "renormalised": 0,
    }


def test_the_life_of_a_gallery(cli: RunCli, gallery: Path, tmp_path: Path) -> None:
    more = _write(tmp_path / "more.h5", 2, seed=1)
    _, error = cli("add", gallery, more, code=2)
    assert "6 keys are there already" in error
    assert cli.json("add", gallery, more, "--prefix", "later")["added"] == 6
    result = cli.json("remove", gallery, "--identity", "p3", "--path", "later/p0/1.jpg")
    assert (result["removed"], result["identities"]) == (4, 9)
    assert cli.json("info", gallery)["vectors"] == 32
    assert cli.json("calibrate", gallery, "--fpir", "0.1")["fpir"] <= 0.1
    assert cli.json("verify", gallery)["intact"] is True
    assert cli.json("import", gallery, "--out", tmp_path / "copy")["vectors"] == 32
    assert "calibrate" in cli("info", tmp_path / "copy")[0]
    assert "is intact" in cli("verify", tmp_path / "copy")[0]


def test_info_bins_pictures_per_person_where_they_are_of_many_counts(
    cli: RunCli, gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "\npictures     3: 10\n" in cli("info", gallery)[0]
    counts = {str(n): 1 for n in (*range(1, 12), 49, 50, 1234)}
    known = check.info(gallery)
    monkeypatch.setattr(check, "info", lambda _: {**known, "pictures_per_person": counts})
    shown = "\npictures     1: 1, 2-4: 3, 5-9: 5, 10-19: 2, 20-49: 1, 50-99: 1, 1000-1999: 1\n"
    assert shown in cli("info", gallery)[0]
    assert cli.json("info", gallery)["pictures_per_person"] == counts


def test_search_writes_ranked_pictures(cli: RunCli, gallery: Path, tmp_path: Path) -> None:
    words = ("search", gallery, tmp_path / "people.h5", "--top-k", 2, "--out", tmp_path / "h.csv")
    result = cli.json(*words)
    assert (result["probes"], result["hits"], result["out"]) == (30, 60, str(tmp_path / "h.csv"))
    with (tmp_path / "h.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "rank", "match", "identity", "score"]
    for row in rows[::2]:
        assert (row["rank"], row["match"]) == ("1", row["path"])
        assert float(row["score"]) == pytest.approx(1, abs=1e-6)
    _, error = cli(*words, code=2)
    assert "--overwrite" in error


def test_search_without_an_output_shows_the_first_hits(
    cli: RunCli, gallery: Path, tmp_path: Path
) -> None:
    out, _ = cli("search", gallery, tmp_path / "people.h5", "--top-k", 1)
    assert out.splitlines()[1].split() == ["path", "rank", "match", "identity", "score"]
    assert out.splitlines()[2].split() == ["p0/0.jpg", "1", "p0/0.jpg", "p0", "1.0000"]


def test_bad_input_is_one_line_and_exit_code_2(cli: RunCli, gallery: Path, tmp_path: Path) -> None:
    other = _write(tmp_path / "other.h5", 2, fingerprint="e" * 64)
    for words, told in (
        (("build", tmp_path / "no.h5", "--out", tmp_path / "g"), "no such file"),
        (("build", tmp_path / "people.h5", other, "--out", tmp_path / "g"), "different models"),
        (("build", tmp_path / "people.h5", "--out", gallery), "--overwrite"),
        (("add", gallery, other), "different models"),
        (("search", gallery, other), "different models"),
        (("remove", gallery, "--identity", "nobody"), "'nobody'"),
        (("remove", gallery), "--identity"),
        (("info", tmp_path), "manifest.json"),
        (("add", tmp_path / "none", other), "no gallery folder"),
        (("calibrate", gallery, "--fpir", "1"), "--fpir"),
    ):
        out, error = cli(*words, code=2)
        assert out == ""
        assert told in error
        assert error.count("\n") == 1
    assert not (tmp_path / "g").exists()


def test_names_of_people_are_told_only_where_asked_for(
    cli: RunCli, gallery: Path, tmp_path: Path
) -> None:
    people = tmp_path / "people.h5"
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "anna.jpg").touch()
    for words, name in (
        (("add", gallery, people), "p0/0.jpg"),
        (("build", people, people, "--out", tmp_path / "g"), "p0/0.jpg"),
        (("build", people, "--out", foreign, "--overwrite"), "anna.jpg"),
    ):
        error = cli(*words, code=2)[1]
        assert name not in error
        assert "-v names one" in error
        assert name in cli(*words, "-v", code=2)[1]


def test_help_loads_neither_faiss_nor_the_arrays() -> None:
    code = (
        "import sys; sys.argv = ['faceidx', 'index', 'build', '--help']\n"
        "from faceidx.cli import run\n"
        "try: run()\n"
        "except SystemExit: print([m for m in ('faiss', 'torch', 'numpy', 'h5py') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_options_that_nothing_would_come_of_are_not_passed_over_in_silence(
    run_cli: RunCli, gallery: Path, tmp_path: Path
) -> None:
    warning = "--neighbours is of no use without --fusion vote"
    calibrate = ("index", "calibrate", gallery, "--fpir", 0.2)
    assert warning in run_cli(*calibrate, "--neighbours", 3)[1]
    assert warning not in run_cli(*calibrate)[1]
    assert warning not in run_cli(*calibrate, "--fusion", "vote", "--neighbours", 3)[1]
    people = tmp_path / "people.h5"
    look_up = ("classify", people, "--index", gallery)
    assert warning not in run_cli(*look_up, "--neighbours", 3)[1]  # its threshold is for votes
    run_cli(*calibrate)
    for more in ((), ("--threshold", 0.5)):
        assert warning in run_cli(*look_up, "--neighbours", 3, *more)[1]
    assert "is no list of pictures" in run_cli(*look_up, "--root", tmp_path, code=2)[1]
    cluster = ("cluster", people, "--out", tmp_path / "groups.csv")
    _, err = run_cli(*cluster, "--pictures", tmp_path, code=2)
    assert "--pictures are copied by --copy-to DIR; give both" in err
