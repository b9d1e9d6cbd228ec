"""Which threshold `classify` decides by: one given, or the gallery's calibrated one."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import NamedTuple

from faceidx.embedding.store import require_same_fingerprint
from faceidx.errors import InputError
from faceidx.evaluation.threshold import cosine_threshold, read_threshold
from faceidx.gallery.folder import Gallery
from faceidx.gallery.fusion import NEIGHBOURS
from faceidx.gallery.manifest import Threshold

_log = logging.getLogger(__name__)


class Decision(NamedTuple):
    """What is decided by."""

    threshold: float
    fusion: str
    neighbours: int
    source: str
    """Where the threshold comes from, for a reader: `calibrated for an FPIR of 0.01`."""
    warning: str = ""
    """What speaks against it, logged already."""


def decision_of(
    gallery: Gallery,
    given: float | str | None,
    *,
    fusion: str | None = None,
    neighbours: int | None = None,
) -> Decision:
    """The threshold given, else the gallery's calibrated one, and the fusion to hold it against.

    Warns where the calibrated one is stale, and where a threshold is given: one of pairs bounds
    the errors of a single comparison, and a search makes as many as there are pictures.

    Args:
        given: a number, or the name of a threshold file that `verify-pairs` wrote.
        fusion: None takes the one that a calibrated threshold is for, else the best picture.

    Raises:
        InputError: there is no threshold, it is no number and no threshold file, it was made with
            another model, or calibrated with another fusion.
    """
    calibrated = gallery.manifest.threshold
    if given is not None:
        value, source, warning = _given(gallery, given, fusion)
        usual = ("best", NEIGHBOURS)
        if calibrated is not None and calibrated.value == value:
            usual = (calibrated.fusion, calibrated.neighbours)
        if warning:
            _log.warning("%s", warning)
        chosen = fusion or usual[0]
        _warn_of_voters(chosen, neighbours)
        return Decision(value, chosen, neighbours or usual[1], source, warning)
    if calibrated is None:
        raise InputError(
            f"{gallery.path} has no calibrated threshold; run {_calibrate(gallery)} or give "
            "--threshold"
        )
    fpir = f"{calibrated.fpir_target:g}"
    fused = _fusion(calibrated.fusion, calibrated.neighbours)
    if stale := _stale(gallery, calibrated):
        _log.warning("%s", stale)
    decision = Decision(
        calibrated.value,
        fusion or calibrated.fusion,
        neighbours or calibrated.neighbours,
        f"calibrated for an FPIR of {fpir}",
        stale,
    )
    voters = decision.fusion == "vote" and decision.neighbours != calibrated.neighbours
    if decision.fusion != calibrated.fusion or voters:
        anew = _calibrate(gallery, fpir, _fusion(decision.fusion, decision.neighbours))
        raise InputError(
            f"{gallery.path} is calibrated for{fused}; run {anew}, or give --threshold"
        )
    _warn_of_voters(decision.fusion, neighbours)
    return decision


def _warn_of_voters(fusion: str, neighbours: int | None) -> None:
    if neighbours is not None and fusion != "vote":
        _log.warning("--neighbours is of no use without --fusion vote")


def _stale(gallery: Gallery, calibrated: Threshold) -> str:
    """What speaks against a calibrated threshold; empty where nothing does."""
    if not calibrated.stale:
        return ""
    usual = calibrated.fusion == "best"
    fused = "" if usual else _fusion(calibrated.fusion, calibrated.neighbours)
    again = _calibrate(gallery, f"{calibrated.fpir_target:g}", fused)
    return f"the gallery has changed since its threshold was calibrated; run {again} again"


def _calibrate(gallery: Gallery, fpir: str = "P", fusion: str = "") -> str:
    """The command that finds a threshold for a gallery."""
    return f"`faceidx index calibrate {gallery.path} --fpir {fpir}{fusion}`"


def _fusion(fusion: str, neighbours: int) -> str:
    return f" --fusion {fusion}" + (f" --neighbours {neighbours}" if fusion == "vote" else "")


def _given(gallery: Gallery, given: float | str, fusion: str | None) -> tuple[float, str, str]:
    """Value, source and warning."""
    try:
        value = cosine_threshold(given)
    except ValueError:
        return _of_file(gallery, Path(str(given)))
    calibrated = gallery.manifest.threshold
    if calibrated and (value, fusion or calibrated.fusion) == (calibrated.value, calibrated.fusion):
        return value, "given, the calibrated one", _stale(gallery, calibrated)
    return (
        value,
        "given",
        f"the threshold {value:g} is taken as given; if it was chosen on pairs, its FMR is not an "
        f"FPIR: a search compares with all {gallery.count} pictures. {_calibrate(gallery)} finds "
        "one for searches",
    )


def _of_file(gallery: Gallery, path: Path) -> tuple[float, str, str]:
    if not path.exists():
        raise InputError(f"--threshold {path} is neither a number nor a threshold file")
    chosen = read_threshold(path)
    if chosen.fingerprint is not None:
        require_same_fingerprint(
            gallery.origin.fingerprint, str(gallery.path), chosen.fingerprint, str(path)
        )
    fmr = chosen.target_fmr  # the one found is 0 where the pairs were too few to show it
    chance = -math.expm1(gallery.count * math.log1p(-min(fmr, 1 - 1e-9)))
    return (
        chosen.threshold,
        f"of pairs, from {path}",
        f"{path} holds a threshold of pairs: its FMR of {fmr:.2g} is not an FPIR. With "
        f"{gallery.count} pictures to compare with, up to {100 * chance:.3g} % of the searches for "
        f"strangers may find somebody; {_calibrate(gallery)} finds a threshold for searches",
    )
