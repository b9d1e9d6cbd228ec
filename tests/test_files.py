from __future__ import annotations

import errno
import multiprocessing
import os
import stat
from pathlib import Path

import h5py
import numpy as np
import pytest

from faceidx import files, hdf5
from faceidx.errors import InputError, JobError
from faceidx.files import (
    refuse_existing,
    remove_leftovers,
    require_parent,
    scratch_folder,
    sha256_file,
    together,
    whole_file,
    whole_folder,
    writer_lock,
)
from faceidx.hdf5 import NewHdf5


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- files -------------------------------------------------------------------------------------


def test_a_file_appears_whole_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "out.bin"
    with whole_file(path) as temporary:
        assert temporary.parent == tmp_path
        assert _mode(temporary) == 0o600
        temporary.write_bytes(b"half")
        assert not path.exists()
        temporary.chmod(0o644)  # as a library may that writes it anew
    assert path.read_bytes() == b"half"
    assert _mode(path) == 0o600
    assert _names(tmp_path) == ["out.bin"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_an_error_leaves_the_file_as_it_was(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "out.bin"
    path.write_bytes(b"before")
    with pytest.raises((error, JobError)), whole_file(path) as temporary:
        temporary.write_bytes(b"half")
        raise error
    assert path.read_bytes() == b"before"
    assert _names(tmp_path) == ["out.bin"]


def test_a_full_disk_is_a_failed_job_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "out.bin"
    with pytest.raises(JobError, match=r"out\.bin could not be written: No space left"):  # noqa: SIM117
        with whole_file(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert _names(tmp_path) == []


@pytest.mark.parametrize("call", ["open", "fsync"])
def test_a_disk_that_fails_before_or_after_the_writing_is_a_failed_job_too(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for whole in (whole_file, whole_folder):
        with monkeypatch.context() as patch:
            patch.setattr(
                os, call if whole is whole_file else {"open": "mkdir"}.get(call, call), full
            )
            with pytest.raises(JobError, match="No space left"), whole(tmp_path / "out"):
                pass
        assert _names(tmp_path) == []


@pytest.mark.parametrize("name", ["x" * 255, "顔" * 85, "é" * 127, "-" * 100])
def test_names_as_long_as_the_file_system_allows_can_be_written(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with writer_lock(path), whole_file(path) as temporary:
        temporary.write_bytes(b"1")
    assert _names(tmp_path) == [name]
    path.unlink()
    with whole_folder(path) as folder:
        (folder / "a").write_bytes(b"1")
    assert _names(tmp_path) == [name]


def test_a_missing_folder_is_an_error_that_says_so(tmp_path: Path) -> None:
    for whole in (whole_file, whole_folder, writer_lock):
        with pytest.raises(InputError, match="does not exist; create it first"):  # noqa: SIM117
            with whole(tmp_path / "none" / "out"):  # type: ignore[operator]
                pass
    require_parent(tmp_path / "out")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_an_error_that_says_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot be written to"):
        require_parent(tmp_path / "out")


def test_a_file_is_no_folder_and_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a folder"), whole_file(tmp_path / "folder"):
        pass
    with pytest.raises(InputError, match="is a file"), whole_folder(tmp_path / "file"):
        pass
    assert _names(tmp_path) == ["file", "folder"]


def test_what_exists_is_replaced_on_demand_alone(tmp_path: Path) -> None:
    path = tmp_path / "out"
    refuse_existing(path, overwrite=False)
    path.touch()
    refuse_existing(path, overwrite=True)
    with pytest.raises(InputError, match="give --overwrite"):
        refuse_existing(path, overwrite=False)
    with pytest.raises(InputError, match="give --update or --overwrite"):
        refuse_existing(path, overwrite=False, way_out="--update or --overwrite")


# --- folders -----------------------------------------------------------------------------------


def _fill(folder: Path, text: str) -> None:
    (folder / "inner").mkdir()
    (folder / "inner" / "a.txt").write_text(text)


def test_a_folder_appears_whole_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with whole_folder(path) as temporary:
        _fill(temporary, "new")
        assert not path.exists()
    assert _mode(path) == _mode(path / "inner") == 0o700
    assert _mode(path / "inner" / "a.txt") == 0o600
    assert _names(tmp_path) == ["out"]


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_takes_the_place_of_another(
    exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchange:  # as on a system without renameat2
        monkeypatch.setattr(files, "_exchange", lambda *_: False)
    path = tmp_path / "out"
    path.mkdir()
    (path / "old.txt").touch()
    with whole_folder(path) as temporary:
        _fill(temporary, "new")
        assert _names(path) == ["old.txt"]
    assert _names(path) == ["inner"]
    assert _names(tmp_path) == ["out"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_not_exchanged_as_its_content_would_stay(tmp_path: Path) -> None:
    target = tmp_path / "gallery"
    target.mkdir()
    (target / "somebody").touch()
    target.chmod(0o500)
    try:
        with pytest.raises(InputError, match="read-only"), whole_folder(target):
            pytest.fail("a folder was begun")
        assert _names(tmp_path) == ["gallery"]
    finally:
        target.chmod(0o700)


def test_an_open_reader_of_an_exchanged_folder_keeps_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.mkdir()
    (path / "old.txt").write_text("old")
    with (path / "old.txt").open() as reader:
        with whole_folder(path) as temporary:
            _fill(temporary, "new")
        assert reader.read() == "old"


def test_an_error_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.mkdir()
    (path / "old.txt").touch()
    with pytest.raises(ValueError), whole_folder(path) as temporary:
        _fill(temporary, "new")
        raise ValueError
    assert _names(path) == ["old.txt"]
    assert _names(tmp_path) == ["out"]


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    (disk / "real").mkdir(parents=True)
    (tmp_path / "out").symlink_to(disk / "real")
    with whole_folder(tmp_path / "out") as temporary:
        _fill(temporary, "new")
    assert (tmp_path / "out").is_symlink()
    assert _names(disk / "real") == ["inner"]
    assert _names(tmp_path) == ["disk", "out"]
    assert _names(disk) == ["real"]


def test_a_link_to_a_file_stays_a_link_too(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    for name in ("real", "new"):  # the one that exists and the one that is to be
        link = tmp_path / f"to-{name}"
        link.symlink_to(tmp_path / "disk" / name)
    (tmp_path / "disk" / "real").write_text("old")
    for name in ("real", "new"):
        link = tmp_path / f"to-{name}"
        with writer_lock(link):
            remove_leftovers(link)
            with pytest.raises(InputError, match="being written"), writer_lock(link.resolve()):
                pass
            with whole_file(link) as temporary:
                temporary.write_text(name)
        assert link.is_symlink() and link.read_text() == name
    assert _names(tmp_path / "disk") == ["new", "real"]


def test_a_link_in_a_circle_and_a_device_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(InputError, match="leads nowhere"), whole_file(tmp_path / "circle"):
        pass
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path(os.devnull)):
        with pytest.raises(InputError, match="is a device or a pipe"), whole_file(path):
            pass
    assert not Path(os.devnull).is_file()


def test_long_names_that_end_alike_do_not_block_one_another(tmp_path: Path) -> None:
    one, other = (tmp_path / (first + "long" * 40) for first in "ab")
    with writer_lock(one), writer_lock(other):
        assert len(_names(tmp_path)) == 2


@pytest.mark.parametrize("name", ["out", "long" * 40])
def test_leftovers_of_killed_writers_are_removed_and_nothing_else(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    other = tmp_path / f"other-{name}"
    for whole in (whole_file, whole_folder, scratch_folder):
        for target in (path, other):
            pid = os.fork()
            if pid == 0:
                with whole(target):
                    os._exit(0)  # as good as killed: nothing is cleaned up
            os.waitpid(pid, 0)
    assert len(_names(tmp_path)) == 6
    (tmp_path / f".faceidx-tmp-mine-{name}").touch()
    remove_leftovers(path)
    left = _names(tmp_path)
    assert len(left) == 4
    assert f".faceidx-tmp-mine-{name}" in left


# --- the writer's lock -------------------------------------------------------------------------


def _hold(target: Path, held: object, release: object) -> None:
    with writer_lock(target):
        held.set()  # type: ignore[attr-defined]
        release.wait(60)  # type: ignore[attr-defined]


def _write_both(folder: Path) -> None:
    with whole_folder(folder / "report") as report:
        _fill(report, "new")
    assert not (folder / "report/inner").exists()
    with whole_file(folder / "scores.csv") as scores:
        scores.write_text("new")
    assert not (folder / "scores.csv").exists()


@pytest.mark.parametrize("replaced", [False, True])
def test_outputs_that_are_written_together_appear_at_the_end(
    replaced: bool, tmp_path: Path
) -> None:
    if replaced:
        (tmp_path / "report").mkdir()
        (tmp_path / "report/old.txt").touch()
    with together(tmp_path / "scores.csv", None):
        _write_both(tmp_path)
    assert _names(tmp_path) == ["report", "scores.csv"]
    assert _names(tmp_path / "report") == ["inner"]
    assert _mode(tmp_path / "scores.csv") == 0o600


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt])
def test_where_one_of_them_fails_none_appears(error: type[BaseException], tmp_path: Path) -> None:
    with pytest.raises(error), together(tmp_path / "scores.csv"):
        _write_both(tmp_path)
        raise error
    assert _names(tmp_path) == []


def test_outputs_written_together_are_locked_and_rid_of_what_killed_writers_left(
    tmp_path: Path,
) -> None:
    path = tmp_path / "scores.csv"
    left = tmp_path / ".faceidx-tmp-0123456789ab-scores.csv"
    left.touch()
    with together(path):
        assert not left.exists()
        with pytest.raises(InputError, match="being written by another"), writer_lock(path):
            pass
        with writer_lock(tmp_path / "other"):
            pass
        with pytest.raises(InputError), writer_lock(tmp_path / "other"):
            pass  # until all has appeared
    with writer_lock(path), writer_lock(tmp_path / "other"):
        pass
    assert _names(tmp_path) == []


def test_a_second_writer_is_turned_away_until_the_first_ends(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    target = tmp_path / "out"
    for killed in (False, True):
        held, release = context.Event(), context.Event()
        process = context.Process(target=_hold, args=(target, held, release))
        process.start()
        assert held.wait(60)
        with pytest.raises(InputError, match="being written by another process"):  # noqa: SIM117
            with writer_lock(target):
                pass
        with writer_lock(tmp_path / "other"):
            pass
        if killed:
            process.kill()
        else:
            release.set()
        process.join(60)
        with writer_lock(target):
            pass
        assert _names(tmp_path) == []


def test_the_lock_is_given_back_after_an_error(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ValueError), writer_lock(tmp_path / "out"):
            raise ValueError
    assert _names(tmp_path) == []


# --- hashes and HDF5 ---------------------------------------------------------------------------


def test_the_hash_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert sha256_file(tmp_path / "abc") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_an_hdf5_file_is_read_back_by_h5py_alone(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(5000, 7))
    with NewHdf5(tmp_path / "a.h5") as file:
        data = file.create_dataset("a/b", (0, 7), "f8", maxshape=(None, 7), chunks=(64, 7))
        for first in range(0, 5000, 1000):
            data.resize(first + 1000, axis=0)
            data[first:] = rows[first : first + 1000]
            file.flush()
        file["texts"] = ["x" * n for n in range(300)]
        file["gone"] = np.zeros(10_000)
        del file["gone"]
        file.attrs["format"] = "é"
    with h5py.File(tmp_path / "a.h5") as file:
        assert (file["a/b"][()] == rows).all()
        assert list(file["texts"].asstr()) == ["x" * n for n in range(300)]
        assert (list(file), file.attrs["format"]) == (["a", "texts"], "é")


@pytest.mark.parametrize("room", [0, 100, 2000, 20_000, 60_000, 100_000])
def test_a_disk_that_fills_up_under_hdf5_is_an_error_and_no_crash(
    room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Left to itself, the HDF5 library takes the process down with a segmentation fault here.
    pwrite = os.pwrite

    def bounded(descriptor: int, data: bytes, offset: int) -> int:
        if offset >= room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(descriptor, data[: room - offset], offset)

    monkeypatch.setattr(os, "pwrite", bounded)
    with pytest.raises(JobError, match="No space left"), whole_file(tmp_path / "a.h5") as path:  # noqa: SIM117
        with NewHdf5(path) as file:
            rows = file.create_dataset("rows", (0, 16), "f8", maxshape=(None, 16), chunks=(64, 16))
            texts = file.create_dataset("texts", (3000,), "S8", data=[b"x"] * 3000)
            for first in range(0, 1024, 64):
                rows.resize(first + 64, axis=0)
                rows[first:] = np.full((64, 16), first)
            assert (texts[:] == b"x").all()
            assert (rows[:64] == 0).all()
            assert (rows[960:] == 960).all()
    assert _names(tmp_path) == []


def test_a_long_job_flushes_as_it_goes_and_hears_of_a_disk_that_fails_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdf5, "_FLUSH", 50_000)
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    with NewHdf5(tmp_path / "a.h5") as file:
        for number in range(10):
            file.create_dataset(str(number), data=np.zeros(2000))
            file.flush()
    assert 2 <= len(flushed) <= 4

    def failing(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="Input/output error"), NewHdf5(tmp_path / "b.h5") as file:
        file.create_dataset("a", data=np.arange(10_000.0))
        file.flush()
        assert (file["a"][:] == np.arange(10_000.0)).all()


def test_a_long_job_can_ask_whether_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left"), NewHdf5(tmp_path / "a.h5") as file:
        file.check()
        monkeypatch.setattr(os, "pwrite", full)
        file.create_dataset("a", data=np.zeros(10_000))
        file.flush()
        with pytest.raises(OSError, match="No space left"):
            file.check()
