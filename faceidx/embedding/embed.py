"""The command `embed`: pictures to one file, going on where it was interrupted."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from faceidx.embedding.pipeline import (
    PipelineOptions,
    embed_pictures,
    origin_of,
    settle_batch_size,
)
from faceidx.embedding.shards import (
    merge_shards,
    open_job,
    partial_folder,
    split_into_shards,
    write_shard,
)
from faceidx.embedding.store import EmbeddingFile, Origin
from faceidx.errors import InputError, JobError
from faceidx.files import refuse_existing, remove_leftovers, require_parent, writer_lock
from faceidx.images.sources import Picture, open_source
from faceidx.models.face_model import FaceModel
from faceidx.models.open import ModelOptions, open_model
from faceidx.progress import Progress, ProgressCallback, silent

logger = logging.getLogger(__name__)

# Share of pictures far from the model's shape that draws a warning.
_FAR_SHARE = 0.1


@dataclass(kw_only=True)
class EmbedOptions:
    """Options of `faceidx embed`."""

    images: Path
    out: Path
    model: ModelOptions
    pipeline: PipelineOptions = field(default_factory=PipelineOptions)
    root: Path | None = None
    """For a list: the folder that its paths are relative to."""
    dtype: str = "float32"
    """How embeddings are stored: `float32` or `float16`."""
    follow_links: bool = False
    overwrite: bool = False


def embed(options: EmbedOptions, progress: ProgressCallback = silent) -> dict[str, Any]:
    """Embed pictures into a file, or go on with unfinished work on it.

    Returns:
        The fields that the command's JSON promises.

    Raises:
        InputError: nothing to embed, a model that cannot be opened, or an output that exists.
        JobError: no picture at all could be read, or the disk is full.
    """
    began = time.monotonic()
    require_parent(options.out)
    if options.out.is_dir():
        raise InputError(f"{options.out} is a folder; give the path of a file, such as faces.h5")
    refuse_existing(options.out, overwrite=options.overwrite)
    source = open_source(options.images, root=options.root, follow_links=options.follow_links)
    model = open_model(options.model)
    pipeline = replace(options.pipeline, batch_size=settle_batch_size(options.pipeline, model))
    origin = origin_of(model, pipeline)
    folder = partial_folder(options.out)
    settings = {
        "fingerprint": origin.fingerprint,
        **origin.preprocessing,
        "dtype": options.dtype,
        "max_pixels": pipeline.max_pixels,
    }
    with writer_lock(options.out):
        # Once more: another process may have finished it while the model was opened here.
        refuse_existing(options.out, overwrite=options.overwrite)
        remove_leftovers(options.out)
        open_job(folder, settings, overwrite=options.overwrite)
        shards = list(split_into_shards(folder, source.pictures))
        done = _complete(shards, model, pipeline, origin, options.dtype, progress)
        counts = _count([path for path, _ in shards])
        if not counts["embedded"]:
            reason = _first_reason(shards[0][0])
            shutil.rmtree(folder)
            raise JobError(
                f"{options.images}: none of {len(source.pictures)} pictures could be embedded; "
                f"the first: {reason}"
            )
        merge_shards(
            options.out, [path for path, _ in shards], origin, model.embedding_dim, options.dtype
        )
        shutil.rmtree(folder)
    if warning := photo_warning(counts["far"], counts["embedded"], model):
        logger.warning(warning)
    seconds = time.monotonic() - began
    return {
        "out": str(options.out),
        "images": len(source.pictures),
        "embedded": counts["embedded"],
        "failed": counts["failed"],
        "no_face": counts["no_face"],
        "ignored": source.ignored,
        "resumed": len(source.pictures) - done,
        "dim": model.embedding_dim,
        "model": model.name,
        "device": model.device,
        "engine": model.engine,
        "precision": model.precision,
        "seconds": seconds,
        "images_per_second": done / seconds,
    }


def _complete(
    shards: Sequence[tuple[Path, Sequence[Picture]]],
    model: FaceModel,
    pipeline: PipelineOptions,
    origin: Origin,
    dtype: str,
    progress: ProgressCallback,
) -> int:
    """Make the shards that are not there yet; returns how many pictures went into them."""
    total = sum(len(part) for _, part in shards)
    before, made = 0, 0
    for path, part in shards:
        if not path.exists():

            def report(p: Progress, offset: int = before) -> None:
                progress(replace(p, done=offset + p.done, total=total))

            write_shard(path, embed_pictures(part, model, pipeline, report), origin, dtype)
            made += len(part)
        before += len(part)
        progress(Progress("embed", before, total))
    return made


def _count(shards: Sequence[Path]) -> dict[str, int]:
    counts = {"embedded": 0, "failed": 0, "no_face": 0, "far": 0}
    for path in shards:
        with EmbeddingFile(path) as shard:
            left = shard.left()
            counts["embedded"] += shard.count
            counts["failed"] += len(left.failed)
            counts["no_face"] += len(left.no_face)
            counts["far"] += int(shard.attribute("far", 0))
    return counts


def _first_reason(shard: Path) -> str:
    with EmbeddingFile(shard) as file:
        return file.left().failed[0][1]


def photo_warning(far: int, embedded: int, model: FaceModel) -> str | None:
    """What to say where many pictures are far from the model's shape; None where few are."""
    if far <= _FAR_SHARE * embedded:
        return None
    height, width = model.preprocessing.image_size
    return (
        f"{far} of {embedded} pictures are far from the model's shape ({width} x {height}): it "
        "expects faces cut out and aligned as in its training, not whole photos"
    )
