"""Embedding the pictures that a list of pairs names, in memory."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from faceidx.embedding.photos import embed_or_warn
from faceidx.embedding.pipeline import PipelineOptions, origin_of
from faceidx.errors import InputError
from faceidx.evaluation.lists.finding import resolve
from faceidx.evaluation.lists.pairs import PairList, ScoreList
from faceidx.evaluation.scoring import KnownEmbeddings
from faceidx.images.sources import Picture, open_source, packed_pictures
from faceidx.models.open import ModelOptions, open_model
from faceidx.progress import ProgressCallback, silent

_log = logging.getLogger(__name__)


def embed_listed(
    listed: PairList | ScoreList,
    images: Path | None,
    model_options: ModelOptions,
    pipeline: PipelineOptions,
    progress: ProgressCallback = silent,
) -> KnownEmbeddings:
    """Embed the pictures that a list names.

    Args:
        images: the folder that they lie in; None where the list carries them.

    Raises:
        InputError: the list holds scores, none of its pictures is there, or the model cannot be
            opened.
    """
    if isinstance(listed, ScoreList):
        raise InputError(f"{listed.path} is a file of scores; it needs no --model")
    pipeline.require_one_face("a list names pictures, not faces")
    pictures = _carried(listed) if images is None else _below(listed, images)
    model = open_model(model_options)
    embedded = embed_or_warn(pictures, model, pipeline, progress)
    return KnownEmbeddings(
        source=str(images or listed.path),
        keys=embedded.paths,
        identities=embedded.identities,
        read=lambda chosen: embedded.vectors[chosen],
        dim=model.embedding_dim,
        origin=origin_of(model, pipeline),
        reasons=dict(embedded.left.reasons()),
    )


def _carried(listed: PairList) -> list[Picture]:
    if listed.pictures is None:
        raise InputError(
            f"{listed.path} names its pictures and does not carry them; give --images ROOT, the "
            "folder that they lie in"
        )
    return packed_pictures(listed.path, listed.pictures)


def _below(listed: PairList, images: Path) -> list[Picture]:
    """Those pictures below a folder that the list names."""
    pictures = open_source(images).pictures
    rows = resolve(listed, [p.key for p in pictures])
    wanted = [pictures[row] for row in np.unique(rows[rows >= 0])]
    if not wanted:
        _log.debug("the list names %r and the folder holds %r", listed.keys[0], pictures[0].key)
        raise InputError(
            f"{listed.path}: none of its {len(listed.keys)} names is found in {images}, which "
            f"holds {len(pictures)} pictures; are they relative to that folder? -v names one of "
            "each"
        )
    return wanted
