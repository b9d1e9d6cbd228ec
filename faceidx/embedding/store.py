"""The embeddings file: HDF5, format `faceidx-embeddings`, version 1, readable with bare h5py.

docs/file-formats.md describes every dataset and attribute.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from faceidx.errors import InputError
from faceidx.files import whole_file
from faceidx.hdf5 import NewHdf5
from faceidx.images.keys import folder_of

SUFFIX = ".h5"
FORMAT = "faceidx-embeddings"
VERSION = 1
Column = np.ndarray | Sequence[str]
TEXT = h5py.string_dtype("utf-8")
# Rows of a chunk: large enough for sequential reads, small enough to fetch a few rows cheaply.
_CHUNK_ROWS = 1024
_OF_EVERY_FILE = frozenset({"embeddings", "norms", "paths", "identities"})
# What a fingerprint stands for beside the weights.
_OF_FINGERPRINT = ("image_size", "color", "mean", "std", "template", "flip")
# What h5py raises on damaged files, by the part that is damaged.
_H5PY_ERRORS = (KeyError, ValueError, TypeError, RuntimeError, OSError)


@dataclass(kw_only=True)
class Origin:
    """Where embeddings come from: what must agree before they may be compared."""

    model: str
    """Name of the model, for a person to read."""
    fingerprint: str
    """SHA-256 that identifies the model and its preprocessing; files that differ here never mix."""
    preprocessing: dict[str, Any] = field(default_factory=dict)
    """Everything that was done to a picture, plus engine, precision and detection."""


@dataclass(kw_only=True)
class Left:
    """What did not become an embedding."""

    failed: list[tuple[str, str]] = field(default_factory=list)
    """Key and reason of every picture that could not be read."""
    no_face: list[str] = field(default_factory=list)
    """Keys of the pictures in which no face was found."""
    stamps: dict[str, str] = field(default_factory=dict)
    """What changes when a picture does (`Picture.stamp`), of those of both lists that have one."""

    def reasons(self) -> list[tuple[str, str]]:
        """Key and reason of all of them."""
        return [*self.failed, *((key, "no face was found in it") for key in self.no_face)]


class EmbeddingFile:
    """An open embeddings file. A context manager; rows are read only when asked for.

    Args:
        path: the `.h5` file.

    Raises:
        InputError: the file is missing, is no embeddings file, was written by a newer version, or
            refers to other files (external, virtual and linked datasets are never followed).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open_hdf5(path, FORMAT, VERSION)
        try:
            with reading(path):
                self._vectors = own_dataset(self._file, "embeddings", path)
                self.count, self.dim = (int(n) for n in self._vectors.shape)
                for name in ("norms", "paths", "identities"):
                    shape = own_dataset(self._file, name, path).shape
                    if shape != (self.count,):
                        raise InputError(f"{path}: {name} is of shape {shape}, not ({self.count},)")
            self.origin = recorded_origin(self._file, path)
        except InputError:
            self._file.close()
            raise

    def __enter__(self) -> EmbeddingFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    @property
    def dtype(self) -> str:
        """How embeddings are stored: `float32` or `float16`."""
        return str(self._vectors.dtype)

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute of the file."""
        with reading(self.path):
            return self._file.attrs.get(name, default)

    def paths(self, rows: slice = slice(None)) -> list[str]:
        """Keys of the pictures (N), in the order of the rows."""
        return self._texts("paths", rows)

    def identities(self, rows: slice = slice(None)) -> list[str]:
        """Identity of each row (N), empty where unknown."""
        return self._texts("identities", rows)

    def norms(self, rows: slice = slice(None)) -> np.ndarray:
        """Length of each embedding before normalising, (N,) float32."""
        with reading(self.path):
            norms = own_dataset(self._file, "norms", self.path)
            return np.asarray(norms[rows], dtype=np.float32)

    def vectors(self, rows: slice = slice(None)) -> np.ndarray:
        """Unit embeddings of a range of rows, (n, D) float32."""
        with reading(self.path):
            return np.asarray(self._vectors[rows], dtype=np.float32)

    def stored_vectors(self, rows: slice = slice(None)) -> np.ndarray:
        """Unit embeddings of a range of rows, (n, D) in the type that they are stored in."""
        with reading(self.path):
            return np.asarray(self._vectors[rows])

    def columns(self) -> list[str]:
        """Names of the other datasets with a value a row (`stamps`, and those of detection)."""
        with reading(self.path):
            return sorted(
                name
                for name, node in self._file.items()
                if name not in _OF_EVERY_FILE
                and isinstance(node, h5py.Dataset)
                and node.shape[:1] == (self.count,)
            )

    def column(self, name: str, rows: slice = slice(None)) -> np.ndarray | list[str]:
        """One of the `columns`, of a range of rows: (n, ...) numbers, or n texts."""
        with reading(self.path):
            dataset = own_dataset(self._file, name, self.path)
            if h5py.check_string_dtype(dataset.dtype):
                return [str(text) for text in dataset.asstr()[rows]]
            return np.asarray(dataset[rows])

    def blocks(self, rows: int = 65536) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (first row, vectors) over the whole file, `rows` rows at a time."""
        for first in range(0, self.count, rows):
            yield first, self.vectors(slice(first, first + rows))

    def identities_left(self) -> list[str]:
        """Of the pictures that `left` lists, in its order: the file keeps none of them.

        Where every row has the identity that its folder gives it, so have they; else it is unknown.
        """
        rows = zip(self.paths(), self.identities(), strict=True)
        of_folder = bool(self.count) and all(who == folder_of(key) for key, who in rows)
        return [folder_of(key) if of_folder else "" for key, _ in self.left().reasons()]

    def left(self) -> Left:
        """What the file lists as failed or without a face."""
        keys, reasons = self._texts("failed/paths"), self._texts("failed/reasons")
        if len(keys) != len(reasons):
            raise InputError(f"{self.path}: failed/paths and failed/reasons differ in length")
        no_face = self._texts("no_face/paths")
        stamps = [*self._texts("failed/stamps"), *self._texts("no_face/stamps")]
        if stamps and len(stamps) != len(keys) + len(no_face):
            raise InputError(f"{self.path}: failed and no_face differ in length from their stamps")
        return Left(
            failed=list(zip(keys, reasons, strict=True)),
            no_face=no_face,
            stamps=dict(zip([*keys, *no_face], stamps, strict=False)),
        )

    def _texts(self, name: str, rows: slice = slice(None)) -> list[str]:
        with reading(self.path):
            if name not in self._file:
                return []
            return [str(t) for t in own_dataset(self._file, name, self.path).asstr()[rows]]


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what h5py raises on damaged files into an `InputError` that names the file."""
    try:
        yield
    except _H5PY_ERRORS as error:
        raise InputError(f"{path} is damaged ({_first_line(error)})") from None


def recorded_origin(file: h5py.File, path: Path) -> Origin:
    """Where the rows of an open file come from, by its attributes.

    Raises:
        InputError: they are damaged.
    """
    with reading(path):
        model, fingerprint, text = (
            str(file.attrs.get(name, nothing))
            for name, nothing in (("model", ""), ("fingerprint", ""), ("preprocessing", "{}"))
        )
        for told in (model, fingerprint, text):
            told.encode()  # h5py reads what is no UTF-8, and could not write it again
        preprocessing = json.loads(text)
        if not isinstance(preprocessing, dict):
            raise ValueError("the attribute preprocessing is no JSON object")
        return Origin(model=model, fingerprint=fingerprint, preprocessing=preprocessing)


def write_embeddings(
    path: Path,
    *,
    origin: Origin,
    vectors: np.ndarray,
    norms: np.ndarray,
    paths: Sequence[str],
    identities: Sequence[str],
    columns: Mapping[str, Column] | None = None,
    left: Left | None = None,
    dtype: str = "float32",
    attributes: Mapping[str, Any] | None = None,
    seal: Callable[[Path], None] | None = None,
) -> None:
    """Write a whole embeddings file at once, atomically and readable by its owner only.

    Args:
        vectors: (N, D) unit rows.
        norms: (N,) lengths before normalising.
        columns: more datasets with a value a row: (N, ...) numbers, or N texts.
        dtype: how vectors are stored, `float32` or `float16`.
        attributes: more attributes for the file.
        seal: what is done to the file last, before it appears.
    """
    with whole_file(path) as temporary:
        with NewHdf5(temporary) as file:
            rows: dict[str, Column] = {
                "embeddings": vectors,
                "norms": np.asarray(norms, np.float32),
                "paths": paths,
                "identities": identities,
                **(columns or {}),
            }
            append_rows(file, rows, dtype=dtype, expected=len(paths))
            write_left(file, left or Left())
            write_attributes(file, origin, attributes)
        if seal is not None:
            seal(temporary)


def append_rows(
    file: h5py.File, rows: Mapping[str, Column], *, dtype: str, expected: int | None = None
) -> None:
    """Append rows to the datasets of a file, which the first call creates.

    Args:
        rows: the values of each dataset, as many in each.
        dtype: how `embeddings` are stored.
        expected: rows that there will be in the end, where that is known.
    """
    for name, values in rows.items():
        count = len(values)
        if name not in file:
            chunk = max(1, min(_CHUNK_ROWS, count if expected is None else expected))
            kind, tail = TEXT, tuple[int, ...]()
            if isinstance(values, np.ndarray):
                kind, tail = (dtype if name == "embeddings" else values.dtype), values.shape[1:]
            file.create_dataset(
                name, (0, *tail), kind, maxshape=(None, *tail), chunks=(chunk, *tail)
            )
        dataset = file[name]
        first = len(dataset)
        dataset.resize(first + count, axis=0)
        if count:
            dataset[first:] = values if isinstance(values, np.ndarray) else list(values)


def write_left(file: h5py.File, left: Left) -> None:
    """Write the groups `failed` and `no_face`."""
    failed = [key for key, _ in left.failed]
    columns = {
        "failed/paths": failed,
        "failed/reasons": [reason for _, reason in left.failed],
        "no_face/paths": left.no_face,
    }
    if left.stamps:
        columns["failed/stamps"] = [left.stamps[key] for key in failed]
        columns["no_face/stamps"] = [left.stamps[key] for key in left.no_face]
    for name, values in columns.items():
        file.create_dataset(name, (len(values),), TEXT, data=values if values else None)


def write_attributes(
    file: h5py.File, origin: Origin, more: Mapping[str, Any] | None = None
) -> None:
    """Write the attributes that say what the file is and where its rows come from."""
    file.attrs["format"] = FORMAT
    file.attrs["version"] = VERSION
    file.attrs["model"] = origin.model
    file.attrs["fingerprint"] = origin.fingerprint
    file.attrs["preprocessing"] = json.dumps(origin.preprocessing, sort_keys=True)
    file.attrs["created"] = datetime.now(UTC).isoformat(timespec="seconds")
    file.attrs.update(more or {})


def is_embeddings(path: Path) -> bool:
    """Whether a path names embeddings, by its ending or by what it holds."""
    return path.suffix.lower() == SUFFIX or (path.is_file() and h5py.is_hdf5(path))


def require_one_model(one: Origin, one_name: str, other: Origin, other_name: str) -> None:
    """Raise `InputError` unless two origins have one fingerprint, telling what differs."""
    differing = [
        f"{name} {before} and {after}"
        for name in _OF_FINGERPRINT
        if (before := _told(one, name)) != (after := _told(other, name))
    ]
    require_same_fingerprint(
        one.fingerprint, one_name, other.fingerprint, other_name, differing=", ".join(differing)
    )


def _told(origin: Origin, name: str) -> str:
    """A fact of an origin, as its file would hold it."""
    value = origin.preprocessing.get(name)
    return "not known" if value is None else json.dumps(value)


def require_same_fingerprint(
    one: str, one_name: str, other: str, other_name: str, *, differing: str = ""
) -> None:
    """Raise `InputError` unless two fingerprints are equal.

    Args:
        differing: what is known to differ.
    """
    if one != other:
        raise InputError(
            f"{one_name} and {other_name} come from different models or preprocessing "
            f"({differing or 'fingerprints'}{'; fingerprints' if differing else ''} {one[:12]} and "
            f"{other[:12]}) and cannot be compared; embed both with the same model and options"
        )


def open_hdf5(path: Path, wanted: str, version: int) -> h5py.File:
    """Open an HDF5 file of ours for reading, checking its `format` and `version` attributes.

    Raises:
        InputError: the file is missing, a folder, damaged, of another format or of a newer version.
    """
    if path.is_dir():
        way_out = ""
        if wanted == FORMAT:
            pictures = shlex.quote(str(path))
            way_out = f"; embed it first: faceidx embed {pictures} --model MODEL --out FILE.h5"
        raise InputError(f"{path} is a folder, not a file{way_out}")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        file = h5py.File(path, "r")
        found, of_file = str(file.attrs.get("format")), int(file.attrs.get("version", 0))
    except _H5PY_ERRORS as error:
        raise InputError(f"{path} is no readable HDF5 file ({_first_line(error)})") from None
    if found != wanted:
        file.close()
        raise InputError(f"{path} is no {wanted} file (its format attribute is {found!r})")
    if of_file > version:
        file.close()
        raise InputError(f"{path} was written by a newer faceidx; update faceidx to read it")
    return file


def own_dataset(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    """Return a dataset whose data lie in this very file.

    Raises:
        InputError: it is missing, or it is external, virtual or behind a soft or external link.
    """
    node: h5py.Group = file
    for part in name.split("/"):
        link = node.get(part, getlink=True) if part in node else None
        if link is not None and not isinstance(link, h5py.HardLink):
            raise InputError(f"{path}: {name} is a link; only data of the file itself are read")
        if link is None:
            raise InputError(f"{path}: the dataset {name} is missing")
        node = node[part]
    if not isinstance(node, h5py.Dataset) or node.is_virtual or node.external:
        raise InputError(
            f"{path}: {name} is no plain dataset; only data of the file itself are read"
        )
    return node


def _first_line(error: Exception) -> str:
    lines = str(error).strip("'\"").splitlines()  # a KeyError's text is quoted
    return lines[0] if lines else type(error).__name__
