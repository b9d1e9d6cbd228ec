"""What is found in the data before a picture is read."""

from __future__ import annotations

import logging
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from faceidx.errors import InputError
from faceidx.images import spill
from faceidx.training.scan import scan
from tests.training.conftest import quick


def _lay_out(root: Path, pictures: dict[str, int]) -> Path:
    for person, count in pictures.items():
        (root / person).mkdir(parents=True)
        for number in range(count):
            (root / person / f"{number}.png").touch()
    return root


def test_identities_are_numbered_in_the_order_of_their_names(tmp_path: Path) -> None:
    data = _lay_out(tmp_path / "data", {"zoe": 1, "ann": 2, "bob/old": 1})
    (data / "stray.png").touch()
    found = scan(quick(data, tmp_path / "run"))
    assert found.names == ["ann", "bob/old", "zoe"]
    assert [found.source.pictures[row].key for row in range(5)] == [
        "ann/0.png",
        "ann/1.png",
        "bob/old/0.png",
        "stray.png",
        "zoe/0.png",
    ]
    assert found.people.tolist() == [0, 0, 1, -1, 2]
    assert found.usable(1).tolist() == [True, True, True, False, True]
    assert found.left_out(1) == [("stray.png", "no identity: it lies in no folder")]


def test_identities_of_too_few_pictures_are_left_out_counted_and_listed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = _lay_out(tmp_path / "data", {"ann": 3, "bob": 1, "cid": 2, "dan": 4})
    found = scan(quick(data, tmp_path / "run", min_pictures=3))
    assert found.usable(3).sum() == 7
    reason = "its identity has fewer than 3 pictures"
    keys = ["bob/0.png", "cid/0.png", "cid/1.png"]
    assert found.left_out(3) == [(key, reason) for key in keys]
    assert "2 identities with fewer than 3 pictures are left out, with 3 pictures" in caplog.text


def test_a_minimum_that_leaves_nobody_is_an_error(tmp_path: Path) -> None:
    data = _lay_out(tmp_path / "data", {"ann": 3, "bob": 1})
    with pytest.raises(InputError, match="of 2 identities fewer than two have 3 pictures"):
        scan(quick(data, tmp_path / "run", min_pictures=3))


def test_an_identity_with_one_picture_is_told_of_and_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = _lay_out(tmp_path / "data", {"ann": 3, "bob": 1})
    assert scan(quick(data, tmp_path / "run")).usable(1).all()
    assert "1 of 2 identities have a single picture" in caplog.text


def test_an_empty_identity_is_told_of_and_listed_without_naming_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = _lay_out(tmp_path / "data", {"ann": 2, "bob": 0, "cid/young": 2, "cid2": 0})
    (data / ".hidden").mkdir()
    with caplog.at_level(logging.WARNING):
        found = scan(quick(data, tmp_path / "run"))
    assert found.empty == ["bob", "cid2"]
    assert [key for key, _ in found.left_out(1)] == ["bob/", "cid2/"]
    assert "2 folders hold no picture" in caplog.text and "bob" not in caplog.text


def test_a_list_is_read_with_its_own_identities_and_root(tmp_path: Path) -> None:
    data = _lay_out(tmp_path / "data", {"ann": 2, "bob": 1})
    listed = tmp_path / "lists" / "list.csv"
    listed.parent.mkdir()
    listed.write_text("path,identity\nann/0.png,x\nann/1.png,y\nbob/0.png,x\n")
    found = scan(quick(listed, tmp_path / "run", root=data))
    assert found.names == ["x", "y"] and found.people.tolist() == [0, 1, 0]
    assert found.shards is None


def test_pictures_in_shards_know_their_shard(tmp_path: Path) -> None:
    data = _lay_out(tmp_path / "data", {"ann": 2, "bob": 2})
    for number, person in enumerate(("bob", "ann")):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as tar:
            tar.add(data / person, person)
    found = scan(quick(tmp_path / "{0,1}.tar", tmp_path / "run"))
    assert found.shards is not None
    assert found.people.tolist() == [0, 0, 1, 1]
    paths = [p.path.name for p in found.source.pictures]
    assert paths == ["1.tar", "1.tar", "0.tar", "0.tar"]
    assert np.array_equal(np.unique(found.shards, return_inverse=True)[1], [0, 0, 1, 1])


def test_a_picture_costs_a_few_bytes_of_memory_however_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spill, "RUN", 500)
    shard = tmp_path / "0.tar"
    with tarfile.open(shard, "w") as tar:
        for number in range(12_000):
            tar.addfile(tarfile.TarInfo(f"person_{number % 40:020}/{number:020}.png"))
    tracemalloc.start()
    try:
        found = scan(quick(shard, tmp_path / "run"))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found.people) == 12_000
    assert kept / 12_000 < 40  # a name alone has more
