"""Embedding the pictures that a list of pairs names, in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from faceidx.embedding.pipeline import PipelineOptions, embed_pictures, origin_of
from faceidx.errors import InputError
from faceidx.evaluation.lists.pairs import PairList, ScoreList, resolve
from faceidx.evaluation.scoring import KnownEmbeddings
from faceidx.images.sources import open_source
from faceidx.models.open import ModelOptions, open_model
from faceidx.progress import ProgressCallback, silent


def embed_listed(
    listed: PairList | ScoreList,
    images: Path,
    model_options: ModelOptions,
    pipeline: PipelineOptions,
    progress: ProgressCallback = silent,
) -> KnownEmbeddings:
    """Embed those pictures below a folder that a list names.

    Raises:
        InputError: the list holds scores, none of its pictures is there, or the model cannot be
            opened.
    """
    if isinstance(listed, ScoreList):
        raise InputError(f"{listed.path} is a file of scores; it needs no --images")
    source = open_source(images)
    rows = resolve(listed, [p.key for p in source.pictures])
    wanted = [source.pictures[row] for row in np.unique(rows[rows >= 0])]
    if not wanted:
        raise InputError(
            f"{listed.path}: none of its pictures lies in {images}; the list names "
            f"{listed.keys[0]!r} and the folder holds {source.pictures[0].key!r}"
        )
    model = open_model(model_options)
    embedded = embed_pictures(wanted, model, pipeline, progress)
    return KnownEmbeddings(
        source=str(images),
        keys=embedded.paths,
        identities=embedded.identities,
        read=lambda chosen: embedded.vectors[chosen],
        dim=model.embedding_dim,
        origin=origin_of(model, pipeline),
        reasons=dict(embedded.left.failed),
    )
