from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import h5py
import numpy as np
import pytest

from faceidx.errors import InputError, JobError
from faceidx.files import sha256_file
from faceidx.gallery import indexes, tune
from faceidx.gallery.approximate import Approximate
from faceidx.gallery.build import (
    AddOptions,
    BuildOptions,
    ImportOptions,
    RemoveOptions,
    add,
    build,
    import_gallery,
    remove,
)
from faceidx.gallery.check import info, verify
from faceidx.gallery.folder import load_gallery, write_manifest
from faceidx.gallery.indexes import IndexOptions
from faceidx.gallery.inverted import LISTS_DATA
from faceidx.gallery.manifest import FileRecord, parse_manifest
from faceidx.gallery.memory import parse_bytes
from faceidx.gallery.search import nearest_identities, search
from tests.gallery.conftest import DIM, WriteFaces, clustered

PEOPLE, PICTURES = 80, 10
ON_DISK = 1000  # bytes: less than any index takes
KINDS = [("ivf", None), ("ivf", ON_DISK), ("hnsw", None), ("IVF8,SQ8", None), ("SQ8", None)]


@dataclass
class Made:
    """A gallery of some kind, and one of the same faces to add."""

    path: Path
    kind: str
    more: Path
    result: dict[str, Any]


def _names(prefix: str, people: int) -> list[str]:
    return [f"{prefix}{n:02}" for n in range(people) for _ in range(PICTURES)]


@pytest.fixture(params=KINDS, ids=lambda kind: f"{kind[0]}{'-on-disk' if kind[1] else ''}")
def made(request: pytest.FixtureRequest, tmp_path: Path, write_faces: WriteFaces) -> Made:
    kind, memory = request.param
    faces = write_faces("faces.h5", clustered(PEOPLE, PICTURES), _names("person", PEOPLE))
    more = write_faces("more.h5", clustered(9, PICTURES, seed=7), _names("later", 9))
    out = tmp_path / "gallery"
    index = IndexOptions(kind=kind, memory=memory)
    return Made(out, kind, more, build(BuildOptions(files=[faces], out=out, index=index)))


def test_every_kind_finds_people_and_says_how_surely(made: Made) -> None:
    assert made.result["kind"] == made.kind
    assert made.result["recall_at_1"] >= 0.99
    tuning = info(made.path)["tuning"]
    recall = tuning["recall"]
    assert min(recall["neighbours"], recall["strangers"]) == made.result["recall_at_1"]
    assert recall["queries"] == PEOPLE * PICTURES // 4
    probes = clustered(PEOPLE, PICTURES + 1)[PICTURES :: PICTURES + 1]
    with load_gallery(made.path) as gallery:
        vectors = gallery.vectors()
        scores, rows = search(gallery, probes, 10)
        people = nearest_identities(gallery, probes, 3)
    exact = probes.astype(np.float64) @ vectors.astype(np.float64).T
    np.testing.assert_allclose(scores, np.take_along_axis(exact, rows, 1), atol=1e-6)
    assert (np.diff(scores, axis=1) <= 0).all()
    found = scores[:, 0] >= exact.max(axis=1) - 1e-6
    assert found.mean() >= 0.9  # 80 probes are too few to ask for 0.99
    assert all(len({c.identity for c in candidates}) == 3 for candidates in people)


def test_every_kind_is_a_plain_faiss_file(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {p.name for p in made.path.iterdir()}
    assert (LISTS_DATA in names) == (info(made.path)["files"].get(LISTS_DATA) is not None)
    index = faiss.read_index(str(made.path / "index.faiss"), faiss.IO_FLAG_ONDISK_SAME_DIR)
    assert (index.ntotal, index.d) == (PEOPLE * PICTURES, DIM)
    assert index.metric_type == faiss.METRIC_INNER_PRODUCT
    faiss.ParameterSpace().set_index_parameters(index, "")
    _, rows = index.search(clustered(PEOPLE, PICTURES)[:3], 3)
    assert ((rows >= -1) & (rows < PEOPLE * PICTURES)).all()
    monkeypatch.chdir(made.path)
    assert faiss.read_index("index.faiss").ntotal == PEOPLE * PICTURES
    modes = [file.stat().st_mode & 0o777 for file in made.path.iterdir()]
    assert modes == [0o600] * len(names)


def test_every_kind_takes_people_up_and_lets_them_go_without_a_trace(made: Made) -> None:
    on_disk = (made.path / LISTS_DATA).exists()
    result = add(AddOptions(gallery=made.path, files=[made.more]))
    assert (result["vectors"], result["kind"]) == (PEOPLE * PICTURES + 90, made.kind)
    assert verify(made.path)["vectors"] == PEOPLE * PICTURES + 90
    assert (made.path / LISTS_DATA).exists() == on_disk
    added = clustered(9, PICTURES, seed=7)
    with load_gallery(made.path) as gallery:
        rows = search(gallery, added, 1)[1][:, 0]
    assert (rows >= PEOPLE * PICTURES).mean() > 0.95
    gone = ["later03", "person11"]
    result = remove(RemoveOptions(gallery=made.path, identities=gone))
    assert (result["removed"], result["kind"]) == (20, made.kind)
    verify(made.path)
    removed = np.concatenate([added[30:40], clustered(PEOPLE, PICTURES)[110:120]])
    for file in made.path.iterdir():
        content = file.read_bytes()
        assert not [n for n in gone if n.encode() in content], file.name
        assert not [v for v in removed if v.tobytes() in content], file.name
    with load_gallery(made.path) as gallery:
        assert gallery.index.ntotal == gallery.count == PEOPLE * PICTURES + 70
        found = {c[0].identity for c in nearest_identities(gallery, removed, 1)}
    assert not found & set(gone)


def test_a_flipped_bit_in_any_file_of_any_kind_is_noticed(made: Made) -> None:
    chance = np.random.default_rng(1)
    for file in sorted(made.path.iterdir()):
        whole = file.read_bytes()
        for place in chance.integers(0, 8 * len(whole), 8):
            damaged = bytearray(whole)
            damaged[place // 8] ^= 1 << (place % 8)
            file.write_bytes(damaged)
            with pytest.raises(InputError, match=file.name):
                verify(made.path)
            if file.name == "index.faiss":  # FAISS's reader must not see it
                with pytest.raises(InputError, match="SHA-256"):
                    load_gallery(made.path)
        file.write_bytes(whole)
    assert verify(made.path)["intact"]


def test_import_rebuilds_any_kind_from_its_vectors(made: Made, tmp_path: Path) -> None:
    (made.path / "index.faiss").write_bytes(b"hostile")
    index = IndexOptions(kind=made.kind)
    options = ImportOptions(source=made.path, out=tmp_path / "own", index=index)
    assert import_gallery(options)["kind"] == made.kind
    assert verify(tmp_path / "own")["identities"] == PEOPLE


def test_new_vectors_join_the_lists_that_are_there(tmp_path: Path, write_faces: WriteFaces) -> None:
    faces = write_faces("faces.h5", clustered(PEOPLE, PICTURES), _names("person", PEOPLE))
    more = write_faces("more.h5", clustered(3, PICTURES, seed=7), _names("later", 3))
    out = tmp_path / "gallery"
    build(BuildOptions(files=[faces], out=out, index=IndexOptions(kind="ivf")))
    with load_gallery(out) as gallery:
        before = indexes.inverted.lists_of(gallery.index, "")
    add(AddOptions(gallery=out, files=[more]))
    with load_gallery(out) as gallery:
        after = indexes.inverted.lists_of(gallery.index, "")[: len(before)]
    # The same rows are together, whatever the numbers of their lists.
    assert len(set(zip(before, after, strict=True))) == len(set(before)) == len(set(after))


def test_a_gallery_that_has_outgrown_its_lists_gets_more(
    tmp_path: Path, write_faces: WriteFaces
) -> None:
    few = write_faces("few.h5", clustered(4, PICTURES), _names("person", 4))
    many = write_faces("many.h5", clustered(PEOPLE, PICTURES, seed=1), _names("later", PEOPLE))
    out = tmp_path / "gallery"
    build(BuildOptions(files=[few], out=out, index=IndexOptions(kind="ivf")))
    with load_gallery(out) as gallery:
        assert gallery.index.nlist <= 2
    add(AddOptions(gallery=out, files=[many]))
    with load_gallery(out) as gallery:
        assert gallery.index.nlist >= 16
    assert verify(out)["vectors"] == (PEOPLE + 4) * PICTURES


def test_a_target_out_of_reach_is_said(
    tmp_path: Path,
    write_faces: WriteFaces,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tune, "_MANY_CANDIDATES", ())  # which would be all that there are
    faces = write_faces("faces.h5", clustered(PEOPLE * 5, 2), _names("person", PEOPLE))
    index = IndexOptions(kind="PQ1x2", target_recall=1.0)
    result = build(BuildOptions(files=[faces], out=tmp_path / "g", index=index))
    assert result["recall_at_1"] < 1
    assert "less than --target-recall 1" in caplog.text


@pytest.mark.parametrize("kind", ["IVF4096,SQ8", "IVF4,PQ8", "PQ8", "IDMap,Flat", "IVF0,Flat"])
def test_a_kind_that_faiss_cannot_make_of_these_faces_is_refused_in_one_line(
    tmp_path: Path, write_faces: WriteFaces, kind: str
) -> None:
    faces = write_faces("faces.h5", clustered(10, 10), _names("person", 10))
    with pytest.raises(InputError, match=f"--kind {kind}: ..."):
        build(BuildOptions(files=[faces], out=tmp_path / "g", index=IndexOptions(kind=kind)))
    assert not (tmp_path / "g").exists()


@pytest.mark.parametrize("kind", ["Flatt", "IVF0x,Flat", "", "NSG32,Flat"])
def test_a_kind_that_nobody_makes_is_refused_before_anything_is_written(
    tmp_path: Path, write_faces: WriteFaces, kind: str
) -> None:
    faces = write_faces("faces.h5", clustered(2, 2), list("aabb"))
    with pytest.raises(InputError, match="--kind"):
        build(BuildOptions(files=[faces], out=tmp_path / "g", index=IndexOptions(kind=kind)))
    assert not (tmp_path / "g").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_disk_that_is_full_when_the_index_is_written_is_a_failed_job(
    tmp_path: Path, write_faces: WriteFaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = faiss.write_index
    monkeypatch.setattr(faiss, "write_index", lambda index, _: written(index, "/dev/full"))
    faces = write_faces("faces.h5", clustered(20, 10), _names("person", 20))
    index = IndexOptions(kind="HNSW32")
    with pytest.raises(JobError, match="g could not be written: No space left on device"):
        build(BuildOptions(files=[faces], out=tmp_path / "g", index=index))
    assert [path.name for path in tmp_path.iterdir()] == ["faces.h5"]


def test_row_numbers_outside_the_gallery_are_not_believed(gallery_path: Path) -> None:
    class Hostile:
        def search(self, queries: np.ndarray, k: int) -> tuple[None, np.ndarray]:
            rows = np.resize([-7, 60, 2**40, 5, -1], (len(queries), k))
            rows[:, 5:] = -1
            return None, rows

    with load_gallery(gallery_path) as gallery:
        search_in = Approximate(Hostile(), gallery.rows, 9, widest=60)
        scores, rows = search_in.search(clustered(12, 5)[:2], 2)
    assert rows.tolist() == [[5, -1], [5, -1]]
    assert np.isneginf(scores[:, 1]).all()


def test_a_gallery_of_an_older_faceidx_is_read(gallery_path: Path) -> None:
    """Its vectors lie in chunks, and its manifest is of version 1."""
    data = gallery_path / "gallery.h5"
    with h5py.File(data, "r+") as file:
        vectors = file["embeddings"][()]
        del file["embeddings"]
        shape = {"maxshape": (None, DIM), "chunks": (16, DIM)}
        file.create_dataset("embeddings", data=vectors, **shape)
    raw = (gallery_path / "manifest.json").read_bytes()
    assert json.loads(raw)["version"] == 1
    manifest = parse_manifest(raw, "")
    manifest.files["gallery.h5"] = FileRecord(size=data.stat().st_size, sha256=sha256_file(data))
    write_manifest(gallery_path, manifest)
    assert verify(gallery_path)["vectors"] == 60
    with load_gallery(gallery_path) as gallery:
        np.testing.assert_array_equal(gallery.vectors(), vectors)
        assert search(gallery, vectors[:3], 1)[1][:, 0].tolist() == [0, 1, 2]
    assert remove(RemoveOptions(gallery=gallery_path, paths=["person01/7.jpg"]))["removed"] == 1


def test_sizes_of_memory_are_read() -> None:
    assert parse_bytes("4G") == parse_bytes("4 GiB") == 4 * 2**30
    assert (parse_bytes("1.5m"), parse_bytes("123")) == (3 * 2**19, 123)
    for text in ("", "G", "-1", "0", "4X", "1e9"):
        with pytest.raises(InputError, match="--memory"):
            parse_bytes(text)
