"""Recognising a list from the whole file, refusing what is ambiguous, and finding its pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from faceidx.errors import InputError
from faceidx.evaluation.lists import FORMATS, PairList, ScoreList, read_list, resolve


def _write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def _refusal(path: Path, name: str = "auto") -> str:
    with pytest.raises(InputError) as caught:
        read_list(path, format=name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _pairs(path: Path, name: str = "auto") -> PairList:
    found = read_list(path, format=name)
    assert isinstance(found, PairList)
    return found


@pytest.mark.parametrize(
    ("file", "folder", "pairs", "genuine"),
    [
        ("lfw-pairs-dev.txt", "lfw-dev", 600, 300),
        ("lfw-pairs-raw.txt", "lfw-raw", 200, 100),
    ],
)
def test_official_lists_are_read_whole_and_every_picture_is_found(
    shared_data: Path, file: str, folder: str, pairs: int, genuine: int
) -> None:
    found = _pairs(shared_data / file)
    assert (found.format, len(found.left), found.genuine.sum()) == ("lfw", pairs, genuine)
    assert found.lines.tolist() == list(range(2, pairs + 2))
    assert found.folds is not None and set(found.folds.tolist()) == {0}
    root = shared_data / folder
    known = sorted(p.relative_to(root).as_posix() for p in root.rglob("*.jpg"))
    rows = resolve(found, known)
    assert rows.min() >= 0
    people = [known[row].split("/")[0] for row in rows]
    same = np.array([people[a] == people[b] for a, b in zip(found.left, found.right, strict=True)])
    assert np.array_equal(same, found.genuine)


def test_a_list_whose_pictures_are_named_0_and_1_is_ambiguous_and_both_formats_are_named(
    tmp_path: Path,
) -> None:
    path = _write(tmp_path / "p.txt", "# who is who\n0 x.jpg 1\n1 y.jpg 0\n")
    message = _refusal(path)
    assert f"{path}:2:" in message and "--format pairs01 or 01pairs" in message
    assert _pairs(path, "pairs01").keys == ["0", "x.jpg", "1", "y.jpg"]
    assert _pairs(path, "01pairs").keys == ["x.jpg", "1", "y.jpg", "0"]


def test_the_last_line_decides_between_two_formats(tmp_path: Path) -> None:
    path = _write(tmp_path / "p.txt", "0 x.jpg 1\n" * 500 + "z.jpg x.jpg 0\n")
    assert _pairs(path).format == "pairs01"


def test_a_line_that_ends_both_readings_is_named_with_both(tmp_path: Path) -> None:
    path = _write(tmp_path / "p.txt", "0 x.jpg 1\n1 y.jpg 0\na b c\n")
    message = _refusal(path)
    assert f"{path}:3:" in message and "pairs01 or 01pairs" in message


def test_impostor_pairs_of_lfw_alone_could_be_scores_of_bob(tmp_path: Path) -> None:
    path = _write(tmp_path / "p.txt", "Ann 1 Bob 2\nAnn 2 Cy 3\n")
    message = _refusal(path)
    assert "lfw" in message and "bob" in message
    assert _pairs(path, "lfw").genuine.tolist() == [False, False]


def test_a_file_like_no_format_is_refused_with_the_formats(tmp_path: Path) -> None:
    message = _refusal(_write(tmp_path / "p.txt", "\nto be or not to be\n"))
    assert f"{tmp_path / 'p.txt'}:2:" in message
    assert all(name in message for name in FORMATS)


@pytest.mark.parametrize("content", ["", "\n \n", "# only\n#\n", "\ufeff"])
def test_an_empty_list_is_refused(tmp_path: Path, content: str) -> None:
    assert "holds no pairs" in _refusal(_write(tmp_path / "p.txt", content))


@pytest.mark.parametrize("content", [b"\x00\x01\x02", "a b 1\n".encode("utf-16-le")])
def test_a_binary_file_is_refused(tmp_path: Path, content: bytes) -> None:
    assert "NUL" in _refusal(_write(tmp_path / "p.txt", content))


def test_a_nul_byte_far_into_a_list_is_named_with_its_line(tmp_path: Path) -> None:
    path = _write(tmp_path / "p.txt", "a.jpg b.jpg 1\n" * 2000 + "a.jpg b\0.jpg 0\n")
    assert f"{path}:2001: holds a NUL byte" in _refusal(path)


def test_missing_paths_and_unknown_formats_are_refused(tmp_path: Path) -> None:
    assert "no such file or folder" in _refusal(tmp_path / "absent.txt")
    path = _write(tmp_path / "p.txt", "a b 1\n")
    assert "there is no format" in _refusal(path, "excel")
    assert "is a folder" in _refusal(tmp_path, "lfw")
    assert "is a file" in _refusal(path, "ijb")
    assert "no list known here" in _refusal(tmp_path)


def test_names_are_escaped_as_in_embeddings_files(tmp_path: Path) -> None:
    content = b"./caf\xe9.jpg 100%.jpg 1\n././caf\xe9.jpg \xc3\xa9.jpg 0\n"
    found = _pairs(_write(tmp_path / "p.txt", content))
    assert found.keys == ["caf%E9.jpg", "100%25.jpg", "é.jpg"]
    assert found.left.tolist() == [0, 0]


def test_backslashes_are_slashes_where_the_list_has_no_other(tmp_path: Path) -> None:
    windows = _pairs(_write(tmp_path / "w.txt", ".\\a\\1.jpg b\\2.jpg 1\n"))
    assert windows.keys == ["a/1.jpg", "b/2.jpg"]
    mixed = _pairs(_write(tmp_path / "m.txt", "a\\1.jpg b/2.jpg 1\n"))
    assert mixed.keys == ["a\\1.jpg", "b/2.jpg"]


def test_a_picture_without_a_name_is_refused_with_its_line(tmp_path: Path) -> None:
    path = _write(tmp_path / "p.txt", "a.jpg b.jpg 1\na.jpg ./ 0\n")
    assert f"{path}:2: a picture has no name" in _refusal(path, "pairs01")


def test_self_pairs_and_repeated_pairs_are_kept(tmp_path: Path) -> None:
    found = _pairs(_write(tmp_path / "p.txt", "a b 1\na b 1\na a 1\n"))
    assert found.left.tolist() == [0, 0, 0] and found.right.tolist() == [1, 1, 0]


def test_a_comment_that_reads_as_a_pair_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "p.txt", "# chosen by hand\na b 1\n# b 1\n")
    assert f"{path}:3: is a comment and a line of the list at once" in _refusal(path)
    named = _pairs(_write(tmp_path / "q.txt", "./# b 1\n#a.jpg b 0\n"))
    assert named.keys == ["#", "b", "#a.jpg"]


def test_pictures_without_suffix_are_found_and_two_suffixes_are_refused(tmp_path: Path) -> None:
    found = _pairs(_write(tmp_path / "p.txt", "Ann\t1\t2\nAnn\t1\tBo.B\t3\n"))
    assert found.stems
    assert found.keys == ["Ann/Ann_0001", "Ann/Ann_0002", "Bo.B/Bo.B_0003"]
    known = ["Ann/Ann_0002.jpg", "Bo.B/Bo.B_0003", "Ann/Ann_0001.png", "Ann/Ann_00010.png"]
    assert resolve(found, known).tolist() == [2, 0, 1]
    assert resolve(found, known[:1]).tolist() == [-1, 0, -1]
    with pytest.raises(InputError, match=r"p\.txt:1: a name fits 2 known pictures; keep one"):
        resolve(found, [*known, "Ann/Ann_0002.webp"])
    assert resolve(found, [*known, "Ann/Ann_0002"])[1] == 4  # the exact key comes first


def test_only_lists_without_suffixes_are_matched_by_stem(tmp_path: Path) -> None:
    found = _pairs(_write(tmp_path / "p.txt", "a b.jpg 1\n"))
    assert resolve(found, ["a.jpg", "b.jpg"]).tolist() == [-1, 1]


def test_a_name_that_was_escaped_already_is_found(tmp_path: Path) -> None:
    found = _pairs(_write(tmp_path / "p.txt", "100%25.jpg caf%E9.jpg 1\n"))
    assert resolve(found, ["100%25.jpg", "caf%E9.jpg"]).tolist() == [0, 1]


def test_what_the_command_writes_as_scores_is_read_as_scores(tmp_path: Path) -> None:
    text = "left,right,label,score\na.jpg,b.jpg,1,0.75\na.jpg,c.jpg,0,-0.25\n"
    found = read_list(_write(tmp_path / "s.csv", text))
    assert isinstance(found, ScoreList) and found.format == "scores"
    assert found.scores.tolist() == [0.75, -0.25] and found.genuine.tolist() == [True, False]
    assert found.left is not None and list(found.left) == ["a.jpg", "a.jpg"]
    assert found.right is not None and list(found.right) == ["b.jpg", "c.jpg"]
    assert _pairs(tmp_path / "s.csv", "csv").keys == ["a.jpg", "b.jpg", "c.jpg"]
