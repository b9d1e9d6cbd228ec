"""Rows on their way into a gallery: read in blocks, checked, scaled to unit length."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from faceidx.embedding.store import EmbeddingFile, Origin, require_one_model
from faceidx.errors import InputError
from faceidx.gallery.data import Refused, Rows
from faceidx.gallery.folder import Gallery
from faceidx.gallery.unit import require_dim, to_unit, usable
from faceidx.gallery.vectors import BLOCK_ROWS

# Recorded of embeddings, and without a part in them.
_NO_MATTER = {"batch_size", "keep_identity"}
# Said of a detection, and nothing where there was another one or none.
_OF_DETECTION = {"detector", "detect_template", "min_face", "min_score"}

_log = logging.getLogger(__name__)


@dataclass
class Taken:
    """What a stream of rows had to leave out or mend, known when it has run out."""

    refused: list[Refused] = field(default_factory=list)
    renormalised: int = 0


def open_all(paths: Sequence[Path], stack: ExitStack) -> list[EmbeddingFile]:
    """Open embeddings files; raise `InputError` where one has no fingerprint."""
    if not paths:
        raise InputError("no embeddings file given")
    files = [stack.enter_context(EmbeddingFile(path)) for path in paths]
    for file in files:
        require_fingerprint(file.origin, file.path)
    return files


def require_fingerprint(origin: Origin, name: Path) -> Origin:
    """Return the origin; raise `InputError` where it has no fingerprint."""
    if not origin.fingerprint:
        raise InputError(f"{name} does not say which model made it (no fingerprint); embed again")
    return origin


def require_comparable(
    origin: Origin, dim: int, name: Path, files: Sequence[EmbeddingFile]
) -> None:
    """Refuse files of another model than what they are compared with; warn of other ways to run it.

    Args:
        origin: of what they are compared with.
        dim: its length.
        name: its file or folder.

    Raises:
        InputError: a file comes from another model.
    """
    for file in files:
        require_one_model(origin, str(name), file.origin, str(file.path))
        require_dim(file.dim, str(file.path), dim, str(name))
    for file in files:
        if differing := differences(file.origin.preprocessing, origin.preprocessing):
            _log.warning("%s was embedded with other %s than %s", file.path, differing, name)


def differences(one: Mapping[str, Any], there: Mapping[str, Any]) -> str:
    """How one fingerprint was computed in two ways (engine, precision, detection), with both
    values: `engine (onnx, there torch)`; empty where in one way."""
    # As a file holds them: what comes from a model may be of tuples.
    one, there = (json.loads(json.dumps(recorded)) for recorded in (one, there))
    names = sorted({*one, *there} - _NO_MATTER)
    if one.get("detect") != there.get("detect"):
        names = [name for name in names if name not in _OF_DETECTION]
    return ", ".join(
        f"{name} ({_told(one.get(name))}, there {_told(there.get(name))})"
        for name in names
        if one.get(name) != there.get(name)
    )


def _told(value: object) -> str:
    return "not known" if value is None else str(value)


def keys_of(files: Sequence[EmbeddingFile], prefixes: Sequence[str]) -> list[list[str]]:
    """Keys of every file's rows, with the file's prefix before them."""
    if prefixes and len(prefixes) != len(files):
        raise InputError(
            f"{len(prefixes)} --prefix for {len(files)} files; give one for each file, in order"
        )
    if any(not prefix.isprintable() for prefix in prefixes):
        raise InputError("a --prefix holds characters that are no text")
    keys = []
    for file, prefix in zip(files, prefixes or [""] * len(files), strict=True):
        paths = file.paths()
        if len(paths) != file.count or len(file.identities()) != file.count:
            raise InputError(f"{file.path}: paths, identities and embeddings differ in length")
        keys.append([f"{prefix}/{path}" for path in paths] if prefix else paths)
    return keys


def require_unique(keys: list[list[str]], present: list[str], names: list[str]) -> None:
    """Raise `InputError` where a file brings a key that is present or came before."""
    seen = set(present)
    for of_file, name in zip(keys, names, strict=True):
        own = set(of_file)
        if twice := len(of_file) - len(own):  # no prefix sets these apart
            example = next(key for key, count in Counter(of_file).items() if count > 1)
            _log.debug("%s: %r is there twice", name, example)
            raise InputError(f"{name} is damaged: {twice} keys are in it twice (-v names one)")
        if again := own & seen:
            example = next(key for key in of_file if key in again)
            _log.debug("%s: %r is there already", name, example)
            raise InputError(
                f"{name}: {len(again)} keys are there already (-v names one); "
                "give each file a --prefix to set the sources apart"
            )
        seen |= own


def count_usable(blocks: Iterable[np.ndarray]) -> int:
    """How many rows of some blocks a gallery can take."""
    return sum(int(np.count_nonzero(usable(block))) for block in blocks)


def rows_of_files(
    files: Sequence[EmbeddingFile], keys: list[list[str]], taken: Taken
) -> Iterator[Rows]:
    """Yield the usable rows of the files under their keys."""
    for file, paths in zip(files, keys, strict=True):
        identities = file.identities()
        for first, vectors in file.blocks(BLOCK_ROWS):
            block = slice(first, first + len(vectors))
            yield usable_rows(Rows(vectors, paths[block], identities[block]), taken)


def usable_rows(rows: Rows, taken: Taken) -> Rows:
    """Scale a block to unit length, and move the rows that cannot be to the list of refused."""
    unit = to_unit(rows.vectors)
    taken.renormalised += unit.renormalised
    if not unit.reasons:
        return rows._replace(vectors=unit.vectors)
    for row, reason in unit.reasons:
        taken.refused.append(Refused(rows.paths[row], rows.identities[row], reason))
    return _select(rows._replace(vectors=unit.vectors), unit.usable)


def rows_of_gallery(gallery: Gallery, keep: np.ndarray) -> Iterator[Rows]:
    """Yield the rows of a gallery for which `keep` (N,) bool holds, bit for bit."""
    for first in range(0, gallery.count, BLOCK_ROWS):
        block = slice(first, first + BLOCK_ROWS)
        rows = Rows(gallery.vectors(block), gallery.paths[block], gallery.identities[block])
        yield _select(rows, keep[block])


def _select(rows: Rows, keep: np.ndarray) -> Rows:
    chosen = np.flatnonzero(keep)
    return Rows(
        rows.vectors[chosen],
        [rows.paths[row] for row in chosen],
        [rows.identities[row] for row in chosen],
    )
