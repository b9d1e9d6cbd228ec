"""The demo's page: everything is in it, in one small file, and hostile text stays text."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
import stat
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest
from PIL import Image

from faceidx.demo.faces import write_people
from faceidx.demo.page import Sample, write_page
from faceidx.errors import InputError

HOSTILE = "<script>alert(1)</script> & \"q\" 'x' $title ${roc} </figure>"
SVG = '<svg xmlns="http://www.w3.org/2000/svg"><script>alert(2)</script></svg>'
FILES = [
    ("gallery", "the gallery"),
    ("verification/index.html", "the report"),
    ("javascript:alert(1)", "a file of an odd name"),
    ("a b#c?d%20", "another"),
]
COMMANDS = ["faceidx train people --out run", "faceidx index build 'a<b>.h5' --out gallery"]
VOID = {"meta", "img"}


class _Page(HTMLParser):
    """What a browser would find: tags, pictures and text; every element must be closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text("utf-8")
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(self.source)
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str, of_class: str = "") -> list[dict[str, str]]:
        return [a for t, a in self.tags if t == tag and of_class in a.get("class", "").split(" ")]

    def images(self, kind: str) -> list[dict[str, str]]:
        start = f"data:image/{kind};base64,"
        return [a for a in self.all("img", "") if a["src"].startswith(start)]


def _facts(**others: Any) -> dict[str, Any]:
    points = [
        {"target": 0.1, "far": 0.0993, "tar": 0.9876, "threshold": 0.2111, "false_matches": 99},
        {"target": 0.001, "far": 0.0007, "tar": 0.8765, "threshold": 0.4222, "false_matches": 1},
    ]
    return {
        "auc": 0.99123,
        "auc_ci": [0.98456, 0.99789],
        "eer": 0.0345,
        "accuracy": 0.9654,
        "tar_at_far": points,
        "rank1": {"value": 313 / 320, "errors": 7, "trials": 320},
        "fpir": {"value": 16 / 330, "errors": 16, "trials": 330},
        "fnir": {"value": 15 / 320, "errors": 15, "trials": 320},
        "threshold": 0.3817,
        "people_trained": 240,
        "pictures_trained": 3840,
        "people_unseen": 60,
        "probes": 650,
        "seconds": {"draw": 9.94, "train": 201.4, "embed": 59.7, "verify": 0.04},
        "arch": "some-net",
        "parameters": 1_193_248,
    } | others


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("drawn") / "people"
    keys = write_people(folder, people=3, pictures=2, seed=1, processes=1)
    return [folder / key for key in keys]


def _sample(faces: list[Path], **fields: Any) -> Sample:
    usual = {
        "probe": faces[0],
        "truth": "ann",
        "enrolled": True,
        "match": faces[1],
        "answer": "ann",
        "score": 0.75,
        "decision": "match",
        "right": True,
    }
    return Sample(**(usual | fields))


def _samples(faces: list[Path]) -> list[Sample]:
    """One of each kind."""
    return [
        _sample(faces),
        _sample(faces, truth="bea", enrolled=False, score=0.11, decision="unknown"),
        _sample(faces, truth="cid", answer="dan", right=False),
        _sample(faces, truth="eve", answer="eve", score=0.22, decision="unknown", right=False),
        _sample(faces, truth="fay", answer="gus", score=0.23, decision="unknown", right=False),
        _sample(faces, truth="hal", answer="ida", enrolled=False, right=False),
    ]


def _write(path: Path, samples: list[Sample], facts: dict[str, Any] | None = None) -> _Page:
    write_page(
        path,
        facts=facts or _facts(),
        roc=SVG,
        samples=samples,
        files=FILES,
        commands=COMMANDS,
    )
    return _Page(path)


@pytest.fixture
def page(tmp_path: Path, faces: list[Path]) -> _Page:
    return _write(tmp_path / "index.html", _samples(faces))


def test_the_page_says_before_any_figure_that_the_faces_are_drawn(page: _Page) -> None:
    text = " ".join(page.text.split())
    said = text.index("Every face on this page is drawn by the program. No real person is shown.")
    assert "They say nothing about how well real faces are recognised." in text
    assert said < text.index("0.9912")
    assert page.text.rstrip().endswith("the figures say nothing about real ones.")


def test_every_figure_is_in_the_page(page: _Page) -> None:
    expected = [
        *("0.9912", "0.9846 to 0.9979", "3.45%", "96.54%"),
        *("TAR at FAR 0.001", "87.65%", "1 false match"),
        *("98.76%", "0.0993", "0.2111", "0.0007", "0.4222"),
        *("97.81%", "313 of 320 enrolled", "4.69%", "15 of 320 enrolled"),
        *("4.85%", "16 of 330 strangers", "0.3817", "650 probes are"),
        *("some-net", "1,193,248 parameters", "3,840 pictures of 240", "60 other drawn people"),
    ]
    assert [text for text in expected if text not in page.text] == []


def test_steps_are_shown_with_their_time_and_the_sum(page: _Page) -> None:
    text = page.text.replace("\n", "")
    assert "Draw9.9 sTrain3 min 21 sEmbed1 min 00 sVerify0.0 sTogether4 min 31 s" in text
    widths = [a["style"] for _, a in page.tags if a.get("style", "").startswith("width")][-4:]
    assert widths == ["width:4.9%", "width:100.0%", "width:29.6%", "width:0.0%"]


def test_every_kind_of_answer_is_told_in_words_and_errors_are_marked(page: _Page) -> None:
    for told in (
        "✓ match, right",
        "ann is recognised.",
        "✓ unknown, right",
        "bea is not in the gallery; nearest is ann.",
        "✗ match, wrong",
        "cid is taken for dan.",
        "✗ unknown, wrong",
        "eve is nearest to the right person, but below the threshold.",
        "fay is in the gallery, but gus is nearer.",
        "hal is not in the gallery, yet is taken for ida.",
    ):
        assert told in page.text
    assert len(page.all("figure", "pair")) == 6
    assert len(page.all("figure", "error")) == 4


def test_errors_come_worst_first(tmp_path: Path, faces: list[Path]) -> None:
    missed = [
        _sample(faces, truth=f"m{n}", score=score, decision="unknown", right=False)
        for n, score in enumerate((0.3, 0.1, 0.2))
    ]
    taken = [
        _sample(faces, truth=f"t{n}", score=score, enrolled=False, right=False)
        for n, score in enumerate((0.5, 0.9, 0.7))
    ]
    confused = [
        _sample(faces, truth=f"c{n}", answer="x", score=score, right=False)
        for n, score in enumerate((0.6, 0.8))
    ]
    page = _write(tmp_path / "p.html", missed + taken + confused)
    shown = re.findall(r"[mtc]\d(?= is)", page.text)
    assert shown == ["c1", "c0", "m1", "m2", "m0", "t1", "t2", "t0"]


def test_of_many_samples_a_few_of_each_kind_are_shown_and_all_are_counted(
    tmp_path: Path, faces: list[Path]
) -> None:
    samples = [_sample(faces, truth=f"person{n // 40}") for n in range(320)]
    samples += [_sample(faces, enrolled=False, decision="unknown")] * 3
    samples += [_sample(faces, right=False, decision="unknown")] * 30
    page = _write(tmp_path / "p.html", samples)
    assert len(page.all("figure", "pair")) == 8 + 3 + 8
    assert "Recognised 8 of 320, picked evenly from all" in page.text
    assert "Rightly unknown 3" in page.text
    assert "Errors: enrolled, not recognised 8 of 30, the worst first" in page.text
    assert "Errors: strangers taken for somebody 0None." in page.text
    for person in range(8):
        assert f"person{person} is recognised." in page.text


def test_every_face_is_in_the_page_with_the_identity_it_shows(
    page: _Page, faces: list[Path]
) -> None:
    images = page.images("jpeg")
    assert len(images) == 12
    shown = {image["alt"] for image in images}
    assert {"Probe, drawn: bea", "Nearest in the gallery, drawn: dan"} <= shown
    drawn = np.asarray(Image.open(faces[0]), dtype=float)
    data = base64.b64decode(images[0]["src"].partition(",")[2])
    thumb = np.asarray(Image.open(io.BytesIO(data)), dtype=float)
    assert np.abs(thumb - drawn).mean() < 5


def test_the_curve_is_a_picture_and_so_can_run_nothing(page: _Page) -> None:
    (curve,) = page.images("svg+xml")
    assert base64.b64decode(curve["src"].partition(",")[2]).decode() == SVG
    assert curve["alt"].startswith("ROC curve")
    assert "alert(2)" not in page.source


def test_the_page_needs_nothing_but_itself(page: _Page) -> None:
    assert "http:" not in page.source
    assert "https:" not in page.source
    assert "url(" not in page.source
    assert "@import" not in page.source
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "form", "svg")
        assert attributes.get("src", "data:").startswith("data:")
        assert not [name for name in attributes if name.startswith("on")]
    policy = [a["content"] for a in page.all("meta") if "http-equiv" in a]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_every_file_is_a_relative_link_whatever_its_name(page: _Page) -> None:
    links = [a["href"] for a in page.all("a")]
    assert [unquote_to_bytes(link).decode() for link in links] == [f"./{n}" for n, _ in FILES]
    assert not [link for link in links if {"#", "?", ":", " "} & set(link)]
    for name, what in FILES:
        assert f"{name}{what}" in page.text


def test_the_commands_are_there_in_order(page: _Page) -> None:
    places = [page.text.index(command) for command in COMMANDS]
    assert places == sorted(places)


def test_hostile_text_is_text_and_nothing_else(tmp_path: Path, faces: list[Path]) -> None:
    path = tmp_path / "p.html"
    samples = [
        dataclasses.replace(sample, truth=f"t{HOSTILE}", answer=f"a{HOSTILE}", decision=decision)
        for sample, decision in zip(_samples(faces), ["match", "unknown"] * 3, strict=True)
    ]
    write_page(
        path,
        facts=_facts(arch=f"n{HOSTILE}", seconds={f"s{HOSTILE}": 1.0}),
        roc=SVG,
        samples=samples,
        files=[(f"f{HOSTILE}", f"w{HOSTILE}"), ("bad\udcff", "no UTF-8")],
        commands=[f"c{HOSTILE}"],
    )
    page = _Page(path)  # every element is closed, in order
    assert "<script" not in page.source
    assert len(page.all("figure", "pair")) == 6
    for start in "tanSfwc":
        assert f"{start}{HOSTILE}" in page.text
    assert f"Probe, drawn: t{HOSTILE}" in {image["alt"] for image in page.images("jpeg")}
    assert [unquote_to_bytes(a["href"]) for a in page.all("a")][1] == b"./bad\xff"


def test_a_full_page_is_small(tmp_path: Path, faces: list[Path]) -> None:
    _write(tmp_path / "p.html", _samples(faces) * 100)
    assert 50_000 < (tmp_path / "p.html").stat().st_size < 1_000_000


def test_figures_that_cannot_be_had_are_unknown(tmp_path: Path, faces: list[Path]) -> None:
    none = {"value": None, "errors": 0, "trials": 0}
    facts = _facts(accuracy=None, auc_ci=None, fpir=none, tar_at_far=[], seconds={})
    page = _write(tmp_path / "p.html", [], facts)
    assert "Accuracyunknown" in page.text
    assert "Taken for somebody (FPIR)unknown0 of 0 strangers" in page.text
    assert page.text.count("None.") == 4


def test_a_picture_that_cannot_be_read_is_replaced_by_the_reason(
    tmp_path: Path, faces: list[Path]
) -> None:
    page = _write(tmp_path / "p.html", [_sample(faces, match=tmp_path / "gone.jpg")])
    assert len(page.images("jpeg")) == 1
    assert len(page.all("div", "none")) == 1
    assert "ann is recognised." in page.text


def test_the_page_is_whole_and_for_its_owner_only(tmp_path: Path, faces: list[Path]) -> None:
    path = tmp_path / "p.html"
    with pytest.raises(KeyError):
        write_page(path, facts={}, roc=SVG, samples=[], files=[], commands=[])
    assert list(tmp_path.iterdir()) == []
    _write(path, _samples(faces))
    assert [p.name for p in tmp_path.iterdir()] == ["p.html"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(InputError, match="does not exist"):
        _write(tmp_path / "no" / "p.html", [])
