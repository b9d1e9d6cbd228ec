"""Is a gallery whole, and what is in it."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from faceidx.errors import InputError
from faceidx.gallery import inverted
from faceidx.gallery.folder import DATA, INDEX, MANIFEST, Gallery, load_gallery
from faceidx.progress import Progress, ProgressCallback, silent

_BLOCK_ROWS = 16384


def verify(path: Path, *, progress: ProgressCallback = silent) -> dict[str, Any]:
    """Check a gallery to the last bit: hashes, counts, and the index against `gallery.h5`.

    Returns:
        `gallery, intact` (True)`, vectors, identities, files` (name to SHA-256)`, bytes`.

    Raises:
        InputError: something is damaged; the message says what.
    """
    with load_gallery(path, hashes=True) as gallery:
        _require_same_vectors(gallery, progress)
        for what, found, said in (
            ("people", len(gallery.people), gallery.manifest.identities),
            ("refused rows", len(gallery.refused), gallery.manifest.refused),
            ("vectors in the index", _in_the_index(gallery), gallery.manifest.vectors),
        ):
            if found != said:
                raise InputError(f"{path}: {found} {what}, the manifest says {said}")
        return {
            "gallery": str(path),
            "intact": True,
            "vectors": gallery.count,
            "identities": gallery.manifest.identities,
            "files": {n: record.sha256 for n, record in gallery.manifest.files.items()},
            "bytes": gallery.manifest.bytes,
        }


def info(path: Path) -> dict[str, Any]:
    """Describe a gallery without loading its vectors.

    Returns:
        `gallery, kind, vectors, identities, without_identity, refused, dim, model, fingerprint,
        preprocessing, recall_at_1, tuning` (null for exact search)`, bytes, files` (name to
        bytes)`, pictures_per_person` (pictures to people)`, threshold` (null where none is
        calibrated)`, created`.
    """
    with load_gallery(path) as gallery:
        manifest = gallery.manifest
        pictures = Counter(gallery.identities)
        nameless = pictures.pop("", 0)
        histogram = Counter(pictures.values())
        return {
            "gallery": str(path),
            "kind": manifest.kind,
            "vectors": manifest.vectors,
            "identities": manifest.identities,
            "without_identity": nameless,
            "refused": manifest.refused,
            "dim": manifest.dim,
            "model": manifest.model,
            "fingerprint": manifest.fingerprint,
            "preprocessing": gallery.origin.preprocessing,
            "recall_at_1": manifest.recall_at_1,
            "tuning": manifest.tuning and asdict(manifest.tuning),
            "bytes": manifest.bytes,
            "files": {name: record.size for name, record in manifest.files.items()},
            "pictures_per_person": {str(n): histogram[n] for n in sorted(histogram)},
            "threshold": manifest.threshold and asdict(manifest.threshold),
            "created": manifest.created,
        }


def _in_the_index(gallery: Gallery) -> int:
    """How many vectors of the gallery the index holds, each of them once."""
    import faiss

    index = gallery.index
    if inverted.is_inverted(index):
        return len(inverted.lists_of(index, str(gallery.path / INDEX)))
    if isinstance(index, faiss.IndexIDMap2):
        return len(np.unique(faiss.vector_to_array(index.id_map)))
    return int(index.ntotal)


def _require_same_vectors(gallery: Gallery, progress: ProgressCallback) -> None:
    for first in range(0, gallery.count, _BLOCK_ROWS):
        block = slice(first, first + _BLOCK_ROWS)
        indexed = gallery.vectors(block)
        if not np.array_equal(indexed, gallery.stored(block)):
            raise InputError(
                f"{gallery.path}: the vectors of {INDEX} and {DATA} differ, though both files are "
                f"as {MANIFEST} says; rebuild with `faceidx index import`"
            )
        done = min(first + _BLOCK_ROWS, gallery.count)
        progress(Progress("verify", done, gallery.count, "vectors"))
