"""The gallery folder: `index.faiss` (for some kinds with `index.ivfdata`), `gallery.h5` and
`manifest.json`.

Files are never changed in place: a change writes a complete new folder and exchanges it for the
old one in one step. A reader therefore works on one generation, the one it has opened, however
often the folder is exchanged meanwhile. docs/file-formats.md describes every dataset.

A gallery from elsewhere is not to be opened but imported (`faceidx index import`): FAISS's reader
is not hardened against hostile files.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import cached_property
from io import BufferedReader
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from faceidx.embedding.store import (
    open_hdf5,
    reading,
    recorded_origin,
    require_same_fingerprint,
)
from faceidx.errors import InputError, JobError
from faceidx.gallery import inverted
from faceidx.gallery.approximate import Approximate, set_parameters
from faceidx.gallery.data import (
    Refused,
    data_offset,
    data_shape,
    read_refused,
    read_texts,
)
from faceidx.gallery.device import MAX_GPU_K, on_cpu, to_device
from faceidx.gallery.flat import VECTORS_OFFSET, require_flat
from faceidx.gallery.indexes import FLAT, INDEX
from faceidx.gallery.manifest import (
    FORMAT,
    MAX_BYTES,
    VERSION,
    Manifest,
    parse_manifest,
    render_manifest,
)
from faceidx.gallery.rounded import has_int8
from faceidx.gallery.scan import Scan
from faceidx.gallery.vectors import Vectors
from faceidx.resources import available_memory

DATA, MANIFEST = "gallery.h5", "manifest.json"
FILES = (INDEX, DATA, MANIFEST, inverted.LISTS_DATA)
"""What may lie in a gallery's folder."""
# Numbers up to which FAISS's own exact search is faster than ours.
_FAISS_NUMBERS = 1 << 23
# How often a reader starts again because the folder was exchanged while it was opening the files.
_ATTEMPTS = 100


class Gallery:
    """One generation of a gallery, open for reading: a context manager; see `load_gallery`."""

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        files: dict[str, BufferedReader],
        data: h5py.File,
        device: str,
    ) -> None:
        self.path = path
        self.manifest = manifest
        self.count = manifest.vectors
        self.dim = manifest.dim
        self._files = files
        self._data = data
        self._device = device
        self.origin = recorded_origin(data, path / DATA)

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._data.close()
        for file in self._files.values():
            file.close()

    @cached_property
    def paths(self) -> list[str]:
        """Keys of the pictures (N), in the order of the rows."""
        return read_texts(self._data, "paths", self.path / DATA)

    @cached_property
    def identities(self) -> list[str]:
        """Identity of each row (N), empty where unknown."""
        return read_texts(self._data, "identities", self.path / DATA)

    @cached_property
    def refused(self) -> list[Refused]:
        """Rows of the sources that are not in the gallery, with the reason."""
        return read_refused(self._data, self.path / DATA)

    @cached_property
    def people(self) -> list[str]:
        """The different identities, sorted; rows without identity count for none."""
        return sorted(set(self.identities) - {""})

    @cached_property
    def codes(self) -> np.ndarray:
        """Number of each row's identity in `people`, (N,) int64; -1 for rows without identity."""
        number = {name: n for n, name in enumerate(self.people)}
        return np.array([number.get(name, -1) for name in self.identities], dtype=np.int64)

    def vectors(self, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
        """A copy of unit vectors, (n, D) float32."""
        if isinstance(rows, slice) and rows.step is None:
            first, last, _ = rows.indices(self.count)
            return self.rows.block(first, last)
        return self.rows.rows(np.arange(self.count)[rows])

    def stored(self, rows: slice) -> np.ndarray:
        """Unit vectors as `gallery.h5` holds them, (n, D) float32."""
        with reading(self.path / DATA):
            return np.asarray(self._data["embeddings"][rows], dtype=np.float32)

    @cached_property
    def rows(self) -> Vectors:
        """The vectors in their file: that of the index where it holds them in full."""
        if self.manifest.kind == FLAT:
            return self._vectors_in(INDEX, VECTORS_OFFSET)
        return self._vectors_in(DATA, data_offset(self._data, self.path / DATA))

    def _vectors_in(self, name: str, offset: int) -> Vectors:
        return Vectors(self._files[name], str(self.path / name), offset, self.count, self.dim)

    @cached_property
    def index(self) -> Any:
        """The FAISS index; lists that lie in a file of their own are mapped, not read."""
        import faiss

        # The descriptors that the checks were made on: a name may mean a newer generation by now.
        names = {name: f"/dev/fd/{file.fileno()}" for name, file in self._files.items()}
        self._files[INDEX].seek(0)
        if inverted.LISTS_DATA in names:
            index = faiss.read_index(names[INDEX], faiss.IO_FLAG_SKIP_IVF_DATA)
            inverted.map_lists(index, names[inverted.LISTS_DATA])
        else:
            index = faiss.read_index(names[INDEX])
        if self.manifest.tuning:
            set_parameters(index, self.manifest.tuning.parameters)
        return index

    @cached_property
    def device_index(self) -> Any:
        """The FAISS index on the device that was asked for; None where `scan` is faster."""
        exact = self.manifest.kind == FLAT and on_cpu(self._device)
        if exact and self.count * self.dim > _FAISS_NUMBERS and has_int8():
            return None
        return to_device(self.index, self._device)

    @cached_property
    def scan(self) -> Scan:
        """Exact search on the CPU."""
        return Scan(self.rows, memory=available_memory() // 2)

    @cached_property
    def approximate(self) -> Approximate | None:
        """Search in the index as it was tuned; None where it is exact."""
        tuning = self.manifest.tuning
        if tuning is None:
            return None
        index = self.device_index
        widest = self.count if index is self.index else MAX_GPU_K
        return Approximate(index, self.rows, tuning.candidates, widest=widest)


def load_gallery(path: Path, *, device: str = "cpu", hashes: bool = False) -> Gallery:
    """Open a gallery; vectors and names are read only when asked for.

    Checked are the manifest (with its checksum), the sizes of all files, formats, counts and
    dimensions.

    Args:
        device: where exact search runs: `auto`, `cpu`, `cuda` or `cuda:N`.
        hashes: check the SHA-256 of every file too, before anything in it is looked at.

    Raises:
        InputError: there is no gallery at `path`, or it is damaged.
        JobError: the folder is exchanged faster than it can be opened.
    """
    for _ in range(_ATTEMPTS):
        gallery = _open_generation(path, device, hashes)
        if gallery is not None:
            return gallery
    raise JobError(f"{path} is being changed all the time; try again when its writers have ended")


def _open_generation(path: Path, device: str, hashes: bool) -> Gallery | None:
    """Open the generation that is at `path` now; None when it was exchanged meanwhile.

    The folder is held open from first to last. A folder once exchanged never comes back, and one
    held open cannot lend its inode number to another: if `path` still is the same folder at the
    end, it was so all the time, and every file opened belongs to it.
    """
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise InputError(f"{path} is no gallery folder ({error.strerror})") from None
    try:
        gallery = _open_files(path, folder, device, hashes)
        if _is_at(folder, path):
            return gallery
        gallery.close()
    except (InputError, OSError) as error:
        if _is_at(folder, path):
            raise error if isinstance(error, InputError) else _unreadable(path, error) from None
    finally:
        os.close(folder)
    return None


def _open_files(path: Path, folder: int, device: str, hashes: bool) -> Gallery:
    with ExitStack() as undo:
        with _open_in(folder, MANIFEST) as file:
            raw = file.read(MAX_BYTES + 1)
        manifest = parse_manifest(raw, str(path / MANIFEST))
        _require_known(manifest, path)
        files = {n: undo.enter_context(_open_in(folder, n)) for n in manifest.files}
        for name, file in files.items():
            if os.fstat(file.fileno()).st_size != manifest.files[name].size:
                raise InputError(
                    f"{path / name} is damaged: its size is not the manifest's; restore a copy"
                )
            # FAISS's reader is not safe with damaged files, and only a flat one can be checked
            # by its header.
            hashed = hashes or (name == INDEX and manifest.kind != FLAT)
            if hashed and _sha256(file) != manifest.files[name].sha256:
                raise InputError(
                    f"{path / name} is damaged (its SHA-256 is not the manifest's); "
                    "restore a copy, or build the gallery again"
                )
        if manifest.kind == FLAT:
            require_flat(files[INDEX], str(path / INDEX), manifest.dim, manifest.vectors)
        data = undo.enter_context(open_hdf5(path / DATA, FORMAT, VERSION))
        _require_agreement(path, manifest, data)
        gallery = Gallery(path, manifest, files, data, device)
        undo.pop_all()
    return gallery


def _open_in(folder: int, name: str) -> BufferedReader:
    # No links: a gallery's files lie in its own folder.
    return os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder), "rb")


def _sha256(file: BufferedReader) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()


def _is_at(folder: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(folder), path.stat())
    except OSError:
        return False


def _unreadable(path: Path, error: OSError) -> InputError:
    name = f"{path}/{error.filename}" if error.filename else str(path)
    return InputError(f"{name} of the gallery cannot be read ({error.strerror or error})")


def _require_known(manifest: Manifest, path: Path) -> None:
    names = set(manifest.files)
    if names - {inverted.LISTS_DATA} != {INDEX, DATA} or (manifest.kind == FLAT) != (
        manifest.tuning is None
    ):
        raise InputError(
            f"{path} is of the kind {manifest.kind!r} with the files {', '.join(sorted(names))}, "
            "which this faceidx does not know; update it"
        )


def _require_agreement(path: Path, manifest: Manifest, data: h5py.File) -> None:
    shape = (manifest.vectors, manifest.dim)
    if data_shape(data, path / DATA) != shape:
        raise InputError(f"{path / DATA} does not hold the {shape[0]} vectors of the manifest")
    found = recorded_origin(data, path / DATA).fingerprint
    require_same_fingerprint(manifest.fingerprint, str(path / MANIFEST), found, str(path / DATA))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json` into a folder that is not in use yet."""
    (folder / MANIFEST).write_bytes(render_manifest(manifest))


def link_file(old: Path, new: Path) -> None:
    """Give an unchanged file a name in the new folder too, copying only where links cannot be."""
    try:
        os.link(old, new)  # sound, as a gallery's files are never changed in place
    except OSError:
        shutil.copyfile(old, new)


def now() -> str:
    """The time, as the formats write it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
