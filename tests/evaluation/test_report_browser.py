"""The report as a browser shows it: every picture is drawn, on a wide screen and on a phone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceidx.embedding.pipeline import PipelineOptions
from faceidx.evaluation.verification import VerifyOptions, verify_pairs
from faceidx.models.open import ModelOptions

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# The page forbids scripts; a copy that allows them is asked what became of its pictures.
_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
_ASK = """<script>onload = () => parent.postMessage(JSON.stringify({
  widths: [...document.images].map(image => image.naturalWidth),
  cut: [...document.querySelectorAll("div")].filter(e => e.scrollWidth > e.clientWidth + 1).length,
  page: document.documentElement.scrollWidth}), "*");</script>"""
_PAPER = 718  # CSS pixels between the margins that Chromium gives A4
# A frame may be as narrow as a phone; Chromium's own window is never below 500 pixels.
_FRAME = """<!doctype html><title></title><script>
onmessage = told => { document.title = told.data; };</script>
<iframe src="asked.html" width="%d" height="900" style="border: 0"></iframe>"""
_HUES = (
    (200, 30, 30),
    (30, 160, 40),
    (40, 60, 200),
    (220, 190, 30),
    (180, 40, 190),
    (30, 190, 190),
)


@pytest.fixture(scope="module")
def chromium() -> str:
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip(f"there is no Chromium to open the report with (none of {', '.join(_NAMES)})")
    return found


def _open(chromium: str, page: Path, *options: str) -> str:
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    profile = page.parent.parent / "profile"
    return subprocess.run(
        [*command, f"--user-data-dir={profile}", *options, page.as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout


def _widths(chromium: str, report: Path, page_width: int, *, printed: bool = False) -> list[int]:
    """Natural width of every picture of the page; it must fit the screen, or the paper."""
    text = (report / "index.html").read_text("utf-8")
    assert len(_POLICY.findall(text)) == 1
    if printed:
        text = text.replace("@media print", "@media all")
    asked = _POLICY.sub("", text).replace("</body>", f"{_ASK}</body>")
    (report / "asked.html").write_text(asked, "utf-8")
    (report / "frame.html").write_text(_FRAME % page_width, "utf-8")
    patience = "--virtual-time-budget=20000"
    dom = _open(chromium, report / "frame.html", patience, "--dump-dom")
    told = re.search(r"<title>(.*?)</title>", dom)
    assert told is not None
    answer = json.loads(unescape(told[1]))
    assert answer["page"] <= page_width
    assert not printed or answer["cut"] == 0
    return answer["widths"]


@pytest.fixture
def report(tmp_path: Path, embeddings: Callable[..., Path]) -> Path:
    """A report of pairs whose pictures are of one colour each."""
    keys = [f"p{k // 2}/{k % 2}.png" for k in range(len(_HUES))]
    for key, hue in zip(keys, _HUES, strict=True):
        (tmp_path / "faces" / key).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), hue).save(tmp_path / "faces" / key)
    rows = [f"{keys[k]},{keys[k + 1]},1" for k in (0, 2, 4)]
    rows += [f"{keys[j]},{keys[k]},0" for j, k in ((0, 2), (1, 4), (3, 5))]
    (tmp_path / "pairs.csv").write_text("left,right,label\n" + "\n".join(rows))
    verify_pairs(
        VerifyOptions(
            pairs=tmp_path / "pairs.csv",
            embeddings=embeddings(keys),
            report=tmp_path / "report",
            pictures=tmp_path / "faces",
        )
    )
    return tmp_path / "report"


@pytest.mark.parametrize("page_width", [1280, 390])
def test_a_browser_shows_every_plot_and_face_and_the_page_fits(
    chromium: str, report: Path, page_width: int
) -> None:
    widths = _widths(chromium, report, page_width)
    assert len(widths) == 3 + 2 * 6 and min(widths) > 0


def test_nothing_is_cut_off_on_paper(chromium: str, report: Path) -> None:
    assert min(_widths(chromium, report, _PAPER, printed=True)) > 0


def test_the_colours_of_all_faces_are_seen_on_a_screenshot(chromium: str, report: Path) -> None:
    shot = report / "shot.png"
    options = ("--window-size=1280,3000", f"--screenshot={shot}")
    _open(chromium, report / "index.html", *options)
    pixels = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    for hue in _HUES:  # each picture stands in two pairs; JPEG changes its colour a little
        assert np.count_nonzero(np.abs(pixels - hue).max(axis=2) < 12) > 2 * 50 * 50


def test_real_faces_judged_by_a_real_model_are_all_shown(
    chromium: str, shared_data: Path, tmp_path: Path
) -> None:
    judged = verify_pairs(
        VerifyOptions(
            pairs=shared_data / "lfw-pairs-dev.txt",
            images=shared_data / "lfw-dev",
            model=ModelOptions(
                path=shared_data / "weights/mobilefacenet_foamliu.onnx", preset="imagenet"
            ),
            pipeline=PipelineOptions(),
            report=tmp_path / "report",
            pictures=shared_data / "lfw-dev",
        )
    )
    assert round(judged.figures.auc, 4) == 0.9939
    widths = _widths(chromium, tmp_path / "report", 1280)
    assert len(widths) == 3 + 2 * 24 and min(widths) > 0
