from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from faceidx.images.sources import escape_key, is_picture_name, unescape_key


@given(st.binary())
@example(b"%41\xff%")
@example("é".encode())
def test_escaping_can_be_undone_for_any_bytes(raw: bytes) -> None:
    name = b"x" + raw  # a leading `./` is dropped on purpose
    key = escape_key(name)
    key.encode("utf-8")  # no surrogates are left
    assert unescape_key(key) == name


@given(st.text())
def test_text_and_its_bytes_have_one_key(text: str) -> None:
    assert escape_key(text) == escape_key(text.encode())


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        (b"anna/1.jpg", "anna/1.jpg"),
        (b"100%.jpg", "100%25.jpg"),
        (b"%41.jpg", "%2541.jpg"),
        (b"caf\xe9.jpg", "caf%E9.jpg"),
        ("café.jpg".encode(), "café.jpg"),
        (b"a\nb\x1b.jpg", "a\nb\x1b.jpg"),
        (b"././/a/./b.jpg", "a/./b.jpg"),
        (b".hidden.jpg", ".hidden.jpg"),
        (b"\xed\xa0\x80", "%ED%A0%80"),  # a surrogate is no valid UTF-8
    ],
)
def test_keys_are_utf8_with_other_bytes_and_percent_escaped(raw: bytes, key: str) -> None:
    assert escape_key(raw) == key
    assert escape_key(Path(os.fsdecode(raw)) if b"./" not in raw else raw) == key


def test_a_percent_that_starts_no_escape_stands_for_itself() -> None:
    assert unescape_key("5%.jpg") == b"5%.jpg"
    assert unescape_key("%zz%2") == b"%zz%2"


@pytest.mark.parametrize(
    "name", ["a.jpg", "a.JPEG", "a.jpe", "a.b.Heic", "a.tif", "a.pnm", "ü.gif"]
)
def test_pictures_are_known_by_extension(name: str) -> None:
    assert is_picture_name(name)


@pytest.mark.parametrize("name", ["jpg", "a.jpg.txt", "a.jpg ", "a", "a.", "a.jpgx", "a.mp4"])
def test_other_files_are_no_pictures(name: str) -> None:
    assert not is_picture_name(name)
