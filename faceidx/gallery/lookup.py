"""The command `classify` with a gallery: pictures or an embeddings file in, people out."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from faceidx.embedding.pipeline import PipelineOptions, embed_pictures
from faceidx.embedding.store import SUFFIX, EmbeddingFile, require_same_fingerprint
from faceidx.errors import InputError
from faceidx.gallery.classify import ClassifyOptions, classify, threshold_of
from faceidx.gallery.folder import Gallery, load_gallery
from faceidx.gallery.probes import Probes, probes_of_file
from faceidx.images.sources import open_source
from faceidx.models.open import ModelOptions, open_model
from faceidx.progress import ProgressCallback, silent
from faceidx.tables import Answer

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class LookupOptions(ClassifyOptions):
    """Options of `faceidx classify --index`."""

    probes: Path
    """Pictures, or an embeddings file."""
    gallery: Path
    model: ModelOptions | None = None
    """Needed for pictures: the model that the gallery was made with."""
    pipeline: PipelineOptions = field(default_factory=PipelineOptions)
    root: Path | None = None
    """For a list of pictures: the folder that its paths are relative to."""


def look_up(
    options: LookupOptions, progress: ProgressCallback = silent
) -> tuple[dict[str, Any], list[Answer]]:
    """Look every probe up in a gallery (`classify.classify`).

    Pictures that cannot be read are probes too: unknown, without rank, and counted as `failed`.

    Raises:
        InputError: there is no threshold, the output exists, the probes come from another model,
            or pictures are given without a model.
    """
    device = options.model.device if options.model else "cpu"
    with load_gallery(options.gallery, device=device) as gallery:
        threshold_of(gallery, options.threshold)  # without one nothing need be embedded
        with _probes(options, gallery, progress) as (probes, failed):
            found = classify(gallery, probes, options, progress=progress)
    return {**found.summary, "failed": failed}, found.first


@contextmanager
def _probes(
    options: LookupOptions, gallery: Gallery, progress: ProgressCallback
) -> Iterator[tuple[Probes, int]]:
    """The probes, and how many of them could not be read."""
    if options.probes.suffix.lower() == SUFFIX:
        with EmbeddingFile(options.probes) as file:
            left = file.left()
            yield probes_of_file(file), len(left.failed) + len(left.no_face)
        return
    if options.model is None:
        raise InputError(
            f"{options.probes}: to look pictures up give --model, the one that embedded the gallery"
        )
    yield _embedded_probes(options, options.model, gallery, progress)


def _embedded_probes(
    options: LookupOptions, wanted: ModelOptions, gallery: Gallery, progress: ProgressCallback
) -> tuple[Probes, int]:
    source = open_source(options.probes, root=options.root)
    model = open_model(wanted)
    flip = bool(gallery.origin.preprocessing.get("flip", False))
    require_same_fingerprint(
        gallery.origin.fingerprint, str(gallery.path), model.fingerprint(flip=flip), model.name
    )
    pipeline = replace(options.pipeline, flip=flip)
    embedded = embed_pictures(source.pictures, model, pipeline, progress)
    for key, reason in embedded.left.failed:
        logger.debug("%s: %s", key, reason)
    # A row of NaN cannot be searched, so the picture comes out as a probe without an answer.
    nothing = np.full((len(embedded.left.failed), model.embedding_dim), np.nan, np.float32)
    vectors = np.concatenate([embedded.vectors, nothing])
    keys = embedded.paths + [key for key, _ in embedded.left.failed]
    probes = Probes(
        name=str(options.probes),
        fingerprint=gallery.origin.fingerprint,
        dim=model.embedding_dim,
        keys=keys,
        identities=embedded.identities + [""] * len(nothing),
        blocks=[(0, vectors)],
    )
    return probes, len(nothing)
