"""The threshold that leaves with its user: a small JSON file that says what it was chosen for.

Beside the threshold it says of which model's scores it holds, and what any other score means.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from faceidx.embedding.store import Origin
from faceidx.errors import InputError
from faceidx.evaluation.calibration import Calibration
from faceidx.evaluation.roc import OperatingPoint, Roc
from faceidx.evaluation.tail import TailPoint, lower_tail, upper_tail
from faceidx.files import whole_file

logger = logging.getLogger(__name__)

FORMAT = "faceidx-threshold"
VERSION = 1
# A file of ours has some 20 kB at most.
_MAX_BYTES = 1 << 20
_LONGEST_TEXT = 4096
# A cosine may be so far beyond 1, and a threshold chosen just above such a score.
_ROUNDING = 1e-6
# What is recorded of the way in which the scores came about, beside the fingerprint.
_MADE_WITH = ("engine", "precision", "dtype", "detect")


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """The content of a threshold file."""

    threshold: float
    """A pair is accepted at score >= threshold."""
    target_fmr: float
    fmr: float
    """As reached: `false_matches` / `impostor`."""
    fnmr: float
    false_matches: int
    false_non_matches: int
    genuine: int
    impostor: int
    pairs: str
    """The list it was chosen on."""
    model: str | None
    fingerprint: str | None
    """None for scores computed elsewhere."""
    made_with: dict[str, str]
    """Engine, precision, dtype and detection, as far as they are known."""
    fmr_curve: tuple[TailPoint, ...]
    """Impostor scores and how many score as high (`tail.upper_tail`), up to all that have a score;
    empty where not known."""
    fnmr_curve: tuple[TailPoint, ...]
    """Genuine scores and how many score as low (`tail.lower_tail`), likewise."""
    calibration: Calibration | None
    min_cllr: float | None


def write_threshold(
    path: Path,
    point: OperatingPoint,
    pairs: Path,
    origin: Origin | None,
    *,
    roc: Roc,
    calibration: Calibration | None,
    min_cllr: float | None,
) -> None:
    """Write a threshold with both errors at it, the model it holds for, and what scores mean.

    Args:
        pairs: the list it was chosen on.
        origin: where the scores come from; None for scores computed elsewhere.
        roc: the curve it was chosen on.
        calibration: of the same scores, and their least Cllr; None where there is none.
    """
    record = {
        "format": FORMAT,
        "version": VERSION,
        "threshold": point.threshold,
        "target_fmr": point.target,
        "fmr": point.fmr,
        "fnmr": point.fnmr,
        "false_matches": point.false_matches,
        "false_non_matches": point.genuine - point.true_matches,
        "genuine": point.genuine,
        "impostor": point.impostor,
        "fmr_curve": [
            {"score": p.score, "false_matches": p.count} for p in upper_tail(roc.impostor_scores)
        ],
        "fnmr_curve": [
            {"score": p.score, "false_non_matches": p.count} for p in lower_tail(roc.genuine_scores)
        ],
        "calibration": asdict(calibration) if calibration else None,
        "min_cllr": min_cllr,
        "pairs": str(pairs),
        "model": origin.model if origin else None,
        "fingerprint": origin.fingerprint if origin else None,
        "made_with": made_with(origin) if origin else {},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", "utf-8")


def made_with(origin: Origin) -> dict[str, str]:
    """What a difference in draws a warning: engine, precision, dtype and detection."""
    done = origin.preprocessing
    return {name: str(done[name]) for name in _MADE_WITH if done.get(name) is not None}


def read_threshold(path: Path) -> Threshold:
    """Read a threshold file. Files from before the curves and the calibration have none of them.

    Raises:
        InputError: the file is missing, is no threshold file, is of a newer version, or makes no
            sense.
    """
    try:
        if not path.is_file():
            raise InputError(f"{path}: no such threshold file")
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    if len(raw) > _MAX_BYTES:
        raise InputError(f"{path} is no threshold file: it is larger than {_MAX_BYTES} bytes")
    try:
        record = json.loads(raw, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise InputError(f"{path} is no threshold file: it is no JSON") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise InputError(
            f"{path} is no {FORMAT} file; `faceidx verify-pairs --save-threshold` writes one"
        )
    version = record.get("version")
    if type(version) is int and version > VERSION:
        raise InputError(f"{path} was written by a newer faceidx; update faceidx to read it")
    try:
        if type(version) is not int or version < 1:
            raise ValueError("version is no whole number from 1")
        return _threshold(record)
    except (ValueError, OverflowError) as error:
        raise InputError(
            f"{path} is damaged or was edited ({error}); write it anew with "
            "`faceidx verify-pairs --save-threshold`"
        ) from None


def cosine_threshold(given: float | str) -> float:
    """Read a threshold of cosines that is given as a number; warn of one that none can reach.

    Raises:
        ValueError: it is no number.
        InputError: it is not finite.
    """
    value = float(given)
    if not math.isfinite(value):
        raise InputError(f"--threshold {given} is no number; give one from -1 to 1")
    if abs(value) > 1 + _ROUNDING:
        logger.warning("--threshold %s is no cosine: all scores lie between -1 and 1", given)
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _threshold(record: Mapping[str, Any]) -> Threshold:
    """Check every field.

    Raises:
        ValueError: naming the field and what is wrong with it.
    """
    genuine, impostor = _count(record, "genuine"), _count(record, "impostor")
    if not genuine or not impostor:
        raise ValueError("there is no genuine or no impostor pair behind it")
    false_matches = _count(record, "false_matches", impostor)
    false_non_matches = _count(record, "false_non_matches", genuine)
    return Threshold(
        threshold=_number(record, "threshold"),
        target_fmr=_number(record, "target_fmr"),
        fmr=_rate(record, "fmr", false_matches, impostor),
        fnmr=_rate(record, "fnmr", false_non_matches, genuine),
        false_matches=false_matches,
        false_non_matches=false_non_matches,
        genuine=genuine,
        impostor=impostor,
        pairs=_text(record, "pairs") or "",
        model=_text(record, "model"),
        fingerprint=_text(record, "fingerprint"),
        made_with=_made_with(record),
        fmr_curve=_curve(record, "fmr_curve", "false_matches", impostor, direction=-1),
        fnmr_curve=_curve(record, "fnmr_curve", "false_non_matches", genuine, direction=1),
        calibration=_calibration(record),
        min_cllr=None if record.get("min_cllr") is None else _number(record, "min_cllr"),
    )


def _number(record: Mapping[str, Any], name: str) -> float:
    value: Any = record.get(name)
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{name} is no finite number")
    return float(value)


def _count(record: Mapping[str, Any], name: str, most: int | None = None) -> int:
    value = record.get(name)
    if type(value) is not int or value < 0:
        raise ValueError(f"{name} is no whole number from 0")
    if most is not None and value > most:
        raise ValueError(f"{name} is more than there are: {most}")
    return value


def _rate(record: Mapping[str, Any], name: str, errors: int, trials: int) -> float:
    rate = _number(record, name)
    if not math.isclose(rate, errors / trials, rel_tol=1e-9):
        raise ValueError(f"{name} is not {errors} of {trials}")
    return rate


def _text(record: Mapping[str, Any], name: str) -> str | None:
    value = record.get(name)
    if value is not None and (not isinstance(value, str) or len(value) > _LONGEST_TEXT):
        raise ValueError(f"{name} is no text of at most {_LONGEST_TEXT} characters")
    return value or None


def _made_with(record: Mapping[str, Any]) -> dict[str, str]:
    fields = record.get("made_with") or {}
    if not isinstance(fields, dict):
        raise ValueError("made_with is no object")
    found = {name: _text(fields, name) for name in _MADE_WITH}
    return {name: text for name, text in found.items() if text is not None}


def _curve(
    record: Mapping[str, Any], name: str, counted: str, total: int, *, direction: int
) -> tuple[TailPoint, ...]:
    """Read a curve whose scores go one way (1: rising, -1: falling), with rising counts."""
    entries = record.get(name)
    if entries is None:
        return ()
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{name} is no list of objects")
    points = tuple(TailPoint(_number(e, "score"), _count(e, counted)) for e in entries)
    before = TailPoint(-math.inf * direction, 0)
    for point in points:
        if (point.score - before.score) * direction <= 0 or point.count <= before.count:
            raise ValueError(f"{name} turns back at the score {point.score:g}")
        before = point
    if before.count > total:
        raise ValueError(f"{name} counts more than {total} pairs")
    return points


def _calibration(record: Mapping[str, Any]) -> Calibration | None:
    fields = record.get("calibration")
    if fields is None:
        return None
    if not isinstance(fields, dict):
        raise ValueError("calibration is no object")
    slope = _number(fields, "slope")
    if slope < 0:
        raise ValueError("the slope of the calibration is negative")
    return Calibration(
        slope=slope, intercept=_number(fields, "intercept"), cllr=_number(fields, "cllr")
    )
