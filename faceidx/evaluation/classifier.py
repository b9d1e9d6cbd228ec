"""The trained classifier's own N-way answer: which of the people it was trained on is this?"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from faceidx.embedding.missed import identities_missed
from faceidx.embedding.photos import embed_or_warn
from faceidx.embedding.pipeline import PipelineOptions
from faceidx.embedding.store import EmbeddingFile, is_embeddings, require_same_fingerprint
from faceidx.errors import InputError
from faceidx.files import refuse_existing, require_parent, together
from faceidx.images.sources import open_source
from faceidx.models.face_model import FaceModel
from faceidx.models.open import ModelOptions, open_model
from faceidx.progress import ProgressCallback, silent
from faceidx.tables import ANSWER_HEADER, MATCH, TOP_K, UNKNOWN, Answer, write_rows

logger = logging.getLogger(__name__)

_BLOCK = 4096
# The figures are of the nearest, and of the nearest five.
_RANKS = (1, 5)
_NO_DIRECTION = "holds NaN or infinity, or has length zero"


@dataclass(kw_only=True)
class NWayOptions:
    """Options of `classify` without a gallery."""

    probes: Path
    """Pictures, or an embeddings file of the same model."""
    model: ModelOptions
    pipeline: PipelineOptions = field(default_factory=PipelineOptions)
    top_k: int | None = None
    """People listed for each probe; None: `TOP_K`."""
    threshold: float | None = None
    """Smallest probability of a match; None takes the most probable person without question."""
    root: Path | None = None
    out: Path | None = None
    overwrite: bool = False


@dataclass(kw_only=True)
class Labelled:
    """Embeddings as the classifier takes them."""

    keys: list[str]
    identities: list[str]
    raw: np.ndarray
    """(N, D) float32, not normalised."""
    failed: list[tuple[str, str]]
    """Key and reason."""
    failed_identities: list[str]


def classify_n_way(
    options: NWayOptions, progress: ProgressCallback = silent
) -> tuple[dict[str, Any], list[Answer]]:
    """Ask the classifier about each probe; write CSV where asked for.

    Returns:
        `probes, matched, unknown, failed, threshold, out`, with labelled probes also `rank1`,
        `rank5`, `fpir` and `fnir`, each `{value, errors, trials}`; and the first rows.

    Raises:
        InputError: the model holds no classifier, the output exists, the threshold is no number,
            or nothing to classify.
    """
    if options.out:
        require_parent(options.out)
        refuse_existing(options.out, overwrite=options.overwrite)
    _check_threshold(options.threshold)
    model = open_model(options.model)
    names = class_names(model)
    probes = _read(options, model, progress)
    order, scores = top_classes(model, probes.raw, max(options.top_k or TOP_K, *_RANKS))
    answers = list(_answers(probes, names, order, scores, options))
    with together(options.out):
        first = write_rows(options.out, ANSWER_HEADER, answers)
    matched = sum(answer.rank == 1 and answer.decision == MATCH for answer in answers)
    total = len(probes.keys) + len(probes.failed)
    summary: dict[str, Any] = {
        "probes": total,
        "matched": matched,
        "unknown": total - matched,
        "failed": len(probes.failed),
        "threshold": options.threshold,
        "out": options.out,
    }
    order, scores, who = add_missed(
        order, scores, probes.identities, names, probes.failed_identities
    )
    if any(who):
        summary |= rank_figures(order, who, names)
        summary |= open_set_figures(order, scores, who, names, options.threshold)
    return summary, first


def class_names(model: FaceModel) -> list[str]:
    """Identities of a model's classifier.

    Raises:
        InputError: it holds none.
    """
    if not model.class_names:
        raise InputError(
            f"{model.name} holds no classifier, only a backbone; `classify --index GALLERY` and "
            "`eval --pairs FILE` go by its embeddings"
        )
    return model.class_names


def as_trained(pipeline: PipelineOptions) -> PipelineOptions:
    """The pipeline for a classifier, which was trained without sums with the mirror image's."""
    if pipeline.flip:
        logger.warning("--flip is not for the classifier's answers: it was trained without")
    return replace(pipeline, flip=False)


def top_classes(model: FaceModel, raw: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The most probable classes of each embedding.

    Args:
        raw: (N, D) not normalised.

    Returns:
        (N, k) class numbers, most probable first (fewer columns where there are fewer classes),
        and their (N, k) probabilities.
    """
    k = min(k, len(class_names(model)))
    orders, tops = [np.empty((0, k), np.int64)], [np.empty((0, k), np.float32)]
    for first in range(0, len(raw), _BLOCK):
        probabilities = model.classify(raw[first : first + _BLOCK])
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
        orders.append(order)
        tops.append(np.take_along_axis(probabilities, order, axis=1))
    return np.concatenate(orders), np.concatenate(tops)


def _check_threshold(threshold: float | None) -> None:
    if threshold is None or 0 <= threshold <= 1:
        return
    told = f"--threshold {threshold} is no probability; without --index those decide"
    if math.isnan(threshold):
        raise InputError(told)
    logger.warning("%s", told)


def add_missed(
    order: np.ndarray,
    scores: np.ndarray,
    identities: Sequence[str],
    names: Sequence[str],
    failed: Sequence[str],
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Add the pictures that could not be read, or show no face, of people whom a classifier knows.

    They are missed (a failure to acquire, ISO/IEC 19795-1): no class is the right one. Those of
    others count nowhere: that would make the FPIR look better than it is.

    Args:
        failed: identities of the pictures.

    Returns:
        `order`, `scores` and `identities` with a row more for each of them.
    """
    known = set(names)
    missed = [who for who in failed if who in known]
    nothing = (len(missed), order.shape[1])
    return (
        np.concatenate([order, np.full(nothing, -1, order.dtype)]),
        np.concatenate([scores, np.full(nothing, -np.inf, scores.dtype)]),
        [*identities, *missed],
    )


def rank_figures(
    order: np.ndarray, identities: Sequence[str], names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Share of probes whose own person is first, and among the first five.

    Args:
        order: (N, k) class numbers, most probable first; k is 5 or the number of classes.
        identities: (N) of the probes. Those whom the classifier does not know do not count.
        names: (classes) of the classifier.

    Returns:
        `rank1` and `rank5`, each `{value, errors, trials}`; value None without trials.
    """
    number = {name: i for i, name in enumerate(names)}
    truth = np.array([number.get(identity, -1) for identity in identities], dtype=np.int64)
    known = truth >= 0
    figures = {}
    for rank in _RANKS:
        found = (order[known, :rank] == truth[known, None]).any(1)
        figures[f"rank{rank}"] = _figure(~found, of_success=True)
    return figures


def open_set_figures(
    order: np.ndarray,
    scores: np.ndarray,
    identities: Sequence[str],
    names: Sequence[str],
    threshold: float | None,
) -> dict[str, dict[str, Any]]:
    """How often a threshold lets somebody unknown pass, and refuses or mistakes somebody known.

    Without a threshold a classifier names somebody it knows in any case: it refuses nobody, and
    there is nothing to count.

    Args:
        order: (N, k) class numbers, most probable first.
        scores: (N, k) their probabilities.
        identities: (N) of the probes, empty where unknown.
        names: (classes) of the classifier.
        threshold: smallest probability of a match.

    Returns:
        `fpir`, over probes of people whom the classifier does not know, and `fnir`, over those of
        people it knows, each `{value, errors, trials}`; value None without trials.
    """
    if threshold is None:
        nothing = np.empty(0, dtype=bool)
        return {"fpir": _figure(nothing), "fnir": _figure(nothing)}
    number = {name: i for i, name in enumerate(names)}
    truth = np.array([number.get(identity, -1) for identity in identities], dtype=np.int64)
    accepted = scores[:, 0] >= threshold
    strange = np.array([bool(who) for who in identities], dtype=bool) & (truth < 0)
    missed = ~(accepted & (order[:, 0] == truth))
    return {"fpir": _figure(accepted[strange]), "fnir": _figure(missed[truth >= 0])}


def _figure(wrong: np.ndarray, *, of_success: bool = False) -> dict[str, Any]:
    """A share of errors, or of successes, with its counts."""
    errors, trials = int(wrong.sum()), len(wrong)
    counted = trials - errors if of_success else errors
    return {"value": counted / trials if trials else None, "errors": errors, "trials": trials}


def _read(options: NWayOptions, model: FaceModel, progress: ProgressCallback) -> Labelled:
    if is_embeddings(options.probes):
        return _read_file(options.probes, model)
    source = open_source(options.probes, root=options.root)
    pipeline = as_trained(options.pipeline)
    embedded = embed_or_warn(source.pictures, model, pipeline, progress)
    failed = embedded.left.reasons()
    return Labelled(
        keys=embedded.paths,
        identities=embedded.identities,
        raw=embedded.raw(),
        failed=failed,
        failed_identities=identities_missed(source.pictures, failed, pipeline),
    )


def _read_file(path: Path, model: FaceModel) -> Labelled:
    with EmbeddingFile(path) as file:
        if file.origin.fingerprint == model.fingerprint(flip=True):
            raise InputError(
                f"{path} was embedded with --flip; a classifier is for embeddings without it"
            )
        require_same_fingerprint(
            model.fingerprint(), model.name, file.origin.fingerprint, str(path)
        )
        keys, identities = file.paths(), file.identities()
        raw = file.vectors() * file.norms()[:, None]
        # What makes no probability is no answer either: a file may come from elsewhere.
        usable = np.isfinite(raw).all(axis=1) & raw.any(axis=1)
        if not usable.all():
            number = int(np.count_nonzero(~usable))
            logger.warning("%d rows cannot be used (NaN, infinite or zero)", number)
        lost = np.flatnonzero(~usable)
        return Labelled(
            keys=list(compress(keys, usable)),
            identities=list(compress(identities, usable)),
            raw=raw[usable],
            failed=[*((keys[row], _NO_DIRECTION) for row in lost), *file.left().reasons()],
            failed_identities=[*(identities[row] for row in lost), *file.identities_left()],
        )


def _answers(
    probes: Labelled,
    names: Sequence[str],
    order: np.ndarray,
    scores: np.ndarray,
    options: NWayOptions,
) -> Iterator[Answer]:
    for key, classes, row_scores in zip(probes.keys, order, scores, strict=True):
        for rank, (number, score) in enumerate(zip(classes, row_scores, strict=True), 1):
            if rank > (options.top_k or TOP_K):
                break
            match = rank == 1 if options.threshold is None else score >= options.threshold
            decision = MATCH if match else UNKNOWN
            yield Answer(key, rank, names[int(number)], float(score), decision)
    for key, _ in probes.failed:
        yield Answer(key, None, "", None, UNKNOWN)
