"""Who is on each picture: nearest people of a gallery, accepted at or above a threshold."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from faceidx.evaluation.identification import CMC_RANKS, Identification, IdentificationFigures
from faceidx.files import refuse_existing, require_parent
from faceidx.gallery.cases import Case, KeptCases
from faceidx.gallery.folder import Gallery
from faceidx.gallery.fusion import create_fusion
from faceidx.gallery.probes import ProbeBlock, Probes, probe_blocks
from faceidx.gallery.search import Candidate, require_people
from faceidx.gallery.threshold_option import Decision, decision_of
from faceidx.progress import ProgressCallback, silent
from faceidx.tables import ANSWER_HEADER, MATCH, TOP_K, UNKNOWN, Answer, write_rows

# Cosine of a picture with itself, embedded with another engine or precision at worst.
_ITSELF = 0.99

_log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class ClassifyOptions:
    """Options of `classify` with a gallery."""

    top_k: int | None = None
    """People listed for each probe; None: `TOP_K`, or all where there are fewer."""
    threshold: float | str | None = None
    """Smallest score of a match, or a threshold file; None: the one calibrated for the gallery."""
    fusion: str | None = None
    """How a person's score is made of pictures; None: as calibrated, else `best`."""
    neighbours: int | None = None
    """Nearest pictures that vote, with the fusion `vote`; None: as the gallery was calibrated."""
    out: Path | None = None
    """File to write: `.csv`, `.jsonl` (an object a row) or `.txt` (a table)."""
    overwrite: bool = False


class Classified(NamedTuple):
    """What `classify` found."""

    summary: dict[str, Any]
    """`probes, matched, unknown, refused, threshold, fusion, out`; where probes carry identities
    also `rank1, rank5, fpir, fnir, identification`."""
    first: list[Answer]
    """The first answers, to be shown to a person."""
    decision: Decision
    figures: IdentificationFigures | None
    """None where no probe carries an identity."""
    cases: list[Case]
    """What a report shows: errors first, then what was decided most narrowly."""
    warnings: list[str]
    """What speaks against the threshold or the figures, logged already."""


def classify(
    gallery: Gallery,
    probes: Probes,
    options: ClassifyOptions,
    *,
    decision: Decision | None = None,
    cases: int = 0,
    nearest_answers: dict[str, Answer] | None = None,
    progress: ProgressCallback = silent,
) -> Classified:
    """Look up the nearest people of each probe and decide who is known.

    A probe is matched when its nearest person scores at or above the threshold, else unknown. Each
    row's decision is by its own score; that of rank 1 decides the probe. A
    probe that cannot be searched is unknown, counted as `refused`, and has one row without rank; of
    somebody enrolled it is a miss in the figures.

    Args:
        decision: as `settle` makes it of the options, where it is known already.
        cases: so many probes are kept for a report.
        nearest_answers: gets the first answer of each probe, by its key.

    Raises:
        InputError: as for `settle`, or the probes come from another model.
    """
    decision = decision or settle(gallery, options)
    top_k = options.top_k or TOP_K
    if options.top_k is not None and top_k > len(gallery.people):
        _log.warning("--top-k %d: the gallery holds %d people", top_k, len(gallery.people))
    fusion = create_fusion(decision.fusion, gallery, decision.neighbours)
    labelled = any(probes.identities)
    wanted = max(top_k, CMC_RANKS) if labelled else top_k
    counts = Identification(frozenset(gallery.people), decision.threshold)
    kept = KeptCases(frozenset(gallery.people), decision.threshold, cases)
    tally = {"probes": 0, "matched": 0, "unknown": 0, "refused": 0}
    keys = set(probes.keys) if labelled else set()  # a gallery has many more
    rows_of_keys = {key: row for row, key in enumerate(gallery.paths) if key in keys}
    themselves = 0

    def answers() -> Iterator[Answer]:
        nonlocal themselves
        for block in probe_blocks(gallery, probes, "classify", progress):
            themselves += _themselves(gallery, block, rows_of_keys)
            found = fusion.nearest(block.vectors, wanted)
            nearest = dict(zip(block.usable.tolist(), found, strict=True))
            _count(counts, block, nearest)
            for row, key in enumerate(block.keys):
                candidates = nearest.get(row, [])[:top_k]
                matched = bool(candidates) and candidates[0].score >= decision.threshold
                tally["probes"] += 1
                tally["matched" if matched else "unknown"] += 1
                tally["refused"] += row not in nearest
                kept.add(key, block.identities[row], candidates)
                rows = list(_answers(key, candidates, decision.threshold))
                if nearest_answers is not None:
                    nearest_answers[key] = rows[0]
                yield from rows

    first = write_rows(options.out, ANSWER_HEADER, answers())
    if tally["refused"]:
        _log.warning("%d probes have no usable embedding and cannot be searched", tally["refused"])
    warnings = [decision.warning] if decision.warning else []
    if themselves:
        warnings.append(
            f"{themselves} of the {tally['probes']} probes are pictures of the gallery itself and "
            "find themselves: the figures say little of other pictures of these people"
        )
        _log.warning("%s", warnings[-1])
    summary: dict[str, Any] = {
        **tally,
        "threshold": decision.threshold,
        "fusion": decision.fusion,
        "out": options.out,
    }
    figures = counts.result() if labelled else None
    if figures is not None:
        summary.update(figures.as_json())
    return Classified(summary, first, decision, figures, kept.worst_first(), warnings)


def settle(gallery: Gallery, options: ClassifyOptions) -> Decision:
    """What is decided by; to be asked before probes are embedded, which may take hours.

    Raises:
        InputError: there is no threshold, nobody to find, or the output exists.
    """
    if options.out:
        require_parent(options.out)
        refuse_existing(options.out, overwrite=options.overwrite)
    require_people(gallery)
    return decision_of(
        gallery, options.threshold, fusion=options.fusion, neighbours=options.neighbours
    )


def _count(
    counts: Identification, block: ProbeBlock, nearest: Mapping[int, list[Candidate]]
) -> None:
    """Add a block's probes to the figures.

    Somebody enrolled who cannot be searched for is missed (a failure to acquire, ISO/IEC 19795-1).
    A stranger in the same case counts nowhere: that would make the FPIR look better than it is.

    Args:
        nearest: people by the row of the probe, of the rows that can be searched.
    """
    rows = [
        row
        for row, identity in enumerate(block.identities)
        if row in nearest or identity in counts.enrolled
    ]
    found = [nearest.get(row, []) for row in rows]
    counts.add(
        [[candidate.identity for candidate in people[:CMC_RANKS]] for people in found],
        [people[0].score if people else float("-inf") for people in found],
        [block.identities[row] for row in rows],
    )


def _themselves(gallery: Gallery, block: ProbeBlock, rows_of_keys: Mapping[str, int]) -> int:
    """How many probes are pictures that the gallery holds, by key and vector."""
    keys = [block.keys[row] for row in block.usable]
    places = [place for place, key in enumerate(keys) if key in rows_of_keys]
    rows = np.array([rows_of_keys[keys[place]] for place in places], dtype=np.int64)
    cosines = np.einsum("nd,nd->n", block.vectors[places], gallery.vectors(rows))
    return int(np.count_nonzero(cosines >= _ITSELF))


def _answers(key: str, candidates: list[Candidate], threshold: float) -> Iterator[Answer]:
    for rank, (identity, _, score) in enumerate(candidates, start=1):
        yield Answer(key, rank, identity, score, MATCH if score >= threshold else UNKNOWN)
    if not candidates:
        yield Answer(key, None, "", None, UNKNOWN)
