"""The threshold that leaves with its user: a small JSON file that says what it was chosen for."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from faceidx.embedding.store import Origin
from faceidx.evaluation.roc import OperatingPoint
from faceidx.files import whole_file

FORMAT = "faceidx-threshold"
VERSION = 1


def write_threshold(path: Path, point: OperatingPoint, pairs: Path, origin: Origin | None) -> None:
    """Write a threshold with both errors at it and the model that it holds for.

    Args:
        pairs: the list it was chosen on.
        origin: where the scores come from; None for scores computed elsewhere.
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
        "pairs": str(pairs),
        "model": origin.model if origin else None,
        "fingerprint": origin.fingerprint if origin else None,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", "utf-8")
