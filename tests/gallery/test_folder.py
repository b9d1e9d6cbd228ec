from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from faceidx.errors import InputError
from faceidx.gallery.build import (
    AddOptions,
    BuildOptions,
    RemoveOptions,
    add,
    build,
    remove,
)
from faceidx.gallery.check import info, verify
from faceidx.gallery.folder import load_gallery
from faceidx.gallery.indexes import IndexOptions
from tests.gallery.conftest import WriteFaces, clustered

# 100 are run before a release; a few keep the everyday run short.
_KILLS = int(os.environ.get("FACEIDX_TEST_KILLS", "6"))

_CHANGES = """
import sys
from pathlib import Path
from faceidx.gallery.build import AddOptions, RemoveOptions, add, remove
gallery, more = map(Path, sys.argv[1:])
print("ready", flush=True)
while True:
    add(AddOptions(gallery=gallery, files=[more]))
    remove(RemoveOptions(gallery=gallery, identities=["extra"]))
"""


@pytest.mark.parametrize("index", [IndexOptions(), IndexOptions(kind="ivf", memory=1000)])
def test_a_gallery_killed_at_any_moment_is_the_old_one_or_the_new_one(
    gallery_path: Path, tmp_path: Path, write_faces: WriteFaces, index: IndexOptions
) -> None:
    files = [tmp_path / "people.h5"]
    build(BuildOptions(files=files, out=gallery_path, index=index, overwrite=True))
    more = write_faces("more.h5", clustered(1, 40, seed=3), ["extra"] * 40)
    chance = np.random.default_rng(0)
    seen = set()
    for _ in range(_KILLS):
        command = [sys.executable, "-c", _CHANGES, str(gallery_path), str(more)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            time.sleep(chance.uniform(0, 0.2))
            assert writer.poll() is None
            writer.send_signal(signal.SIGKILL)
        state = verify(gallery_path)
        assert (state["vectors"], state["identities"]) in {(60, 12), (100, 13)}
        seen.add(state["vectors"])
        if state["vectors"] == 100:
            remove(RemoveOptions(gallery=gallery_path, identities=["extra"]))
    # The next writer clears away what the killed ones left beside the gallery.
    add(AddOptions(gallery=gallery_path, files=[more]))
    left = {p.name for p in tmp_path.iterdir() if "tmp" in p.name}
    assert not left


def test_a_reader_never_mixes_generations(gallery_path: Path, write_faces: WriteFaces) -> None:
    more = write_faces("more.h5", clustered(1, 7, seed=3), ["extra"] * 7)
    enough = threading.Event()
    failures: list[BaseException] = []

    def change() -> None:
        try:
            while not enough.is_set():
                add(AddOptions(gallery=gallery_path, files=[more]))
                remove(RemoveOptions(gallery=gallery_path, identities=["extra"]))
        except BaseException as error:
            failures.append(error)

    writer = threading.Thread(target=change)
    writer.start()
    seen: set[int] = set()
    loads = 0
    try:
        while loads < 150 or (len(seen) < 2 and loads < 5000):
            loads += 1
            with load_gallery(gallery_path) as gallery:
                assert gallery.count in (60, 67)
                seen.add(gallery.count)
                assert len(gallery.paths) == len(gallery.identities) == gallery.index.ntotal
                np.testing.assert_array_equal(gallery.vectors(), gallery.stored(slice(None)))
                assert ("extra" in gallery.people) == (gallery.count == 67)
    finally:
        enough.set()
        writer.join()
    assert not failures
    assert seen == {60, 67}


def test_a_reader_keeps_the_generation_it_has_opened(gallery_path: Path) -> None:
    with load_gallery(gallery_path) as gallery:
        remove(RemoveOptions(gallery=gallery_path, identities=["person00"]))
        assert gallery.index.ntotal == len(gallery.paths) == 60
        np.testing.assert_array_equal(gallery.vectors(), clustered(12, 5))


@pytest.mark.parametrize("name", ["index.faiss", "gallery.h5", "manifest.json"])
def test_a_flipped_bit_in_any_file_is_noticed(gallery_path: Path, name: str) -> None:
    whole = (gallery_path / name).read_bytes()
    chance = np.random.default_rng(1)
    for place in chance.integers(0, 8 * len(whole), 60):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << (place % 8)
        (gallery_path / name).write_bytes(damaged)
        with pytest.raises(InputError):
            verify(gallery_path)
    (gallery_path / name).write_bytes(whole)
    assert verify(gallery_path)["intact"]


@pytest.mark.parametrize("name", ["index.faiss", "gallery.h5", "manifest.json"])
def test_a_missing_or_cut_file_is_noticed_on_load(gallery_path: Path, name: str) -> None:
    whole = (gallery_path / name).read_bytes()
    (gallery_path / name).write_bytes(whole[:-1])
    with pytest.raises(InputError, match=name):
        load_gallery(gallery_path)
    (gallery_path / name).unlink()
    with pytest.raises(InputError, match=name):
        load_gallery(gallery_path)


def test_an_index_that_lies_about_its_size_never_reaches_faiss(gallery_path: Path) -> None:
    index = gallery_path / "index.faiss"
    content = bytearray(index.read_bytes())
    content[8:16] = (2**40).to_bytes(8, "little")  # its number of rows
    index.write_bytes(content)
    with pytest.raises(InputError, match="no exact index of 60 vectors"):
        load_gallery(gallery_path)


def test_files_that_are_links_are_not_followed(gallery_path: Path, tmp_path: Path) -> None:
    (gallery_path / "index.faiss").rename(tmp_path / "elsewhere")
    (gallery_path / "index.faiss").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"index\.faiss"):
        load_gallery(gallery_path)


def test_what_is_no_gallery_is_refused_in_one_line(gallery_path: Path, tmp_path: Path) -> None:
    manifest = gallery_path / "manifest.json"
    for content in (b"", b"[" * 100_000, b"[]", b'{"format": 1, "version": 1}', b"\xff", b"NaN"):
        manifest.write_bytes(content)
        with pytest.raises(InputError, match="manifest") as caught:
            load_gallery(gallery_path)
        assert "\n" not in str(caught.value)
    manifest.write_bytes(json.dumps({"format": "faceidx-gallery", "version": 3}).encode())
    with pytest.raises(InputError, match="newer"):
        load_gallery(gallery_path)
    for path in (tmp_path / "missing", tmp_path / "people.h5"):
        with pytest.raises(InputError, match="no gallery folder"):
            load_gallery(path)


def test_info_tells_how_many_people_have_how_many_pictures(
    gallery_path: Path, write_faces: WriteFaces
) -> None:
    file = write_faces("more.h5", clustered(1, 5, seed=8), ["x", "x", "", "", ""])
    add(AddOptions(gallery=gallery_path, files=[file]))
    result = info(gallery_path)
    assert result["pictures_per_person"] == {"2": 1, "5": 12}
    assert (result["without_identity"], result["identities"], result["vectors"]) == (3, 13, 65)
    assert result["bytes"] == sum(result["files"].values())
