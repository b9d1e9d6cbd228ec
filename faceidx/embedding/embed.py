"""The command `embed`: pictures to one file, going on where it was interrupted."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from faceidx.embedding.crew import Job
from faceidx.embedding.decoding import settle_decoder
from faceidx.embedding.making import crew_for, make_shards
from faceidx.embedding.merge import merge_shards
from faceidx.embedding.merge_ahead import MergeAhead
from faceidx.embedding.photos import photo_warning
from faceidx.embedding.pipeline import (
    PipelineOptions,
    Waiting,
    auto_batch_size,
    origin_of,
    prepare_of,
)
from faceidx.embedding.recorded import (
    recorded_fidelity,
    require_same,
    require_same_origin,
    run_as_before,
)
from faceidx.embedding.roll import Counts, Roll
from faceidx.embedding.sample import first_faces
from faceidx.embedding.shards import (
    CREATED,
    difference,
    drop_finished_work,
    is_finished,
    left_out,
    open_job,
    partial_folder,
    read_job,
    shard_size,
    split_into_shards,
)
from faceidx.embedding.store import EmbeddingFile, Origin, is_embeddings
from faceidx.embedding.update import Plan, plan_retry, plan_update, require_own_columns
from faceidx.embedding.views import Views, show_file
from faceidx.errors import InputError, JobError
from faceidx.files import (
    refuse_existing,
    remove_folder,
    remove_leftovers,
    require_parent,
    where_it_leads,
    writer_lock,
)
from faceidx.images.keys import escape_bytes
from faceidx.images.sources import Picture, Source, open_source
from faceidx.models.choose import choose_model, sample_size
from faceidx.models.face_model import FaceModel
from faceidx.models.fidelity import ITSELF, Fidelity, together
from faceidx.models.open import ModelOptions, open_exact
from faceidx.progress import Progress, ProgressCallback, silent

logger = logging.getLogger(__name__)

# Of what work is made with, that which follows from engine and precision, and is no option.
_CHOSEN = ("compiled", "decoder")


@dataclass(kw_only=True)
class EmbedOptions:
    """Options of `faceidx embed`."""

    images: Path
    out: Path
    model: ModelOptions
    pipeline: PipelineOptions = field(default_factory=PipelineOptions)
    root: Path | None = None
    """For a list: the folder that its paths are relative to."""
    dtype: str | None = None
    """How embeddings are stored: `float32` or `float16`; None takes what there is already, else
    `float32`."""
    follow_links: bool = False
    overwrite: bool = False
    views: Views = field(default_factory=Views)
    """What is left to look at."""
    update: bool = False
    """Bring a finished file up to date: embed what is new or has changed, drop what is gone."""
    retry_failed: bool = False
    """Try pictures again that failed; alone, nothing else of a finished file is touched."""


def embed(options: EmbedOptions, progress: ProgressCallback = silent) -> dict[str, Any]:
    """Embed pictures into a file, go on with unfinished work on it, or bring it up to date.

    Returns:
        The fields that the command's JSON promises.

    Raises:
        InputError: nothing to embed, a model that cannot be opened, an output that exists, or one
            of another model where it is to be brought up to date.
        JobError: no picture at all could be read, or the disk is full.
    """
    began = time.monotonic()
    options = replace(options, out=where_it_leads(options.out))
    require_parent(options.out)
    _refuse_inputs(options)
    if options.out.is_dir():
        raise InputError(f"{options.out} is a folder; give the path of a file, such as faces.h5")
    if options.overwrite and (options.update or options.retry_failed):
        raise InputError("--overwrite goes with neither --update nor --retry-failed")
    if options.views.wanted() and not options.overwrite and is_finished(options.out):
        # It was interrupted while the views were made, and the same command goes on with them.
        options = replace(options, update=True)
    _refuse_finished(options)
    options.views.check(options.pipeline, images=options.images, overwrite=_replaces(options))
    source = open_source(options.images, root=options.root, follow_links=options.follow_links)
    with writer_lock(options.out):
        # Once more: another process may have finished it meanwhile.
        _refuse_finished(options)
        remove_leftovers(options.out)
        drop_finished_work(options.out)
        with _base(options) as base:
            result = _Job(options, source, base, progress).run()
        if options.views.wanted():
            show_file(
                options.views,
                options.out,
                source.pictures,
                options.pipeline,
                options.model,
                progress,
            )
        remove_folder(partial_folder(options.out), beside=options.out)
    seconds = time.monotonic() - began
    rate = result.pop("made") / seconds
    return {**result, "seconds": seconds, "images_per_second": rate}


def _refuse_inputs(options: EmbedOptions) -> None:
    """Raise `InputError` where the output would take the place of what it is made of."""
    for given in (options.images, options.model.path):
        if options.out.exists() and given.exists() and options.out.samefile(given):
            raise InputError(f"--out {options.out} is {given} itself; give another path")


def _refuse_finished(options: EmbedOptions) -> None:
    way_out = "--update to bring it up to date, or --overwrite"
    refuse_existing(options.out, overwrite=_replaces(options), way_out=way_out)
    if options.out.exists() and not is_embeddings(options.out):
        raise InputError(f"{options.out} is no embeddings file, so it is not replaced")


def _replaces(options: EmbedOptions) -> bool:
    return options.overwrite or options.update or options.retry_failed


@contextmanager
def _base(options: EmbedOptions) -> Iterator[EmbeddingFile | None]:
    """The finished file that is to be brought up to date, None where there is none."""
    if not (options.update or options.retry_failed) or not options.out.exists():
        yield None
        return
    with EmbeddingFile(options.out) as file:
        yield file


class _Job:
    """One run of the command, once it is the only writer of its output."""

    def __init__(
        self,
        options: EmbedOptions,
        source: Source,
        base: EmbeddingFile | None,
        progress: ProgressCallback,
    ) -> None:
        self._options, self._source, self._base = options, source, base
        self._progress = progress
        self._folder = partial_folder(options.out)
        self._roll = Roll()
        self._shard_size: int | None = None
        self._before: Mapping[str, Any] = {}

    def run(self) -> dict[str, Any]:
        """Do what is left to do and write the output."""
        options = self._options
        began = time.monotonic()
        wanted, pipeline, exact = self._settle()
        opening = time.monotonic() - began
        prepare = prepare_of(exact.preprocessing, exact.template, pipeline)
        plan = self._plan(pipeline)
        todo: Sequence[Picture] = self._source.pictures if plan is None else plan.todo
        began = time.monotonic()
        # int8 is calibrated on the first pictures of all, whatever is left to do.
        tried_on = self._source.pictures if wanted.precision == "int8" else todo
        model = choose_model(
            wanted,
            first_faces(tried_on, prepare, sample_size(len(tried_on))),
            images=len(tried_on),
            batch_size=pipeline.batch_size,
            flip=pipeline.flip,
            exact=exact,
        )
        del exact  # where another runs, its memory is free from here on
        pipeline = settle_decoder(
            todo, model, wanted, pipeline, before=self._before, beside=options.out
        )
        waiting = Waiting(open=opening + time.monotonic() - began)
        origin = origin_of(model, pipeline)
        if self._base is not None:
            require_same_origin(options.out, self._base.origin, origin, adding=bool(todo))
        self._shard_size = self._shard_size or shard_size(model.device, model.rate)
        created = open_job(
            self._folder, self._settings(origin, pipeline), overwrite=options.overwrite
        )
        fidelity = asdict(self._fidelity(model, plan))
        job = Job(
            folder=self._folder,
            pipeline=pipeline,
            origin=origin,
            dtype=self._dtype(),
            total=len(todo),
        )
        attributes = {"fidelity": json.dumps(fidelity), CREATED: created}
        counts = self._make_file(todo, model, job, plan, attributes, waiting)
        kept = 0 if plan is None else plan.pictures  # of these it is not known any more
        if warning := photo_warning(counts.far, counts.embedded - kept, model):
            logger.warning(warning)
        return {
            "out": str(options.out),
            "images": counts.embedded + counts.failed + counts.no_face,
            "embedded": counts.embedded,
            "faces": counts.faces,
            "failed": counts.failed,
            "no_face": counts.no_face,
            "ignored": self._source.ignored,
            "resumed": self._roll.resumed,
            "kept": kept,
            "removed": 0 if plan is None else plan.removed,
            "dim": model.embedding_dim,
            "model": model.name,
            "device": model.device,
            "engine": model.engine,
            "precision": model.precision,
            "compiled": model.compiled,
            "batch_size": pipeline.batch_size,
            "fidelity": fidelity,
            "waited": asdict(waiting),
            "made": len(todo) - self._roll.resumed,
        }

    def _settle(self) -> tuple[ModelOptions, PipelineOptions, FaceModel]:
        """What was asked for, else what unfinished work or the file had; the model in float32."""
        exact = open_exact(self._options.model)
        settled = self._as_before(self._recorded(), exact)
        if self._options.overwrite and self._before and self._begins_anew(*settled, exact):
            settled = self._as_before({}, exact)
        return *settled, exact

    def _as_before(
        self, before: Mapping[str, Any], exact: FaceModel
    ) -> tuple[ModelOptions, PipelineOptions]:
        self._before, self._shard_size = before, before.get("shard_size")
        wanted, pipeline = run_as_before(self._options.model, before), self._options.pipeline
        suits = auto_batch_size(wanted.device, exact.preprocessing.image_size)
        size = pipeline.batch_size or before.get("batch_size") or suits
        return wanted, replace(pipeline, batch_size=size)

    def _begins_anew(
        self, wanted: ModelOptions, pipeline: PipelineOptions, exact: FaceModel
    ) -> bool:
        """Whether the unfinished work is thrown away, so that nothing it was made with counts."""
        chosen = {name: self._before[name] for name in _CHOSEN if name in self._before}
        settings = self._settings(origin_of(exact, pipeline), pipeline) | chosen
        settings |= {"engine": wanted.engine, "precision": wanted.precision}
        return difference(self._folder, self._before, settings) is not None

    def _dtype(self) -> str:
        stored = None if self._base is None else self._base.dtype
        given = self._options.dtype
        if given and stored:
            require_same(self._options.out, "dtype", stored, given)
        return str(given or stored or self._before.get("dtype") or "float32")

    def _recorded(self) -> Mapping[str, Any]:
        try:
            job = read_job(self._folder)
        except InputError:
            if not self._options.overwrite:
                raise
            job = None
        if job is not None and job.get("model") == self._options.model.path.name:
            return job
        return {} if self._base is None else self._base.origin.preprocessing

    def _fidelity(self, model: FaceModel, plan: Plan | None) -> Fidelity:
        """Of all rows of the file, those included that stay of an earlier one."""
        made = model.fidelity or ITSELF
        if plan is None or not plan.keeps_rows:
            return made
        before = recorded_fidelity(plan.kept.file)
        return together(before, made) if plan.todo else before

    def _origin(self, made: Origin, plan: Plan | None) -> Origin:
        """Of the file: as long as rows of an earlier one stay, what it says of these stays true."""
        if plan is None or not plan.keeps_rows:
            return made
        return replace(made, preprocessing=plan.kept.file.origin.preprocessing)

    def _settings(self, origin: Origin, pipeline: PipelineOptions) -> dict[str, Any]:
        """What all shards must share."""
        return {
            "images": escape_bytes(os.path.realpath(os.fsencode(self._options.images))),
            "model": self._options.model.path.name,
            "fingerprint": origin.fingerprint,
            **origin.preprocessing,
            "dtype": self._dtype(),
            "shard_size": self._shard_size,
            "max_pixels": pipeline.max_pixels,
        }

    def _plan(self, pipeline: PipelineOptions) -> Plan | None:
        if self._base is None:
            return None
        require_own_columns(self._base)
        if not self._options.update:
            return plan_retry(self._base, self._source.pictures, pipeline)
        return plan_update(
            self._base,
            self._source.pictures,
            pipeline,
            retry_failed=self._options.retry_failed,
        )

    def _make_file(
        self,
        todo: Sequence[Picture],
        model: FaceModel,
        job: Job,
        plan: Plan | None,
        attributes: Mapping[str, str],
        waiting: Waiting,
    ) -> Counts:
        """Make the shards that are not there yet, and the file of them all; return its counts."""
        crew = crew_for(model, self._options.model, len(todo))

        def report(progress: Progress) -> None:
            self._progress(replace(progress, done=self._roll.resumed + progress.done))

        def make() -> Counts:
            make_shards(
                split_into_shards(todo, self._shard_size),
                job,
                model,
                self._options.model,
                crew,
                waiting=waiting,
                report=self._roll.take,
                progress=report,
            )
            self._progress(Progress("embed", len(todo), len(todo)))
            return self._counted(plan)

        out = self._options.out
        if plan is None and crew.several:
            with MergeAhead(
                out, job.origin, dtype=job.dtype, expected=len(todo), attributes=attributes
            ) as ahead:
                self._roll.follow = ahead.follow
                counts = make()
                began = time.monotonic()
                ahead.finish()
        else:
            counts = make()
            began = time.monotonic()
            merge_shards(
                out,
                self._roll.paths(),
                self._origin(job.origin, plan),
                dtype=job.dtype,
                expected=counts.faces,
                kept=None if plan is None else plan.kept,
                order_of=job.pipeline.order_of,
                attributes=attributes,
            )
        waiting.write += time.monotonic() - began
        return counts

    def _counted(self, plan: Plan | None) -> Counts:
        counts = self._roll.counts
        if logger.isEnabledFor(logging.DEBUG):
            for path in self._roll.paths():
                for key, reason in left_out(path).reasons():
                    logger.debug("%s: %s", key, reason)
        if plan is not None:
            counts.add(plan.counts())
        if not counts.embedded:
            self._give_up(counts, plan)
        return counts

    def _give_up(self, counts: Counts, plan: Plan | None) -> None:
        failed = (left_out(path).failed for path in self._roll.paths())
        reason = next((reason for some in failed for _, reason in some), None)
        if reason is None and plan is not None:
            reason = next((reason for _, reason in plan.kept.left.failed), None)
        remove_folder(self._folder, beside=self._options.out)
        total = counts.failed + counts.no_face
        if not total:
            raise InputError(f"{self._options.out} would hold nothing: all its pictures are gone")
        raise JobError(
            f"{self._options.images}: none of {total} pictures could be embedded; "
            + (f"the first: {reason}" if reason else "no face was found in them")
        )
