"""Who is on each picture: nearest people of a gallery, accepted at or above a threshold."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from faceidx.errors import InputError
from faceidx.files import refuse_existing, require_parent
from faceidx.gallery.folder import Gallery
from faceidx.gallery.identification import RANKS, IdentificationCounts
from faceidx.gallery.probes import Probes, probe_blocks
from faceidx.gallery.search import Candidate, nearest_identities
from faceidx.progress import ProgressCallback, silent
from faceidx.tables import ANSWER_HEADER, MATCH, UNKNOWN, Answer, write_rows

_log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class ClassifyOptions:
    """Options of `classify` with a gallery."""

    top_k: int = 5
    """People listed for each probe."""
    threshold: float | None = None
    """Smallest score of a match; None: the one calibrated for the gallery."""
    out: Path | None = None
    """CSV file to write."""
    overwrite: bool = False


class Classified(NamedTuple):
    """What `classify` found."""

    summary: dict[str, Any]
    """`probes, matched, unknown, refused, threshold, out`; where probes carry identities also
    `rank1, rank5, fpir, fnir`."""
    first: list[Answer]
    """The first answers, to be shown to a person."""


def threshold_of(gallery: Gallery, given: float | None) -> float:
    """The threshold given, else the gallery's calibrated one (with a warning where it is stale).

    Raises:
        InputError: there is neither.
    """
    if given is not None:
        if not math.isfinite(given):
            raise InputError(f"--threshold {given} is no number")
        return given
    calibrated = gallery.manifest.threshold
    if calibrated is None:
        raise InputError(
            f"{gallery.path} has no calibrated threshold; run `faceidx index calibrate "
            f"{gallery.path} --fpir P` or give --threshold"
        )
    if calibrated.stale:
        _log.warning(
            "the gallery has changed since its threshold was calibrated; run "
            "`faceidx index calibrate %s --fpir %g` again",
            gallery.path,
            calibrated.fpir_target,
        )
    return calibrated.value


def classify(
    gallery: Gallery,
    probes: Probes,
    options: ClassifyOptions,
    *,
    progress: ProgressCallback = silent,
) -> Classified:
    """Look up the nearest people of each probe and decide who is known.

    A probe is matched when its nearest person scores at or above the threshold, else unknown. Each
    row's decision is by its own score; that of rank 1 decides the probe. A
    probe that cannot be searched is unknown, counted as `refused`, and has one row without rank.

    Raises:
        InputError: there is no threshold, the output exists, or the probes come from another model.
    """
    threshold = threshold_of(gallery, options.threshold)
    if options.out:
        require_parent(options.out)
        refuse_existing(options.out, overwrite=options.overwrite)
    counts = IdentificationCounts(frozenset(gallery.people), threshold)
    tally = {"probes": 0, "matched": 0, "unknown": 0, "refused": 0}

    def answers() -> Iterator[Answer]:
        for block in probe_blocks(gallery, probes, "classify", progress):
            wanted = max(options.top_k, *RANKS)
            found = nearest_identities(gallery, block.vectors, wanted)
            counts.add(found, [block.identities[row] for row in block.usable])
            nearest = dict(zip(block.usable.tolist(), found, strict=True))
            for row, key in enumerate(block.keys):
                candidates = nearest.get(row, [])[: options.top_k]
                matched = bool(candidates) and candidates[0].score >= threshold
                tally["probes"] += 1
                tally["matched" if matched else "unknown"] += 1
                tally["refused"] += row not in nearest
                yield from _answers(key, candidates, threshold)

    first = write_rows(options.out, ANSWER_HEADER, answers())
    if tally["refused"]:
        _log.warning("%d probes have no usable embedding and cannot be searched", tally["refused"])
    summary: dict[str, Any] = {**tally, "threshold": threshold, "out": options.out}
    if any(probes.identities):
        summary.update(counts.figures())
    return Classified(summary, first)


def _answers(key: str, candidates: list[Candidate], threshold: float) -> Iterator[Answer]:
    for rank, (identity, _, score) in enumerate(candidates, start=1):
        yield Answer(key, rank, identity, score, MATCH if score >= threshold else UNKNOWN)
    if not candidates:
        yield Answer(key, None, "", None, UNKNOWN)
