"""The building blocks of our pages: hostile text stays text, and every element is closed."""

from __future__ import annotations

import base64
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from faceidx.evaluation import markup

HOSTILE = "</title></td><script>alert(1)</script> & \"q\" 'x' $title ${body} -->"


class _Parsed(HTMLParser):
    """Tags and text as a browser would find them; every element must be closed in order."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(source)
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in ("meta", "img"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize(
    ("build", "copies"),
    [
        (lambda text: markup.table((text, text), [(text, text), (text, text)]), 6),
        (lambda text: markup.table((), [(text, text)], numbers=True), 2),
        (lambda text: markup.card(text, text, text), 3),
        (lambda text: markup.notes([text, text]), 2),
        (lambda text: markup.page(title=text, body=""), 1),
        (lambda text: markup.face(text, text), 0),
        (lambda text: markup.face(text, text, Path("/no/such")), 0),
        (lambda text: markup.image(text, b"<svg/>"), 0),
        (lambda text: markup.pair_figure([], score=text, tag=text, lines=[text], wrong=True), 3),
    ],
)
def test_hostile_text_is_text_and_nothing_else(build: Callable[[str], str], copies: int) -> None:
    plain, hostile = _Parsed(build("x")), _Parsed(build(HOSTILE))
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags]
    assert [sorted(a) for _, a in hostile.tags] == [sorted(a) for _, a in plain.tags]
    assert hostile.text.count(HOSTILE) == copies


def test_an_image_is_inert_and_says_what_it_shows() -> None:
    svg = b"<svg><script>alert(1)</script></svg>"
    ((tag, attributes),) = _Parsed(markup.image(HOSTILE, svg)).tags
    assert tag == "img" and attributes["alt"] == HOSTILE
    assert attributes["src"].startswith("data:image/svg+xml;base64,")
    assert base64.b64decode(attributes["src"].partition(",")[2]) == svg


def test_a_face_is_a_small_picture_or_the_reason_why_not(tmp_path: Path) -> None:
    Image.new("RGB", (300, 300), "red").save(tmp_path / "a.png")
    for source in ("a.png", tmp_path / "a.png", (tmp_path / "a.png").read_bytes()):
        ((tag, attributes),) = _Parsed(markup.face(source, HOSTILE, tmp_path)).tags
        assert tag == "img" and attributes["alt"] == HOSTILE
        assert attributes["src"].startswith("data:image/jpeg;base64,")
    for source, root, why in (
        ("a.png", None, "no folder of pictures was given"),
        ("b.png", tmp_path, "not in the folder of pictures"),
        (b"nothing of the kind", tmp_path, "not a picture"),
    ):
        parsed = _Parsed(markup.face(source, "a face", root))
        assert parsed.tags == [("div", {"class": "none"})]
        assert why in parsed.text


def test_a_page_is_the_frame_around_its_body_and_allows_no_scripts() -> None:
    source = markup.page(title="t", body="<p>$kept ${as} it is</p>")
    page = _Parsed(source)
    assert "<main>\n<p>$kept ${as} it is</p>\n</main>" in source
    policy = [a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    assert not {"script", "link"} & {tag for tag, _ in page.tags}
    assert not [text for text in ("http:", "https:", "url(", "@import") if text in source]


def test_a_table_names_its_rows_and_sets_numbers_to_the_right() -> None:
    rows = [("row", "1", "2")]
    with_head = _Parsed(markup.table(("", "a", "b"), rows, numbers=True))
    assert with_head.tags.count(("th", {"scope": "row"})) == 1
    assert with_head.tags.count(("td", {"class": "number"})) == 2
    assert with_head.tags.count(("th", {"class": "number", "scope": "col"})) == 2
    assert "thead" not in {tag for tag, _ in _Parsed(markup.table((), rows)).tags}


def test_without_warnings_there_is_no_box_of_notes() -> None:
    assert markup.notes([]) == ""
    assert _Parsed(markup.notes(["one thing", "two"])).text == "One thing.Two."


def test_only_wrong_verdicts_are_marked() -> None:
    for wrong, name in ((True, "pair error"), (False, "pair")):
        figure = markup.pair_figure(["<i></i>"], score="1", tag="t", lines=["l"], wrong=wrong)
        assert _Parsed(figure).tags[0] == ("figure", {"class": name})


def test_shares_and_counts_are_written_as_people_read_them() -> None:
    assert [markup.share(0.98765), markup.share(0.98765, 1)] == ["98.765%", "98.8%"]
    assert markup.share(None) == "unknown"
    assert [markup.plural(n, "pair", "pairs") for n in (0, 1, 2000)] == [
        "0 pairs",
        "1 pair",
        "2,000 pairs",
    ]
