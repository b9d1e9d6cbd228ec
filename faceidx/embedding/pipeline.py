"""From pictures to embeddings in memory: decode, batch, model, each ahead of the next by a little.

This is the one way a picture becomes an embedding; the commands differ in what they do with it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from faceidx.embedding.ahead import ahead
from faceidx.embedding.batches import Batch, Face, Part, batches
from faceidx.embedding.store import Left, Origin
from faceidx.images.decode import DEFAULT_MAX_PIXELS
from faceidx.images.pictures import Picture
from faceidx.images.prepare import Prepare, WholePicture
from faceidx.images.preprocess import Preprocessing
from faceidx.images.workers import Workers
from faceidx.models.face_model import FaceModel, normalize
from faceidx.progress import Progress, ProgressCallback, silent

# Pictures a batch: enough to keep the cores of a CPU or of a GPU busy, little enough for memory.
_AUTO_BATCH = {"cpu": 32, "cuda": 256}
# Batches that wait for the model, so that it goes on while the next one is put together.
_BATCHES_AHEAD = 2


@dataclass(kw_only=True)
class PipelineOptions:
    """How pictures go through a model."""

    batch_size: int | None = None
    """None chooses by the device."""
    flip: bool = False
    """Add the embedding of the mirror image."""
    workers: int | None = None
    """Processes that decode; None takes one a core."""
    max_pixels: int = DEFAULT_MAX_PIXELS
    """Larger pictures are listed as failed."""


@dataclass(kw_only=True)
class Embedded:
    """Pictures as embeddings, in the order they were given."""

    vectors: np.ndarray
    """(N, D) float32 unit rows."""
    norms: np.ndarray
    """(N,) float32 lengths before normalising."""
    paths: list[str]
    identities: list[str]
    stamps: list[str] = field(default_factory=list)
    """Of the picture behind each row, where the part came with stamps."""
    found: np.ndarray | None = None
    """(N,) where and how each face was found, of a structured type; None without detection."""
    left: Left = field(default_factory=Left)
    far: int = 0
    """Pictures whose shape is far from the model's: photos rather than crops, by the look of it."""

    def raw(self) -> np.ndarray:
        """(N, D) float32 as the model gave them, not normalised."""
        return self.vectors * self.norms[:, None]


@dataclass(kw_only=True)
class Waiting:
    """Where the time went, in seconds: what the model waited for, and what it took itself."""

    decode: float = 0.0
    model: float = 0.0
    write: float = 0.0


def embed_pictures(
    pictures: Sequence[Picture],
    model: FaceModel,
    options: PipelineOptions,
    progress: ProgressCallback = silent,
) -> Embedded:
    """Embed pictures. The result depends on nothing but the arguments.

    A picture that cannot be read, or that the model gives NaN for, is listed in `left` with the
    reason.
    """
    made = embed_parts(
        [Part(pictures=pictures)], model, options, total=len(pictures), progress=progress
    )
    return next((embedded for _, embedded in made), _together([], [], model))


def embed_parts(
    parts: Iterable[Part],
    model: FaceModel,
    options: PipelineOptions,
    *,
    total: int,
    waiting: Waiting | None = None,
    progress: ProgressCallback = silent,
) -> Iterator[tuple[Part, Embedded]]:
    """Embed parts one after another; the next one is being decoded while one is in the model.

    Each result is what the part alone would have given.

    Args:
        parts: made when they are needed, in another thread.
        total: pictures in all of them, as far as is known.
        waiting: gets what decoding and the model took.
    """
    waiting = waiting or Waiting()
    done = failed = 0
    with Workers(options.workers) as workers:
        stream = ahead(
            batches(
                parts,
                prepare_of(model.preprocessing, options),
                workers,
                batch_size=settle_batch_size(options, model),
                total=total,
            ),
            _BATCHES_AHEAD,
        )
        try:
            for part, group in groupby(_timed(stream, waiting), key=lambda batch: batch.part):
                of_part: list[Batch] = []
                raw: list[np.ndarray] = []
                for batch in group:
                    if batch.pixels is not None:
                        began = time.monotonic()
                        raw.append(model.embed(batch.pixels, flip=options.flip))
                        waiting.model += time.monotonic() - began
                        batch.pixels = None
                    of_part.append(batch)
                    done += batch.pictures
                    failed += len(batch.left.failed)
                    note = f"{failed} failed" if failed else ""
                    progress(Progress("embed", done, total, note=note))
                    if batch.last:
                        break  # so that this part is not kept waiting for the next one's pictures
                yield part, _together(of_part, raw, model)
        finally:
            stream.close()


def _timed(stream: Iterator[Batch], waiting: Waiting) -> Iterator[Batch]:
    while True:
        began = time.monotonic()
        batch = next(stream, None)
        waiting.decode += time.monotonic() - began
        if batch is None:
            return
        yield batch


def _together(batches: Sequence[Batch], raw: Sequence[np.ndarray], model: FaceModel) -> Embedded:
    """Put the batches of a part together, what has no finite embedding aside."""
    faces = [face for batch in batches for face in batch.faces]
    left = Left(
        failed=[entry for batch in batches for entry in batch.left.failed],
        no_face=[key for batch in batches for key in batch.left.no_face],
        stamps={key: stamp for batch in batches for key, stamp in batch.left.stamps.items()},
    )
    vectors, norms = normalize(
        np.concatenate(raw) if raw else np.empty((0, model.embedding_dim), np.float32)
    )
    usable = np.isfinite(vectors).all(axis=1) & np.isfinite(norms) & (norms > 0)
    for row in np.flatnonzero(~usable):
        _without_length(faces[row], left)
    left.failed.sort()
    kept = [faces[row] for row in np.flatnonzero(usable)]
    found = [face.found for face in kept if face.found is not None]
    return Embedded(
        vectors=vectors[usable],
        norms=norms[usable],
        paths=[face.picture.key for face in kept],
        identities=[face.picture.identity for face in kept],
        stamps=[face.stamp for face in kept],
        found=np.concatenate(found) if found else None,
        left=left,
        far=sum(batch.far for batch in batches),
    )


def _without_length(face: Face, left: Left) -> None:
    reason = "the model gives no embedding of a finite length for it"
    left.failed.append((face.picture.key, reason))
    left.stamps[face.picture.key] = face.stamp


def prepare_of(preprocessing: Preprocessing, options: PipelineOptions) -> Prepare:
    """What is to be made of each picture for a model that wants its input so."""
    return WholePicture(size=preprocessing.image_size, max_pixels=options.max_pixels)


def settle_batch_size(options: PipelineOptions, model: FaceModel) -> int:
    """The batch size given, or the one that suits the model's device."""
    return options.batch_size or _AUTO_BATCH[model.device.partition(":")[0]]


def origin_of(model: FaceModel, options: PipelineOptions) -> Origin:
    """Where this model's embeddings come from, for the file that holds them."""
    return Origin(
        model=model.name,
        fingerprint=model.fingerprint(flip=options.flip),
        preprocessing={
            **model.preprocessing.to_dict(),
            "template": model.template,
            "flip": options.flip,
            "arch": model.arch,
            "engine": model.engine,
            "precision": model.precision,
            "batch_size": settle_batch_size(options, model),
            "detect": "none",
        },
    )
