"""Building and changing galleries: every change streams into a new folder, which takes the place
of the old one.

Only blocks of vectors are held in memory, plus the names. A change costs what a build costs: the
vectors are copied once. In return nothing of what was removed is left in any file.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from faceidx.embedding.store import (
    open_hdf5,
    own_dataset,
    reading,
    recorded_origin,
)
from faceidx.errors import InputError
from faceidx.files import refuse_existing, remove_leftovers, whole_folder, writer_lock
from faceidx.gallery import inverted
from faceidx.gallery.data import Rows, data_shape, read_refused, read_texts
from faceidx.gallery.folder import DATA, FILES, MANIFEST, Gallery, load_gallery
from faceidx.gallery.indexes import FLAT, Carried, IndexOptions, check_options
from faceidx.gallery.manifest import FORMAT, VERSION, Manifest, Threshold
from faceidx.gallery.sources import (
    BLOCK_ROWS,
    Taken,
    count_usable,
    keys_of,
    open_all,
    require_comparable,
    require_fingerprint,
    require_unique,
    rows_of_files,
    rows_of_gallery,
    usable_rows,
)
from faceidx.gallery.write import write_gallery
from faceidx.progress import Progress, ProgressCallback, silent

_log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class BuildOptions:
    """Options of `index build`."""

    files: Sequence[Path]
    out: Path
    index: IndexOptions = field(default_factory=IndexOptions)
    prefixes: Sequence[str] = ()
    """One for each file, in order, or none: keys become PREFIX/key; an empty one leaves them."""
    overwrite: bool = False


@dataclass(kw_only=True)
class AddOptions:
    """Options of `index add`."""

    gallery: Path
    files: Sequence[Path]
    prefixes: Sequence[str] = ()
    """As for a build."""
    memory: int | None = None
    """As for a build."""


@dataclass(kw_only=True)
class RemoveOptions:
    """Options of `index remove`."""

    gallery: Path
    identities: Sequence[str] = ()
    paths: Sequence[str] = ()
    """Keys of single pictures."""
    memory: int | None = None
    """As for a build."""


@dataclass(kw_only=True)
class ImportOptions:
    """Options of `index import`."""

    source: Path
    """A gallery folder or its `gallery.h5`; nothing else of the folder is opened."""
    out: Path
    index: IndexOptions = field(default_factory=IndexOptions)
    overwrite: bool = False


def build(options: BuildOptions, *, progress: ProgressCallback = silent) -> dict[str, Any]:
    """Build a gallery from embeddings files of one model.

    Rows that hold NaN or infinity, or have length zero, are left out, counted, and listed in the
    group `refused` of `gallery.h5`. Rows that are not of unit length are scaled to it; those
    further off than float16 storage explains are counted as `renormalised`, with a warning.

    Returns:
        `out, vectors, identities, dim, kind, recall_at_1, bytes, seconds, refused, renormalised`.

    Raises:
        InputError: the files come from different models, hold one key twice, or no usable vector;
            or `out` exists.
    """
    started = time.perf_counter()
    with ExitStack() as stack, _writing(options.out, overwrite=options.overwrite) as out:
        files = open_all(options.files, stack)
        origin, dim = files[0].origin, files[0].dim
        require_comparable(origin, dim, files[0].path, files[1:])
        check_options(options.index, dim)
        keys = keys_of(files, options.prefixes)
        require_unique(keys, [], [str(file.path) for file in files])
        taken = Taken()
        rows = sum(file.count for file in files)
        count = count_usable(vectors for file in files for _, vectors in file.blocks(BLOCK_ROWS))
        if not count:
            raise InputError(
                f"none of the {rows} rows can be used: nothing to build a gallery from"
            )
        with whole_folder(out) as folder:
            manifest = write_gallery(
                folder,
                origin=origin,
                dim=dim,
                blocks=_counted(rows_of_files(files, keys, taken), "build", rows, progress),
                count=count,
                refused=taken.refused,
                index=options.index,
                progress=progress,
            )
    _warn_of(taken)
    return {"out": str(options.out), **_figures(manifest, taken, started)}


def add(options: AddOptions, *, progress: ProgressCallback = silent) -> dict[str, Any]:
    """Add the rows of embeddings files to a gallery.

    Its calibrated threshold becomes stale, unless none of the rows can be used. A picture that was
    refused before, and comes again, is refused no more.

    Returns:
        What `build` returns, plus `added`.

    Raises:
        InputError: the files do not come from the gallery's model, bring a key that is there
            already, or the gallery is damaged; nothing is changed then.
    """
    started = time.perf_counter()
    with ExitStack() as stack, changing(options.gallery, stack) as (path, old):
        files = open_all(options.files, stack)
        require_comparable(old.origin, old.dim, options.gallery, files)
        keys = keys_of(files, options.prefixes)
        require_unique(keys, old.paths, [str(file.path) for file in files])
        again = {row.path for row in old.refused}.intersection(chain(*keys))
        taken = Taken(refused=[row for row in old.refused if row.path not in again])
        before = len(taken.refused)
        rows = old.count + sum(file.count for file in files)

        def blocks() -> Iterator[Rows]:
            yield from rows_of_gallery(old, np.ones(old.count, dtype=bool))
            yield from rows_of_files(files, keys, taken)

        more = count_usable(vectors for file in files for _, vectors in file.blocks(BLOCK_ROWS))
        with whole_folder(path) as folder:
            manifest = write_gallery(
                folder,
                origin=old.origin,
                dim=old.dim,
                blocks=_counted(blocks(), "add", rows, progress),
                count=old.count + more,
                refused=taken.refused,
                index=_index_as_before(old, options.memory),
                carried=_carried(old, np.ones(old.count, dtype=bool)),
                threshold=_threshold_of(old, changed=more > 0),
                progress=progress,
            )
        added = manifest.vectors - old.count
    del taken.refused[:before]
    _warn_of(taken)
    figures = _figures(manifest, taken, started)
    return {"out": str(options.gallery), "added": added, **figures}


def remove(options: RemoveOptions, *, progress: ProgressCallback = silent) -> dict[str, Any]:
    """Remove people or single pictures from every file of a gallery, the list of refused rows too.

    Its calibrated threshold becomes stale, unless all are rows that were refused. A gallery may
    become empty.

    Returns:
        What `build` returns, plus `removed`.

    Raises:
        InputError: an identity or a path is not in the gallery, or the gallery is damaged; nothing
            is changed then.
    """
    started = time.perf_counter()
    people, keys = set(options.identities), set(options.paths)
    if not people and not keys:
        raise InputError("nothing to remove: give --identity NAME or --path KEY")
    with ExitStack() as stack, changing(options.gallery, stack) as (path, old):
        refused = [r for r in old.refused if r.identity not in people and r.path not in keys]
        gone = [r for r in old.refused if r.identity in people or r.path in keys]
        known_people = {*old.people, *(r.identity for r in gone)} - {""}
        _require_known("identity", people, known_people, options.gallery)
        _require_known("path", keys, {*old.paths, *(r.path for r in gone)}, options.gallery)
        keep = np.array(
            [
                identity not in people and key not in keys
                for identity, key in zip(old.identities, old.paths, strict=True)
            ],
            dtype=bool,
        )
        with whole_folder(path) as folder:
            manifest = write_gallery(
                folder,
                origin=old.origin,
                dim=old.dim,
                blocks=_counted(rows_of_gallery(old, keep), "remove", int(keep.sum()), progress),
                count=int(keep.sum()),
                refused=refused,
                index=_index_as_before(old, options.memory),
                carried=_carried(old, keep),
                threshold=_threshold_of(old, changed=not keep.all()),
                progress=progress,
            )
        removed = old.count - manifest.vectors
    figures = _figures(manifest, Taken(), started)
    return {"out": str(options.gallery), "removed": removed, **figures}


def import_gallery(
    options: ImportOptions, *, progress: ProgressCallback = silent
) -> dict[str, Any]:
    """Rebuild a gallery from its `gallery.h5` alone, as for one that comes from elsewhere.

    Every vector is checked as in a build; a calibrated threshold is not taken over.

    Returns:
        What `build` returns.

    Raises:
        InputError: there is no `gallery.h5`, its datasets are linked, compressed or do not agree,
            or it holds a key twice; or `out` exists.
    """
    started = time.perf_counter()
    name = options.source / DATA if options.source.is_dir() else options.source
    with open_hdf5(name, FORMAT, VERSION) as data:
        count, dim = data_shape(data, name)
        paths, identities = (read_texts(data, t, name) for t in ("paths", "identities"))
        require_unique([paths], [], [str(name)])
        vectors = own_dataset(data, "embeddings", name)
        taken = Taken(refused=read_refused(data, name))

        def blocks() -> Iterator[Rows]:
            for first, part in zip(range(0, count, BLOCK_ROWS), parts(), strict=True):
                block = slice(first, first + BLOCK_ROWS)
                yield usable_rows(Rows(part, paths[block], identities[block]), taken)

        def parts() -> Iterator[np.ndarray]:
            for first in range(0, count, BLOCK_ROWS):
                with reading(name):
                    yield np.asarray(vectors[first : first + BLOCK_ROWS], dtype=np.float32)

        check_options(options.index, dim)
        with _writing(options.out, overwrite=options.overwrite) as out, whole_folder(out) as folder:
            manifest = write_gallery(
                folder,
                origin=require_fingerprint(recorded_origin(data, name), name),
                dim=dim,
                blocks=_counted(blocks(), "import", count, progress),
                count=count_usable(parts()),
                refused=taken.refused,
                index=options.index,
                progress=progress,
            )
    _warn_of(taken)
    return {"out": str(options.out), **_figures(manifest, taken, started)}


@contextmanager
def _writing(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """Hold the writer's lock of a gallery to be made; only a gallery is ever overwritten."""
    refuse_existing(target, overwrite=overwrite)
    out = target.resolve()  # the folder itself is exchanged, never a link to it
    _require_replaceable(target)
    with writer_lock(out):
        remove_leftovers(out)
        yield out


@contextmanager
def changing(target: Path, stack: ExitStack) -> Iterator[tuple[Path, Gallery]]:
    """Hold the writer's lock of an existing gallery, checked to the last bit."""
    path = target.resolve()
    if not (path / MANIFEST).is_file():
        raise InputError(f"{target} is no gallery folder ({MANIFEST} is missing)")
    _require_replaceable(target)
    with writer_lock(path):
        remove_leftovers(path)
        old = stack.enter_context(load_gallery(target, hashes=True))
        yield path, old


def _require_replaceable(path: Path) -> None:
    """Refuse to exchange a folder that holds anything but a gallery: it would be deleted."""
    if not path.exists():
        return
    if not path.is_dir():
        raise InputError(f"{path} is a file, no gallery folder; give another name")
    strange = sorted(p.name for p in path.iterdir() if p.name not in FILES)
    if strange:
        _log.debug("%s holds %r, which belongs to no gallery", path, strange[0])
        raise InputError(
            f"{path} holds {len(strange)} entries that belong to no gallery (-v names one) and "
            "would be deleted; move them away or give another name"
        )


def _index_as_before(old: Gallery, memory: int | None) -> IndexOptions:
    tuning = old.manifest.tuning
    if tuning is None:
        return IndexOptions(kind=FLAT)
    if memory is None and inverted.LISTS_DATA in old.manifest.files:
        memory = 0  # what lies on disk stays there
    return IndexOptions(
        kind=old.manifest.kind,
        target_recall=tuning.target_recall,
        recall_of=tuning.recall_of,
        memory=memory,
    )


def _carried(old: Gallery, keep: np.ndarray) -> Carried | None:
    """What a change that keeps these rows of a gallery, (N,) bool, keeps of its index."""
    tuning = old.manifest.tuning
    if tuning is None:
        return None
    if inverted.is_inverted(old.index):
        lists = inverted.lists_of(old.index, str(old.path))[keep]
        return Carried(index=old.index, tuning=tuning, lists=lists, rows=len(lists))
    if not keep.all():
        return None  # other indexes take new vectors up, but let none go without a trace
    return Carried(index=old.index, tuning=tuning, lists=None, rows=old.count)


def _require_known(what: str, wanted: set[str], known: set[str], path: Path) -> None:
    missing = sorted(wanted - known)
    if missing:
        raise InputError(
            f"{path}: no {what} {missing[0]!r} in the gallery"
            + (f" (nor {len(missing) - 1} more)" if len(missing) > 1 else "")
            + "; nothing was removed"
        )


def _counted(
    blocks: Iterator[Rows], stage: str, total: int, progress: ProgressCallback
) -> Iterator[Rows]:
    done = 0
    for block in blocks:
        yield block
        done += len(block.paths)
        progress(Progress(stage, done, total, "vectors"))


def _threshold_of(old: Gallery, *, changed: bool) -> Threshold | None:
    """The calibrated threshold, stale where other vectors are searched from now on."""
    threshold = old.manifest.threshold
    return replace(threshold, stale=True) if threshold and changed else threshold


def _warn_of(taken: Taken) -> None:
    if taken.refused:
        _log.warning("%d rows cannot be used (NaN or zero) and are left out", len(taken.refused))
    if taken.renormalised:
        _log.warning("%d rows were not of unit length and were scaled to it", taken.renormalised)


def _figures(manifest: Manifest, taken: Taken, started: float) -> dict[str, Any]:
    return {
        "vectors": manifest.vectors,
        "identities": manifest.identities,
        "dim": manifest.dim,
        "kind": manifest.kind,
        "recall_at_1": manifest.recall_at_1,
        "bytes": manifest.bytes,
        "refused": len(taken.refused),
        "renormalised": taken.renormalised,
        "seconds": round(time.perf_counter() - started, 3),
    }
