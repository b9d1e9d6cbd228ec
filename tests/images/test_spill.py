from __future__ import annotations

import multiprocessing
import os
import pickle
import tarfile
import tempfile
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import numpy as np
import pytest

from faceidx.errors import InputError, JobError
from faceidx.images import spill
from faceidx.images.pictures import Picture, Pictures, keys_of
from faceidx.images.sources import open_source
from faceidx.images.spill import Records, Sorter
from tests.conftest import draw


def _records(count: int) -> list[bytes]:
    """Records of 0 to 300 bytes, some of them alike, one longer than what is read at a time."""
    rng = np.random.default_rng(count)
    made = [rng.bytes(int(rng.integers(0, 300))) for _ in range(count - 3)]
    return [b"same", *made, b"x" * 200_000, b"same"]


@pytest.mark.parametrize("count", [3, 64, 99, 100, 101, 128, 640, 1000])
def test_records_come_out_sorted_and_can_be_read_by_number(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spill, "RUN", 100)
    sorter = Sorter()
    given = _records(count)
    for record in given:
        sorter.add(record)
    records = Records(sorter.merged())
    expected = sorted(given)
    assert len(records) == count
    for first in range(0, count, 37):
        for last in (first, first + 1, first + 64, count):
            assert records.read(first, min(last, count)) == expected[first:last]


def test_what_is_spilled_is_in_the_folder_given_and_has_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spill, "RUN", 10)
    opened: list[int] = []
    temporary_file = tempfile.TemporaryFile

    def watched(**options: object) -> object:
        assert options["dir"] == tmp_path
        file = temporary_file(**options)  # type: ignore[call-overload]
        opened.append(os.fstat(file.fileno()).st_mode & 0o777)
        return file

    monkeypatch.setattr(tempfile, "TemporaryFile", watched)
    sorter = Sorter(tmp_path)
    sorter.extend(_records(50))
    records = Records(sorter.merged(), tmp_path)
    assert len(records) == 50
    assert opened == [0o600, 0o600]
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_a_failed_job_that_names_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spill, "RUN", 10)
    full = Path("/dev/full")
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: full.open("wb", buffering=0))
    for name in range(30):
        (tmp_path / f"{name}.jpg").touch()
    with pytest.raises(JobError, match=r"could not be kept in .*: No space left.*TMPDIR"):
        open_source(tmp_path)


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], Pictures]:
    """The keys of 200 pictures in order, and the source of them, kept on disk."""
    monkeypatch.setattr(spill, "RUN", 30)
    names = [f"p{n % 7}/caf%é\n{n}.jpg" for n in range(200)]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    found = open_source(tmp_path).pictures
    assert isinstance(found, Pictures)
    keys = (name.replace("%", "%25") for name in names)
    return sorted(keys, key=str.encode), found


def test_a_large_source_is_a_sequence_like_a_list(many: tuple[list[str], Pictures]) -> None:
    keys, pictures = many
    held = list(pictures)
    assert [p.key for p in held] == keys
    assert all(p.identity == p.key[:2] and p.path.is_file() for p in held)
    assert len(pictures) == 200
    assert pictures[0] == held[0] and pictures[-1] == held[-1] and pictures[77] == held[77]
    for part in (
        slice(3, 90),
        slice(None, None, -1),
        slice(150, 400),
        slice(9, 2),
        slice(0, 99, 7),
    ):
        assert list(pictures[part]) == held[part]
        assert len(pictures[part]) == len(held[part])
    assert list(pictures[50:150][20:30]) == held[70:80]
    assert held[5] in pictures
    with pytest.raises(IndexError):
        pictures[200]


@pytest.mark.parametrize("rows", [slice(20, 40), slice(0, 100, 7), slice(5, 5)])
def test_a_part_of_a_large_source_goes_to_another_process_without_the_rest(
    rows: slice, many: tuple[list[str], Pictures]
) -> None:
    _, pictures = many
    parcel = pickle.dumps(pictures[rows])
    assert list(pickle.loads(parcel)) == list(pictures)[rows]
    assert len(parcel) < 300 + 30 * len(pictures[rows])


def test_keys_are_told_without_the_pictures(tmp_path: Path) -> None:
    names = ["b/ü.jpg", "a.jpg", "b/%.png"]
    for name in names:
        draw(tmp_path / "in" / name, seed=1)
    file = tmp_path / "list.csv"
    file.write_text("path,identity\n" + "".join(f"in/{name},x\n" for name in names))
    with tarfile.open(tmp_path / "one.tar", "w") as archive:
        archive.add(tmp_path / "in", "in")
    for source in ("in", "list.csv", "one.tar", "in/a.jpg"):
        pictures = open_source(tmp_path / source).pictures
        assert list(keys_of(pictures)) == [picture.key.encode() for picture in pictures]
        assert list(keys_of(pictures[1:])) == [picture.key.encode() for picture in pictures[1:]]


@pytest.mark.parametrize("again", [(3, 9), (3, 9, 12), (12, 20, 3)])
def test_a_picture_listed_twice_in_a_long_list_is_found_with_both_lines(
    again: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spill, "RUN", 5)
    lines = [f"{n}.jpg" for n in range(1, 101)]
    for line in (*again, 90, 91):
        lines[line - 1] = "same.jpg" if line < 90 else "later.jpg"
    file = tmp_path / "list.txt"
    file.write_text("\n".join(lines))
    first, second = sorted(again)[:2]
    with pytest.raises(InputError, match=rf"list.txt:{second}: listed already in line {first}$"):
        open_source(file)


def test_a_long_list_is_read_as_a_short_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [f'd{n % 9}/"{n}.jpg,{("anna", "")[n % 2]}'.replace('"', "") for n in range(300)]
    file = tmp_path / "list.csv"
    file.write_text("path,identity\n" + "\n".join(rows) + "\nnotes.md,x\n")
    short = open_source(file)
    monkeypatch.setattr(spill, "RUN", 7)
    long = open_source(file)
    assert list(long.pictures) == list(short.pictures)
    assert long.ignored == short.ignored == 1


def _look_at(pictures: Pictures, answers: SimpleQueue[tuple[str, int, Picture]]) -> None:
    answers.put((type(pictures).__name__, len(pictures), pictures[150]))


def test_a_spawned_process_reads_the_same_file_of_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spill, "RUN", 100)
    for number in range(201):
        (tmp_path / f"{number:03}.png").touch()
    pictures = open_source(tmp_path).pictures
    spawn = multiprocessing.get_context("spawn")
    answers: SimpleQueue[tuple[str, int, Picture]] = spawn.SimpleQueue()
    process = spawn.Process(target=_look_at, args=(pictures, answers))
    process.start()
    assert answers.get() == ("Pictures", 201, pictures[150])
    process.join()
    assert process.exitcode == 0
    assert pictures[200].key == "200.png"  # the file is still this process's too
