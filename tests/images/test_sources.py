from __future__ import annotations

import logging
import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from faceidx.embedding.store import EmbeddingFile
from faceidx.errors import InputError
from faceidx.images import spill
from faceidx.images.sources import open_source, unescape_key
from tests.conftest import RunCli, draw


def _touch(root: Path, *names: str | bytes) -> None:
    for name in names:
        path = root / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def _keys(root: Path, **options: bool) -> list[str]:
    return [picture.key for picture in open_source(root, **options).pictures]


def test_a_folder_gives_its_pictures_with_the_parent_folder_as_identity(tmp_path: Path) -> None:
    _touch(tmp_path, "top.jpg", "anna/1.JPG", "anna/2.png", "de/bert/x.heic", "anna/notes.txt", "z")
    source = open_source(tmp_path)
    assert [(p.key, p.identity) for p in source.pictures] == [
        ("anna/1.JPG", "anna"),
        ("anna/2.png", "anna"),
        ("de/bert/x.heic", "de/bert"),
        ("top.jpg", ""),
    ]
    assert source.ignored == 2
    assert all(p.path == tmp_path / p.key for p in source.pictures)


def test_the_order_is_that_of_the_bytes_of_the_keys(tmp_path: Path) -> None:
    names = ["b.jpg", "a/x.jpg", "a.jpg", "a-b/x.jpg", "B.jpg", "é.jpg", "z.jpg", "￿.jpg", "𐀀.jpg"]
    _touch(tmp_path, *names)
    assert _keys(tmp_path) == sorted(names, key=lambda name: name.encode())


def test_hostile_names_are_kept_and_can_be_opened(tmp_path: Path) -> None:
    names = [
        b"line\nbreak.jpg",
        b"caf\xe9/1.jpg",
        b"50%25/\x1b[31m.jpg",
        b"<script>.jpg",
        b"x" * 251 + b".jpg",
        "日本/顔.jpg".encode(),
    ]
    _touch(tmp_path, *names)
    pictures = open_source(tmp_path).pictures
    assert sorted(unescape_key(p.key) for p in pictures) == sorted(names)
    assert all(p.path.is_file() for p in pictures)
    by_key = {p.key: p for p in pictures}
    assert by_key["caf%E9/1.jpg"].identity == "caf%E9"
    assert by_key["50%2525/\x1b[31m.jpg"].identity == "50%2525"


def test_names_that_differ_in_case_or_normalisation_alone_are_different(tmp_path: Path) -> None:
    names = ["caf\u00e9.jpg", "cafe\u0301.jpg", "CAF\u00c9.jpg", "a.jpg", "A.jpg", "a.JPG"]
    _touch(tmp_path, *names)
    if len(list(tmp_path.iterdir())) < len(names):
        pytest.skip("this file system takes some of these names for the same")
    assert _keys(tmp_path) == sorted(names, key=str.encode)


def test_folders_deeper_than_are_held_open_are_searched(tmp_path: Path) -> None:
    deep = "/".join("d" * 150)
    _touch(tmp_path, f"{deep}/1.jpg", f"{deep}/z/2.jpg", "d/d/3.jpg", "e/4.jpg")
    found = ["d/d/3.jpg", f"{deep}/1.jpg", f"{deep}/z/2.jpg", "e/4.jpg"]
    assert _keys(tmp_path) == sorted(found)


def test_hidden_files_are_ignored_and_hidden_folders_not_entered(tmp_path: Path) -> None:
    _touch(tmp_path, "a/1.jpg", "a/._1.jpg", ".Trash/2.jpg", ".DS_Store")
    source = open_source(tmp_path)
    assert [p.key for p in source.pictures] == ["a/1.jpg"]
    assert source.ignored == 2


def test_a_hidden_root_is_searched(tmp_path: Path) -> None:
    _touch(tmp_path, ".cache/a/1.jpg")
    assert _keys(tmp_path / ".cache") == ["a/1.jpg"]


def test_links_to_files_are_followed_and_dangling_ones_kept(tmp_path: Path) -> None:
    _touch(tmp_path, "outside/1.jpg")
    root = tmp_path / "root"
    root.mkdir()
    (root / "link.jpg").symlink_to(tmp_path / "outside/1.jpg")
    (root / "gone.jpg").symlink_to("nowhere.jpg")
    (root / "self.jpg").symlink_to("self.jpg")
    (root / "gone.txt").symlink_to("nowhere.txt")
    source = open_source(root)
    assert [p.key for p in source.pictures] == ["gone.jpg", "link.jpg", "self.jpg"]
    assert source.ignored == 1


def test_links_to_folders_are_followed_only_when_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _touch(tmp_path, "outside/1.jpg", "root/2.jpg")
    root = tmp_path / "root"
    (root / "anna").symlink_to(tmp_path / "outside")
    with caplog.at_level(logging.WARNING):
        assert _keys(root) == ["2.jpg"]
    assert "1 links to folders were not followed" in caplog.text
    assert "anna" not in caplog.text
    assert _keys(root, follow_links=True) == ["2.jpg", "anna/1.jpg"]


def test_circles_of_links_end(tmp_path: Path) -> None:
    _touch(tmp_path, "a/1.jpg", "a/b/2.jpg")
    (tmp_path / "a/b/up").symlink_to(tmp_path)
    (tmp_path / "a/self").symlink_to(".")
    (tmp_path / "loop").symlink_to("loop")
    assert _keys(tmp_path, follow_links=True) == ["a/1.jpg", "a/b/2.jpg"]


def test_a_folder_is_found_under_its_own_name_rather_than_a_link(tmp_path: Path) -> None:
    _touch(tmp_path, "real/1.jpg", "real/sub/2.jpg")
    (tmp_path / "alias").symlink_to("real")
    (tmp_path / "deeper").symlink_to("real/sub")
    assert _keys(tmp_path, follow_links=True) == ["real/1.jpg", "real/sub/2.jpg"]


def test_a_folder_behind_two_links_is_entered_by_the_first_in_order(tmp_path: Path) -> None:
    _touch(tmp_path, "outside/1.jpg", "outside/sub/2.jpg")
    root = tmp_path / "root"
    root.mkdir()
    (root / "b").symlink_to(tmp_path / "outside")
    (root / "a").symlink_to(tmp_path / "outside/sub")
    (root / "c").symlink_to(tmp_path / "outside")
    assert _keys(root, follow_links=True) == ["a/2.jpg", "b/1.jpg"]


def test_a_folder_and_a_pipe_named_like_pictures(tmp_path: Path) -> None:
    _touch(tmp_path, "album.jpg/1.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert _keys(tmp_path) == ["album.jpg/1.jpg", "pipe.jpg"]


def test_what_vanishes_during_the_search_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _touch(tmp_path, "a/1.jpg", "b/2.jpg", "c/3.jpg")
    real = os.scandir

    def scandir(folder: str) -> Iterator[os.DirEntry[str]]:
        if folder.endswith("b"):
            raise FileNotFoundError(2, "No such file or directory")
        if folder.endswith("c"):
            raise NotADirectoryError(20, "Not a directory")
        return real(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    assert _keys(tmp_path) == ["a/1.jpg"]


def test_a_folder_that_cannot_be_read_is_an_error_not_a_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _touch(tmp_path, "a/1.jpg", "b/2.jpg")
    real = os.scandir

    def scandir(folder: str) -> Iterator[os.DirEntry[str]]:
        if folder.endswith("b"):
            raise PermissionError(13, "Permission denied")
        return real(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(InputError, match=r"/b cannot be read: Permission denied"):
        open_source(tmp_path)


def test_one_picture_is_a_source_of_one(tmp_path: Path) -> None:
    _touch(tmp_path, "anna/50%.jpg")
    source = open_source(tmp_path / "anna/50%.jpg")
    assert [(p.key, p.identity) for p in source.pictures] == [("50%25.jpg", "")]
    assert source.pictures[0].path.is_file()
    assert source.ignored == 0


@pytest.mark.parametrize("name", ["gone", "gone.jpg", "gone.txt", "a.jpg/x.jpg", "nul\0.jpg"])
def test_a_missing_source_is_an_error(tmp_path: Path, name: str) -> None:
    _touch(tmp_path, "a.jpg")
    with pytest.raises(InputError, match=r"no such file or folder|cannot be read"):
        open_source(tmp_path / name)


def test_a_folder_without_pictures_is_an_error_that_counts_what_is_there(tmp_path: Path) -> None:
    _touch(tmp_path, "a.txt", "b/c.mp4")
    with pytest.raises(InputError, match="holds no pictures; 2 files ignored"):
        open_source(tmp_path)


def test_a_file_that_is_neither_picture_nor_list_is_an_error(tmp_path: Path) -> None:
    _touch(tmp_path, "a.mp4")
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(InputError, match="no picture by name"):
        open_source(tmp_path / "a.mp4")
    with pytest.raises(InputError, match="neither a file nor a folder"):
        open_source(tmp_path / "pipe.jpg")


def test_a_root_is_for_lists_only(tmp_path: Path) -> None:
    _touch(tmp_path, "a.jpg")
    for images in (tmp_path, tmp_path / "a.jpg"):
        with pytest.raises(InputError, match="leave out --root"):
            open_source(images, root=tmp_path)


def test_the_real_faces_are_found(shared_data: Path) -> None:
    pictures = open_source(shared_data / "orl").pictures
    assert len(pictures) == 400
    assert len({p.identity for p in pictures}) == 40


def _peak(images: Path) -> int:
    tracemalloc.start()
    try:
        pictures = open_source(images).pictures
        for first in range(0, len(pictures), 500):
            assert sum(1 for _ in pictures[first : first + 500]) > 0
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["folder", "list"])
def test_ten_times_the_pictures_take_the_same_memory(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spill, "RUN", 500)
    monkeypatch.setattr(spill, "_CHUNK", 1000)  # of each of the 30 runs
    peaks = []
    for count in (1500, 15_000):
        root = tmp_path / str(count)
        root.mkdir()
        if kind == "list":
            (root / "list.txt").write_text("".join(f"{n % 99}/{n}.jpg\n" for n in range(count)))
        else:
            (root / "0.jpg").touch()
            for number in range(1, count):
                os.link(root / "0.jpg", root / f"{number}.jpg")
        images = root if kind == "folder" else root / "list.txt"
        # Python's table of interned names is enlarged by megabytes now and then, never twice.
        peaks.append(min(_peak(images), _peak(images)))
    assert peaks[1] < peaks[0] + 300_000  # as one object of 20 bytes a picture would exceed


def test_every_odd_entry_of_a_folder_is_embedded_or_listed(
    fake_model_file: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    root, out = tmp_path / "root", tmp_path / "out.h5"
    good: list[str | bytes] = ["line\nbreak.png", b"caf\xe9.png", "50%25.png", "x" * 251 + ".png"]
    good += ["e\u0301.png", "\u00e9.png", "--help.png", "deep/" * 90 + "x.png", "\x1b[31m.png"]
    for seed, name in enumerate(good):
        draw(root / os.fsdecode(name), seed=seed)
    (root / "link.png").symlink_to("50%25.png")
    (root / "zero.jpg").symlink_to("/dev/zero")
    (root / "loop.jpg").symlink_to("loop.jpg")
    (root / "up").symlink_to("..")
    (root / "empty.jpg").touch()
    os.mkfifo(root / "pipe.jpg")
    words = ("embed", root, "--model", fake_model_file, "--out", out, "--follow-links")
    result = run_cli.json(*words)
    assert (result["embedded"], result["failed"]) == (len(good) + 1, 4)
    with EmbeddingFile(out) as file:
        names = {unescape_key(key) for key in file.paths()}
        failed = dict(file.left().failed)
    assert names == {os.fsencode(name) for name in [*good, "link.png"]}
    assert failed.keys() == {"zero.jpg", "loop.jpg", "empty.jpg", "pipe.jpg"}
    assert failed["zero.jpg"] == failed["pipe.jpg"] == "not a file"


def test_a_picture_that_disappears_after_the_search_is_listed(
    fake_model_file: Path, tmp_path: Path, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = tmp_path / "root", tmp_path / "out.h5"
    for seed in range(3):
        draw(root / f"{seed}.png", seed=seed)
    merged = spill.Sorter.merged

    def then_gone(sorter: spill.Sorter) -> Iterator[bytes]:
        (root / "1.png").unlink()
        return merged(sorter)

    monkeypatch.setattr(spill.Sorter, "merged", then_gone)
    result = run_cli.json("embed", root, "--model", fake_model_file, "--out", out)
    assert (result["embedded"], result["failed"]) == (2, 1)
    with EmbeddingFile(out) as file:
        assert file.left().failed == [("1.png", "no such file")]


def test_a_list_of_photos_names_their_crops_in_a_folder_of_aligned_faces(tmp_path: Path) -> None:
    faces = tmp_path / "faces"
    _touch(faces, "a.jpg", "b.pgm.png", "c.gif.png", "d.pgm", "d.pgm.png")
    listed = tmp_path / "list.txt"
    listed.write_text("a.jpg\nb.pgm\nc.gif.png\nd.pgm\ne.heic\n")

    def files() -> list[str]:
        return [picture.path.name for picture in open_source(listed, root=faces).pictures]

    assert files() == ["a.jpg", "b.pgm", "c.gif.png", "d.pgm", "e.heic"]
    (faces / "align.json").touch()
    assert files() == ["a.jpg", "b.pgm.png", "c.gif.png", "d.pgm", "e.heic.png"]
    assert [picture.key for picture in open_source(listed, root=faces).pictures][1] == "b.pgm"
