"""The nearest pictures of each probe, those without identity included."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from faceidx.embedding.store import EmbeddingFile
from faceidx.files import refuse_existing, require_parent, together
from faceidx.gallery.folder import load_gallery
from faceidx.gallery.probes import probe_blocks, probes_of_file
from faceidx.gallery.search import rankings, require_pictures
from faceidx.gallery.sources import require_comparable
from faceidx.progress import ProgressCallback, silent
from faceidx.tables import write_rows

TOP_K = 10
HEADER = ("path", "rank", "match", "identity", "score")

_log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class SearchOptions:
    """Options of `index search`."""

    gallery: Path
    file: Path
    """Embeddings file of the probes."""
    top_k: int | None = None
    """Pictures listed for each probe; None: `TOP_K`, or all where there are fewer."""
    out: Path | None = None
    """CSV file to write."""
    device: str = "auto"
    overwrite: bool = False


class Hit(NamedTuple):
    """One row of the CSV file."""

    path: str
    rank: int | None
    """None where the probe cannot be searched: it holds NaN or has length zero."""
    match: str
    """Key of the gallery's picture."""
    identity: str
    score: float | None


class Hits(NamedTuple):
    """What `search_file` found."""

    summary: dict[str, Any]
    """`probes, hits, refused, top_k, out, seconds`."""
    first: list[Hit]
    """The first hits, to be shown to a person."""


def search_file(options: SearchOptions, *, progress: ProgressCallback = silent) -> Hits:
    """Rank the gallery's pictures for each row of an embeddings file.

    Raises:
        InputError: the file comes from another model, the gallery is empty or damaged, or the
            output exists.
    """
    started = time.perf_counter()
    if options.out:
        require_parent(options.out)
        refuse_existing(options.out, overwrite=options.overwrite)
    tally = {"probes": 0, "hits": 0, "refused": 0}
    with (
        load_gallery(options.gallery, device=options.device) as gallery,
        EmbeddingFile(options.file) as file,
        together(options.out),
    ):
        require_comparable(gallery.origin, gallery.dim, gallery.path, [file])
        require_pictures(gallery)
        # `search` warns of a k too large, but once a block.
        wanted = options.top_k or TOP_K
        top_k = min(wanted, gallery.count)
        if options.top_k is not None and top_k < wanted:
            _log.warning("--top-k %d: the gallery holds %d", wanted, gallery.count)

        def hits() -> Iterator[Hit]:
            for block in probe_blocks(gallery, probes_of_file(file), "search", progress):
                found_of = rankings(gallery, block.vectors, top_k)
                usable = set(block.usable.tolist())
                tally["probes"] += len(block.keys)
                tally["refused"] += len(block.keys) - len(usable)
                for row, key in enumerate(block.keys):
                    if row not in usable:
                        yield Hit(key, None, "", "", None)
                        continue
                    scores, rows = next(found_of)
                    tally["hits"] += len(rows)
                    for rank, (found, score) in enumerate(zip(rows, scores, strict=True), start=1):
                        match, identity = gallery.paths[found], gallery.identities[found]
                        yield Hit(key, rank, match, identity, float(score))

        first = write_rows(options.out, HEADER, hits())
    if tally["refused"]:
        _log.warning("%d probes hold NaN or are zero and cannot be searched", tally["refused"])
    seconds = round(time.perf_counter() - started, 3)
    return Hits({**tally, "top_k": top_k, "out": options.out, "seconds": seconds}, first)
