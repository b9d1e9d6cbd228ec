"""The threshold of an open-set search, from the gallery itself.

Every picture is searched in the gallery without its own person: a non-mated search, whose best
score is the best an impostor gets against a gallery of this size. The threshold is the smallest
score that no more than the wanted share of those searches reaches (FPIR, ISO/IEC 19795-1:2021).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from faceidx.errors import InputError
from faceidx.files import whole_folder
from faceidx.gallery.build import changing
from faceidx.gallery.folder import DATA, INDEX, Gallery, link_file, now, write_manifest
from faceidx.gallery.manifest import Threshold
from faceidx.progress import Progress, ProgressCallback, silent

# One block of scores is 2048 x 8192 float32: 64 MiB.
_BLOCK_PROBES = 2048
_BLOCK_ROWS = 8192
_Z95 = 1.959963984540054  # 97.5 % point of the normal distribution

_log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class CalibrateOptions:
    """Options of `index calibrate`."""

    gallery: Path
    fpir: float
    """The wanted false-positive identification rate, between 0 and 1."""
    sample: int | None = None
    """Search with this many pictures, drawn by chance, instead of all."""
    seed: int = 0


def calibrate(options: CalibrateOptions, *, progress: ProgressCallback = silent) -> dict[str, Any]:
    """Compute the threshold for a wanted FPIR and store it in the gallery's manifest.

    Returns:
        `gallery`, the fields of `Threshold`, and `without_identity`: pictures that took no part.

    Raises:
        InputError: the FPIR is not between 0 and 1, the gallery holds fewer than two people, is
            damaged, or another process is changing it.
    """
    if not 0 < options.fpir < 1:
        raise InputError(f"--fpir {options.fpir} is not between 0 and 1")
    with ExitStack() as stack, changing(options.gallery, stack) as (path, gallery):
        probes = _probe_rows(gallery, options)
        scores = non_mated_scores(gallery, probes, progress=progress)
        threshold = _threshold(gallery, options.fpir, probes, scores)
        with whole_folder(path) as folder:
            for name in (INDEX, DATA):
                link_file(path / name, folder / name)
            write_manifest(folder, replace(gallery.manifest, threshold=threshold))
        nameless = int(np.count_nonzero(gallery.codes < 0))
    if options.fpir * threshold.trials < 1:
        _log.warning(
            "an FPIR of %g cannot be resolved by %d searches: the threshold is above them all, "
            "and the true FPIR may be up to %.2g (95 %%)",
            options.fpir,
            threshold.trials,
            threshold.interval[1],
        )
    return {
        "gallery": str(options.gallery),
        **asdict(threshold),
        "without_identity": nameless,
    }


def non_mated_scores(
    gallery: Gallery, probes: np.ndarray, *, progress: ProgressCallback = silent
) -> np.ndarray:
    """Best score of each probe among the pictures of other people, never holding all scores.

    Gallery rows without identity take no part: they may show anybody.

    Args:
        probes: (T,) rows of the gallery that have an identity.

    Returns:
        (T,) float32.
    """
    best = np.full(len(probes), -np.inf, dtype=np.float32)
    codes = gallery.codes
    for first in range(0, len(probes), _BLOCK_PROBES):
        chosen = probes[first : first + _BLOCK_PROBES]
        queries = gallery.vectors(chosen)
        for start, rows in _row_blocks(gallery):
            others = codes[start : start + len(rows)]
            scores = queries @ rows.T
            scores[(codes[chosen][:, None] == others) | (others < 0)] = -np.inf
            block = best[first : first + len(chosen)]
            np.maximum(block, scores.max(axis=1), out=block)
        progress(Progress("calibrate", first + len(chosen), len(probes), "searches"))
    return best


def threshold_at(scores: np.ndarray, fpir: float) -> float:
    """The smallest threshold that at most the share `fpir` of scores reaches.

    Args:
        scores: (T,) float32, finite.

    Returns:
        A float32 number just above the first score that must not be accepted.
    """
    descending = np.sort(scores)[::-1]
    return float(np.nextafter(descending[_allowed(fpir, len(scores))], np.float32(np.inf)))


def wilson_interval(errors: int, trials: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927), for independent trials."""
    share, z2 = errors / trials, _Z95**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z95 * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    # At the ends the formula is exact, but not in floating point.
    low = centre - half if errors else 0.0
    high = centre + half if errors < trials else 1.0
    return low, high


def _allowed(fpir: float, trials: int) -> int:
    """The largest number of errors whose share is at most `fpir`, in floating point as reported."""
    errors = math.floor(fpir * trials) + 1
    while errors / trials > fpir:
        errors -= 1
    return errors


def _probe_rows(gallery: Gallery, options: CalibrateOptions) -> np.ndarray:
    if len(gallery.people) < 2:
        raise InputError(
            f"{gallery.path} holds {len(gallery.people)} people; a threshold needs two or more"
        )
    named = np.flatnonzero(gallery.codes >= 0)
    if options.sample is None or options.sample >= len(named):
        return named
    chance = np.random.default_rng(options.seed)
    return np.sort(chance.choice(named, options.sample, replace=False))


def _threshold(gallery: Gallery, fpir: float, probes: np.ndarray, scores: np.ndarray) -> Threshold:
    value = threshold_at(scores, fpir)
    wrong = scores.astype(np.float64) >= value
    errors, trials = int(wrong.sum()), len(scores)
    return Threshold(
        value=value,
        fpir_target=fpir,
        fpir=errors / trials,
        errors=errors,
        trials=trials,
        interval=wilson_interval(errors, trials),
        identities=len(np.unique(gallery.codes[probes])),
        identity_errors=len(np.unique(gallery.codes[probes][wrong])),
        gallery_vectors=gallery.count,
        stale=False,
        created=now(),
    )


def _row_blocks(gallery: Gallery) -> Iterator[tuple[int, np.ndarray]]:
    for first in range(0, gallery.count, _BLOCK_ROWS):
        yield first, gallery.vectors(slice(first, first + _BLOCK_ROWS))
