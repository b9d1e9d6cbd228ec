"""The command `cluster`: which faces of a file show one person, and which are copies."""

from __future__ import annotations

import logging
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from faceidx.embedding.store import EmbeddingFile, require_same_fingerprint
from faceidx.errors import InputError
from faceidx.evaluation.cluster_figures import cluster_figures
from faceidx.evaluation.threshold import cosine_threshold, read_threshold
from faceidx.evaluation.thumbnails import find_picture
from faceidx.files import (
    FILE_MODE,
    refuse_existing,
    remove_leftovers,
    require_parent,
    together,
    whole_folder,
    writer_lock,
)
from faceidx.gallery.linkage import (
    NEIGHBOURS,
    automatic_threshold,
    average_linkage,
    neighbour_graph,
)
from faceidx.gallery.unit import to_unit
from faceidx.images.decode import PictureError
from faceidx.images.folders import require_elsewhere
from faceidx.progress import Progress, ProgressCallback, silent
from faceidx.tables import write_rows

HEADER = ("path", "group", "size", "score", "identity", "duplicate_of")
_SINGLES = "singles"
_LONGEST_NAME = 80
# Fewer faces make fewer than a thousand pairs to find a threshold from.
_FEW = 46

_log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class ClusterOptions:
    """Options of `cluster`."""

    file: Path
    """Embeddings file."""
    out: Path
    """`.csv`, `.jsonl` or `.txt` file to write."""
    threshold: float | str | None = None
    """Smallest mean cosine between groups that are joined: a number, or a threshold file of
    `verify-pairs`; None finds one from the faces themselves."""
    duplicates: float | None = None
    """Smallest cosine of near-duplicates; None looks for none."""
    copy_to: Path | None = None
    """Folder to make: the pictures, a folder a group."""
    pictures: Path | None = None
    """Folder of the pictures, for `copy_to`."""
    neighbours: int = NEIGHBOURS
    """Nearest faces of each that are looked at."""
    seed: int = 0
    overwrite: bool = False


class Grouped(NamedTuple):
    """A row of the file."""

    path: str
    group: int | None
    """From 1, the largest first; None where the face cannot be compared."""
    size: int | None
    """Faces of the group; 1 for a single."""
    score: float | None
    """Cosine with the group's centre, the mean of its unit vectors."""
    identity: str
    duplicate_of: str
    """The first picture of which this is a near-duplicate; empty where it is none."""


def cluster(options: ClusterOptions, *, progress: ProgressCallback = silent) -> dict[str, Any]:
    """Group the faces of a file by person, and write a row for each.

    Returns:
        `out, faces, refused, groups` (of two faces and more)`, singles, largest, threshold,
        threshold_from, duplicates` (None where none were looked for)`, copied, not_copied,
        copy_to, seconds`; where faces carry identities also `pairwise` and `bcubed`, each
        `{precision, recall, f1}`.

    Raises:
        InputError: no face can be compared, the threshold makes no sense or was made with another
            model, an output exists, or pictures are to be copied and none of them is to be had.
    """
    started = time.perf_counter()
    _check_outputs(options)
    with EmbeddingFile(options.file) as file:
        threshold, source = _threshold(options, file)
        paths, identities = file.paths(), file.identities()
        unit = to_unit(file.vectors())
    usable = np.flatnonzero(unit.usable)
    if not len(usable):
        raise InputError(f"{options.file} holds no face that can be compared")
    vectors = np.ascontiguousarray(unit.vectors[usable])
    if threshold is None:
        if len(usable) < _FEW:
            _log.warning(
                "%d faces tell little of how strangers score; give --threshold T", len(usable)
            )
        threshold = automatic_threshold(vectors, options.seed)
    scores, rows = neighbour_graph(vectors, options.neighbours, progress=progress)
    labels = _by_size(average_linkage(vectors, scores, rows, threshold))
    copies = _duplicates(scores, rows, options.duplicates)
    table = _table(paths, identities, usable, vectors, labels, copies)
    copied = missing = 0
    with together(options.out):
        if options.copy_to:
            _require_pictures(options, table)
            copied, missing = _copy(options, table, progress)
        # Last: who finds it has all there is, and what was killed before can simply be run again.
        write_rows(options.out, HEADER, table)
    sizes = np.bincount(labels)[1:]
    if len(usable) < len(paths):
        _log.warning("%d faces have no usable embedding: no group", len(paths) - len(usable))
    return {
        "out": str(options.out),
        "faces": len(paths),
        "refused": len(paths) - len(usable),
        "groups": int((sizes > 1).sum()),
        "singles": int((sizes == 1).sum()),
        "largest": int(sizes[0]),
        "threshold": threshold,
        "threshold_from": source,
        "duplicates": None if copies is None else int((copies != np.arange(len(copies))).sum()),
        "copy_to": options.copy_to,
        "copied": copied,
        "not_copied": missing,
        **_figures(labels, [identities[row] for row in usable]),
        "seconds": round(time.perf_counter() - started, 3),
    }


def _check_outputs(options: ClusterOptions) -> None:
    require_parent(options.out)
    refuse_existing(options.out, overwrite=options.overwrite)
    if options.duplicates is not None and not 0 < options.duplicates <= 1:
        raise InputError(f"--duplicates {options.duplicates} is no cosine above 0 and up to 1")
    if options.copy_to is None:
        if options.pictures is not None:
            raise InputError("--pictures are copied by --copy-to DIR; give both")
        return
    if options.pictures is None:
        raise InputError("--copy-to copies pictures; give --pictures ROOT, the folder they lie in")
    if not options.pictures.is_dir():
        raise InputError(f"--pictures: {options.pictures} is no folder")
    require_parent(options.copy_to)
    require_elsewhere(options.copy_to, options.pictures)
    # Never with --overwrite: the folder may hold pictures of its owner's.
    if options.copy_to.exists():
        raise InputError(f"--copy-to {options.copy_to} exists already; give the name of a new one")


def _threshold(options: ClusterOptions, file: EmbeddingFile) -> tuple[float | None, str]:
    if options.threshold is None:
        return None, "the faces"
    try:
        return cosine_threshold(options.threshold), "given"
    except ValueError:
        chosen = read_threshold(Path(str(options.threshold)))
        if chosen.fingerprint is not None:
            require_same_fingerprint(
                file.origin.fingerprint,
                str(options.file),
                chosen.fingerprint,
                str(options.threshold),
            )
        return chosen.threshold, str(options.threshold)


def _by_size(lowest: np.ndarray) -> np.ndarray:
    """Number groups from 1, the largest first; of equals that of the lower row first."""
    first, number, sizes = np.unique(lowest, return_inverse=True, return_counts=True)
    order = np.lexsort((first, -sizes))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(1, len(order) + 1)
    return np.asarray(place[number])


def _duplicates(scores: np.ndarray, rows: np.ndarray, threshold: float | None) -> np.ndarray | None:
    """The lowest row that each row is a near-duplicate of, directly or by others; its own else."""
    if threshold is None:
        return None
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    one, place = np.nonzero((scores >= threshold) & (rows >= 0))
    edges = coo_array(
        (np.ones(len(one), dtype=np.int8), (one, rows[one, place])), shape=(len(rows), len(rows))
    )
    _, labels = connected_components(edges, directed=False)
    _, first, number = np.unique(labels, return_index=True, return_inverse=True)
    return np.asarray(first[number])


def _table(
    paths: Sequence[str],
    identities: Sequence[str],
    usable: np.ndarray,
    vectors: np.ndarray,
    labels: np.ndarray,
    copies: np.ndarray | None,
) -> list[Grouped]:
    """Rows by group, in a group the face nearest to its centre first; faces without one last."""
    sums = np.zeros((labels.max() + 1, vectors.shape[1]), dtype=np.float32)
    np.add.at(sums, labels, vectors)
    centres = to_unit(sums[1:]).vectors
    scores = np.einsum("nd,nd->n", vectors, centres[labels - 1])
    sizes = np.bincount(labels)
    order = np.lexsort((np.arange(len(labels)), -scores, labels))
    table = []
    for row in order:
        path = paths[usable[row]]
        copy = "" if copies is None or copies[row] == row else paths[usable[copies[row]]]
        group, identity = int(labels[row]), identities[usable[row]]
        table.append(Grouped(path, group, int(sizes[group]), float(scores[row]), identity, copy))
    left = np.setdiff1d(np.arange(len(paths)), usable)
    return table + [Grouped(paths[row], None, None, None, identities[row], "") for row in left]


def _figures(labels: np.ndarray, identities: Sequence[str]) -> dict[str, Any]:
    named = np.array([bool(identity) for identity in identities])
    if not named.any():
        return {}
    _, people = np.unique([i for i in identities if i], return_inverse=True)
    return cluster_figures(labels[named], people)


def _require_pictures(options: ClusterOptions, table: Sequence[Grouped]) -> None:
    """Raise `InputError` where not one picture is there to be copied: the folder is another."""
    assert options.pictures is not None
    if all(source is None for source, _ in _copies(options.pictures, table)):
        _log.debug("the faces are named as %r is", table[0].path)
        raise InputError(
            f"--pictures {options.pictures} holds none of the {len(table)} pictures of "
            f"{options.file} (-v names one); give the folder that was embedded, or that of its "
            "--save-crops"
        )


def _copy(
    options: ClusterOptions, table: Sequence[Grouped], progress: ProgressCallback
) -> tuple[int, int]:
    """Copy the pictures, a folder a group; return how many, and how many were not to be had."""
    assert options.copy_to is not None
    assert options.pictures is not None
    copied = missing = 0
    with ExitStack() as stack:
        stack.enter_context(writer_lock(options.copy_to))
        remove_leftovers(options.copy_to)
        folder = stack.enter_context(whole_folder(options.copy_to))
        for source, target in _copies(options.pictures, table):
            progress(Progress("copy", copied + missing + 1, len(table), "pictures"))
            if source is None:
                missing += 1
                continue
            (folder / target).parent.mkdir(mode=0o700, exist_ok=True)
            shutil.copyfile(source, folder / target)
            (folder / target).chmod(FILE_MODE)
            copied += 1
    if missing:
        _log.warning("%d pictures are not in %s and were not copied", missing, options.pictures)
    return copied, missing


def _copies(root: Path, table: Sequence[Grouped]) -> Iterator[tuple[Path | None, Path]]:
    """Source (None where there is none) and target of each picture that belongs to a group."""
    digits = len(str(max((row.group or 0 for row in table), default=0)))
    placed: Counter[str] = Counter()
    for row in table:
        if row.group is None:
            continue
        folder = _SINGLES if row.size == 1 else f"group-{row.group:0{digits}}"
        placed[folder] += 1
        try:
            source = find_picture(root, row.path)
        except PictureError:
            yield None, Path(folder)
            continue
        yield source, Path(folder) / f"{placed[folder]:04}-{_safe(row.path, source.suffix)}"


def _safe(key: str, suffix: str) -> str:
    """A file's name from a key: letters, digits, dot and dash of it, and the picture's suffix."""
    stem = key.rpartition(".")[0] if key.lower().endswith(suffix.lower()) else key
    plain = re.sub(r"[^\w.-]+", "_", stem, flags=re.ASCII).strip("._-")[-_LONGEST_NAME:]
    return f"{plain or 'face'}{re.sub(r'[^.a-z0-9]', '', suffix.lower())}"
