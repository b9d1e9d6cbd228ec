"""What `embed` and `classify` leave to look at: crops, annotated photos, a contact sheet.

All of it is made of the finished result, which holds where each face was found; the photos are
read once more.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from faceidx.embedding.pipeline import PipelineOptions
from faceidx.embedding.store import EmbeddingFile
from faceidx.errors import InputError
from faceidx.files import (
    refuse_existing,
    remove_leftovers,
    require_parent,
    whole_file,
    whole_folder,
    writer_lock,
)
from faceidx.images.decode import PictureError
from faceidx.images.folders import require_elsewhere
from faceidx.images.pictures import Picture
from faceidx.images.shown import (
    Mark,
    annotated,
    contact_sheet,
    crop_path,
    least_sure,
    write_crop,
)
from faceidx.images.templates import template_for, template_points
from faceidx.models.open import ModelOptions, model_shape
from faceidx.progress import Progress, ProgressCallback, silent
from faceidx.resources import usable_cores

logger = logging.getLogger(__name__)

# What tells that a folder or a sheet was made here, and so may be made anew.
_MARK = ".made-by-faceidx"
_SHEET_FACTS = PngInfo()
_SHEET_FACTS.add_text("Software", "faceidx")
# Photos in memory at a time.
_AT_ONCE = 16


@dataclass(kw_only=True)
class Views:
    """What is to be left to look at."""

    crops: Path | None = None
    """Folder for every face as the model saw it."""
    annotated: Path | None = None
    """Folder for every photo with a face, with boxes, names and scores."""
    sheet: Path | None = None
    """PNG of the crops whose detection is least sure."""

    def wanted(self) -> list[Path]:
        return [path for path in (self.crops, self.annotated, self.sheet) if path is not None]

    def check(self, pipeline: PipelineOptions, *, images: Path, overwrite: bool) -> None:
        """Raise `InputError` where they cannot be made, before any work is done.

        Args:
            images: where the pictures come from.
        """
        for path in self.wanted():
            if pipeline.detect == "none":
                raise InputError(f"{path}: without --detect nothing is found that could be shown")
            require_parent(path)
            require_elsewhere(path, images)
            refuse_existing(path, overwrite=overwrite)
            is_own = _is_own_sheet if path == self.sheet else _is_own_folder
            if path.exists() and not is_own(path):
                raise InputError(
                    f"{path} was not written by faceidx, so it is not replaced; give another path"
                )
        if self.sheet is not None and self.sheet.suffix.lower() != ".png":
            raise InputError(f"{self.sheet}: a contact sheet is a PNG; let its name end in .png")


def _is_own_folder(path: Path) -> bool:
    return path.is_dir() and ((path / _MARK).is_file() or not any(path.iterdir()))


def _is_own_sheet(path: Path) -> bool:
    try:
        with Image.open(path, formats=["PNG"]) as sheet:
            return sheet.info.get("Software") == "faceidx"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def save_sheet(path: Path, faces: Iterable[tuple[np.ndarray, str]]) -> None:
    """Write a contact sheet (`shown.contact_sheet`) that is known as one of ours."""
    with whole_file(path) as temporary:
        contact_sheet(faces).save(temporary, "PNG", pnginfo=_SHEET_FACTS)


@dataclass(frozen=True, kw_only=True)
class Found:
    """Faces that were found, row by row."""

    keys: Sequence[str]
    """Of the rows."""
    boxes: np.ndarray
    landmarks: np.ndarray
    scores: np.ndarray
    """(N,) of the detection."""
    texts: Sequence[str]
    """What is written at each."""
    sure: Sequence[bool]


def write_views(
    views: Views,
    found: Found,
    pictures: Iterable[Picture],
    pipeline: PipelineOptions,
    *,
    template: str = "arcface",
    size: tuple[int, int] = (112, 112),
    progress: ProgressCallback = silent,
) -> None:
    """Make what is wanted, each whole or not at all.

    Args:
        template: of the crops, as is `size`, height and width.

    Raises:
        JobError: the disk is full.
    """
    rows: dict[str, list[int]] = {}
    for row, key in enumerate(found.keys):
        rows.setdefault(pipeline.picture_of(key), []).append(row)
    on_sheet = set(least_sure(found.scores)) if views.sheet else set()
    cells: dict[int, np.ndarray] = {}
    missing = done = 0
    with ExitStack() as stack:
        for path in views.wanted():
            stack.enter_context(writer_lock(path))
            remove_leftovers(path)
        crops = stack.enter_context(_marked_folder(views.crops)) if views.crops else None
        photos = stack.enter_context(_marked_folder(views.annotated)) if views.annotated else None
        pool = stack.enter_context(ThreadPoolExecutor(usable_cores()))

        def view(picture: Picture) -> bool:
            key = pipeline.stored_key(picture.key)
            try:
                if crops or on_sheet.intersection(rows[key]):
                    for row, crop in _crops(picture, rows[key], found, pipeline, template, size):
                        if crops:
                            number = pipeline.face_number(found.keys[row])
                            write_crop(crops / crop_path(key, number), crop)
                        if row in on_sheet:
                            cells[row] = crop
                if photos:
                    _write_annotated(photos / crop_path(key), picture, rows[key], found, pipeline)
            except PictureError as error:
                logger.debug("%s cannot be shown: %s", picture.key, error)
                return False
            return True

        wanted = (p for p in pictures if pipeline.stored_key(p.key) in rows)
        while part := list(islice(wanted, _AT_ONCE)):
            missing += sum(not shown for shown in pool.map(view, part))
            done += len(part)
            progress(Progress("show", done, len(rows)))
    if views.sheet:
        shown = [(cells[row], found.texts[row]) for row in least_sure(found.scores) if row in cells]
        save_sheet(views.sheet, shown)
    missing += len(rows) - done
    if missing:
        logger.warning("%d of %d photos could not be shown (-v says why)", missing, len(rows))


@contextmanager
def _marked_folder(path: Path) -> Iterator[Path]:
    with whole_folder(path) as folder:
        (folder / _MARK).touch()
        yield folder


def _crops(
    picture: Picture,
    rows: Sequence[int],
    found: Found,
    pipeline: PipelineOptions,
    template: str,
    size: tuple[int, int],
) -> Iterator[tuple[int, np.ndarray]]:
    from faceidx.images.align import similarity, warp
    from faceidx.images.photo import Photo
    from faceidx.images.search import OVERVIEW

    photo = Photo(picture.data, overview=OVERVIEW, max_pixels=pipeline.max_pixels)
    for row in rows:
        matrix = similarity(found.landmarks[row], template_points(template, size))
        yield row, warp(photo, matrix, size)


def _write_annotated(
    path: Path, picture: Picture, rows: Sequence[int], found: Found, pipeline: PipelineOptions
) -> None:
    marks = [
        Mark(
            box=found.boxes[row],
            landmarks=found.landmarks[row],
            text=found.texts[row],
            sure=found.sure[row],
        )
        for row in rows
    ]
    image = annotated(picture.data, marks, max_pixels=pipeline.max_pixels)
    write_crop(path, np.asarray(image))


def show_file(
    views: Views,
    path: Path,
    pictures: Iterable[Picture],
    pipeline: PipelineOptions,
    model: ModelOptions,
    progress: ProgressCallback = silent,
) -> None:
    """Show the faces of an embeddings file, with detection scores and names written at them."""
    preprocessing, template = model_shape(model)
    with EmbeddingFile(path) as file:
        keys, names = file.paths(), file.identities()
        boxes, landmarks, scores = (
            np.asarray(file.column(name)) for name in ("boxes", "landmarks", "detection_scores")
        )
    found = Found(
        keys=keys,
        boxes=boxes,
        landmarks=landmarks,
        scores=scores,
        texts=[f"{score:.2f}  {who}" for who, score in zip(names, scores, strict=True)],
        sure=[True] * len(keys),
    )
    size = preprocessing.image_size
    write_views(
        views,
        found,
        pictures,
        pipeline,
        template=template_for(template, size),
        size=size,
        progress=progress,
    )


def found_with_answers(
    keys: Sequence[str], faces: np.ndarray, answers: Mapping[str, tuple[str, float | None, bool]]
) -> Found:
    """Probes, with the nearest person and its score written at them.

    Args:
        answers: by key, the identity, the score and whether it is a match.
    """
    told = [answers.get(key, ("", None, False)) for key in keys]
    return Found(
        keys=keys,
        boxes=faces["boxes"],
        landmarks=faces["landmarks"],
        scores=faces["detection_scores"],
        texts=[
            ("" if score is None else f"{score:.2f}  ") + (who if match else "unknown")
            for who, score, match in told
        ],
        sure=[match for _, _, match in told],
    )
