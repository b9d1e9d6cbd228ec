from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest

from faceidx.errors import InputError
from faceidx.evaluation.groups import GroupTable, Members, members_of, read_groups
from faceidx.evaluation.lists.pairs import PairList, ScoreList, Templates
from faceidx.images.keys import escape_key


def _table(path: Path, text: str | bytes) -> GroupTable:
    path.write_bytes(text.encode("utf-8") if isinstance(text, str) else text)
    return read_groups(path)


def _listed(keys: list[str], **more: object) -> PairList:
    """Every key paired with itself."""
    rows = np.arange(len(keys))
    return PairList(
        path=Path("pairs.txt"),
        format="csv",
        keys=keys,
        left=rows,
        right=rows,
        genuine=np.ones(len(keys), dtype=bool),
        lines=rows + 1,
        **more,  # type: ignore[arg-type]
    )


def _found(members: Members) -> list[str | None]:
    """The group of each key."""
    return [members.groups[row] if row >= 0 else None for row in members.group]


# --- the file ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("identity,group\nann,x\nbob,y\n", "identity"),
        ("Group,IDENTITY\nx,ann\ny,bob\n", "identity"),
        ("\ufeffidentity,group\r\nann,x\r\nbob,y\r\n", "identity"),
        ("identity,group\rann,x\rbob,y", "identity"),
        ("name, group \n ann , x \n\nbob,y\n\n", "identity"),
        ('born,identity,group,note\n1900,ann,x,"a,b"\n,bob,y,\n', "identity"),
        ("identity\tgroup\nann\tx\nbob\ty\n", "identity"),
        ("identity,name,group\nann,Ann B.,x\nbob,Bob C.,y\n", "identity"),
        ("identity,group\nann,x\nbob,y\nann,x\n", "identity"),
        ("path,group\nann,x\n./bob,y\nbob,y\n", "path"),
        ("picture,group\nann,x\nbob,y\n", "path"),
        ("path,name,group\nann,Ann B.,x\nbob,Bob C.,y\n", "path"),
    ],
)
def test_tables_are_read_however_they_are_written(tmp_path: Path, text: str, kind: str) -> None:
    table = _table(tmp_path / "g.csv", text)
    assert (table.kind, table.keys, table.groups) == (kind, ["ann", "bob"], ["x", "y"])


def test_names_are_escaped_like_keys(tmp_path: Path) -> None:
    people = _table(tmp_path / "i.csv", b"identity,group\n100%,x\ncaf\xe9,y\nO\\N,z\n")
    assert people.keys == ["100%25", "caf%E9", "O\\N"]
    pictures = _table(tmp_path / "p.csv", b"path,group\nann\\1%.jpg,x\nbob\\caf\xe9.jpg,y\n")
    assert pictures.keys == ["ann/1%25.jpg", "bob/caf%E9.jpg"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("identity,path,group\na,b,x\n", r"g\.csv:1: the header has both identity and path"),
        ("name,picture,group\na,b,x\n", r"g\.csv:1: the header has both name and picture"),
        ("person,group\na,x\n", r"g\.csv:1: .*`identity` or `path`"),
        ("identity,sex\na,x\n", r"g\.csv:1: .*`group`"),
        ("identity,group,Group\na,x,y\n", r"g\.csv:1: the header names 'group' twice"),
        ("ann,x\nbob,y\n", r"g\.csv:1: .*`identity` or `path`"),
        ("identity,group\n", r"g\.csv:1: no groups follow"),
        ("", r"g\.csv:1: no groups follow"),
        ("identity,group\na,x\nb, \n", r"g\.csv:3: the group is empty"),
        ("identity,group\na,x\n,y\n", r"g\.csv:3: the identity is empty"),
        ("picture,group\na,x\n,y\n", r"g\.csv:3: the path is empty"),
        ("identity,group\na,x\nb\n", r"g\.csv:3: has 1 cells"),
        ("identity,group\na,x\nb,y,z\n", r"g\.csv:3: has 3 cells"),
        ('identity,group\na,"x\n', r"g\.csv:2: is no row of a table"),
        ("identity,group\na,x\0\n", r"g\.csv:2: holds a NUL"),
        (b"identity,group\na,caf\xe9\n", r"g\.csv:2: the group is not written in UTF-8"),
        (
            "identity,group\na,x\nb,y\na,x\na,y\n",
            r"g\.csv:5: 'a' is in the group 'y' here, but in 'x' in line 2",
        ),
        ('path,group\n./a,x\n"b\n",y\na,y\n', r"g\.csv:5: 'a' .*'y' here, but in 'x' in line 2"),
    ],
)
def test_faults_name_the_file_and_the_line(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(InputError, match=words):
        _table(tmp_path / "g.csv", text)


def test_mangled_tables_are_read_whole_or_refused_with_their_line(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pieces = ("ann", "b/1.jpg", ",", ",", "\n", "\r\n", "\r", '"', "\t", " ", "%", "\udce9")
    path, read = tmp_path / "g.csv", 0
    for _ in range(1500):
        drawn = (pieces[i] for i in rng.integers(0, len(pieces), rng.integers(1, 12)))
        text = "path,group\nzoe,x\n" + "".join(drawn)
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        try:
            table = read_groups(path)
        except InputError as error:
            assert re.match(rf"{re.escape(str(path))}:\d+: [^\n]+$", str(error))
            continue
        read += 1
        rows = list(csv.reader(io.StringIO(text, newline=None)))[1:]
        expected = {
            escape_key(row[0].strip()): row[1].strip() for row in rows if any(map(str.strip, row))
        }
        assert dict(zip(table.keys, table.groups, strict=True)) == expected
    assert read > 100


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"g\.csv: no such file; give a CSV with the columns"):
        read_groups(tmp_path / "g.csv")


# --- whose group -------------------------------------------------------------------------------


def test_people_are_found_by_identity_and_numbered_by_the_groups_names(tmp_path: Path) -> None:
    table = _table(tmp_path / "g.csv", "identity,group\nbob,b\nann,a\nzoe,c\n")
    members = members_of(table, _listed(["1.jpg", "2.jpg", "3.jpg"]), ["bob", "", "ann"])
    assert members.groups == ["a", "b", "c"]
    assert _found(members) == ["b", None, "a"]
    assert members.names == ["bob", "2.jpg", "ann"]


def test_pictures_are_found_as_lists_name_them(tmp_path: Path) -> None:
    table = _table(tmp_path / "g.csv", "path,group\nann/1.jpg,a\nann/2.jpg,b\nbob/1%.png,c\n")
    people = ["ann", "ann", "bob", "bob"]
    plain = _listed(["ann/1.jpg", "ann/2.jpg", "bob/1%25.png", "bob/2.png"])
    assert _found(members_of(table, plain, people)) == ["a", "b", "c", None]
    stems = _listed(["ann/1", "ann/2", "bob/1%25", "ann/3"], stems=True)
    assert _found(members_of(table, stems, people)) == ["a", "b", "c", None]
    below = _listed(["set/ann/1.jpg", "set/ann/9.jpg"], prefix="set/")
    assert _found(members_of(table, below, people[:2])) == ["a", None]


def test_people_of_missing_pictures_are_found_without_the_lists_prefix(tmp_path: Path) -> None:
    table = _table(tmp_path / "g.csv", "identity,group\n001/frontal,a\n")
    listed = _listed(["Data/001/frontal/1.jpg"], prefix="Data/")
    assert _found(members_of(table, listed, ["Data/001/frontal"])) == ["a"]


@pytest.mark.parametrize("name", ["100%", "100%25"])
@pytest.mark.parametrize("wanted", ["100%25", "100%2525"])
def test_a_percent_sign_may_be_escaped_already(tmp_path: Path, name: str, wanted: str) -> None:
    """By the author of the table, of the list, or of both."""
    table = _table(tmp_path / "g.csv", f"identity,group\n{name},a\n")
    assert _found(members_of(table, _listed(["x.jpg"]), [wanted])) == ["a"]
    exact = _table(tmp_path / "g.csv", "identity,group\n100%25,b\n100%,a\n")
    assert _found(members_of(exact, _listed(["x.jpg"]), ["100%25"])) == ["a"]


def test_a_name_without_suffix_that_fits_two_pictures_is_refused(tmp_path: Path) -> None:
    table = _table(tmp_path / "g.csv", "path,group\na/1.jpg,x\na/1.png,x\n")
    with pytest.raises(InputError, match=r"g\.csv: a name fits 2 known pictures; keep one"):
        members_of(table, _listed(["a/1"], stems=True), ["a"])


def test_templates_are_found_by_person_by_id_and_by_their_pictures(tmp_path: Path) -> None:
    # Template 7 is made of 1.jpg and 2.jpg, 8 of 3.jpg alone, 9 of 4.jpg.
    templates = Templates(
        pictures=["1.jpg", "2.jpg", "3.jpg", "4.jpg"],
        picture=np.array([0, 1, 2, 3]),
        template=np.array([0, 0, 1, 2]),
        media=np.array([1, 2, 3, 4]),
    )
    listed = _listed(["7", "8", "9"], templates=templates)
    people = _table(tmp_path / "i.csv", "identity,group\nann,a\nbob,b\n")
    assert _found(members_of(people, listed, ["bob", "ann", ""])) == ["b", "a", None]
    ids = _table(tmp_path / "t.csv", "path,group\n8,b\n7,a\n")
    assert _found(members_of(ids, listed, ["", "", ""])) == ["a", "b", None]
    pictures = _table(tmp_path / "p.csv", "path,group\n2.jpg,a\n3.jpg,b\n")
    assert _found(members_of(pictures, listed, ["", "", ""])) == ["a", "b", None]


def _scores(left: list[str] | None, right: list[str] | None) -> ScoreList:
    return ScoreList(
        path=Path("s.csv"),
        format="scores",
        scores=np.array([0.5, 0.1]),
        genuine=np.array([True, False]),
        lines=np.array([2, 3]),
        left=left,
        right=right,
    )


def test_people_of_scores_are_the_folders_of_their_names(tmp_path: Path) -> None:
    listed = _scores(["ann/1.jpg", "100%/1.jpg"], ["ann/2.jpg", "1.jpg"])
    table = _table(tmp_path / "g.csv", "identity,group\nann,a\n100%,b\n")
    members = members_of(table, listed)
    assert _found(members) == ["a", "b", "a", None]
    assert (members.left.tolist(), members.right.tolist()) == ([0, 1], [2, 3])
    pictures = _table(tmp_path / "p.csv", "path,group\nann/2.jpg,a\n1.jpg,b\n")
    assert _found(members_of(pictures, listed)) == [None, None, "a", "b"]


def test_scores_without_names_are_refused(tmp_path: Path) -> None:
    table = _table(tmp_path / "g.csv", "identity,group\nann,a\n")
    with pytest.raises(InputError, match=r"s\.csv does not name the pictures"):
        members_of(table, _scores(None, None))
