"""The page of a comparison: self-contained, and nothing hostile in it comes to life."""

from __future__ import annotations

import csv
import json
import stat
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceidx.errors import InputError
from faceidx.evaluation.comparison import CompareOptions, compare_systems
from faceidx.evaluation.comparison_report import disagreements
from faceidx.evaluation.plots import Curve, det_plot, roc_plot
from faceidx.evaluation.roc import roc_curve
from faceidx.images.keys import escape_key

FILES = {"index.html", "figures.json", "roc.png", "roc.svg", "det.png", "det.svg"}
HOSTILE = "p2/<script>alert(1)<script> & \"q\" 'x' $title ${made}.png"


class _Page(HTMLParser):
    """Tags and text as a browser would find them; every element must be closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(path.read_text("utf-8"))
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in ("meta", "img"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def images(self, kind: str) -> list[dict[str, str]]:
        start = f"data:image/{kind};base64,"
        return [a for tag, a in self.tags if tag == "img" and a["src"].startswith(start)]


@pytest.fixture(autouse=True)
def _no_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of DeLong's figures look the same and take a tenth of the time."""
    monkeypatch.setattr("faceidx.evaluation.bootstrap._MOST_WORK", 0)


@pytest.fixture
def job(tmp_path: Path) -> CompareOptions:
    """Pictures of four people, all their pairs, and two systems that disagree on some."""
    keys = [f"p{person}/{number}.png" for person in range(4) for number in range(4)]
    keys[keys.index("p2/0.png")] = HOSTILE
    for number, key in enumerate(keys):
        path = tmp_path / "faces" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (10 * number, 90, 200)).save(path)
    rng = np.random.default_rng(0)
    names = ["<b>old.csv", "$new$.csv"]
    pairs = [(a, b) for a in range(len(keys)) for b in range(a)]
    genuine = [keys[a][:2] == keys[b][:2] for a, b in pairs]
    base = rng.normal(size=len(pairs)) + 2 * np.array(genuine)
    for name in names:
        scores = base + rng.normal(size=len(pairs))
        with (tmp_path / name).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("left", "right", "label", "score"))
            for (a, b), label, score in zip(pairs, genuine, scores, strict=True):
                writer.writerow((escape_key(keys[a]), escape_key(keys[b]), int(label), score))
    return CompareOptions(
        scores=[tmp_path / name for name in names],
        report=tmp_path / "report",
        pictures=tmp_path / "faces",
    )


def _page(options: CompareOptions) -> _Page:
    assert options.report is not None
    return _Page(options.report / "index.html")


def test_the_report_is_whole_and_for_its_owner_only(job: CompareOptions) -> None:
    compared = compare_systems(job)
    assert job.report is not None
    assert {path.name for path in job.report.iterdir()} == FILES
    assert stat.S_IMODE(job.report.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in job.report.iterdir()} == {0o600}
    assert json.loads((job.report / "figures.json").read_text()) == compared.as_json()


def test_the_page_needs_nothing_but_itself_and_runs_nothing(job: CompareOptions) -> None:
    compare_systems(job)
    page = _page(job)
    assert len(page.images("svg+xml")) == 2
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "b")
        assert attributes.get("src", "data:").startswith("data:")
    assert "<b>old, $new$: 120 pairs, 24 of one person and 96 of two" in page.text
    assert "$new$ against <b>old" in page.text
    assert escape_key(HOSTILE) in page.text
    assert f"faceidx verify-pairs --compare '{job.scores[0]}' '{job.scores[1]}'" in page.text
    for told in ("Accuracy", "TAR at FAR 0.001", "p of independent pairs", "numpy "):
        assert told in page.text


def test_the_pairs_on_which_systems_disagree_are_shown_with_their_faces(
    job: CompareOptions,
) -> None:
    compared = compare_systems(job)
    first, other = compared.systems
    page = _page(job)
    figures = [a for tag, a in page.tags if tag == "figure" and a["class"] == "pair"]
    shown = [*disagreements(first, other), *disagreements(other, first)]
    assert len(figures) == len(shown) > 4
    assert len(page.images("jpeg")) == 2 * len(shown)
    for row in shown:
        assert f"{first.scores[row]:.4f} → {other.scores[row]:.4f}" in page.text
        for name in compared.names(row):
            assert name in {image["alt"] for image in page.images("jpeg")}
    job.pictures, job.overwrite = None, True
    compare_systems(job)
    page = _page(job)
    assert page.images("jpeg") == [] and compared.names(shown[0])[0] in page.text


def test_pairs_are_ordered_by_how_far_their_ranks_lie_apart(job: CompareOptions) -> None:
    job.report, job.pictures = None, None
    first, other = compare_systems(job).systems
    assert first.right is not None and other.right is not None

    def rank(scores: np.ndarray, row: int) -> float:
        return float(np.sum(scores < scores[row]) + np.sum(scores == scores[row]) / 2)

    rows = [i for i in range(len(first.scores)) if other.right[i] and not first.right[i]]
    apart = [abs(rank(other.scores, i) - rank(first.scores, i)) for i in rows]
    expected = [row for _, row in sorted(zip(np.negative(apart), rows, strict=True))]
    assert disagreements(first, other) == expected[:12]
    assert disagreements(first, other, 2) == expected[:2]


def test_scores_without_names_are_shown_by_their_lines(tmp_path: Path) -> None:
    labels = [1] * 20 + [0] * 20
    for name, turn in (("a", 1), ("b", -1)):
        rows = [f"{label},{label + turn * (i % 5 - 2)}" for i, label in enumerate(labels)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["label,score", *rows]))
    options = CompareOptions(
        scores=[tmp_path / "a.csv", tmp_path / "b.csv"], report=tmp_path / "report"
    )
    compared = compare_systems(options)
    row = disagreements(*compared.systems)[0]
    text = _page(options).text
    assert f"line {row + 2}" in text
    assert "Not all files name their pictures" in text


def test_only_a_report_of_ours_is_replaced(job: CompareOptions) -> None:
    compare_systems(job)
    with pytest.raises(InputError, match="--overwrite"):
        compare_systems(job)
    assert job.report is not None
    moved = job.report / "old.csv"
    job.scores[0].rename(moved)
    job.overwrite, job.scores[0] = True, moved
    with pytest.raises(InputError, match="lies in the report's folder"):
        compare_systems(job)
    moved.rename(job.report.parent / "old.csv")
    job.scores[0] = job.report.parent / "old.csv"
    compare_systems(job)
    for path in job.report.iterdir():
        path.unlink()
    (job.report / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="no report of ours"):
        compare_systems(job)
    assert (job.report / "thesis.tex").is_file()


def test_legends_show_names_as_they_are() -> None:
    rng = np.random.default_rng(0)
    genuine = np.arange(60) < 20
    names = ["_hidden", r"$\frac{a}$", "x" * 100, "a\x1b[31mb", "e", "f"]
    curves = [Curve(roc_curve(rng.normal(size=60) + genuine, genuine), (), n) for n in names]
    for plot in (roc_plot, det_plot):
        figure = plot(curves)
        figure.draw_without_rendering()  # a formula that cannot be parsed would fail here
        legend = figure.axes[0].get_legend()
        assert legend is not None
        told = [text.get_text().strip() for text in legend.get_texts()]
        assert told[:2] == names[:2] and len(told) == len(names)
        assert told[2] == "..." + "x" * 30 and told[3] == r"a\x1b[31mb"
        assert len({line.get_color() for line in legend.get_lines()}) == len(names)
    assert roc_plot(curves[:1]).axes[0].get_legend() is None
