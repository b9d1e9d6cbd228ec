"""What was measured of a model on this machine, kept in the user's cache folder.

The file can be removed at any time, and a damaged one counts as none: all is measured anew then.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from faceidx.errors import FaceidxError
from faceidx.files import cache_folder, whole_file
from faceidx.models.device import device_name
from faceidx.resources import usable_cores
from faceidx.versions import version_of

logger = logging.getLogger(__name__)

_FILE = "engines.json"
_FORMAT = 1
# Models that are remembered; the oldest go first.
_MOST = 200


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured of one way to run a model."""

    rate: float = 0.0
    """Images/s; 0 where that was not measured."""
    seconds: float = 0.0
    """From the opened model to the first embedding: for the most part, to compile it."""
    untrue: bool = False
    """Whether some picture came out too far from float32 to be taken by itself."""


CLOSED = Measured()
"""Of a way that cannot be gone here."""


def recall(key: str) -> dict[str, Measured]:
    """What is known under a key, by the names of the ways to run it."""
    try:
        known = _read()[key]
        return {
            str(way): Measured(
                rate=float(m["rate"]),
                seconds=float(m["seconds"]),
                untrue=m.get("untrue") is True,
            )
            for way, m in known.items()
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def keep(key: str, measured: dict[str, Measured]) -> None:
    """Keep what was measured; where that cannot be, it is measured again the next time."""
    if (folder := cache_folder()) is None:
        return
    content = _read()
    content.pop(key, None)  # the key goes to the end: it is the youngest
    content[key] = {way: asdict(m) for way, m in measured.items()}
    content = dict(list(content.items())[-_MOST:])
    try:
        with whole_file(folder / _FILE) as temporary:
            temporary.write_text(json.dumps({"format": _FORMAT, "measured": content}), "utf-8")
    except FaceidxError as error:
        logger.debug("what was measured is not kept: %s", error)


def machine_key(*facts: object, device: str) -> str:
    """A key for this machine with what is installed on it, and for `facts` about the model.

    Args:
        device: what runs the model; of a GPU counts what it is, not its number.
    """
    packages = {name: version_of(name) for name in ("torch", "onnxruntime", "openvino", "faceidx")}
    machine = [
        processor(),
        usable_cores(),
        packages,
        os.environ.get("OMP_NUM_THREADS"),
        device_name(device) or device,
    ]
    return hashlib.sha256(json.dumps([machine, *map(str, facts)]).encode()).hexdigest()


def _read() -> dict[str, Any]:
    folder = cache_folder()
    try:
        content = json.loads((folder / _FILE).read_text("utf-8")) if folder else {}
        measured = content["measured"] if content["format"] == _FORMAT else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return measured if isinstance(measured, dict) else {}


def processor() -> str:
    """The processor's model, with what it can compute where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    told = {line.partition(":")[0].strip(): line for line in lines}
    return "\n".join(told.get(name, "") for name in ("model name", "flags", "Features"))
