"""The command `classify` with a gallery: pictures or an embeddings file in, people out."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from faceidx.embedding.missed import identities_missed
from faceidx.embedding.photos import embed_or_warn
from faceidx.embedding.pipeline import PipelineOptions, origin_of, prepare_of
from faceidx.embedding.store import EmbeddingFile, is_embeddings, require_one_model
from faceidx.embedding.views import Views, found_with_answers, write_views
from faceidx.errors import InputError
from faceidx.evaluation.command_line import command_of
from faceidx.evaluation.report_folder import check_pictures, check_report
from faceidx.files import refuse_existing, require_parent, together
from faceidx.gallery.classify import ClassifyOptions, classify, settle
from faceidx.gallery.folder import Gallery, load_gallery
from faceidx.gallery.probes import Probes, every_probe_of_file
from faceidx.gallery.sources import differences, require_comparable
from faceidx.images.folders import require_elsewhere
from faceidx.images.prepare import WholePicture
from faceidx.images.sources import Picture, open_source
from faceidx.models.open import ModelOptions, open_model
from faceidx.progress import ProgressCallback, silent
from faceidx.tables import MATCH, Answer

SHOWN = 200
"""Probes that a report shows: each takes some 15 kB of faces."""

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
    report: Path | None = None
    """Folder for a page that shows each probe beside its nearest faces."""
    pictures: Path | None = None
    """Folder of the pictures of probes and gallery, for the report."""
    gallery_pictures: Path | None = None
    """Folder of the gallery's pictures, where it is another one."""
    annotate: Path | None = None
    """Folder for the probes' photos with boxes, names and scores."""


class _Read(NamedTuple):
    """Probes, and what they were made of."""

    probes: Probes
    failed: int
    """Pictures of which there is nothing to look up."""
    pictures: Sequence[Picture] = ()
    pipeline: PipelineOptions | None = None
    keys: Sequence[str] = ()
    """Of the rows that have an embedding."""
    faces: np.ndarray | None = None
    """Where the face of each of those rows was found; None without detection."""


def look_up(
    options: LookupOptions, progress: ProgressCallback = silent
) -> tuple[dict[str, Any], list[Answer]]:
    """Look every probe up in a gallery (`classify.classify`).

    Pictures that cannot be read or show no face are probes too, as are those that an embeddings
    file lists so: unknown, without rank, and counted as `failed`.

    Raises:
        InputError: there is no threshold, the output exists, the probes come from another model,
            or pictures are given without a model.
    """
    _check_report(options)
    if options.annotate:
        Views(annotated=options.annotate).check(
            options.pipeline, images=options.probes, overwrite=options.overwrite
        )
        if is_embeddings(options.probes):
            raise InputError(f"{options.probes} holds no photos; --annotate needs pictures")
    device = options.model.device if options.model else "cpu"
    with load_gallery(options.gallery, device=device) as gallery:
        decision = settle(gallery, options)
        with _probes(options, gallery, progress) as read:
            nearest: dict[str, Answer] | None = {} if options.annotate else None
            with together(options.out, options.report):
                found = classify(
                    gallery,
                    read.probes,
                    options,
                    decision=decision,
                    cases=SHOWN if options.report else 0,
                    nearest_answers=nearest,
                    progress=progress,
                )
                shown = None
                if options.annotate and nearest is not None:
                    shown = _annotate(options.annotate, read, nearest, progress)
                if options.report:
                    from faceidx.gallery.report import write_identification_report

                    write_identification_report(
                        options.report,
                        gallery,
                        found,
                        probes=str(options.probes),
                        pictures=options.pictures,
                        gallery_pictures=options.gallery_pictures or options.pictures,
                        command=command_line(options),
                        warnings=found.warnings,
                    )
    paths = {"report": options.report, "annotate": shown}
    return {**found.summary, "failed": read.failed, **paths}, found.first


def command_line(options: LookupOptions) -> str:
    """The command that was run, every option that is not its default included."""
    return command_of(["classify"], [options.probes], options, given={"probes"})


def _check_report(options: LookupOptions) -> None:
    if options.report is None:
        check_pictures(options.pictures or options.gallery_pictures, None)
        return
    for folder in (options.pictures, options.gallery_pictures):
        check_pictures(folder, options.report)
    require_parent(options.report)
    others = [options.probes, options.gallery, options.out]
    check_report(options.report, [path for path in others if path is not None])
    require_elsewhere(options.report, options.probes)
    refuse_existing(options.report, overwrite=options.overwrite)


@contextmanager
def _probes(
    options: LookupOptions, gallery: Gallery, progress: ProgressCallback
) -> Iterator[_Read]:
    if is_embeddings(options.probes):
        with EmbeddingFile(options.probes) as file:
            require_comparable(gallery.origin, gallery.dim, gallery.path, [file])
            probes = every_probe_of_file(file)
            yield _Read(probes, len(probes.keys) - file.count)
        return
    if options.model is None:
        raise InputError(
            f"{options.probes}: to look pictures up give --model, the one that embedded the gallery"
        )
    yield _embedded_probes(options, options.model, gallery, progress)


def _embedded_probes(
    options: LookupOptions, wanted: ModelOptions, gallery: Gallery, progress: ProgressCallback
) -> _Read:
    source = open_source(options.probes, root=options.root)
    model = open_model(wanted)
    flip = bool(gallery.origin.preprocessing.get("flip", False))
    recorded = gallery.origin.preprocessing
    pipeline = replace(options.pipeline, flip=flip).as_recorded(recorded.get("detect"))
    prepare = prepare_of(model.preprocessing, model.template, pipeline)
    if options.annotate and isinstance(prepare, WholePicture):
        raise InputError(
            f"{options.annotate}: the pictures are taken as faces that are cut out already, so "
            "none is found that could be shown; give --detect, or leave out --annotate"
        )
    origin = origin_of(model, pipeline)
    require_one_model(gallery.origin, str(gallery.path), origin, model.name)
    if differing := differences(origin.preprocessing, recorded):
        logger.warning("the probes are embedded with other %s than %s", differing, gallery.path)
    embedded = embed_or_warn(source.pictures, model, pipeline, progress)
    left = embedded.left.reasons()
    for key, reason in left:
        logger.debug("%s: %s", key, reason)
    # A row of NaN cannot be searched, so the picture comes out as a probe without an answer.
    nothing = np.full((len(left), model.embedding_dim), np.nan, np.float32)
    vectors = np.concatenate([embedded.vectors, nothing])
    keys = embedded.paths + [key for key, _ in left]
    probes = Probes(
        name=str(options.probes),
        origin=origin,
        dim=model.embedding_dim,
        keys=keys,
        identities=embedded.identities + identities_missed(source.pictures, left, pipeline),
        blocks=[(0, vectors)],
    )
    return _Read(probes, len(nothing), source.pictures, pipeline, embedded.paths, embedded.found)


def _annotate(
    folder: Path, read: _Read, nearest: Mapping[str, Answer], progress: ProgressCallback
) -> Path | None:
    """Write the photos with their faces; returns where they are, if there is any."""
    if read.faces is None or read.pipeline is None:
        logger.warning("no face was found in a photo, so %s is not written", folder)
        return None
    answers = {
        key: (answer.identity, answer.score, answer.decision == MATCH)
        for key, answer in nearest.items()
    }
    write_views(
        Views(annotated=folder),
        found_with_answers(read.keys, read.faces, answers),
        read.pictures,
        read.pipeline,
        progress=progress,
    )
    return folder
