from __future__ import annotations

import json
from pathlib import Path

import faiss
import h5py
import numpy as np
import pytest

from faceidx.errors import InputError
from faceidx.files import writer_lock
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
from faceidx.gallery.folder import load_gallery
from tests.gallery.conftest import DIM, WriteFaces, clustered


def _bytes(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_gallery_is_readable_with_plain_faiss_h5py_and_json(gallery_path: Path) -> None:
    index = faiss.read_index(str(gallery_path / "index.faiss"))
    assert isinstance(index, faiss.IndexFlatIP)
    assert (index.ntotal, index.d, index.metric_type) == (60, DIM, faiss.METRIC_INNER_PRODUCT)
    expected = clustered(12, 5)
    np.testing.assert_array_equal(index.reconstruct_n(0, 60), expected)
    with h5py.File(gallery_path / "gallery.h5") as data:
        np.testing.assert_array_equal(data["embeddings"][()], expected)
        assert data["paths"].asstr()[7] == "person01/7.jpg"
        assert data["identities"].asstr()[7] == "person01"
        assert data.attrs["format"] == "faceidx-gallery"
        assert json.loads(data.attrs["preprocessing"]) == {"size": 112}
    manifest = json.loads((gallery_path / "manifest.json").read_text())
    assert manifest["counts"] == {"vectors": 60, "identities": 12, "refused": 0}
    assert manifest["threshold"] is None
    assert [file.stat().st_mode & 0o777 for file in gallery_path.iterdir()] == [0o600] * 3


def test_our_flat_file_is_byte_for_byte_what_faiss_writes(
    gallery_path: Path, tmp_path: Path
) -> None:
    index = faiss.IndexFlatIP(DIM)
    index.add(clustered(12, 5))
    faiss.write_index(index, str(tmp_path / "own.faiss"))
    assert (gallery_path / "index.faiss").read_bytes() == (tmp_path / "own.faiss").read_bytes()


def test_nan_infinite_and_zero_rows_are_left_out_counted_and_listed(
    tmp_path: Path, write_faces: WriteFaces
) -> None:
    vectors = clustered(3, 4)
    vectors[1, 3] = np.nan
    vectors[4, 0] = np.inf
    vectors[6] = 0
    file = write_faces("faces.h5", vectors, [f"p{n // 4}" for n in range(12)])
    result = build(BuildOptions(files=[file], out=tmp_path / "g"))
    assert (result["vectors"], result["refused"], result["identities"]) == (9, 3, 3)
    with load_gallery(tmp_path / "g") as gallery:
        assert [(r.path, r.reason) for r in gallery.refused] == [
            ("p0/1.jpg", "holds NaN or infinity"),
            ("p1/4.jpg", "holds NaN or infinity"),
            ("p1/6.jpg", "has length zero"),
        ]
        kept = np.delete(vectors, [1, 4, 6], axis=0)
        np.testing.assert_array_equal(gallery.vectors(), kept)
    assert verify(tmp_path / "g")["vectors"] == 9


def test_rows_off_unit_length_are_scaled_and_counted(
    tmp_path: Path, write_faces: WriteFaces
) -> None:
    vectors = clustered(2, 2)
    file = write_faces("faces.h5", vectors * np.array([[1], [3], [1], [0.5]]), list("aabb"))
    result = build(BuildOptions(files=[file], out=tmp_path / "g"))
    assert result["renormalised"] == 2
    with load_gallery(tmp_path / "g") as gallery:
        np.testing.assert_allclose(gallery.vectors(), vectors, atol=1e-7)


def test_float16_files_become_unit_float32_without_a_warning(
    tmp_path: Path, write_faces: WriteFaces
) -> None:
    file = write_faces("half.h5", clustered(5, 4), list("aaaabbbbccccddddeeee"), dtype="float16")
    assert build(BuildOptions(files=[file], out=tmp_path / "g"))["renormalised"] == 0
    with load_gallery(tmp_path / "g") as gallery:
        lengths = np.linalg.norm(gallery.vectors().astype(np.float64), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-6)


def test_files_of_two_models_are_refused(tmp_path: Path, write_faces: WriteFaces) -> None:
    one = write_faces("one.h5", clustered(1, 2), ["a", "a"])
    other = write_faces("other.h5", clustered(1, 2), ["b", "b"], fingerprint="e" * 64)
    with pytest.raises(InputError, match="different models"):
        build(BuildOptions(files=[one, other], out=tmp_path / "g"))
    assert not (tmp_path / "g").exists()


def test_another_dimension_is_refused(gallery_path: Path, write_faces: WriteFaces) -> None:
    wide = write_faces("wide.h5", np.eye(4, 20, dtype=np.float32), list("wxyz"))
    with pytest.raises(InputError, match="20 numbers"):
        add(AddOptions(gallery=gallery_path, files=[wide]))


def test_a_key_twice_is_refused_unless_prefixes_set_the_sources_apart(
    tmp_path: Path, write_faces: WriteFaces
) -> None:
    one = write_faces("one.h5", clustered(1, 2), ["a", "a"])
    other = write_faces("other.h5", clustered(1, 2, seed=1), ["a", "a"])
    out = tmp_path / "g"
    with pytest.raises(InputError, match=r"other\.h5: 2 keys .*--prefix"):
        build(BuildOptions(files=[one, other], out=out))
    with pytest.raises(InputError, match="1 --prefix for 2 files"):
        build(BuildOptions(files=[one, other], out=out, prefixes=["x"]))
    result = build(BuildOptions(files=[one, other], out=out, prefixes=["", "x"]))
    assert (result["vectors"], result["identities"]) == (4, 1)
    with load_gallery(out) as gallery:
        assert gallery.paths == ["a/0.jpg", "a/1.jpg", "x/a/0.jpg", "x/a/1.jpg"]


def test_a_key_twice_in_one_file_is_no_matter_of_prefixes(
    tmp_path: Path, write_faces: WriteFaces, caplog: pytest.LogCaptureFixture
) -> None:
    file = write_faces("f.h5", clustered(1, 3), ["a"] * 3, paths=["a/1", "a/2", "a/1"])
    with (
        caplog.at_level("DEBUG", "faceidx.gallery"),
        pytest.raises(InputError, match=r"f\.h5 is damaged: 1 keys are in it twice \(-v"),
    ):
        build(BuildOptions(files=[file], out=tmp_path / "g", prefixes=["x"]))
    assert "'x/a/1' is there twice" in caplog.text
    assert not (tmp_path / "g").exists()


def test_an_existing_output_is_kept_unless_overwrite_is_given(
    gallery_path: Path, tmp_path: Path, write_faces: WriteFaces
) -> None:
    file = write_faces("one.h5", clustered(1, 2), ["a", "a"])
    with pytest.raises(InputError, match="--overwrite"):
        build(BuildOptions(files=[file], out=gallery_path))
    build(BuildOptions(files=[file], out=gallery_path, overwrite=True))
    assert verify(gallery_path)["vectors"] == 2


def test_overwrite_never_deletes_a_folder_that_is_no_gallery(
    tmp_path: Path, write_faces: WriteFaces
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "holiday.jpg").write_bytes(b"dear")
    file = write_faces("one.h5", clustered(1, 2), ["a", "a"])
    with pytest.raises(InputError, match="1 entries that belong to no gallery"):
        build(BuildOptions(files=[file], out=photos, overwrite=True))
    assert (photos / "holiday.jpg").read_bytes() == b"dear"


def test_nothing_usable_builds_nothing(tmp_path: Path, write_faces: WriteFaces) -> None:
    file = write_faces("zero.h5", np.zeros((3, DIM), dtype=np.float32), list("abc"))
    with pytest.raises(InputError, match="none of the 3 rows"):
        build(BuildOptions(files=[file], out=tmp_path / "g"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["zero.h5"]


def test_added_rows_come_after_the_old_ones(gallery_path: Path, write_faces: WriteFaces) -> None:
    vectors = clustered(2, 3, seed=5)
    file = write_faces("more.h5", vectors, ["new"] * 3 + ["person00"] * 3, paths=list("uvwxyz"))
    result = add(AddOptions(gallery=gallery_path, files=[file]))
    assert (result["added"], result["vectors"], result["identities"]) == (6, 66, 13)
    with load_gallery(gallery_path) as gallery:
        np.testing.assert_array_equal(
            gallery.vectors(), np.concatenate([clustered(12, 5), vectors])
        )
        assert gallery.identities[60:] == ["new"] * 3 + ["person00"] * 3


def test_a_refused_picture_that_comes_again_is_refused_no_more_or_once(
    tmp_path: Path, write_faces: WriteFaces
) -> None:
    vectors = clustered(2, 2)
    vectors[1:3] = np.nan
    first = write_faces("first.h5", vectors, list("aabb"))
    build(BuildOptions(files=[first], out=tmp_path / "g"))
    again = clustered(2, 2)[1:3]
    again[1] = np.nan
    second = write_faces("second.h5", again, list("ab"), paths=["a/1.jpg", "b/2.jpg"])
    assert add(AddOptions(gallery=tmp_path / "g", files=[second]))["refused"] == 1
    with load_gallery(tmp_path / "g") as gallery:
        assert [row.path for row in gallery.refused] == ["b/2.jpg"]
        assert gallery.paths == ["a/0.jpg", "b/3.jpg", "a/1.jpg"]


def test_adding_a_key_that_is_there_changes_nothing(gallery_path: Path, tmp_path: Path) -> None:
    before = _bytes(gallery_path)
    with pytest.raises(InputError, match="60 keys are there already"):
        add(AddOptions(gallery=gallery_path, files=[tmp_path / "people.h5"]))
    assert _bytes(gallery_path) == before


def test_a_removed_person_is_found_in_no_byte_of_the_folder(
    tmp_path: Path, write_faces: WriteFaces
) -> None:
    vectors = clustered(3, 4)
    vectors[5, 0] = np.nan  # a refused row bears the name too
    names = ["anna"] * 4 + ["zacharias"] * 4 + ["bert"] * 4
    out = tmp_path / "g"
    build(BuildOptions(files=[write_faces("f.h5", vectors, names)], out=out))
    assert any(b"zacharias" in content for content in _bytes(out).values())
    result = remove(RemoveOptions(gallery=out, identities=["zacharias"]))
    assert (result["removed"], result["vectors"], result["identities"]) == (3, 8, 2)
    for content in _bytes(out).values():
        assert b"zacharias" not in content
        assert vectors[4].tobytes() not in content
    assert verify(out)["vectors"] == 8
    assert info(out)["refused"] == 0


def test_single_pictures_are_removed_by_their_key(gallery_path: Path) -> None:
    result = remove(RemoveOptions(gallery=gallery_path, paths=["person01/7.jpg"]))
    assert (result["removed"], result["identities"]) == (1, 12)
    with load_gallery(gallery_path) as gallery:
        assert "person01/7.jpg" not in gallery.paths
        np.testing.assert_array_equal(gallery.vectors(), np.delete(clustered(12, 5), 7, axis=0))


def test_removing_an_unknown_name_changes_nothing(gallery_path: Path) -> None:
    before = _bytes(gallery_path)
    for options in (
        RemoveOptions(gallery=gallery_path, identities=["person00", "nobody"]),
        RemoveOptions(gallery=gallery_path, paths=["person00/0.jpg", "nobody"]),
        RemoveOptions(gallery=gallery_path, identities=[""]),
        RemoveOptions(gallery=gallery_path),
    ):
        with pytest.raises(InputError):
            remove(options)
    assert _bytes(gallery_path) == before


def test_the_last_person_can_be_removed_and_others_added_after(
    gallery_path: Path, tmp_path: Path
) -> None:
    remove(RemoveOptions(gallery=gallery_path, identities=[f"person{n:02}" for n in range(12)]))
    assert verify(gallery_path)["vectors"] == 0
    add(AddOptions(gallery=gallery_path, files=[tmp_path / "people.h5"]))
    assert verify(gallery_path)["vectors"] == 60


def test_a_gallery_reached_by_a_link_is_changed_itself(gallery_path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(gallery_path)
    remove(RemoveOptions(gallery=link, identities=["person03"]))
    assert link.is_symlink()
    assert verify(gallery_path)["identities"] == 11


def test_import_rebuilds_from_the_vectors_alone(gallery_path: Path, tmp_path: Path) -> None:
    (gallery_path / "index.faiss").write_bytes(b"hostile")
    (gallery_path / "manifest.json").unlink()
    result = import_gallery(ImportOptions(source=gallery_path, out=tmp_path / "own"))
    assert (result["vectors"], result["identities"]) == (60, 12)
    with load_gallery(tmp_path / "own") as gallery:
        np.testing.assert_array_equal(gallery.vectors(), clustered(12, 5))


def test_import_refuses_data_that_lie_elsewhere(gallery_path: Path, tmp_path: Path) -> None:
    source = gallery_path / "gallery.h5"
    with h5py.File(source, "r+") as data:
        del data["embeddings"]
        data.create_dataset(
            "embeddings", (60, DIM), "float32", external=[(str(tmp_path / "people.h5"), 0, 4000)]
        )
    with pytest.raises(InputError, match="no plain dataset"):
        import_gallery(ImportOptions(source=source, out=tmp_path / "own"))
    with h5py.File(source, "r+") as data:
        del data["embeddings"]
        data["embeddings"] = h5py.ExternalLink(str(tmp_path / "people.h5"), "embeddings")
    with pytest.raises(InputError, match="link"):
        import_gallery(ImportOptions(source=source, out=tmp_path / "own"))
    assert not (tmp_path / "own").exists()


def test_import_refuses_a_table_that_claims_more_rows_than_the_file_holds(
    gallery_path: Path, tmp_path: Path
) -> None:
    with h5py.File(gallery_path / "gallery.h5", "r+") as data:
        del data["embeddings"]
        data.create_dataset("embeddings", (10**12, DIM), "float32", chunks=(64, DIM))
    with pytest.raises(InputError, match="claims more rows"):
        import_gallery(ImportOptions(source=gallery_path, out=tmp_path / "own"))


def test_a_second_writer_is_refused(gallery_path: Path, tmp_path: Path) -> None:
    with writer_lock(gallery_path), pytest.raises(InputError, match="another process"):
        remove(RemoveOptions(gallery=gallery_path, identities=["person00"]))
    assert verify(gallery_path)["identities"] == 12


def test_a_damaged_gallery_is_not_changed(gallery_path: Path) -> None:
    index = gallery_path / "index.faiss"
    content = bytearray(index.read_bytes())
    content[-1] ^= 1
    index.write_bytes(content)
    with pytest.raises(InputError, match="SHA-256"):
        remove(RemoveOptions(gallery=gallery_path, identities=["person00"]))


def test_errors_of_a_change_name_the_gallery_as_it_was_given(
    gallery_path: Path, write_faces: WriteFaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_faces("other.h5", clustered(1, 1), ["a"], fingerprint="e" * 64)
    monkeypatch.chdir(gallery_path.parent)
    given = Path(gallery_path.name)
    with pytest.raises(InputError, match=r"^gallery: no identity 'nobody'"):
        remove(RemoveOptions(gallery=given, identities=["nobody"]))
    with pytest.raises(InputError, match=r"^gallery: no path 'none'"):
        remove(RemoveOptions(gallery=given, paths=["none"]))
    with pytest.raises(InputError, match=r"^gallery and .* different models"):
        add(AddOptions(gallery=given, files=[other]))
    (gallery_path / "index.faiss").write_bytes(b"")
    with pytest.raises(InputError, match=r"^gallery/index\.faiss is damaged"):
        remove(RemoveOptions(gallery=given, identities=["person01"]))
    (gallery_path / "notes").touch()
    with pytest.raises(InputError, match=r"^gallery holds 1 entries"):
        remove(RemoveOptions(gallery=given, identities=["person01"]))
