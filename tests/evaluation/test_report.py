from __future__ import annotations

import base64
import csv
import io
import json
import re
import stat
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceidx.errors import InputError
from faceidx.evaluation.plots import write_plots
from faceidx.evaluation.report import hardest_pairs
from faceidx.evaluation.roc import best_accuracy, roc_curve, tar_at_far
from faceidx.evaluation.thumbnails import find_picture, thumbnail
from faceidx.evaluation.verification import VerifyOptions, verify_pairs
from faceidx.images.decode import PictureError
from faceidx.images.keys import escape_key

Write = Callable[..., Path]
HOSTILE = "p2/<script>alert(1)<script> & \"q\" 'x' $title ${made}.png"
FILES = {"index.html", "figures.json", "scores.csv"} | {
    f"{plot}.{kind}" for plot in ("roc", "det", "histogram") for kind in ("png", "svg")
}


class _Page(HTMLParser):
    """What a browser would find: the tags, the pictures and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def images(self, kind: str) -> list[dict[str, str | None]]:
        start = f"data:image/{kind};base64,"
        return [a for tag, a in self.tags if tag == "img" and (a["src"] or "").startswith(start)]


@pytest.fixture
def job(tmp_path: Path, embeddings: Write) -> VerifyOptions:
    """Pictures in `faces/`, a list of nine pairs of which one is missing, and embeddings."""
    names = ["p0/0.png", "p0/1.png", "p1/0.png", "p1/1.png", HOSTILE, "p2/1.png"]
    for number, name in enumerate(names):
        path = tmp_path / "faces" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 50), (40 * number, 90, 200)).save(path)
    keys = [escape_key(name) for name in names]
    rows = [(keys[i], keys[i + 1], 1) for i in (0, 2, 4)]
    rows += [(keys[i], keys[j], 0) for i, j in ((0, 2), (0, 4), (2, 4), (1, 5), (3, 5))]
    rows.append((keys[0], "p0/gone<b>.png", 1))
    with (tmp_path / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("left", "right", "label"), *rows])
    return VerifyOptions(
        pairs=tmp_path / "pairs.csv",
        embeddings=embeddings(keys),
        report=tmp_path / "report",
        pictures=tmp_path / "faces",
    )


def _page(options: VerifyOptions) -> _Page:
    assert options.report is not None
    return _Page((options.report / "index.html").read_text("utf-8"))


def test_the_report_is_whole_and_for_its_owner_only(job: VerifyOptions) -> None:
    verified = verify_pairs(job)
    assert job.report is not None
    assert {path.name for path in job.report.iterdir()} == FILES
    assert stat.S_IMODE(job.report.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in job.report.iterdir()} == {0o600}
    assert json.loads((job.report / "figures.json").read_text()) == verified.as_json()
    assert (job.report / "scores.csv").read_text().count("\n") == 9
    for path in job.report.glob("*.png"):
        Image.open(path).verify()


def test_the_page_carries_every_plot_and_face_in_itself(job: VerifyOptions) -> None:
    verify_pairs(job)
    page = _page(job)
    assert len(page.images("svg+xml")) == 3
    faces = page.images("jpeg")
    assert len(faces) == 2 * 8  # every pair with a score is among the twelve hardest of its kind
    for image in faces + page.images("svg+xml"):
        data = base64.b64decode((image["src"] or "").partition(",")[2])
        assert data[:2] == b"\xff\xd8" or b"<svg" in data
    shown = {image["alt"] for image in faces}
    assert {"p0/0.png", "p1/1.png", escape_key(HOSTILE)} <= shown
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object")
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith("data:")


def test_hostile_names_are_text_and_nothing_else(job: VerifyOptions) -> None:
    verify_pairs(job)
    assert job.report is not None
    text = (job.report / "index.html").read_text("utf-8")
    assert "<script" not in text
    assert "<b>" not in text
    page = _page(job)
    assert HOSTILE in page.text
    assert "p0/gone<b>.png: not among the embedded pictures" in page.text


def test_without_the_pictures_the_page_shows_names_and_says_so(job: VerifyOptions) -> None:
    job.pictures = None
    verify_pairs(job)
    page = _page(job)
    assert page.images("jpeg") == []
    assert "give --pictures ROOT to see the faces" in page.text
    assert HOSTILE in page.text


def test_a_picture_that_cannot_be_shown_says_why(job: VerifyOptions) -> None:
    assert job.pictures is not None
    (job.pictures / "p0/0.png").write_bytes(b"nothing of the kind")
    (job.pictures / "p1/1.png").unlink()
    verify_pairs(job)
    page = _page(job)
    assert "not a picture" in page.text
    assert "not in the folder of pictures" in page.text


def test_the_page_tells_how_it_was_made(job: VerifyOptions) -> None:
    verify_pairs(job)
    text = _page(job).text
    for told in (
        "f" * 64,
        "tiny",
        '{"dtype": "float32", "image_size": 8}',
        "Python 3.",
        "numpy ",
        "bootstrap-",
    ):
        assert told in text
    command = f"faceidx verify-pairs {job.pairs} --embeddings {job.embeddings}"
    assert command in text


def test_the_missing_are_listed_beside_the_figures_of_both_policies(job: VerifyOptions) -> None:
    verify_pairs(job)
    text = _page(job).text
    assert "1 pair has no score. They are left out of the figures." in text
    assert "--missing exclude" in text and "--missing reject" in text


def test_a_report_of_scores_alone_shows_lines(job: VerifyOptions, tmp_path: Path) -> None:
    scores = tmp_path / "s.csv"
    scores.write_text("label,score\n1,0.9\n1,0.4\n0,0.5\n0,0.1\n")
    options = VerifyOptions(pairs=scores, report=tmp_path / "plain")
    verify_pairs(options)
    assert "line 4" in _page(options).text


def test_an_existing_report_is_kept_without_overwrite(job: VerifyOptions) -> None:
    verify_pairs(job)
    assert job.report is not None
    before = (job.report / "index.html").read_bytes()
    with pytest.raises(InputError, match="--overwrite"):
        verify_pairs(job)
    assert (job.report / "index.html").read_bytes() == before
    job.overwrite, job.seed = True, 7
    verify_pairs(job)
    assert (job.report / "index.html").read_bytes() != before


def test_overwrite_never_replaces_a_folder_that_is_no_report(job: VerifyOptions) -> None:
    assert job.report is not None
    job.report.mkdir()
    (job.report / "thesis.tex").write_text("years of work")
    job.overwrite = True
    with pytest.raises(InputError, match="no report of ours"):
        verify_pairs(job)
    assert (job.report / "thesis.tex").read_text() == "years of work"


def test_a_report_never_takes_the_place_of_its_own_inputs(job: VerifyOptions) -> None:
    assert job.report is not None and job.embeddings is not None
    verify_pairs(job)
    moved = job.report / "faces.h5"
    job.embeddings.rename(moved)
    job.embeddings, job.overwrite = moved, True
    with pytest.raises(InputError, match="lies in the report's folder"):
        verify_pairs(job)
    assert moved.is_file()


def test_nothing_is_left_of_a_report_that_failed(
    job: VerifyOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("in the middle")

    monkeypatch.setattr("faceidx.evaluation.report._body", fail)
    before = set(job.pairs.parent.iterdir())
    with pytest.raises(RuntimeError):
        verify_pairs(job)
    assert set(job.pairs.parent.iterdir()) == before


def test_the_hardest_pairs_are_the_lowest_genuine_and_the_highest_impostors(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    genuine = rng.random(300) < 0.5
    scores = (rng.normal(size=300) + genuine).round(1)  # with ties
    rows = [f"{int(g)},{s}" for g, s in zip(genuine, scores, strict=True)]
    (tmp_path / "s.csv").write_text("\n".join(["label,score", *rows]))
    verified = verify_pairs(VerifyOptions(pairs=tmp_path / "s.csv"))
    for of_class, sign in ((True, 1), (False, -1)):
        found = hardest_pairs(verified, genuine=of_class)
        every = [i for i in range(300) if genuine[i] == of_class]
        assert found == sorted(every, key=lambda i: (sign * scores[i], i))[:12]


def test_rejected_pairs_are_not_among_the_hardest(job: VerifyOptions) -> None:
    job.missing = "reject"
    verified = verify_pairs(job)
    found = hardest_pairs(verified, genuine=True)
    assert len(found) == 3
    assert not verified.judged.rejected[found].any()


@pytest.mark.parametrize(
    ("scores", "labels"),
    [
        ([0.5, 0.5, 0.5], [1, 0, 0]),
        ([1.0, 0.9, 0.2, 0.1], [1, 1, 0, 0]),
        ([0.1, 0.9], [1, 0]),
        ([0.9, 0.1], [1, 0]),
    ],
)
def test_plots_are_drawn_at_the_extremes(
    tmp_path: Path, scores: list[float], labels: list[int]
) -> None:
    roc = roc_curve(np.array(scores, np.float32), np.array(labels, bool))
    write_plots(tmp_path, roc, tar_at_far(roc, [0.1, 0.0, 1.0]), best_accuracy(roc)[0])
    assert len(list(tmp_path.glob("*.png"))) == len(list(tmp_path.glob("*.svg"))) == 3


def test_the_same_figures_give_the_same_plots(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    genuine = np.arange(100) < 40
    roc = roc_curve(rng.normal(size=100) + genuine, genuine)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_plots(tmp_path / name, roc, [], 0.5)
    for path in (tmp_path / "one").glob("*.svg"):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
        assert re.search(rb"<dc:date>", path.read_bytes()) is None


def test_a_thumbnail_is_small_and_keeps_its_shape(tmp_path: Path) -> None:
    Image.new("RGB", (400, 200), "red").save(tmp_path / "a.png")
    address = thumbnail(tmp_path / "a.png", side=64)
    assert address.startswith("data:image/jpeg;base64,")
    assert Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).size == (64, 32)


def test_keys_find_their_files(tmp_path: Path) -> None:
    names = ["a/b#1.png", "a/100%.png", "a/plain.jpg", "a/two.jpg", "a/two.png", "a/plain.txt"]
    (tmp_path / "a").mkdir()
    for name in names:
        (tmp_path / name).touch()
    assert find_picture(tmp_path, "a/b%231.png#2") == tmp_path / "a/b#1.png"
    assert find_picture(tmp_path, "a/100%25.png") == tmp_path / "a/100%.png"
    assert find_picture(tmp_path, "a/plain") == tmp_path / "a/plain.jpg"
    for key, crop in (("c/d.jpg#2", "c/d#2.jpg"), ("c/e.pgm#1", "c/e#1.pgm.png")):
        (tmp_path / "c").mkdir(exist_ok=True)
        (tmp_path / crop).touch()
        assert find_picture(tmp_path, key) == tmp_path / crop
    for unknown in ("a/two", "a/none.jpg", "b/none.jpg", "x" * 5000, "a"):
        with pytest.raises(PictureError):
            find_picture(tmp_path, unknown)


@pytest.mark.parametrize(
    "key", ["../secret.png", "a/../../secret.png", "%2e%2e/secret.png", "/etc/passwd", "a\0b.png"]
)
def test_no_key_leads_out_of_the_folder_of_pictures(tmp_path: Path, key: str) -> None:
    (tmp_path / "faces" / "a").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    with pytest.raises(PictureError, match="leads out"):
        find_picture(tmp_path / "faces", key)


def test_an_interval_that_takes_pairs_for_independent_is_said_to_do_so(tmp_path: Path) -> None:
    scores, report = tmp_path / "s.csv", tmp_path / "report"
    scores.write_text("label,score\n1,0.9\n1,0.3\n0,0.5\n0,0.1\n")
    verify_pairs(VerifyOptions(pairs=scores, report=report))
    page = (report / "index.html").read_text("utf-8")
    for card in ("Area under the ROC curve", "Equal error rate"):
        assert "95 % of independent pairs: " in page.partition(card)[2].partition("</div>")[0]
