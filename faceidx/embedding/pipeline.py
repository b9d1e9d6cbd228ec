"""From pictures to embeddings in memory: decode, batch, model, each ahead of the next by a little.

This is the one way a picture becomes an embedding; the commands differ in what they do with it.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from faceidx.embedding.store import Left, Origin
from faceidx.images.decode import DEFAULT_MAX_PIXELS, PictureError, decode
from faceidx.images.preprocess import far_from_shape, fit
from faceidx.images.sources import Picture
from faceidx.models.face_model import FaceModel, normalize
from faceidx.progress import Progress, ProgressCallback, silent

# Pictures a batch: enough to keep the cores of a CPU or of a GPU busy, little enough for memory.
_AUTO_BATCH = {"cpu": 32, "cuda": 256}


@dataclass(kw_only=True)
class PipelineOptions:
    """How pictures go through a model."""

    batch_size: int | None = None
    """None chooses by the device."""
    flip: bool = False
    """Add the embedding of the mirror image."""
    workers: int | None = None
    """Threads that decode; None takes one a core."""
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
    left: Left = field(default_factory=Left)
    far: int = 0
    """Pictures whose shape is far from the model's: photos rather than crops, by the look of it."""

    def raw(self) -> np.ndarray:
        """(N, D) float32 as the model gave them, not normalised."""
        return self.vectors * self.norms[:, None]


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
    size = model.preprocessing.image_size
    batch_size = settle_batch_size(options, model)
    left, far, done = Left(), 0, 0
    kept: list[Picture] = []
    raw: list[np.ndarray] = []
    for batch in _batches(_decoded(pictures, size, options, batch_size), batch_size, left):
        raw.append(model.embed(np.stack([d.pixels for d in batch]), flip=options.flip))
        kept += [d.picture for d in batch]
        far += sum(d.far for d in batch)
        done = len(kept) + len(left.failed)
        note = f"{len(left.failed)} failed" if left.failed else ""
        progress(Progress("embed", done, len(pictures), note=note))
    together = np.concatenate(raw) if raw else np.empty((0, model.embedding_dim), np.float32)
    vectors, norms = normalize(together)
    usable = np.isfinite(vectors).all(axis=1) & np.isfinite(norms) & (norms > 0)
    for row in np.flatnonzero(~usable):
        left.failed.append(
            (kept[row].key, "the model gives no embedding of a finite length for it")
        )
    left.failed.sort()
    kept = [kept[row] for row in np.flatnonzero(usable)]
    return Embedded(
        vectors=vectors[usable],
        norms=norms[usable],
        paths=[p.key for p in kept],
        identities=[p.identity for p in kept],
        left=left,
        far=far,
    )


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


@dataclass(frozen=True, slots=True)
class _Decoded:
    picture: Picture
    pixels: np.ndarray
    far: bool


def _decoded(
    pictures: Iterable[Picture], size: tuple[int, int], options: PipelineOptions, batch_size: int
) -> Iterator[_Decoded | tuple[Picture, str]]:
    """Yield each picture decoded, or with the reason why not, in order.

    A window of two batches is under way at a time: the model never waits for a picture that could
    have been decoded meanwhile, and memory stays flat however many pictures there are.
    """
    waiting: deque[tuple[Picture, Future[tuple[np.ndarray, bool] | str]]] = deque()
    source = iter(pictures)
    with ThreadPoolExecutor(options.workers or os.cpu_count() or 1) as pool:

        def submit(count: int) -> None:
            for picture in islice(source, count):
                waiting.append((picture, pool.submit(_decode, picture, size, options.max_pixels)))

        submit(2 * batch_size)
        while waiting:
            picture, future = waiting.popleft()
            submit(1)
            result = future.result()
            if isinstance(result, str):
                yield picture, result
            else:
                yield _Decoded(picture, *result)


def _decode(
    picture: Picture, size: tuple[int, int], max_pixels: int
) -> tuple[np.ndarray, bool] | str:
    try:
        # Reduced decoding leaves more than twice the size: the scaling that follows shows no
        # difference, and a picture far from the model's shape stays recognisable as such.
        pixels = decode(picture.data, at_least=2 * max(size) + 1, max_pixels=max_pixels)
    except PictureError as error:
        return str(error)
    far = far_from_shape(pixels.shape[0], pixels.shape[1], size)
    return fit(pixels, size), far


def _batches(
    decoded: Iterable[_Decoded | tuple[Picture, str]], batch_size: int, left: Left
) -> Iterator[list[_Decoded]]:
    """Group what was decoded into batches; what was not goes to `left`."""
    batch: list[_Decoded] = []
    for item in decoded:
        if isinstance(item, tuple):
            left.failed.append((item[0].key, item[1]))
            continue
        batch.append(item)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch
