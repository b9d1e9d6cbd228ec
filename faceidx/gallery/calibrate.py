"""The threshold of an open-set search, from the gallery itself.

Every picture is searched in the gallery without its own person, and its best score is what a
stranger reaches against a gallery of this size. `open_set` chooses the threshold from these scores
(FPIR, ISO/IEC 19795-1:2021).
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from faceidx.errors import InputError
from faceidx.files import whole_folder
from faceidx.gallery.build import changing
from faceidx.gallery.folder import Gallery, link_file, now, write_manifest
from faceidx.gallery.fusion import NEIGHBOURS, Fusion, create_fusion
from faceidx.gallery.manifest import Threshold
from faceidx.gallery.open_set import EXTRAPOLATED, open_set_threshold
from faceidx.progress import ProgressCallback, silent

# So many searches find a rate of 1 % to within 0.14 points (95 %, independent).
MOST_SEARCHES = 20_000
# Cosine from which on two pictures are one.
_DOUBLE = 0.999

_log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class CalibrateOptions:
    """Options of `index calibrate`."""

    gallery: Path
    fpir: float
    """The wanted false-positive identification rate, between 0 and 1."""
    fusion: str = "best"
    """How a person's score is made of pictures: `best`, `mean` or `vote`."""
    neighbours: int = NEIGHBOURS
    """Nearest pictures that vote, with the fusion `vote`."""
    sample: int | None = None
    """Search with this many pictures, two or more, drawn by chance; None: all up to 20,000."""
    seed: int = 0


def calibrate(options: CalibrateOptions, *, progress: ProgressCallback = silent) -> dict[str, Any]:
    """Compute the threshold for a wanted FPIR and store it in the gallery's manifest.

    Returns:
        `gallery`, the fields of `Threshold`, and `without_identity`: pictures that took no part.

    Raises:
        InputError: the FPIR is not between 0 and 1, the gallery or the sample holds fewer than two
            people, the gallery is damaged, or another process is changing it.
    """
    if not 0 < options.fpir < 1:
        raise InputError(f"--fpir {options.fpir} is not between 0 and 1")
    if options.sample is not None and options.sample < 2:
        raise InputError(f"--sample {options.sample}: a threshold needs pictures of two or more")
    with ExitStack() as stack, changing(options.gallery, stack) as (path, gallery):
        rows = _searched_rows(gallery, options)
        fusion = create_fusion(options.fusion, gallery, options.neighbours)
        threshold = _threshold(fusion, options.fpir, rows, progress)
        with whole_folder(path) as folder:
            for name in gallery.manifest.files:
                link_file(path / name, folder / name)
            write_manifest(folder, replace(gallery.manifest, threshold=threshold))
        nameless = int(np.count_nonzero(gallery.codes < 0))
    return {
        "gallery": str(options.gallery),
        **asdict(threshold),
        "without_identity": nameless,
    }


def _searched_rows(gallery: Gallery, options: CalibrateOptions) -> np.ndarray:
    """The pictures to search with: of as many people as there are, one each before a second."""
    if len(gallery.people) < 2:
        raise InputError(
            f"{gallery.path} holds {len(gallery.people)} people; a threshold needs two or more"
        )
    named = np.flatnonzero(gallery.codes >= 0)
    wanted = MOST_SEARCHES if options.sample is None else options.sample
    if wanted >= len(named):
        return named
    shuffled = np.random.default_rng(options.seed).permutation(named)
    codes = gallery.codes[shuffled]
    by_person = np.argsort(codes, kind="stable")
    _, first, pictures = np.unique(codes[by_person], return_index=True, return_counts=True)
    turn = np.empty(len(named), dtype=np.int64)
    turn[by_person] = np.arange(len(named)) - np.repeat(first, pictures)
    return np.sort(shuffled[np.argsort(turn, kind="stable")[:wanted]])


def _threshold(
    fusion: Fusion, fpir: float, rows: np.ndarray, progress: ProgressCallback
) -> Threshold:
    people = fusion.gallery.codes[rows]
    scores = fusion.as_strangers(rows, progress=progress)
    chosen = open_set_threshold(scores, people, fpir)
    wrong = scores.astype(np.float64) >= chosen.value
    errors, trials = int(wrong.sum()), len(scores)
    doubles = np.unique(people[scores >= _DOUBLE])
    if len(doubles):
        _log.debug("%r has a picture of somebody else's", fusion.gallery.people[doubles[0]])
        _log.warning(
            "%d people have a picture that is somebody else's too (-v names one); where one person "
            "goes by two names the threshold comes out too high",
            len(doubles),
        )
    number = len(np.unique(people))
    if chosen.method == EXTRAPOLATED:
        _log.warning(
            "an FPIR of %g cannot be resolved by %d searches for %d people (it takes %d people): "
            "the threshold is extrapolated, and the true FPIR may be up to %.2g (95 %%)",
            fpir,
            trials,
            number,
            chosen.people_needed,
            chosen.interval[1],
        )
    return Threshold(
        value=chosen.value,
        fpir_target=fpir,
        fpir=errors / trials,
        errors=errors,
        trials=trials,
        interval=chosen.interval,
        expected=chosen.expected,
        method=chosen.method,
        identities=number,
        identity_errors=len(np.unique(people[wrong])),
        gallery_vectors=fusion.gallery.count,
        fusion=fusion.name,
        neighbours=fusion.neighbours,
        stale=False,
        created=now(),
    )
