"""Pictures in tar shards: which shards, which members, whose faces."""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceidx.errors import InputError
from faceidx.images import shards, spill
from faceidx.images.decode import PictureError, decode
from faceidx.images.sources import Source, open_source
from tests.conftest import RunCli


def _png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _pack(path: Path, members: dict[str, bytes | str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", errors="surrogateescape") as tar:
        for name, content in members.items():
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def _found(source: Source) -> list[tuple[str, str]]:
    return [(p.key, p.identity) for p in source.pictures]


# --- which shards ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("s/{000..002}.tar", ["000", "001", "002"]),
        ("s/{2..0}.tar", ["2", "1", "0"]),
        ("s/{08..10}.tar", ["08", "09", "10"]),
        ("s/{8..10}.tar", ["8", "9", "10"]),
        ("s/{a,b}-{0..1}.tar", ["a-0", "a-1", "b-0", "b-1"]),
        ("s/{x,y{1..2}}.tar", ["x", "y1", "y2"]),
        ("s/1.tar::s/{3..4}.tar", ["1", "3", "4"]),
        ("s/one.tar", ["one"]),
        ("s/a?.tar", ["a0", "a1"]),
        ("s/*.tar", ["a0", "a1", "b"]),
        ("s/**.tar", ["a0", "a1", "b"]),
        ("::".join(f"s/{n:04}.tar" for n in range(600)), [f"{n:04}" for n in range(600)]),
        ("s/{plain}.tar", ["{plain}"]),
    ],
)
def test_a_name_stands_for_the_shards_that_webdataset_would_open(
    name: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s").mkdir()
    for shard in ["a0", "a1", "b"] if "*" in name or "?" in name else expected:
        (tmp_path / "s" / f"{shard}.tar").touch()
    assert shards.named_shards(Path(name)) == [Path(f"s/{shard}.tar") for shard in expected]
    if "*" in name or "?" in name:
        return
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    theirs = webdataset.shardlists.expand_urls(name)
    assert sorted(set(theirs)) == sorted(f"s/{shard}.tar" for shard in expected)


def test_hidden_shards_are_meant_only_where_they_are_named(tmp_path: Path) -> None:
    for name in ("0.tar", "1.TAR", ".2.tar", "._0.tar"):
        _pack(tmp_path / name, {f"in{name}.png": _png(0)})
    assert _found(open_source(tmp_path / "*.tar")) == [("in0.tar.png", "")]
    assert _found(open_source(tmp_path / ".2*.tar")) == [("in.2.tar.png", "")]
    (tmp_path / "folder.tar").mkdir()
    folder = open_source(tmp_path)
    assert _found(folder) == [("in0.tar.png", ""), ("in1.TAR.png", "")]
    assert folder.ignored == 2


def test_brackets_in_a_wildcard_stand_for_themselves(tmp_path: Path) -> None:
    _pack(tmp_path / "set[1]-0.tar", {"a.png": _png(0)})
    _pack(tmp_path / "set1-0.tar", {"b.png": _png(1)})
    assert _found(open_source(tmp_path / "set[1]-*.tar")) == [("a.png", "")]


def test_a_shard_whose_own_name_has_braces_is_taken_as_it_is(tmp_path: Path) -> None:
    _pack(tmp_path / "{0..3}.tar", {"a.png": _png(0)})
    assert _found(open_source(tmp_path / "{0..3}.tar")) == [("a.png", "")]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone.tar", "no such file or folder"),
        ("{0..3}.tar", r"1\.tar: no such file \(3 of 4 shards are missing\)"),
        ("x*.tar", r"x\*\.tar: no shard has such a name"),
        ("{a..c}.tar", r"\{a\.\.c\} is no range of numbers"),
        ("{0..9999999}.tar", "names more than 100000 shards"),
        ("{0..999999999999}{0..9999}.tar", "names more than 100000 shards"),
        ("{0..3}.jpg", "no such file or folder"),
        ("x" * 300 + ".tar", "cannot be read: File name too long"),
        ("x" * 300 + "{0..3}.tar", "no such file"),
        ("packed.tar.gz", r"is compressed, .*\(gunzip\)"),
        ("packed.tgz", r"is compressed, .*\(gunzip\)"),
        ("p{acked}.tar::packed.tar.zst", r"is compressed, .*\(unzstd\)"),
    ],
)
def test_shards_that_cannot_be_opened_are_an_error(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for there in ("0.tar", "packed.tar.gz", "packed.tgz", "packed.tar.zst"):
        _pack(tmp_path / there, {"a.png": _png(0)})
    with pytest.raises(InputError, match=message):
        open_source(Path(name))


def test_a_folder_of_shards_alone_stands_for_them(tmp_path: Path) -> None:
    for name in ("0.tar", "1.tar"):
        _pack(tmp_path / name, {f"ann/{name}.png": _png(0), f"ann/{name}.note": b"ignored"})
    (tmp_path / "README.txt").write_text("ignored too")
    named, folder = open_source(tmp_path / "{0,1}.tar"), open_source(tmp_path)
    assert list(folder.pictures) == list(named.pictures)
    assert folder.ignored == named.ignored + 1 == 3


def test_shards_in_folders_below_are_an_error_that_says_where_they_must_lie(
    tmp_path: Path,
) -> None:
    (tmp_path / "below").mkdir()
    _pack(tmp_path / "below" / "0.tar", {"a.png": _png(0)})
    with pytest.raises(InputError, match=r"1 tar files .* give the folder of the shards"):
        open_source(tmp_path)


def test_a_root_is_not_for_shards(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leave out --root"):
        open_source(_pack(tmp_path / "x.tar", {"a.png": _png(0)}), root=tmp_path)


# --- which pictures ----------------------------------------------------------------------------


def test_the_pictures_of_shards_are_those_that_webdataset_reads(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    written: dict[str, tuple[bytes, str]] = {}
    for shard in range(3):
        with webdataset.TarWriter(str(tmp_path / f"{shard:03}.tar")) as writer:
            for number in range(20):
                key, person = f"{shard}/{number:05}", (shard + number) % 7
                content = _png(100 * shard + number)
                writer.write({"__key__": key, "png": content, "cls": person})
                written[f"{key}.png"] = content, str(person)
    name = f"{tmp_path}/{{000..002}}.tar"
    source = open_source(Path(name))
    ours = {p.key: (p.data, p.identity) for p in source.pictures}
    theirs = {
        f"{sample['__key__']}.png": (sample["png"], sample["cls"].decode())
        for sample in webdataset.WebDataset(name, shardshuffle=False)
    }
    assert ours == theirs == written
    assert [p.key for p in source.pictures] == sorted(written)
    assert source.ignored == 60  # the labels


def test_identities_come_from_cls_then_json_then_the_folder(tmp_path: Path) -> None:
    labels = {"identity": "anna", "label": 5}
    members: dict[str, bytes | str] = {
        "a/cls.jpg": b"1", "a/cls.cls": " 17\n", "a/cls.json": json.dumps(labels),
        "a/identity.json": json.dumps(labels), "a/identity.jpg": b"2",
        "a/label.jpg": b"3", "a/label.json": '{"label": 0, "identity": null}',
        "a/none.jpg": b"4", "a/none.json": '{"label": [1, 2]}', "a/none.txt": "text",
        "a/list.jpg": b"5", "a/list.json": "[1]",
        "a/no%.jpg": b"6", "a/no%.cls": "Andr\u00e9 50%",
        "a/empty.jpg": b"7", "a/empty.cls": "",
        "top.jpg": b"8",
    }  # fmt: skip
    source = open_source(_pack(tmp_path / "x.tar", members))
    assert dict(_found(source)) == {
        "a/cls.jpg": "17",
        "a/identity.jpg": "anna",
        "a/label.jpg": "0",
        "a/none.jpg": "a",
        "a/list.jpg": "a",
        "a/no%25.jpg": "André 50%25",
        "a/empty.jpg": "",
        "top.jpg": "",
    }
    assert source.ignored == 9


def test_labels_are_read_as_other_programs_write_them(tmp_path: Path) -> None:
    members: dict[str, bytes | str] = {
        "a/1.jpg": b"1", "a/1.cls": b"\xef\xbb\xbfanna\r\n",
        "a/2.jpg": b"2", "a/2.json": b'\xef\xbb\xbf{"label": 17.0}',
        "a/3.jpg": b"3", "a/3.json": '{"label": 1e400}',
        "a/4.jpg": b"4", "a/4.json": '{"label": 0.5}',
    }  # fmt: skip
    found = _found(open_source(_pack(tmp_path / "x.tar", members)))
    assert [identity for _, identity in found] == ["anna", "17", "a", "a"]


@pytest.mark.parametrize(
    ("name", "label", "message"),
    [
        ("a.cls", b"x" * 5000, "is too long for an identity"),
        ("a.cls", b"\0\1\2", "holds no text"),
        ("a.json", b"{", "is no valid JSON"),
        ("a.json", b"[" * 100_000, "is no valid JSON"),
        ("a.json", b"\xff\xfe", "is no valid JSON"),
        ("a.json", b'{"label": ' + b"9" * 5000 + b"}", "is no valid JSON"),
        ("a.json", b'{"label": "nul\\u0000"}', "holds no text"),
    ],
)
def test_a_label_that_is_none_is_an_error_at_its_place(
    name: str, label: bytes, message: str, tmp_path: Path
) -> None:
    path = _pack(tmp_path / "x.tar", {"a.jpg": b"1", name: label})
    with pytest.raises(InputError, match=rf"x\.tar: the label at byte 1536 {message}"):
        open_source(path)
    _pack(path, {"a.txt": b"1", name: label, "b.jpg": b"2"})  # of no picture
    assert _found(open_source(path)) == [("b.jpg", "")]


def test_labels_that_lie_apart_from_their_pictures_are_counted_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    members = {"a/1.jpg": b"1", "a/2.jpg": b"2", "a/1.cls": "x", "a/2.json": '{"label": "y"}'}
    beside = {"b/3.jpg": b"3", "b/3.cls": "z", "b/4.mp4": b"4", "b/4.cls": "z", "about.json": "{}"}
    source = open_source(_pack(tmp_path / "x.tar", {**members, **beside}))
    assert dict(_found(source)) == {"a/1.jpg": "a", "a/2.jpg": "a", "b/3.jpg": "z"}
    assert "2 labels in the shards do not lie beside the picture of their name" in caplog.text
    caplog.clear()
    open_source(_pack(tmp_path / "x.tar", dict(sorted(members.items())) | beside))
    assert not caplog.text


def test_other_views_of_a_sample_are_no_pictures_but_dots_in_names_do_no_harm(
    tmp_path: Path,
) -> None:
    members: dict[str, bytes | str] = {
        "a.cls": "1", "a.depth.png": b"", "a.jpg": b"", "a.seg.png": b"",
        "A.J._Cook/A.J._Cook_1.jpg": b"", "A.J._Cook/A.J._Cook_2.cls": "two",
        "A.J._Cook/A.J._Cook_2.jpg": b"",
        "b.JPG": b"", "b.png": b"", "b.Cls": "b",
        "./c/./d.jpg": b"", ".hidden.jpg": b"", "c/._d.jpg": b"", ".trash/e.jpg": b"", "noext": b"",
    }  # fmt: skip
    source = open_source(_pack(tmp_path / "x.tar", members))
    assert _found(source) == [
        ("A.J._Cook/A.J._Cook_1.jpg", "A.J._Cook"),
        ("A.J._Cook/A.J._Cook_2.jpg", "two"),
        ("a.jpg", "1"),
        ("b.JPG", "b"),
        ("b.png", "b"),
        ("c/./d.jpg", "c/."),
    ]
    assert source.ignored == len(members) - 6


def test_labels_stay_with_their_pictures_in_a_shard_that_looks_like_one_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "_LARGEST_SAMPLE", 5)
    members: dict[str, bytes | str] = {}
    for number in range(30):
        members |= {f"face.{number:02}.cls": str(number), f"face.{number:02}.jpg": b""}
    found = _found(open_source(_pack(tmp_path / "x.tar", members)))
    assert found == [(f"face.{number:02}.jpg", str(number)) for number in range(30)]


def test_hostile_names_are_keys_and_never_paths(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    names = ["../secret.jpg", f"{tmp_path}/secret.jpg", "line\nbreak.jpg", os.fsdecode(b"\xe9.jpg")]
    names += ["50%.jpg", "n" * 255 + ".jpg", "e\u0301.jpg", "\u00e9.jpg"]
    packed: dict[str, bytes | str] = {name: name.encode("utf-8", "replace") for name in names}
    pictures = open_source(_pack(tmp_path / "s/x.tar", packed)).pictures
    found = {p.key: p.data for p in pictures}
    keys = [name.replace("%", "%25").replace("\udce9", "%E9") for name in names]
    assert found == dict(zip(keys, packed.values(), strict=True))
    assert [p.key for p in pictures] == sorted(keys, key=str.encode)
    assert {p.path for p in pictures} == {tmp_path / "s/x.tar"}


def test_one_name_in_two_shards_is_an_error_naming_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(spill, "RUN", 3)
    for shard in range(4):
        members: dict[str, bytes | str] = {f"{shard}-{n}.jpg": b"" for n in range(9)}
        members |= {"anna.jpg": b""} if shard in (1, 3) else {}
        _pack(tmp_path / f"{shard}.tar", members)
    message = r"3\.tar: holds a picture of the same name as one in .*1\.tar"
    with pytest.raises(InputError, match=message) as raised:
        open_source(tmp_path / "{0..3}.tar")
    assert "anna" not in str(raised.value)
    with caplog.at_level(logging.DEBUG), pytest.raises(InputError):
        open_source(tmp_path / "{0..3}.tar")
    assert "anna.jpg" in caplog.text


def test_links_named_like_pictures_are_counted_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = tmp_path / "d/1.jpg"
    one.parent.mkdir()
    one.write_bytes(b"content")
    os.link(one, tmp_path / "d/2.jpg")
    (tmp_path / "d/3.jpg").symlink_to("1.jpg")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(tmp_path / "d", "d")
    source = open_source(tmp_path / "x.tar")
    assert len(source.pictures) == 1
    assert source.ignored == 2
    assert "2 links or sparse files in the shards have names of pictures" in caplog.text


# --- reading them ------------------------------------------------------------------------------


def test_a_picture_in_a_shard_is_small_and_read_where_it_is_wanted(tmp_path: Path) -> None:
    path = _pack(tmp_path / "x.tar", {f"{n}.png": _png(n) for n in range(5)})
    pictures = open_source(path).pictures
    sent = pickle.dumps(pictures[3])
    assert len(sent) < 500
    picture = pickle.loads(sent)
    assert picture.data == _png(3)
    np.testing.assert_array_equal(decode(picture.data), decode(_png(3)))
    stamps = [p.stamp() for p in pictures]
    assert len(set(stamps)) == 5
    path.write_bytes(path.read_bytes()[:-10_000])
    os.utime(path, ns=(0, 0))
    assert pictures[3].stamp() not in stamps
    with pytest.raises(PictureError, match="truncated"):
        _ = pictures[4].data
    path.unlink()
    assert pictures[3].stamp() == "unreadable"
    with pytest.raises(PictureError, match="no such file"):
        _ = picture.data


def test_shards_embed_as_their_folder_does(
    pictures: Path, fake_model_file: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as one, tarfile.open(tmp_path / "1.tar", "w") as two:
        one.add(pictures / "p0", "p0")
        (pictures / "p1" / "cut.png").write_bytes(_png(0)[:-200])
        for name in ("p1", "p2", "p3", "p4", "nobody.png"):
            two.add(pictures / name, name)
    results = []
    for number, images in enumerate((pictures, tmp_path / "{0..1}.tar")):
        out = tmp_path / f"{number}.h5"
        results.append(run_cli.json("embed", images, "--model", fake_model_file, "--out", out))
    for name in ("images", "embedded", "failed", "ignored"):
        assert results[0][name] == results[1][name]
    assert results[0]["embedded"] == 11 and results[0]["failed"] == 1
    import h5py

    with h5py.File(tmp_path / "0.h5") as folder, h5py.File(tmp_path / "1.h5") as packed:
        for dataset in ("embeddings", "norms", "paths", "identities", "failed/paths"):
            np.testing.assert_array_equal(folder[dataset][()], packed[dataset][()])
