"""The command `eval`: how good a model is, as a classifier and as an embedding."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faceidx.embedding.missed import identities_missed
from faceidx.embedding.photos import embed_or_warn
from faceidx.embedding.pipeline import PipelineOptions
from faceidx.errors import InputError
from faceidx.evaluation.classifier import (
    add_missed,
    as_trained,
    class_names,
    rank_figures,
    top_classes,
)
from faceidx.evaluation.folds import Folds
from faceidx.evaluation.verdict import DEFAULT_TARGETS, MissingPolicy, VerifyOptions
from faceidx.evaluation.verification import verify_pairs
from faceidx.images.packed import is_packed
from faceidx.images.sources import open_source
from faceidx.models.open import ModelOptions, open_model
from faceidx.progress import ProgressCallback, silent


@dataclass(kw_only=True)
class EvalOptions:
    """Options of `faceidx eval`."""

    model: ModelOptions
    pipeline: PipelineOptions = field(default_factory=PipelineOptions)
    data: Path | None = None
    """Labelled pictures for the classifier."""
    pairs: Path | None = None
    images: Path | None = None
    """Folder of the pictures that `pairs` names; None where it carries them."""
    format: str = "auto"
    """Of `pairs`; this and what follows as in `VerifyOptions`."""
    fmr: tuple[float, ...] = DEFAULT_TARGETS
    folds: Folds = "auto"
    missing: MissingPolicy = "exclude"
    seed: int = 0


def evaluate(options: EvalOptions, progress: ProgressCallback = silent) -> dict[str, Any]:
    """Judge a model.

    Returns:
        `model`, `classifier` (with `data`: `images, failed, unknown_identities, rank1, rank5`)
        and `verification` (with `pairs`: the fields of `verify-pairs`); None for what was not
        asked for.

    Raises:
        InputError: nothing is asked for, or the model has no classifier to judge.
    """
    if options.data is None and options.pairs is None:
        raise InputError("nothing to judge by; give --data DIR, or --pairs FILE --images ROOT")
    if options.pairs is None and options.images is not None:
        raise InputError("--images ROOT goes with --pairs FILE; give both")
    if options.pairs is not None and options.images is None and not is_packed(options.pairs):
        raise InputError(
            f"--pairs {options.pairs} names its pictures; give --images ROOT, the folder that they "
            "lie in"
        )
    result: dict[str, Any] = {
        "model": str(options.model.path),
        "classifier": None,
        "verification": None,
    }
    if options.data is not None:
        result["classifier"] = _classifier(options, options.data, progress)
    if options.pairs is not None:
        verified = verify_pairs(
            VerifyOptions(
                pairs=options.pairs,
                images=options.images,
                model=options.model,
                pipeline=options.pipeline,
                format=options.format,
                fmr=options.fmr,
                folds=options.folds,
                missing=options.missing,
                seed=options.seed,
            ),
            progress,
        )
        result["verification"] = verified.as_json()
    return result


def _classifier(options: EvalOptions, data: Path, progress: ProgressCallback) -> dict[str, Any]:
    options.pipeline.require_one_face("a picture stands for its person")
    model = open_model(options.model)
    names = class_names(model)
    source = open_source(data)
    pipeline = as_trained(options.pipeline)
    embedded = embed_or_warn(source.pictures, model, pipeline, progress)
    failed = embedded.left.reasons()
    order, scores = top_classes(model, embedded.raw(), 5)
    missed = identities_missed(source.pictures, failed, pipeline)
    order, _, who = add_missed(order, scores, embedded.identities, names, missed)
    known = {*names, ""}
    return {
        "images": len(source.pictures),
        "failed": len(failed),
        "unknown_identities": sum(i not in known for i in embedded.identities),
        **rank_figures(order, who, names),
    }
