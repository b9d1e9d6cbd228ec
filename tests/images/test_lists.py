from __future__ import annotations

import os
from pathlib import Path

import pytest

from faceidx.errors import InputError
from faceidx.images.sources import open_source, unescape_key


def _list(folder: Path, text: str | bytes, name: str = "list.txt") -> Path:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def _found(file: Path, root: Path | None = None) -> list[tuple[str, str]]:
    return [(p.key, p.identity) for p in open_source(file, root=root).pictures]


def test_a_text_list_names_pictures_relative_to_its_folder(tmp_path: Path) -> None:
    file = _list(tmp_path, "b.jpg\n\n  \r\nanna/1.jpg\r\n./de/bert//2.png\n# c.jpg\nnotes.txt")
    assert _found(file) == [
        ("# c.jpg", ""),
        ("anna/1.jpg", "anna"),
        ("b.jpg", ""),
        ("de/bert/2.png", "de/bert"),
    ]
    source = open_source(file)
    assert source.ignored == 1
    assert {p.path for p in source.pictures} >= {tmp_path / "anna/1.jpg", tmp_path / "b.jpg"}


def test_lines_of_spaces_are_blank_in_tables_too(tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_text("path\na.jpg\n \n\nb.jpg\n")
    assert _found(file) == [("a.jpg", ""), ("b.jpg", "")]
    file.write_text("path,identity\n ,anna\n")
    with pytest.raises(InputError, match=r"list\.csv:2: the path is empty"):
        open_source(file)


def test_files_that_do_not_exist_stay_in_the_list(tmp_path: Path) -> None:
    assert _found(_list(tmp_path, "gone/1.jpg\n")) == [("gone/1.jpg", "gone")]


def test_paths_are_relative_to_the_given_root(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    source = open_source(_list(tmp_path, "anna/1.jpg\n"), root=root)
    assert source.root == root
    assert source.pictures[0].path == root / "anna/1.jpg"


def test_absolute_paths_below_the_root_are_welcome(tmp_path: Path) -> None:
    alias = tmp_path / "alias"
    (tmp_path / "real").mkdir()
    alias.symlink_to("real")
    text = f"{tmp_path}/alias/a/1.jpg\n{tmp_path}/real//a/2.jpg\na/x/../3.jpg\n"
    assert _found(_list(alias, text)) == [("a/1.jpg", "a"), ("a/2.jpg", "a"), ("a/3.jpg", "a")]


@pytest.mark.parametrize("path", ["../x.jpg", "a/../../x.jpg", "/elsewhere/x.jpg", "..", "//x.jpg"])
def test_a_path_outside_the_root_is_an_error_at_its_line(tmp_path: Path, path: str) -> None:
    file = _list(tmp_path, f"a.jpg\n{path}\n")
    with pytest.raises(InputError, match=r"list\.txt:2: the path leads outside .* --root"):
        open_source(file)


def test_a_sibling_whose_name_starts_like_the_root_is_outside(tmp_path: Path) -> None:
    root = tmp_path / "ann"
    root.mkdir()
    with pytest.raises(InputError, match="outside"):
        open_source(_list(root, f"{tmp_path}/anna/1.jpg\n"))


@pytest.mark.parametrize("again", ["a/1.jpg", "./a/1.jpg", "a//1.jpg", "b/../a/1.jpg"])
def test_a_picture_listed_twice_is_an_error_naming_both_lines(tmp_path: Path, again: str) -> None:
    with pytest.raises(InputError, match=r"list\.txt:4: listed already in line 1"):
        open_source(_list(tmp_path, f"a/1.jpg\n\nb.jpg\n{again}\n"))


def test_of_several_pictures_listed_twice_the_first_line_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"list\.txt:3: listed already in line 1"):
        open_source(_list(tmp_path, "b.jpg\na.jpg\nb.jpg\na.jpg\n"))


def test_names_in_other_encodings_are_kept_byte_by_byte(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).touch()
    for file in (
        _list(tmp_path, b"caf\xe9.jpg\n"),
        _list(tmp_path, b"path,identity\ncaf\xe9.jpg,Andr\xe9\n", "list.csv"),
    ):
        (picture,) = open_source(file).pictures
        assert picture.key == "caf%E9.jpg"
        assert unescape_key(picture.key) == b"caf\xe9.jpg"
        assert picture.path.is_file()
    assert picture.identity == "Andr%E9"


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    assert _found(_list(tmp_path, b"\xef\xbb\xbfa.jpg\n")) == [("a.jpg", "")]
    assert _found(_list(tmp_path, b"\xef\xbb\xbfpath\r\na.jpg\r\n", "l.csv")) == [("a.jpg", "")]


def test_a_list_in_utf16_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"list\.txt:1: a zero byte; save the list as UTF-8"):
        open_source(_list(tmp_path, "a.jpg\n".encode("utf-16")))


def test_a_csv_list_gives_identities(tmp_path: Path) -> None:
    text = 'path,identity\nx/2.jpg,"Smith, Anna"\n"line\nbreak.jpg",\nx/1.jpg,50%\n'
    assert _found(_list(tmp_path, text, "list.CSV")) == [
        ("line\nbreak.jpg", ""),
        ("x/1.jpg", "50%25"),
        ("x/2.jpg", "Smith, Anna"),
    ]


def test_blanks_around_identities_belong_to_them_and_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = ["a.jpg,ann lee", "b.jpg, ann lee", "c.jpg,ann lee ", "d.jpg,"]
    file = _list(tmp_path, "\n".join(["path, identity", *rows]), "list.csv")
    assert [who for _, who in _found(file)] == ["ann lee", " ann lee", "ann lee ", ""]
    assert "list.csv: 2 identities begin or end with a blank" in caplog.text
    caplog.clear()
    _found(_list(tmp_path, "\n".join(["path,identity", rows[0], rows[3]]), "list.csv"))
    assert not caplog.text


def test_a_csv_list_without_identities_takes_them_from_the_folders(tmp_path: Path) -> None:
    assert _found(_list(tmp_path, "Path\nanna/1.jpg\n\n", "l.csv")) == [("anna/1.jpg", "anna")]


def test_the_columns_of_a_csv_list_may_stand_the_other_way_round(tmp_path: Path) -> None:
    assert _found(_list(tmp_path, "identity,path\nanna,1.jpg\n", "l.csv")) == [("1.jpg", "anna")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg\nb.jpg\n", r":1: the header must be `path` or `path,identity`"),
        ("path,idenity\na.jpg,x\n", r":1: the header must be"),
        ("", r":1: the header must be"),
        ("path,identity\na.jpg,x\nb.jpg\n", r":3: 1 fields, but the header has 2"),
        ("path\na,b.jpg\n", r":2: 2 fields, but the header has 1; .* quotes"),
        ("path,identity\n ,x\n", r":2: the path is empty"),
        ('path\na.jpg\n\n"b.jpg\n', r":4: no valid CSV"),
        ('path\n"a\nb.jpg"\n"x"y.jpg\n', r":4: no valid CSV"),
        ('path\n"a\nb.jpg"\na.jpg\na.jpg\n', r":5: listed already in line 4"),
        ("path\n\n../a.jpg\n", r":3: the path leads outside"),
        ("path\na\0.jpg\n", r":2: a zero byte"),
        ("path\n" + "a" * 200_000 + "\n", r":2: no valid CSV"),
    ],
)
def test_a_broken_csv_list_is_an_error_at_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=r"l\.csv" + message):
        open_source(_list(tmp_path, text, "l.csv"))


@pytest.mark.parametrize("text", ["", "\n\n", "notes.txt\nmovie.mp4\n"])
def test_a_list_without_pictures_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"list\.txt holds no pictures; [02] files ignored"):
        open_source(_list(tmp_path, text))


def test_a_root_that_is_no_folder_is_an_error(tmp_path: Path) -> None:
    file = _list(tmp_path, "a.jpg\n")
    with pytest.raises(InputError, match="is no folder"):
        open_source(file, root=file)
    with pytest.raises(InputError, match="no such file or folder"):
        open_source(file, root=tmp_path / "gone")
