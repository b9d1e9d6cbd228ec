"""The command `align`: photos in, a folder of aligned faces out, to train on or to embed later.

While the work is unfinished the folder `DIR.partial` lies beside `DIR`. Crops are written into it;
after every few hundred pictures a file says what became of each, and they are never done again.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any

from faceidx.embedding.pipeline import PipelineOptions
from faceidx.embedding.shards import open_job, partial_folder, read_job
from faceidx.embedding.views import Views, save_sheet
from faceidx.errors import InputError, JobError
from faceidx.escape import write_csv
from faceidx.files import (
    refuse_existing,
    remove_folder,
    remove_leftovers,
    require_parent,
    take_the_place,
    where_it_leads,
    whole_file,
    writer_lock,
)
from faceidx.images.decode import PictureError, decode
from faceidx.images.faces import DetectedFaces
from faceidx.images.folders import require_elsewhere
from faceidx.images.keys import escape_bytes, folder_of, unescape_key
from faceidx.images.prepare import Prepared
from faceidx.images.shown import SHEET_CELLS, crop_path, write_crop
from faceidx.images.sources import Picture, open_source
from faceidx.images.templates import RECORD, template_for
from faceidx.images.workers import Workers
from faceidx.progress import Progress, ProgressCallback, silent

logger = logging.getLogger(__name__)

TABLE, LEFT_OUT = "align.csv", "left-out.csv"
COLUMNS = (
    *("path", "crop", "left", "top", "width", "height", "score", "head_size", "sharpness"),
    *("yaw", "pitch", "roll"),
)
NO_FACE = "no face was found in it"

# Pictures between two records: what an interruption can cost.
_PART = 256
_AHEAD = 64


@dataclass(kw_only=True)
class AlignOptions:
    """Options of `faceidx align`."""

    images: Path
    out: Path
    pipeline: PipelineOptions = field(default_factory=PipelineOptions)
    size: tuple[int, int] = (112, 112)
    """Height and width of the crops."""
    template: str | None = None
    """None takes the one that fits the size."""
    root: Path | None = None
    """For a list: the folder that its paths are relative to."""
    follow_links: bool = False
    sheet: Path | None = None
    """PNG of the crops whose detection is least sure."""
    overwrite: bool = False


def align(options: AlignOptions, progress: ProgressCallback = silent) -> dict[str, Any]:
    """Find the faces of photos and write them, aligned, under the photos' keys.

    Returns:
        `out, images, faces, failed, no_face, ignored, resumed, template, seconds,
        images_per_second`.

    Raises:
        InputError: nothing to align, no detector, or an output that exists.
        JobError: no face was found at all, or the disk is full.
    """
    began = time.monotonic()
    options = replace(options, out=where_it_leads(options.out))
    require_parent(options.out)
    _refuse_other(options)
    require_elsewhere(options.out, options.images)
    folder = partial_folder(options.out)
    # Where work was interrupted behind the sheet, the same command goes on with it.
    replaces = options.overwrite or read_job(folder) is not None
    Views(sheet=options.sheet).check(options.pipeline, images=options.images, overwrite=replaces)
    prepare = _prepare(options)
    source = open_source(options.images, root=options.root, follow_links=options.follow_links)
    with writer_lock(options.out):
        _refuse_other(options)
        remove_leftovers(options.out)
        settings = {**prepare.facts(), "size": list(prepare.size), "max": prepare.max_pixels}
        open_job(folder, settings, overwrite=options.overwrite)
        try:
            records, resumed, named = _make(folder, source.pictures, prepare, options, progress)
            counts = _counted(records)
            if not counts.faces:
                reason = next(_rows(records))["reason"]
                remove_folder(folder, beside=options.out)
                raise JobError(
                    f"{options.images}: no face in any of {len(source.pictures)} pictures; the "
                    f"first: {reason}"
                )
            _finish(folder, records, {**settings, "template": prepare.template})
            if options.sheet:
                _write_sheet(options.sheet, folder, records)
            _remove_others(folder, records)
            take_the_place(folder, options.out)
            shutil.rmtree(folder, ignore_errors=True)  # what was replaced
        except OSError as error:
            raise JobError(f"{options.out} could not be written: {error.strerror}") from error
    if counts.several:
        logger.warning(
            "%d of %d pictures give several faces, and all of a picture get its folder's identity: "
            "to train on %s, take those of other people out of the folders first",
            counts.several,
            counts.in_folders,
            options.out,
        )
    if named:
        logger.warning(
            "%d of %d pictures have an identity that is not their folder, but the crops lie in "
            "their folders: a list (path,identity) of the crops says again who they are",
            named,
            len(source.pictures),
        )
    seconds = time.monotonic() - began
    return {
        "out": str(options.out),
        "images": len(source.pictures),
        "faces": counts.faces,
        "failed": counts.failed,
        "no_face": counts.no_face,
        "ignored": source.ignored,
        "resumed": resumed,
        "template": prepare.template,
        "seconds": seconds,
        "images_per_second": (len(source.pictures) - resumed) / seconds,
    }


def _refuse_other(options: AlignOptions) -> None:
    refuse_existing(options.out, overwrite=options.overwrite)
    if options.out.exists() and not (options.out / TABLE).is_file():
        raise InputError(f"{options.out} was not written by align, so it is not replaced")


def _prepare(options: AlignOptions) -> DetectedFaces:
    pipeline = options.pipeline
    if pipeline.detector is None or pipeline.detect == "none":
        raise InputError("align finds faces: give --detect largest, central or all")
    return DetectedFaces(
        detector=pipeline.detector,
        mode=pipeline.detect,
        size=options.size,
        template=template_for(options.template, options.size),
        min_face=pipeline.min_face,
        min_score=pipeline.min_score,
        max_pixels=pipeline.max_pixels,
    )


def _make(
    folder: Path,
    pictures: Sequence[Picture],
    prepare: DetectedFaces,
    options: AlignOptions,
    progress: ProgressCallback,
) -> tuple[list[Path], int, int]:
    """Write the crops that are not there yet.

    Returns:
        The record of each part, how many pictures had been done before, and how many show others
        than their folder says.
    """
    records: list[Path] = []
    resumed = done = named = 0
    stream = iter(pictures)
    with Workers(options.pipeline.workers) as workers:
        while part := list(islice(stream, _PART)):
            record = folder / f".part-{_digest(part)}.jsonl"
            records.append(record)
            named += sum(picture.identity != folder_of(picture.key) for picture in part)
            if record.exists():
                resumed += len(part)
            else:
                lines: list[str] = []
                for number, picture, result in workers.prepare(
                    enumerate(part, start=done + 1), prepare, ahead=_AHEAD, total=len(part)
                ):
                    rows = _written(folder, picture, result, options.pipeline)
                    lines += [json.dumps(row) for row in rows]
                    progress(Progress("align", number, len(pictures)))
                os.sync()  # the crops are on disk before it is said so
                with whole_file(record) as temporary:
                    temporary.write_text("".join(f"{line}\n" for line in lines), "utf-8")
            done += len(part)
            progress(Progress("align", done, len(pictures)))
    return records, resumed, named


def _digest(pictures: Sequence[Picture]) -> str:
    digest = hashlib.sha256()
    for picture in pictures:
        digest.update(f"{picture.key}\0{picture.stamp()}\0".encode())
    return digest.hexdigest()[:24]


def _written(
    folder: Path, picture: Picture, result: Prepared | str, pipeline: PipelineOptions
) -> Iterator[dict[str, Any]]:
    """Write the crops of a picture; yield a row a face, and one with the reason if some lack."""
    key = pipeline.stored_key(picture.key)
    if isinstance(result, str) or not len(result.crops):
        yield {"path": key, "reason": result if isinstance(result, str) else NO_FACE}
        return
    assert result.faces is not None
    for number, (crop, face) in enumerate(zip(result.crops, result.faces, strict=True), start=1):
        try:
            path = crop_path(key, number if pipeline.several else None)
            write_crop(folder / path, crop)
        except PictureError as error:
            yield {"path": key, "reason": str(error)}
            return
        box = (round(float(value), 2) for value in face["boxes"])
        quality = (face["detection_scores"], face["head_sizes"], face["sharpness"])
        values = (*box, *(round(float(v), 4) for v in (*quality, *face["poses"])))
        yield {
            "path": key,
            "crop": escape_bytes(os.fsencode(path)),
            **dict(zip(COLUMNS[2:], values, strict=True)),
        }


@dataclass(kw_only=True)
class _Counts:
    """Faces, and what became of pictures."""

    faces: int = 0
    failed: int = 0
    no_face: int = 0
    in_folders: int = 0
    """With a face, and in a folder, which stands for a person."""
    several: int = 0
    """Of these, those with several faces."""


def _rows(records: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """What became of each picture, in order, as `_written` tells it."""
    for record in records:
        yield from map(json.loads, record.read_text("utf-8").splitlines())


def _faces(records: Sequence[Path]) -> Iterator[dict[str, Any]]:
    return (row for row in _rows(records) if "crop" in row)


def _counted(records: Sequence[Path]) -> _Counts:
    counts = _Counts()
    for path, of_picture in groupby(_rows(records), key=itemgetter("path")):
        reasons = [row.get("reason") for row in of_picture]
        faces = reasons.count(None)
        counts.faces += faces
        counts.no_face += reasons == [NO_FACE]
        counts.failed += reasons[-1] not in (None, NO_FACE)
        if faces and "/" in path:
            counts.in_folders += 1
            counts.several += faces > 1
    return counts


def _finish(folder: Path, records: Sequence[Path], facts: dict[str, Any]) -> None:
    """Write the tables."""
    with whole_file(folder / RECORD) as temporary:
        temporary.write_text(json.dumps(facts, indent=1), "utf-8")
    left = (row for row in _rows(records) if "reason" in row)
    for name, columns, rows in (
        (TABLE, COLUMNS, _faces(records)),
        (LEFT_OUT, ("path", "reason"), left),
    ):
        with (
            whole_file(folder / name) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as table,
        ):
            write_csv(table, columns, ([row[c] for c in columns] for row in rows))


def _remove_others(folder: Path, records: Sequence[Path]) -> None:
    """Remove what only unfinished work needs, and crops of pictures that are gone meanwhile."""
    wanted = {RECORD, TABLE, LEFT_OUT, *(row["crop"] for row in _faces(records))}
    for place, folders, files in os.walk(folder, topdown=False):
        for file in (Path(place, name) for name in sorted(files)):  # records before `job.json`
            if escape_bytes(os.fsencode(file.relative_to(folder))) not in wanted:
                file.unlink()
        for name in folders:
            with suppress(OSError):  # there are faces in it
                Path(place, name).rmdir()


def _write_sheet(path: Path, folder: Path, records: Sequence[Path]) -> None:
    least = heapq.nsmallest(SHEET_CELLS, _faces(records), key=itemgetter("score"))
    cells = ((decode(_file(folder, row)), f"{row['score']:.2f}  {row['path']}") for row in least)
    save_sheet(path, cells)


def _file(folder: Path, row: dict[str, Any]) -> Path:
    return folder / os.fsdecode(unescape_key(row["crop"]))
