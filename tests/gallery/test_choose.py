from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from faceidx.gallery import choose
from faceidx.gallery.build import AddOptions, BuildOptions, RemoveOptions, add, build, remove
from faceidx.gallery.check import info, verify
from faceidx.gallery.folder import load_gallery
from faceidx.gallery.indexes import IndexOptions, Made, graph_bytes, make_index
from faceidx.gallery.inverted import LISTS_DATA
from faceidx.gallery.search import search
from faceidx.gallery.vectors import Vectors
from tests.gallery.conftest import DIM, WriteFaces, clustered

PEOPLE, PICTURES = 40, 10
COUNT = PEOPLE * PICTURES
TRIAL = 100
NAMES = [f"person{n:02}" for n in range(PEOPLE) for _ in range(PICTURES)]


@dataclass
class Speeds:
    """What every index that is made is said to answer in a second."""

    ivf: float = 100
    hnsw: float = 100
    exact: float = 10
    trial_ivf: float = 100
    trial_hnsw: float = 100
    missed: tuple[str, ...] = ()
    """Kinds that are said not to reach the target."""
    made: list[tuple[str, int]] = field(default_factory=list)
    """Kinds and numbers of vectors, in order."""

    def make(self, folder: Path, vectors: Vectors, *args: Any, **options: Any) -> Made:
        made = make_index(folder, vectors, *args, **options)
        self.made.append((made.kind, vectors.count))
        trial = "trial_" if vectors.count == TRIAL else ""
        measured_exact = made.tuning.exact_queries_per_second
        made.tuning = replace(
            made.tuning,
            queries_per_second=getattr(self, trial + made.kind),
            exact_queries_per_second=measured_exact and self.exact,
        )
        made.exact_rate = self.exact
        made.reached = made.kind not in self.missed
        return made


@pytest.fixture
def speeds(monkeypatch: pytest.MonkeyPatch) -> Speeds:
    """Faces enough for `auto` to measure, by speeds that do not depend on the machine."""
    found = Speeds()
    monkeypatch.setattr(choose, "make_index", found.make)
    monkeypatch.setattr(choose, "_SMALL", COUNT)
    monkeypatch.setattr(choose, "_TRIAL", COUNT)
    return found


@pytest.fixture
def faces(write_faces: WriteFaces) -> Path:
    return write_faces("faces.h5", clustered(PEOPLE, PICTURES), NAMES)


def _build(faces: Path, memory: int | None = None) -> tuple[Path, dict[str, Any]]:
    out = faces.with_name("gallery")
    return out, build(BuildOptions(files=[faces], out=out, index=IndexOptions(memory=memory)))


def test_auto_is_exact_for_few_and_on_disk_where_memory_is_short(faces: Path) -> None:
    out, plain = _build(faces)
    assert (plain["kind"], plain["recall_at_1"]) == ("flat", 1.0)
    out.rename(out.with_name("plain"))
    out, short = _build(faces, memory=1000)
    assert short["kind"] == "ivf"
    assert (out / LISTS_DATA).is_file()


@pytest.mark.parametrize(
    ("ivf", "hnsw", "missed", "kind"),
    [
        (100, 151, (), "hnsw"),
        (100, 149, (), "ivf"),
        (100, 151, ("hnsw",), "ivf"),
        (100, 50, ("ivf",), "hnsw"),
        (100, 151, ("hnsw", "ivf"), "flat"),
        (19, 19, (), "flat"),  # exact search answers 10
        (21, 21, (), "ivf"),
        (12, 19, (), "flat"),
        (12, 21, (), "hnsw"),
    ],
)
def test_auto_keeps_a_graph_only_for_clearly_more_speed_and_either_only_for_twice_that_of_exact(
    faces: Path, speeds: Speeds, ivf: float, hnsw: float, missed: tuple[str, ...], kind: str
) -> None:
    speeds.ivf, speeds.hnsw, speeds.missed = ivf, hnsw, missed
    out, result = _build(faces)
    assert speeds.made == [("ivf", COUNT), ("hnsw", COUNT)]
    assert result["kind"] == kind
    assert {file.name for file in out.iterdir()} == {"index.faiss", "gallery.h5", "manifest.json"}
    assert verify(out)["vectors"] == COUNT
    tuning = info(out)["tuning"]
    assert (tuning is None) == (kind == "flat")
    if tuning:
        assert tuning["queries_per_second"] == getattr(speeds, kind)
        assert tuning["exact_queries_per_second"] == speeds.exact
        assert tuning["factory"].startswith(kind.upper())


@pytest.mark.parametrize(("lacking", "kind"), [(0, "hnsw"), (1, "ivf")])
def test_auto_makes_no_graph_that_memory_does_not_hold(
    faces: Path, speeds: Speeds, tmp_path: Path, lacking: int, kind: str
) -> None:
    speeds.hnsw = 1000
    with faces.open("rb") as file:
        enough = graph_bytes(Vectors(file, "", 0, COUNT, DIM))
    _, result = _build(faces, memory=enough - lacking)
    assert result["kind"] == kind
    assert (("hnsw", COUNT) in speeds.made) == (kind == "hnsw")
    # The estimate is for what lies in memory: the file of the index, and the vectors.
    graph = build(BuildOptions(files=[faces], out=tmp_path / "g", index=IndexOptions(kind="hnsw")))
    taken = graph["bytes"] - (tmp_path / "g" / "gallery.h5").stat().st_size + COUNT * DIM * 4
    assert taken == pytest.approx(enough, rel=0.02)


@pytest.mark.parametrize(("on_trial", "kind"), [(74, "ivf"), (76, "hnsw")])
def test_a_graph_over_many_is_tried_over_some_first(
    faces: Path, speeds: Speeds, monkeypatch: pytest.MonkeyPatch, on_trial: float, kind: str
) -> None:
    monkeypatch.setattr(choose, "_TRIAL", TRIAL)
    speeds.hnsw, speeds.trial_hnsw = 1000, on_trial
    out, result = _build(faces)
    whole = [("hnsw", COUNT)] if kind == "hnsw" else []
    assert speeds.made == [("ivf", COUNT), ("ivf", TRIAL), ("hnsw", TRIAL), *whole]
    assert result["kind"] == kind
    assert {file.name for file in out.iterdir()} == {"index.faiss", "gallery.h5", "manifest.json"}
    assert verify(out)["vectors"] == COUNT


def test_a_trial_is_over_whole_people(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "_TRIAL", 505)
    codes = np.concatenate([np.repeat(np.arange(100), 10), np.full(1000, -1)])
    rows = choose._of_whole_people(codes, np.random.default_rng(0))
    assert len(rows) == len(set(rows.tolist())) == 505
    assert (np.diff(rows) > 0).all()
    drawn = codes[rows]
    _, pictures = np.unique(drawn[drawn >= 0], return_counts=True)
    assert (pictures == 10).sum() >= len(pictures) - 1 > 0
    assert 0 < (drawn < 0).sum() < 505  # pictures without identity are not one person's


def test_a_graph_that_auto_chose_takes_people_up_and_lets_them_go(
    faces: Path, speeds: Speeds, write_faces: WriteFaces
) -> None:
    speeds.hnsw = 1000
    out, _ = _build(faces)
    del speeds.made[:]
    added = clustered(3, PICTURES, seed=7)
    more = write_faces("more.h5", added, [f"later{n}" for n in range(3) for _ in range(PICTURES)])
    speeds.ivf = 10**6  # the kind stays all the same
    assert add(AddOptions(gallery=out, files=[more]))["kind"] == "hnsw"
    with load_gallery(out) as gallery:
        assert (search(gallery, added, 1)[1][:, 0] >= COUNT).mean() > 0.9
    result = remove(RemoveOptions(gallery=out, identities=["later1", "person11"]))
    assert (result["removed"], result["kind"]) == (20, "hnsw")
    assert speeds.made == [("hnsw", COUNT + 30), ("hnsw", COUNT + 10)]
    assert verify(out)["vectors"] == COUNT + 10
    with load_gallery(out) as gallery:
        assert gallery.index.ntotal == COUNT + 10


@pytest.mark.parametrize(
    ("kind", "exact", "memory", "warned"),
    [
        ("ivf", 101, None, True),
        ("hnsw", 101, None, True),
        ("ivf", 99, None, False),
        ("ivf", 101, 1000, False),
        ("auto", 101, None, False),
    ],
)
def test_a_kind_that_is_asked_for_and_slower_than_exact_search_is_said(
    speeds: Speeds,
    faces: Path,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    exact: float,
    memory: int | None,
    warned: bool,
) -> None:
    speeds.exact = exact
    index = IndexOptions(kind=kind, memory=memory)
    out = faces.with_name("gallery")
    assert build(BuildOptions(files=[faces], out=out, index=index))["vectors"] == COUNT
    assert ("exact search 101 or more: --kind flat is faster" in caplog.text) == warned


@pytest.mark.parametrize(("kind", "warned"), [("ivf", True), ("auto", False), ("flat", False)])
def test_a_kind_that_so_few_vectors_do_not_get_is_said(
    write_faces: WriteFaces,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    warned: bool,
) -> None:
    few = write_faces("few.h5", clustered(3, 5), NAMES[:15])
    index = IndexOptions(kind=kind)
    assert build(BuildOptions(files=[few], out=tmp_path / "g", index=index))["kind"] == "flat"
    told = [r.getMessage() for r in caplog.records if "flat" in r.getMessage()]
    assert len(told) == warned
    assert all("15 vectors are too few for --kind ivf" in line for line in told)
