"""`verify`: two pictures in, one score out, and what that score means."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from faceidx.embedding.photos import photo_warning
from faceidx.embedding.pipeline import PipelineOptions, embed_pictures, origin_of
from faceidx.errors import InputError
from faceidx.evaluation.calibration import log_likelihood_ratio
from faceidx.evaluation.figures import ENOUGH_ERRORS
from faceidx.evaluation.scoring import cosine_scores
from faceidx.evaluation.tail import TailPoint, most_at_or_above, most_at_or_below
from faceidx.evaluation.threshold import Threshold, cosine_threshold, made_with, read_threshold
from faceidx.images.sources import Picture
from faceidx.models.face_model import FaceModel
from faceidx.models.open import ModelOptions, open_model
from faceidx.progress import ProgressCallback, silent


@dataclass(kw_only=True)
class PairOptions:
    """What `verify` is asked for."""

    left: Path
    right: Path
    model: ModelOptions
    pipeline: PipelineOptions = field(default_factory=PipelineOptions)
    threshold_file: Path | None = None
    """Written by `verify-pairs --save-threshold` with the same model."""
    threshold: float | str | None = None
    """Smallest score of a match, or such a file."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """At most so many of the pairs of a list that have a score."""

    count: int
    total: int

    @property
    def rate(self) -> float:
        return self.count / self.total


@dataclass(frozen=True, kw_only=True)
class PairVerdict:
    """The score of two pictures, and what a threshold file says of it."""

    left: str
    right: str
    score: float
    """Cosine of the two embeddings."""
    threshold: float | None
    calibrated: Threshold | None
    """The content of the threshold file, where one was given."""
    model: str
    fingerprint: str
    warnings: list[str]

    @property
    def match(self) -> bool | None:
        """Whether both pictures are taken to show one person; None without a threshold."""
        return None if self.threshold is None else self.score >= self.threshold

    @property
    def fmr_at_score(self) -> Share | None:
        """Share of the file's impostor pairs that score this high; None where not known."""
        known = self.calibrated
        return _share(known.fmr_curve, most_at_or_above, self.score) if known else None

    @property
    def fnmr_at_score(self) -> Share | None:
        """Share of the file's genuine pairs that score this low; None where not known."""
        known = self.calibrated
        return _share(known.fnmr_curve, most_at_or_below, self.score) if known else None

    @property
    def ln_likelihood_ratio(self) -> float | None:
        """Logarithm of how many times likelier the score is for one person than for two."""
        if self.calibrated is None or self.calibrated.calibration is None:
            return None
        value = log_likelihood_ratio(self.calibrated.calibration, self.score)
        return value if math.isfinite(value) else None

    def as_json(self) -> dict[str, Any]:
        """The fields of `--json`."""
        ln, high, low = self.ln_likelihood_ratio, self.fmr_at_score, self.fnmr_at_score
        return {
            "left": self.left,
            "right": self.right,
            "score": self.score,
            "threshold": self.threshold,
            "match": self.match,
            "fmr": self.calibrated.fmr if self.calibrated else None,
            "target_fmr": self.calibrated.target_fmr if self.calibrated else None,
            "fmr_at_score": high
            and {"at_most": high.rate, "false_matches": high.count, "impostor": high.total},
            "fnmr_at_score": low
            and {"at_most": low.rate, "false_non_matches": low.count, "genuine": low.total},
            "likelihood_ratio": None if ln is None else {"ln": ln, "log10": ln / math.log(10)},
            "model": self.model,
            "fingerprint": self.fingerprint,
            "warnings": self.warnings,
        }


def verify_pair(options: PairOptions, progress: ProgressCallback = silent) -> PairVerdict:
    """Embed two pictures, compare them, and judge the score by a threshold where one is given.

    The score is the one that `embed` and `verify-pairs` give with the same options.

    Raises:
        InputError: a picture cannot be read, the model cannot be opened, or the threshold file is
            none, or of another model.
    """
    threshold, file = _threshold(options)
    known = read_threshold(file) if file else None
    options = replace(options, threshold=threshold, threshold_file=file)
    for path in (options.left, options.right):
        if not os.path.exists(path):  # noqa: PTH110 - `Path.exists` may raise OSError
            raise InputError(f"{path}: no such picture")
    options.pipeline.require_one_face("two faces are compared")
    model = open_model(options.model)
    if known:
        recorded = known.made_with.get("detect")
        options = replace(options, pipeline=options.pipeline.as_recorded(recorded))
    warnings = _compared(known, options, model) if known else []
    score, far = _score(options, model, progress)
    if warning := photo_warning(far, 2, model):
        warnings.append(warning)
    if known is None and options.threshold is None:
        warnings.append(
            "no threshold is known, so there is no verdict: give --threshold with a number, or "
            "with what `faceidx verify-pairs --save-threshold` wrote for this model"
        )
    return PairVerdict(
        left=str(options.left),
        right=str(options.right),
        score=score,
        threshold=known.threshold if known else threshold,
        calibrated=known,
        model=model.name,
        fingerprint=model.fingerprint(flip=options.pipeline.flip),
        warnings=warnings,
    )


def _threshold(options: PairOptions) -> tuple[float | None, Path | None]:
    """The threshold that is given as a number, or else the file that one is given by."""
    given, file = options.threshold, options.threshold_file
    if given is None:
        return None, file
    if file is not None:
        raise InputError("give --threshold-file or --threshold, not both")
    try:
        return cosine_threshold(given), None
    except ValueError:
        if Path(str(given)).exists():
            return None, Path(str(given))
        raise InputError(f"--threshold {given} is neither a number nor a threshold file") from None


def _compared(known: Threshold, options: PairOptions, model: FaceModel) -> list[str]:
    """Make sure that a threshold holds for a model's scores.

    Returns:
        Warnings of what differs or is not known.

    Raises:
        InputError: it was made with another model or other preprocessing.
    """
    file, flip = options.threshold_file, options.pipeline.flip
    origin = origin_of(model, options.pipeline)
    warnings = []
    if known.fingerprint is None:
        warnings.append(
            f"{file} rests on scores computed elsewhere; nothing tells whether they were those of "
            f"{model.name}"
        )
    elif known.fingerprint == model.fingerprint(flip=not flip):
        raise InputError(
            f"{file} was made {'without' if flip else 'with'} --flip; "
            f"{'drop' if flip else 'give'} --flip"
        )
    elif known.fingerprint != origin.fingerprint:
        raise InputError(
            f"{file} is for {known.model or 'another model'} (fingerprint "
            f"{known.fingerprint[:12]}), not for {model.name} as it is used here "
            f"({origin.fingerprint[:12]}); give that model with the same preprocessing, or make a "
            "file for this one with `faceidx verify-pairs --save-threshold`"
        )
    here = {"dtype": "float32", **made_with(origin)}  # nothing is stored here in fewer bits
    for name, value in known.made_with.items():
        if here.get(name, value) != value:
            warnings.append(
                f"{file} was made with {name} {value}, the pictures are embedded with "
                f"{here[name]}: scores may differ a little"
            )
    if known.false_matches == 0:
        # The rule of three: after none in n trials, the rate is below 3/n with 95 % confidence.
        warnings.append(
            f"no impostor pair of {known.impostor} reaches the threshold: its FMR was not seen, "
            f"and may be up to {min(1.0, 3 / known.impostor):.3g} (95 % confidence)"
        )
    elif known.false_matches < ENOUGH_ERRORS:
        warnings.append(
            f"the threshold rests on {known.false_matches} false "
            f"match{'' if known.false_matches == 1 else 'es'} of {known.impostor} impostor pairs; "
            "take its FMR as rough"
        )
    if not known.fmr_curve:
        warnings.append(
            f"{file} does not say how often other scores occur; write it anew with `faceidx "
            "verify-pairs --save-threshold`"
        )
    return warnings


def _score(options: PairOptions, model: FaceModel, progress: ProgressCallback) -> tuple[float, int]:
    """The score, and how many of the two pictures look like photos rather than faces."""
    pictures = [Picture(str(path), "", path) for path in (options.left, options.right)]
    embedded = embed_pictures(pictures, model, options.pipeline, progress)
    failed = dict(embedded.left.reasons())
    for picture in pictures:
        if picture.key in failed:
            raise InputError(f"{picture.key} cannot be compared: {failed[picture.key]}")
    scores = cosine_scores(embedded.vectors, np.array([0]), np.array([1]))
    return float(scores[0]), embedded.far


def _share(
    tail: Sequence[TailPoint],
    most_beyond: Callable[[Sequence[TailPoint], float], int],
    score: float,
) -> Share | None:
    return Share(count=most_beyond(tail, score), total=tail[-1].count) if tail else None
