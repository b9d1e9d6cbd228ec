"""The page of `classify --report`: everything on it is escaped, nothing on it runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from faceidx.errors import JobError
from faceidx.gallery.build import BuildOptions, build
from faceidx.gallery.cases import FALSE_POSITIVE, KeptCases
from faceidx.gallery.search import Candidate
from tests.conftest import RunCli, draw
from tests.gallery.conftest import WriteFaces, clustered

_EVIL = '<script>alert("x")</script>'


@pytest.fixture
def gallery_and_probes(tmp_path: Path, write_faces: WriteFaces) -> tuple[Path, Path, Path]:
    """Gallery, probes and the folder of their pictures; names are hostile."""
    people = [f"{_EVIL}{n}" for n in range(6)]
    names = [people[n // 3] for n in range(18)]
    paths = [f"{n}.png" for n in range(18)]
    vectors = clustered(6, 3)
    build(BuildOptions(files=[write_faces("g.h5", vectors, names, paths=paths)],
                       out=tmp_path / "gallery"))  # fmt: skip
    noisy = vectors + 0.2 * np.random.default_rng(0).normal(size=vectors.shape)
    probes = np.concatenate([noisy, clustered(3, 2, seed=9)]).astype(np.float32)
    who = [*names, *["stranger"] * 5, ""]
    keys = [f"p{n}.png" for n in range(22)] + ["../../etc/passwd", "<i>.png"]
    file = write_faces("p.h5", probes, who, paths=keys)
    for key in [*paths, *keys[:22]]:
        draw(tmp_path / "pictures" / key, seed=len(key))
    return tmp_path / "gallery", file, tmp_path / "pictures"


def test_the_page_shows_probes_beside_faces_and_nothing_runs_on_it(
    gallery_and_probes: tuple[Path, Path, Path], tmp_path: Path, run_cli: RunCli
) -> None:
    gallery, probes, pictures = gallery_and_probes
    report = tmp_path / "report"
    command = ("classify", probes, "--index", gallery, "--threshold", "0.55", "--report", report)
    told = run_cli.json(*command, "--pictures", pictures, "--top-k", 3)
    assert told["report"] == str(report)
    page = (report / "index.html").read_text("utf-8")
    assert "<script" not in page
    assert "default-src 'none'" in page
    assert "&lt;script&gt;alert" in page
    assert page.count('<figure class="probe') == 24
    assert page.count('<div class="candidate') == 24 * 3
    assert "its name leads out of the folder of pictures" in page
    assert "its FMR is not an FPIR" in page.replace("&#x27;", "'")
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert {path.name for path in report.iterdir()} == {
        "index.html", "figures.json", *(f"{plot}.{kind}" for plot in ("cmc", "det", "histogram")
                                        for kind in ("png", "svg"))
    }  # fmt: skip
    figures = json.loads((report / "figures.json").read_text())
    assert figures["rank1"] == told["rank1"]
    run_cli(*command, code=2)
    run_cli(*command, "--overwrite")
    assert "Only names are shown" in (report / "index.html").read_text("utf-8")


def test_where_the_page_cannot_be_made_the_same_command_can_be_run_again(
    gallery_and_probes: tuple[Path, Path, Path],
    tmp_path: Path,
    run_cli: RunCli,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object, **__: object) -> None:
        raise JobError("No space left on device")

    gallery, probes, _ = gallery_and_probes
    before = sorted(tmp_path.iterdir())
    command = ("classify", probes, "--index", gallery, "--threshold", "0.55",
               "--report", tmp_path / "report", "--out", tmp_path / "who.csv")  # fmt: skip
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr("faceidx.gallery.report.write_identification_report", full)
        run_cli(*command, code=1)
    assert sorted(tmp_path.iterdir()) == before
    run_cli(*command)
    assert {"report", "who.csv"} <= {path.name for path in tmp_path.iterdir()}


def test_a_report_among_the_pictures_it_is_of_is_refused(
    gallery_and_probes: tuple[Path, Path, Path], run_cli: RunCli
) -> None:
    gallery, probes, pictures = gallery_and_probes
    words = ("classify", "--index", gallery, "--threshold", "0.55", "--report", pictures / "who")
    _, err = run_cli(*words, pictures, code=2)
    assert "who lies in" in err and err.count("\n") == 1
    assert not (pictures / "who").exists()
    run_cli(*words, probes, "--pictures", pictures)  # none but the probes' own are looked at there


def test_probes_of_nobody_known_make_a_page_without_figures(
    tmp_path: Path, gallery_path: Path, write_faces: WriteFaces, run_cli: RunCli
) -> None:
    vectors = clustered(2, 2)
    vectors[1] = 0
    file = write_faces("nameless.h5", vectors, [""] * 4)
    run_cli("classify", file, "--index", gallery_path, "--threshold", 0.5,
            "--report", tmp_path / "r")  # fmt: skip
    page = (tmp_path / "r" / "index.html").read_text("utf-8")
    assert "FNIR" not in page
    assert "cannot be searched" in page


def test_pictures_without_a_report_and_folders_of_other_things_are_refused(
    gallery_path: Path, tmp_path: Path, write_faces: WriteFaces, run_cli: RunCli
) -> None:
    file = write_faces("p.h5", clustered(1, 2), ["", ""])
    command = ("classify", file, "--index", gallery_path, "--threshold", 0.5)
    _, error = run_cli(*command, "--pictures", tmp_path, code=2)
    assert "give --report DIR" in error
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    _, error = run_cli(*command, "--report", tmp_path / "mine", "--overwrite", code=2)
    assert "no report of ours" in error
    assert (tmp_path / "mine" / "letter.txt").exists()


def test_errors_come_first_and_what_is_kept_is_bounded() -> None:
    kept = KeptCases(frozenset({"a"}), 0.5, 4)
    for number in range(40):
        candidates = [Candidate("a", 0, number / 40)]
        kept.add(f"{number}", "stranger" if number % 2 else "a", candidates)
    cases = kept.worst_first()
    assert [case.key for case in cases] == ["0", "39", "2", "37"]  # the clearest errors
    assert cases[1].verdict == FALSE_POSITIVE
    nothing = KeptCases(frozenset(), 0.5, 0)
    nothing.add("k", "", [])
    assert nothing.worst_first() == []
