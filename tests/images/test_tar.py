"""Our reader of tar headers beside the standard library's, and on archives that lie."""

from __future__ import annotations

import io
import os
import random
import tarfile
from pathlib import Path

import pytest

from faceidx.errors import InputError
from faceidx.images.tar import Member, open_tar

_FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def _add(
    tar: tarfile.TarFile, name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE
) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.type = len(content), kind
    if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        info.linkname = "target" * 30
    tar.addfile(info, io.BytesIO(content))


def _members(path: Path) -> list[Member]:
    with open_tar(path) as archive:
        return list(archive.members())


def _plain(path: Path, kind: str = "ustar", count: int = 3) -> Path:
    with tarfile.open(path, "w", format=_FORMATS[kind]) as tar:
        for number in range(count):
            _add(tar, f"d/{number}.jpg", bytes([number + 1]) * 700)
    return path


def _same_as_tarfile(path: Path) -> None:
    ours = _members(path)
    with tarfile.open(path, "r:", errorlevel=2) as tar:
        theirs = tar.getmembers()
    assert len(ours) == len(theirs)
    for our, their in zip(ours, theirs, strict=True):
        # The standard library drops the slash at the end of folders' names.
        assert our.name.rstrip(b"/") == os.fsencode(their.name).rstrip(b"/")
        assert our.is_folder == their.isdir()
        assert our.is_file == (their.isreg() and not their.issparse())
        if our.is_file:
            assert (our.offset, our.size) == (their.offset_data, their.size)


@pytest.mark.parametrize("kind", _FORMATS)
@pytest.mark.parametrize("seed", range(8))
def test_members_are_those_that_the_standard_library_finds(
    kind: str, seed: int, tmp_path: Path
) -> None:
    draw = random.Random(f"{kind}{seed}")
    longest = 90 if kind == "ustar" else 900
    kinds = [tarfile.REGTYPE] * 6 + [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE]
    kinds += [tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.CONTTYPE]
    if kind == "ustar":
        # With long names the standard library judges by the first 100 bytes which is a folder.
        kinds.append(tarfile.AREGTYPE)
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=_FORMATS[kind], errors="surrogateescape") as tar:
        for number in range(60):
            drawn = draw.choices("abä/.\n =%", k=draw.randrange(1, longest // 2))
            of_kind = draw.choice(kinds)
            is_link = of_kind in (tarfile.SYMTYPE, tarfile.LNKTYPE)
            if kind == "ustar" and is_link:
                of_kind = tarfile.DIRTYPE  # its links may not be so long
            has_data = of_kind in (tarfile.REGTYPE, tarfile.CONTTYPE, tarfile.AREGTYPE)
            size = draw.choice([0, 1, 511, 512, 513, 3000]) if has_data else 0
            _add(tar, f"{number}{''.join(drawn)}x", draw.randbytes(size), of_kind)
    _same_as_tarfile(path)


def test_names_with_a_prefix_and_without_a_magic_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        _add(tar, f"{'d' * 150}/{'n' * 99}", b"content")
    _same_as_tarfile(path)
    assert _members(path)[0].name == b"d" * 150 + b"/" + b"n" * 99
    data = bytearray(_plain(path).read_bytes())
    for place in range(0, 3 * 1536, 1536):  # as before POSIX
        data[place + 257 : place + 265] = bytes(8)
        _mend_checksum(data, place)
    path.write_bytes(data)
    _same_as_tarfile(path)


def test_sparse_files_are_no_files_and_what_follows_them_is_found(tmp_path: Path) -> None:
    header = tarfile.TarInfo("sparse.jpg")
    header.size, header.type = 512, tarfile.GNUTYPE_SPARSE
    block = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    block[386:482], block[482], block[483:495] = b"00000000000\0" * 8, 1, b"00000001000\0"
    _mend_checksum(block, 0)
    more = bytearray(512)
    more[504] = 1
    (tmp_path / "after").write_bytes(_plain(tmp_path / "plain.tar").read_bytes())
    path = tmp_path / "x.tar"
    map_goes_on = bytes(block) + bytes(more) + bytes(512) + b"d" * 512
    path.write_bytes(map_goes_on + (tmp_path / "after").read_bytes())
    found = _members(path)
    assert [(m.name, m.is_file) for m in found[:2]] == [(b"sparse.jpg", False), (b"d/0.jpg", True)]
    pax = tarfile.TarInfo("GNUSparseFile.1/x.jpg")
    pax.size, pax.pax_headers = 3, {"GNU.sparse.major": "1", "GNU.sparse.name": "x.jpg"}
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(pax, io.BytesIO(b"map"))
    assert [(m.name, m.is_file) for m in _members(path)] == [(b"x.jpg", False)]


def test_a_large_member_whose_size_is_no_octal_number_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    info = tarfile.TarInfo("large.jpg")
    info.size = 9 << 30  # more than eleven octal digits hold
    with path.open("wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.truncate(512 + info.size)  # takes no place on the disk
        file.seek(0, os.SEEK_END)
        file.write(bytes(1024))
    assert _members(path) == [Member(b"large.jpg", 512, 9 << 30, True, False)]


def _mend_checksum(data: bytearray, place: int) -> None:
    data[place + 148 : place + 156] = b" " * 8
    total = sum(data[place : place + 512])
    data[place + 148 : place + 156] = b"%06o\0 " % total


# --- archives that lie -------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [0, 1, 511, 1000, 1400, 1536, 2000, 3 * 1536])
def test_a_truncated_archive_is_refused_wherever_it_ends(cut: int, tmp_path: Path) -> None:
    path = _plain(tmp_path / "x.tar")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"x\.tar: truncated: .*fetch or write it again") as raised:
        _members(path)
    # The way to add an end is told only where no data are missing.
    assert ("truncate -s" in str(raised.value)) == (cut != 1000)


def test_what_the_message_advises_mends_an_archive_without_an_end(tmp_path: Path) -> None:
    path = _plain(tmp_path / "x.tar")
    whole = _members(path)
    path.write_bytes(path.read_bytes()[: 2 * 1536 + 512 + 700])
    with pytest.raises(InputError, match=r"truncate -s \+10240"):
        _members(path)
    os.truncate(path, path.stat().st_size + 10240)
    assert _members(path) == whole


def test_joined_archives_are_refused_rather_than_read_in_part(tmp_path: Path) -> None:
    path = _plain(tmp_path / "x.tar")
    path.write_bytes(2 * path.read_bytes())
    with pytest.raises(InputError, match="more follows the archive's end at byte 4608"):
        _members(path)


@pytest.mark.parametrize(("mode", "tool"), [("gz", "gunzip"), ("bz2", "bunzip2"), ("xz", "unxz")])
def test_a_compressed_archive_is_refused_with_the_way_out(
    mode: str, tool: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, f"w:{mode}") as tar:  # type: ignore[call-overload]
        _add(tar, "a.jpg", random.Random(0).randbytes(2000))
    with pytest.raises(InputError, match=rf"is compressed.*\({tool}\)"):
        _members(path)


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(b"this is no tar" * 100)
    with pytest.raises(InputError, match="is no tar archive"):
        _members(path)
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(InputError, match="is no file"):
        _members(tmp_path / "pipe.tar")
    with pytest.raises(InputError, match="no such file"):
        _members(tmp_path / "gone.tar")


def test_an_extension_that_claims_gigabytes_is_not_read(tmp_path: Path) -> None:
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE):
        info = tarfile.TarInfo("x")
        info.size, info.type = 4 << 30, kind
        path = tmp_path / "x.tar"
        path.write_bytes(info.tobuf(tarfile.GNU_FORMAT))
        os.truncate(path, 5 << 30)
        with pytest.raises(InputError, match="damaged: no tar header at byte 0"):
            _members(path)


@pytest.mark.parametrize(
    "record",
    [b"x", b"9999999 path=x\n", b"-3 path=x\n", b"0 path=x\n", b"11 pathxxx\n", b"10 path=xx",
     b"19 path=nul\0inside\n", b"12 size=-13\n", b"31 size=99999999999999999999999\n", b" =\n"],
)  # fmt: skip
def test_pax_records_that_make_no_sense_are_refused(record: bytes, tmp_path: Path) -> None:
    header = tarfile.TarInfo("header")
    header.size, header.type = len(record), tarfile.XHDTYPE
    path = tmp_path / "x.tar"
    rest = _plain(path).read_bytes()
    path.write_bytes(header.tobuf() + record.ljust(512, b"\0") + rest)
    with pytest.raises(InputError, match="damaged"):
        _members(path)


@pytest.mark.parametrize("seed", range(300))
def test_a_damaged_archive_is_read_or_refused_and_nothing_else(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    path = tmp_path / "x.tar"
    kind = draw.choice(list(_FORMATS))
    with tarfile.open(path, "w", format=_FORMATS[kind]) as tar:
        for number in range(4):
            name = f"{number}/" + "ü" * (40 if kind == "ustar" else 70)
            _add(tar, name, draw.randbytes(draw.randrange(600)))
    data = bytearray(path.read_bytes())
    for _ in range(draw.randrange(1, 6)):
        place = draw.randrange(len(data) // 2)
        data[place] = draw.choice([0, 48, 55, 128, 255, data[place] ^ 1 << draw.randrange(8)])
        if draw.random() < 0.8:  # damage behind a checksum that is right
            _mend_checksum(data, place // 512 * 512)
    path.write_bytes(data)
    try:
        found = _members(path)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert all(m.offset >= 0 and m.offset + m.size <= len(data) for m in found)
