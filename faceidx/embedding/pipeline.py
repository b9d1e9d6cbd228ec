"""From pictures to embeddings in memory: decode, batch, model, each ahead of the next by a little.

This is the one way a picture becomes an embedding; the commands differ in what they do with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

import numpy as np

from faceidx.embedding.ahead import ahead
from faceidx.embedding.batches import Batch, Face, Part, batches
from faceidx.embedding.store import Column, Left, Origin
from faceidx.errors import InputError
from faceidx.images.decode import DEFAULT_MAX_PIXELS
from faceidx.images.detect import Detector
from faceidx.images.detector_file import detector_for
from faceidx.images.faces import MIN_FACE, MIN_SCORE, MODES, DetectedFaces, FacesOfPhotos
from faceidx.images.keys import face_key, own_key, picture_of_face, several_faces_key
from faceidx.images.pictures import Picture
from faceidx.images.prepare import Prepare, WholePicture
from faceidx.images.preprocess import Preprocessing
from faceidx.images.templates import template_for
from faceidx.images.workers import Workers
from faceidx.models.device import free_memory, resolve_device
from faceidx.models.face_model import FaceModel, normalize
from faceidx.progress import Progress, ProgressCallback, silent

# Pictures a batch: enough to keep the cores of a CPU or of a GPU busy, little enough for memory.
_AUTO_BATCH = {"cpu": 32, "cuda": 256}
# What a large network (IResNet-200, float32) takes for each pixel of a picture, measured on the
# CPU; a quarter of the free memory is for a batch.
_BYTES_A_PIXEL = 2000
# Where a GPU decodes: processes that hand it JPEGs, and how many of these at a time.
_WORKERS_A_CARD, _JPEGS_AT_ONCE = 2, 64
# Batches that wait for the model, so that it goes on while the next one is put together.
_BATCHES_AHEAD = 2


CARD_DECODER = "nvjpeg"
"""How a file names the decoder of its JPEGs, where that was a GPU."""

Rows = Callable[[], np.ndarray]
"""What waits for the embeddings of a batch."""


@dataclass(kw_only=True)
class PipelineOptions:
    """How pictures go through a model."""

    batch_size: int | None = None
    """None chooses by the device."""
    flip: bool = False
    """Add the embedding of the mirror image."""
    workers: int | None = None
    """Processes that decode; None takes one a core."""
    card: str = ""
    """The GPU that decodes plain JPEGs; none where this is empty."""
    max_pixels: int = DEFAULT_MAX_PIXELS
    """Larger pictures are listed as failed."""
    detect: str = "none"
    """Which faces of a picture are embedded: `largest`, `central` or `all`. `none` takes the
    picture as one face; `auto` does so too, except for photos where there is a detector and the
    model's record names its alignment."""
    detector: Detector | None = None
    """What finds faces."""
    detector_given: bool = False
    """Whether it was asked for: `auto` looks for faces then whatever is known of the model."""
    min_face: int = MIN_FACE
    """Smaller faces are passed over; in pixels of the photo, of the longer side of the box."""
    min_score: float = MIN_SCORE
    """Less sure faces are passed over."""
    keep_identity: bool = False
    """Whether, of several faces in a picture, each gets the picture's identity."""

    @property
    def several(self) -> bool:
        """Whether a picture can give several rows, each with a key of its own."""
        return self.detect == "all"

    def as_recorded(self, recorded: object) -> PipelineOptions:
        """These options, finding faces as was done for what the pictures are compared with.

        Raises:
            InputError: that needs a detector, and there is none.
        """
        if self.detect != "auto" or recorded not in MODES:
            return self
        return replace(
            self, detect=str(recorded), detector=self.detector or detector_for(str(recorded), None)
        )

    def require_one_face(self, why: str) -> None:
        """Raise `InputError` where a picture can give several faces."""
        if self.several:
            raise InputError(f"--detect all: {why}; give --detect largest or central")

    def stored_key(self, key: str) -> str:
        """How a picture is named in the file, where it is no row itself."""
        return several_faces_key(key) if self.several else key

    def stored_identity(self, identity: str) -> str:
        """The identity of a row, for the identity of its picture."""
        return "" if self.several and not self.keep_identity else identity

    def picture_of(self, key: str) -> str:
        """From the key of a row to that of its picture in the file."""
        return picture_of_face(key) if self.several else key

    def order_of(self, key: str) -> str:
        """What a row is sorted by, from its key: its picture's own key, as the source has it."""
        return own_key(picture_of_face(key)) if self.several else key

    def face_number(self, key: str) -> int | None:
        """Which of several faces of its picture a row is; None where there is but one."""
        return int(key.rpartition("#")[2]) if self.several else None


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
    pictures: int = 0
    """How many pictures the rows come from."""
    far: int = 0
    """Pictures whose shape is far from the model's: photos rather than crops, by the look of it."""

    def columns(self) -> dict[str, Column]:
        """What else there is of each row, by the names of the datasets that hold it."""
        found = self.found
        names = () if found is None or found.dtype.names is None else found.dtype.names
        columns: dict[str, Column] = {} if found is None else {name: found[name] for name in names}
        return {**columns, "stamps": self.stamps} if self.stamps else columns

    def rows(self) -> dict[str, Column]:
        """Every value of each row, by the names of the datasets that hold it."""
        return {
            "embeddings": self.vectors,
            "norms": self.norms,
            "paths": self.paths,
            "identities": self.identities,
            **self.columns(),
        }

    def raw(self) -> np.ndarray:
        """(N, D) float32 as the model gave them, not normalised."""
        return self.vectors * self.norms[:, None]


@dataclass(kw_only=True)
class Waiting:
    """Where the time went, in seconds: what the model waited for, and what it took itself."""

    open: float = 0.0
    """Opening the model, with choosing its engine and compiling it."""
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
    return next((embedded for _, embedded in made), _together([], [], model, options))


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
    with _workers(options) as workers:
        stream = ahead(
            batches(
                parts,
                prepare_of(model.preprocessing, model.template, options),
                workers,
                batch_size=settle_batch_size(options, model),
                total=total,
            ),
            _BATCHES_AHEAD,
        )
        begun = ahead(_begun(stream, model, options, total, waiting, progress), 1)
        try:
            for part, of_part, rows, last in begun:
                raw = rows if last is None else [*rows, last()]
                yield part, _together(of_part, raw, model, options)
        finally:
            begun.close()
            stream.close()


def _workers(options: PipelineOptions) -> Workers:
    if not options.card:
        return Workers(options.workers)
    count = min(options.workers or _WORKERS_A_CARD, _WORKERS_A_CARD)
    return Workers(count, at_once=_JPEGS_AT_ONCE)


def _begun(
    stream: Iterator[Batch],
    model: FaceModel,
    options: PipelineOptions,
    total: int,
    waiting: Waiting,
    progress: ProgressCallback,
) -> Iterator[tuple[Part, list[Batch], list[np.ndarray], Rows | None]]:
    """Put batches through the model.

    Yields each part once its last batch has been begun: what its batches gave but for the last one
    that has faces, and what waits for that.
    """
    done = failed = 0
    for part, group in groupby(_timed(stream, waiting), key=lambda batch: batch.part):
        of_part: list[Batch] = []
        rows: list[np.ndarray] = []
        last: Rows | None = None
        for batch in group:
            if batch.pixels is not None:
                began = time.monotonic()
                before, last = last, model.begin(batch.pixels, flip=options.flip)
                if before is not None:  # taken while the next one is being computed
                    rows.append(before())
                waiting.model += time.monotonic() - began
                batch.pixels = None
            of_part.append(batch)
            done += batch.pictures
            failed += len(batch.left.failed)
            note = f"{failed} failed" if failed else ""
            progress(Progress("embed", done, total, note=note))
            if batch.last:
                break  # so that this part is not kept waiting for the next one's pictures
        yield part, of_part, rows, last


def _timed(stream: Iterator[Batch], waiting: Waiting) -> Iterator[Batch]:
    while True:
        began = time.monotonic()
        batch = next(stream, None)
        waiting.decode += time.monotonic() - began
        if batch is None:
            return
        yield batch


def _together(
    batches: Sequence[Batch],
    raw: Sequence[np.ndarray],
    model: FaceModel,
    options: PipelineOptions,
) -> Embedded:
    """Put the batches of a part together, what has no finite embedding aside."""
    faces = [face for batch in batches for face in batch.faces]
    vectors, norms = normalize(
        np.concatenate(raw) if raw else np.empty((0, model.embedding_dim), np.float32)
    )
    usable = np.isfinite(vectors).all(axis=1) & np.isfinite(norms) & (norms > 0)
    kept = [faces[row] for row in np.flatnonzero(usable)]
    found = [face.found for face in kept if face.found is not None]
    return Embedded(
        vectors=vectors[usable],
        norms=norms[usable],
        paths=[_key(face, options) for face in kept],
        identities=[options.stored_identity(face.picture.identity) for face in kept],
        stamps=[face.stamp for face in kept if face.stamp],
        found=np.concatenate(found) if found else None,
        left=_left(batches, [faces[row] for row in np.flatnonzero(~usable)], kept, options),
        pictures=len({face.picture.key for face in kept}),
        far=sum(batch.far for batch in batches),
    )


def _key(face: Face, options: PipelineOptions) -> str:
    key = options.stored_key(face.picture.key)
    return face_key(key, face.number) if options.several else key


def _left(
    batches: Sequence[Batch],
    without_length: Sequence[Face],
    kept: Sequence[Face],
    options: PipelineOptions,
) -> Left:
    """What the batches left out, and pictures no face of which has an embedding."""
    failed = {key: reason for batch in batches for key, reason in batch.left.failed}
    stamps = {key: stamp for batch in batches for key, stamp in batch.left.stamps.items()}
    usable = {face.picture.key for face in kept}
    for face in without_length:
        if face.picture.key not in usable:
            failed[face.picture.key] = "the model gives no embedding of a finite length for it"
            stamps[face.picture.key] = face.stamp
    return Left(
        failed=sorted((options.stored_key(key), reason) for key, reason in failed.items()),
        no_face=[options.stored_key(key) for batch in batches for key in batch.left.no_face],
        stamps={options.stored_key(key): stamp for key, stamp in stamps.items() if stamp},
    )


def prepare_of(
    preprocessing: Preprocessing, template: str | None, options: PipelineOptions
) -> Prepare:
    """What is to be made of each picture, for a model that wants its input so.

    Args:
        template: alignment of the faces that the model was trained on, where that is known.
    """
    whole = WholePicture(
        size=preprocessing.image_size, max_pixels=options.max_pixels, card=options.card
    )
    automatic = options.detect == "auto"
    known = template is not None or options.detector_given
    if options.detect == "none" or (automatic and not (options.detector and known)):
        return whole
    if options.detector is None:
        raise InputError(f"--detect {options.detect} needs a detector: give --detector FILE")
    detected = DetectedFaces(
        detector=options.detector,
        mode="largest" if automatic else options.detect,
        size=preprocessing.image_size,
        template=template_for(template, preprocessing.image_size),
        min_face=options.min_face,
        min_score=options.min_score,
        max_pixels=options.max_pixels,
    )
    return FacesOfPhotos(whole=whole, detected=detected) if automatic else detected


def _detection(model: FaceModel, options: PipelineOptions) -> dict[str, object]:
    """What is recorded of how faces were found."""
    prepare = prepare_of(model.preprocessing, model.template, options)
    if isinstance(prepare, FacesOfPhotos):
        return {**prepare.detected.facts(), "detect": options.detect}
    return prepare.facts() if isinstance(prepare, DetectedFaces) else {}


def settle_batch_size(options: PipelineOptions, model: FaceModel) -> int:
    """The batch size given, or the one that suits the model's device."""
    return options.batch_size or auto_batch_size(model.device, model.preprocessing.image_size)


def auto_batch_size(device: str, image_size: tuple[int, int]) -> int:
    """Pictures a batch that suit a device, `auto` included, and the memory that it has free."""
    kind = resolve_device(device).partition(":")[0]
    room = free_memory(device) // (4 * _BYTES_A_PIXEL * image_size[0] * image_size[1])
    size = _AUTO_BATCH[kind]
    while size > 1 and size > room:
        size //= 2
    return size


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
            "compiled": model.compiled,
            "batch_size": settle_batch_size(options, model),
            "detect": "none" if options.detect == "auto" else options.detect,
            **({"decoder": CARD_DECODER} if options.card else {}),
            **({"keep_identity": True} if options.several and options.keep_identity else {}),
            **_detection(model, options),
        },
    )
