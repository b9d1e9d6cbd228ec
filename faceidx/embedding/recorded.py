"""Going on with earlier work, or adding to its file: what is taken over, and what must agree."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from faceidx.embedding.store import EmbeddingFile, Origin, require_one_model
from faceidx.errors import InputError
from faceidx.models.face_model import Compiled
from faceidx.models.fidelity import ITSELF, Fidelity
from faceidx.models.open import ModelOptions

logger = logging.getLogger(__name__)

# Of what a file records, that which may differ in what is added to it: embeddings stay comparable.
# What says which faces are found matters where nothing is added too: the rows that stay may hold
# others than would be found now.
_OF_FACES = {"detector", "detect_template", "min_face", "min_score"}
_MAY_CHANGE = {
    *("engine", "precision", "compiled", "batch_size", "arch", "decoder"),
    *_OF_FACES,
}


def run_as_before(wanted: ModelOptions, before: Mapping[str, Any]) -> ModelOptions:
    """Options that run a model as it was run before, but for what is given otherwise.

    Args:
        before: what is recorded; of another engine than is given nothing is known, nor is of
            another precision how it was compiled.
    """
    engine = _unless_auto(wanted.engine, before.get("engine"))
    known = before if engine == before.get("engine") else {}
    precision = _unless_auto(wanted.precision, known.get("precision"))
    known = known if precision == known.get("precision") else {}
    compiled = wanted.compiled
    if compiled is None and known.get("compiled") in get_args(Compiled):
        compiled = known["compiled"]
    return replace(wanted, engine=engine, precision=precision, compiled=compiled)


def _unless_auto(wanted: str, recorded: object) -> str:
    return str(recorded) if wanted == "auto" and recorded else wanted


def recorded_fidelity(file: EmbeddingFile) -> Fidelity:
    """What a file says that its precision keeps of float32; all of it where it says nothing."""
    try:
        told = json.loads(file.attribute("fidelity"))
        return Fidelity(
            least=float(told["least"]), mean=float(told["mean"]), pictures=int(told["pictures"])
        )
    except (TypeError, ValueError, KeyError):
        return ITSELF


def require_same_origin(out: Path, before: Origin, now: Origin, *, adding: bool) -> None:
    """Raise `InputError` where embeddings cannot be added to a file; warn of what else differs.

    Args:
        adding: whether any are added at all.
    """
    require_one_model(before, str(out), now, now.model)
    for name in sorted({*before.preprocessing, *now.preprocessing}):
        was, found = before.preprocessing.get(name), now.preprocessing.get(name)
        if name not in _MAY_CHANGE:
            require_same(out, name, was, found)
        elif was != found and name in _OF_FACES:
            logger.warning(
                "%s was %s, and is %s for what is added alone; --overwrite finds all faces anew",
                name,
                was,
                found,
            )
        elif adding and was != found:
            logger.warning("%s was %s, and is %s for what is added", name, was, found)


def require_same(out: Path, option: str, was: object, now: object) -> None:
    """Raise `InputError` where an option differs from what a file was made with."""
    if was != now:
        raise InputError(
            f"{out} was made with other options: {option} was {was}, now {now}; give the same, "
            "or --overwrite"
        )
