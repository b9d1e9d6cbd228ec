from __future__ import annotations

import json
import re
import stat
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import h5py
import numpy as np
import pytest

from faceidx.embedding.store import (
    VERSION,
    EmbeddingFile,
    Left,
    Origin,
    open_hdf5,
    require_one_model,
    write_embeddings,
)
from faceidx.errors import InputError

_ORIGIN = Origin(model="m.onnx", fingerprint="ab" * 32, preprocessing={"flip": False, "n": [1]})
_VECTORS = np.eye(3, 4, dtype=np.float32)
_PATHS = ["a/1.jpg", "a/2.jpg", "ß/\n\x1b[31m%FF.jpg"]


def _write(path: Path, **changes: object) -> Path:
    values: dict[str, object] = {
        "origin": _ORIGIN,
        "vectors": _VECTORS,
        "norms": np.array([1, 2, 3], dtype=np.float32),
        "paths": _PATHS,
        "identities": ["a", "a", ""],
        "left": Left(failed=[("b.jpg", "truncated")], no_face=["c.jpg", "d.jpg"]),
        **changes,
    }
    write_embeddings(path, **values)  # type: ignore[arg-type]
    return path


def test_a_file_comes_back_as_it_was_written(tmp_path: Path) -> None:
    with EmbeddingFile(_write(tmp_path / "a.h5", attributes={"far": 7})) as file:
        assert (file.count, file.dim) == (3, 4)
        assert file.origin == _ORIGIN
        assert file.paths() == _PATHS
        assert file.identities() == ["a", "a", ""]
        np.testing.assert_array_equal(file.vectors(), _VECTORS)
        np.testing.assert_array_equal(file.vectors(slice(1, 3)), _VECTORS[1:])
        np.testing.assert_array_equal(file.norms(), [1, 2, 3])
        left = file.left()
        assert left == Left(failed=[("b.jpg", "truncated")], no_face=["c.jpg", "d.jpg"])
        assert (file.attribute("far"), file.attribute("near", 1)) == (7, 1)


def test_blocks_cover_the_file_once(tmp_path: Path) -> None:
    with EmbeddingFile(_write(tmp_path / "a.h5")) as file:
        blocks = list(file.blocks(2))
    assert [first for first, _ in blocks] == [0, 2]
    np.testing.assert_array_equal(np.concatenate([rows for _, rows in blocks]), _VECTORS)


def test_bare_h5py_finds_what_the_format_promises(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.h5")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with h5py.File(path) as file:
        assert file["embeddings"].dtype == np.float32
        assert file["norms"].dtype == np.float32
        assert list(file["paths"].asstr()) == _PATHS
        assert list(file["failed/paths"].asstr()) == ["b.jpg"]
        assert list(file["failed/reasons"].asstr()) == ["truncated"]
        assert list(file["no_face/paths"].asstr()) == ["c.jpg", "d.jpg"]
        for name in ("paths", "identities", "failed/paths", "no_face/paths"):
            assert h5py.check_string_dtype(file[name].dtype).encoding == "utf-8"
        attributes = dict(file.attrs)
    assert datetime.fromisoformat(attributes.pop("created")).tzinfo is not None
    assert json.loads(attributes.pop("preprocessing")) == _ORIGIN.preprocessing
    assert attributes == {
        "format": "faceidx-embeddings",
        "version": 1,
        "model": "m.onnx",
        "fingerprint": "ab" * 32,
    }


def test_a_file_of_no_rows_can_be_read(tmp_path: Path) -> None:
    empty = np.empty((0, 4), np.float32)
    path = _write(tmp_path / "a.h5", vectors=empty, norms=empty[:, 0], paths=[], identities=[])
    with EmbeddingFile(path) as file:
        assert (file.count, file.dim, file.paths()) == (0, 4, [])
        assert file.vectors().shape == (0, 4)
        assert list(file.blocks()) == []


def test_half_precision_is_stored_as_such_and_read_as_float32(tmp_path: Path) -> None:
    vectors = np.full((3, 4), 0.1, dtype=np.float32)
    path = _write(tmp_path / "a.h5", vectors=vectors, dtype="float16")
    with h5py.File(path) as file:
        assert file["embeddings"].dtype == np.float16
    with EmbeddingFile(path) as embeddings:
        assert embeddings.vectors().dtype == np.float32
        np.testing.assert_array_equal(embeddings.vectors(), np.float16(0.1))


# --- what is not to be trusted -----------------------------------------------------------------


def _retype(file: h5py.File, name: str, value: object) -> None:
    del file[name]
    file[name] = value


_CHANGES: dict[str, tuple[Callable[[h5py.File], object], str]] = {
    "another format": (lambda f: f.attrs.update(format="other"), "'other'"),
    "no format": (lambda f: f.attrs.pop("format"), "None"),
    "an array as format": (lambda f: f.attrs.update(format=[1, 2]), "no faceidx-embeddings file"),
    "a newer version": (lambda f: f.attrs.update(version=VERSION + 1), "newer faceidx"),
    "a version in words": (lambda f: f.attrs.update(version="one"), "no readable"),
    "broken JSON": (lambda f: f.attrs.update(preprocessing="{"), "damaged"),
    "a list as JSON": (lambda f: f.attrs.update(preprocessing="[1]"), "no JSON object"),
    "no embeddings": (lambda f: f.pop("embeddings"), "embeddings is missing"),
    "no paths": (lambda f: f.pop("paths"), "paths is missing"),
    "flat embeddings": (lambda f: _retype(f, "embeddings", np.ones(3)), "damaged"),
    "a group for embeddings": (lambda f: _retype(f, "embeddings", None), "damaged|no plain"),
    "fewer paths": (lambda f: f["paths"].resize(2, axis=0), r"paths is of shape \(2,\)"),
    "fewer norms": (lambda f: f["norms"].resize(2, axis=0), r"norms is of shape \(2,\)"),
}


@pytest.mark.parametrize("change", _CHANGES)
def test_a_file_that_is_not_what_it_should_be_is_an_error(change: str, tmp_path: Path) -> None:
    path = _write(tmp_path / "a.h5")
    act, message = _CHANGES[change]
    with h5py.File(path, "r+") as file:
        if change == "a group for embeddings":
            del file["embeddings"]
            file.create_group("embeddings")
        else:
            act(file)
    with pytest.raises(InputError, match=message) as error:
        EmbeddingFile(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "value"), [("paths", [1, 2, 3]), ("identities", [0.5, 0.5, 0.5])])
def test_texts_that_are_none_are_an_error(name: str, value: object, tmp_path: Path) -> None:
    path = _write(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        _retype(file, name, value)
    with EmbeddingFile(path) as file, pytest.raises(InputError, match="damaged"):
        getattr(file, name)()


def test_failures_without_a_reason_each_are_an_error(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        _retype(file, "failed/reasons", ["one", "two"])
    with EmbeddingFile(path) as file, pytest.raises(InputError, match="differ in length"):
        file.left()


@pytest.mark.parametrize("kind", ["external link", "soft link", "external data", "virtual"])
@pytest.mark.parametrize("name", ["embeddings", "paths", "failed/paths"])
def test_data_of_other_files_are_never_followed(kind: str, name: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.h5"
    _write(secret)
    path = _write(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        shape, dtype = file[name].shape, file[name].dtype
        del file[name]
        if kind == "external link":
            file[name] = h5py.ExternalLink("secret.h5", name)
        elif kind == "soft link":
            file[name] = h5py.SoftLink("/norms")
        elif kind == "external data":
            file.create_dataset(
                name, shape, "float32", external=[(str(secret), 0, h5py.h5f.UNLIMITED)]
            )
        else:
            layout = h5py.VirtualLayout(shape, dtype)
            layout[...] = h5py.VirtualSource("secret.h5", name, shape)
            file.create_virtual_dataset(name, layout)
    with pytest.raises(InputError, match="only data of the file itself"):  # noqa: SIM117
        with EmbeddingFile(path) as embeddings:
            embeddings.left()


def test_damaged_bytes_are_an_error_and_never_another(tmp_path: Path) -> None:
    whole = _write(tmp_path / "a.h5").read_bytes()
    chance = np.random.default_rng(0)
    broken = 0
    for number in range(120):
        data = bytearray(whole)
        if number % 3:
            del data[chance.integers(len(data)) :]
        else:
            first = int(chance.integers(len(data)))
            data[first : first + 4] = chance.bytes(len(data[first : first + 4]))
        path = tmp_path / f"{number}.h5"
        path.write_bytes(data)
        try:
            with EmbeddingFile(path) as file:
                file.vectors(), file.norms(), file.paths(), file.identities(), file.left()
        except InputError as error:
            broken += 1
            assert "\n" not in str(error)
    assert broken > 50


@pytest.mark.parametrize("name", ["model", "fingerprint", "preprocessing"])
def test_attributes_that_are_no_text_are_an_error(name: str, tmp_path: Path) -> None:
    path = _write(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file.attrs.create(name, b"\xca\xfe", dtype=h5py.string_dtype())
    with pytest.raises(InputError, match="damaged"):
        EmbeddingFile(path)


def test_files_that_are_no_hdf5_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("nothing")
    with pytest.raises(InputError, match="no readable HDF5"):
        EmbeddingFile(tmp_path / "text.h5")
    with pytest.raises(InputError, match="no such file"):
        EmbeddingFile(tmp_path / "none.h5")


def test_embeddings_of_different_models_never_mix(tmp_path: Path) -> None:
    one = EmbeddingFile(_write(tmp_path / "a.h5")).origin
    require_one_model(one, "a.h5", EmbeddingFile(_write(tmp_path / "b.h5")).origin, "b.h5")
    origin = Origin(model="m.onnx", fingerprint="cd" * 32, preprocessing=one.preprocessing)
    other = EmbeddingFile(_write(tmp_path / "c.h5", origin=origin)).origin
    said = r"a\.h5 and c\.h5 come from different models .*\(fingerprints abab[ab]+ and cdcd[cd]+\)"
    with pytest.raises(InputError, match=said):
        require_one_model(one, "a.h5", other, "c.h5")


def test_what_differs_between_two_fingerprints_is_told_as_far_as_it_is_known() -> None:
    one = Origin(model="m", fingerprint="ab" * 32, preprocessing={"flip": False, "engine": "onnx"})
    told = {"flip": True, "mean": (0.5, 0.5, 0.5), "engine": "torch"}  # of a model: tuples
    other = Origin(model="m", fingerprint="cd" * 32, preprocessing=told)
    said = r"\(mean not known and \[0.5, 0.5, 0.5\], flip false and true; fingerprints "
    with pytest.raises(InputError, match=said):
        require_one_model(one, "a.h5", other, "m")
    stored = Origin(model="m", fingerprint="ab" * 32, preprocessing=json.loads(json.dumps(told)))
    with pytest.raises(InputError, match=r"preprocessing \(fingerprints "):
        require_one_model(stored, "a.h5", other, "m")


def test_a_folder_in_place_of_a_file_is_told_apart_from_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "my pictures"
    folder.mkdir()
    way_out = f"embed it first: faceidx embed '{folder}' --model"
    with pytest.raises(InputError, match=f"is a folder, not a file; {re.escape(way_out)}"):
        EmbeddingFile(folder)
    with pytest.raises(InputError, match=r"is a folder, not a file$"):
        open_hdf5(folder, "faceidx-gallery", 1)
