"""The command `align`: photos in, a folder of aligned faces out, to train on or to embed later.

While the work is unfinished the folder `DIR.partial` lies beside `DIR`. Crops are written into it;
after every few hundred pictures a file says what became of each, and they are never done again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from faceidx.embedding.pipeline import PipelineOptions
from faceidx.embedding.shards import open_job, partial_folder
from faceidx.embedding.views import Views, save_sheet
from faceidx.errors import InputError, JobError
from faceidx.escape import write_csv
from faceidx.files import (
    refuse_existing,
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
from faceidx.images.keys import escape_bytes, unescape_key
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
    Views(sheet=options.sheet).check(
        options.pipeline, images=options.images, overwrite=options.overwrite
    )
    prepare = _prepare(options)
    source = open_source(options.images, root=options.root, follow_links=options.follow_links)
    folder = partial_folder(options.out)
    with writer_lock(options.out):
        _refuse_other(options)
        remove_leftovers(options.out)
        settings = {**prepare.facts(), "size": list(prepare.size), "max": prepare.max_pixels}
        open_job(folder, settings, overwrite=options.overwrite)
        try:
            records, resumed = _make(folder, source.pictures, prepare, options, progress)
            rows = [json.loads(line) for record in records for line in _lines(record)]
            faces = [row for row in rows if "crop" in row]
            left = [row for row in rows if "reason" in row]
            if not faces:
                raise JobError(
                    f"{options.images}: no face in any of {len(source.pictures)} pictures; the "
                    f"first: {left[0]['reason']}"
                )
            _finish(folder, faces, left, {**settings, "template": prepare.template})
            if options.sheet:
                _write_sheet(options.sheet, folder, faces)
            take_the_place(folder, options.out)
            shutil.rmtree(folder, ignore_errors=True)  # what was replaced
        except OSError as error:
            raise JobError(f"{options.out} could not be written: {error.strerror}") from error
    _warn_of_others(faces, options.out)
    seconds = time.monotonic() - began
    no_face = sum(row["reason"] == NO_FACE for row in left)
    return {
        "out": str(options.out),
        "images": len(source.pictures),
        "faces": len(faces),
        "failed": len(left) - no_face,
        "no_face": no_face,
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
) -> tuple[list[Path], int]:
    """Write the crops that are not there yet.

    Returns:
        The record of each part, and how many pictures had been done before.
    """
    records: list[Path] = []
    resumed = done = 0
    stream = iter(pictures)
    with Workers(options.pipeline.workers) as workers:
        while part := list(islice(stream, _PART)):
            record = folder / f".part-{_digest(part)}.jsonl"
            records.append(record)
            if record.exists():
                resumed += len(part)
            else:
                tagged = ((None, picture) for picture in part)
                lines: list[str] = []
                for _, picture, result in workers.prepare(
                    tagged, prepare, ahead=_AHEAD, total=len(part)
                ):
                    rows = _written(folder, picture, result, options.pipeline)
                    lines += [json.dumps(row) for row in rows]
                    progress(Progress("align", done + len(lines), len(pictures)))
                os.sync()  # the crops are on disk before it is said so
                with whole_file(record) as temporary:
                    temporary.write_text("".join(f"{line}\n" for line in lines), "utf-8")
            done += len(part)
            progress(Progress("align", done, len(pictures)))
    return records, resumed


def _digest(pictures: Sequence[Picture]) -> str:
    digest = hashlib.sha256()
    for picture in pictures:
        digest.update(f"{picture.key}\0{picture.stamp()}\0".encode())
    return digest.hexdigest()[:24]


def _written(
    folder: Path, picture: Picture, result: Prepared | str, pipeline: PipelineOptions
) -> Iterator[dict[str, Any]]:
    """Write the crops of a picture; yield a row a face, or one with the reason."""
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
            continue
        box = (round(float(value), 2) for value in face["boxes"])
        quality = (face["detection_scores"], face["head_sizes"], face["sharpness"])
        values = (*box, *(round(float(v), 4) for v in (*quality, *face["poses"])))
        yield {
            "path": key,
            "crop": escape_bytes(os.fsencode(path)),
            **dict(zip(COLUMNS[2:], values, strict=True)),
        }


def _lines(record: Path) -> list[str]:
    return record.read_text("utf-8").splitlines()


def _finish(
    folder: Path,
    faces: list[dict[str, Any]],
    left: list[dict[str, Any]],
    facts: dict[str, Any],
) -> None:
    """Write the tables and the sheet, and remove what only unfinished work needs."""
    with whole_file(folder / RECORD) as temporary:
        temporary.write_text(json.dumps(facts, indent=1), "utf-8")
    for name, columns, rows in ((TABLE, COLUMNS, faces), (LEFT_OUT, ("path", "reason"), left)):
        with (
            whole_file(folder / name) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as table,
        ):
            write_csv(table, columns, ([row[c] for c in columns] for row in rows))
    listed = {
        folder / RECORD,
        folder / TABLE,
        folder / LEFT_OUT,
        *(_file(folder, row) for row in faces),
    }
    for file in sorted(folder.rglob("*"), reverse=True):
        # Records, and crops of pictures that are gone since they were made.
        if file.is_dir():
            if not any(file.iterdir()):
                file.rmdir()
        elif file not in listed:
            file.unlink()


def _warn_of_others(faces: list[dict[str, Any]], out: Path) -> None:
    """Warn where a folder, which stands for a person, has got faces of pictures that show several.

    Pictures outside of any folder stand for nobody.
    """
    counts = Counter(row["path"] for row in faces if "/" in row["path"])
    several = sum(count > 1 for count in counts.values())
    if several:
        logger.warning(
            "%d of %d pictures give several faces, and all of a picture get its folder's identity: "
            "to train on %s, take those of other people out of the folders first",
            several,
            len(counts),
            out,
        )


def _write_sheet(path: Path, folder: Path, faces: list[dict[str, Any]]) -> None:
    least = sorted(faces, key=lambda row: row["score"])[:SHEET_CELLS]
    cells = ((decode(_file(folder, row)), f"{row['score']:.2f}  {row['path']}") for row in least)
    save_sheet(path, cells)


def _file(folder: Path, row: dict[str, Any]) -> Path:
    return folder / os.fsdecode(unescape_key(row["crop"]))
