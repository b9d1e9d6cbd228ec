"""What a run is to do, settled from the command's options before a file is made."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from faceidx.errors import InputError
from faceidx.images.folders import require_elsewhere
from faceidx.images.preprocess import Preprocessing
from faceidx.images.templates import recorded_template
from faceidx.losses.registry import SHARDED_HEADS
from faceidx.models.record import ModelRecord
from faceidx.processes import RowRange
from faceidx.progress import ProgressCallback
from faceidx.training import run_folder
from faceidx.training.augment import strength_named
from faceidx.training.data import TrainingData, load_data
from faceidx.training.launch import Hardware
from faceidx.training.network import Start, build_network, fixed_settings, settle_stage
from faceidx.training.optimizer import OPTIMIZERS
from faceidx.training.options import Recipe, TrainOptions
from faceidx.training.pictures import open_bank
from faceidx.training.recipes import settle_recipe
from faceidx.training.scan import scan
from faceidx.training.schedule import can_flatten
from faceidx.training.split import SAMPLINGS

logger = logging.getLogger(__name__)

# From so many on, adding up the gradients of a whole classifier (100 MB at an embedding of 512)
# costs the processes more than exchanging embeddings.
_MANY_CLASSES = 50_000
# Pixel statistics do not matter for a network trained from scratch; a symmetric range does.
_MEAN = _STD = (0.5, 0.5, 0.5)


@dataclass(kw_only=True)
class Job:
    """All that a process needs to take part in a run."""

    options: TrainOptions
    recipe: Recipe
    recipe_name: str
    start: Start
    data: TrainingData
    preprocessing: Preprocessing
    settings: dict[str, Any]
    template: str | None  # alignment of the faces, where it is known
    head_is_spread: bool
    """Whether each process holds some classes alone, or some of them take part in a step."""

    def head_rows(self, processes: int, number: int) -> RowRange | None:
        """Which classes a process holds; None where it holds all and trains all."""
        if not self.head_is_spread:
            return None
        return RowRange(total=len(self.data.class_names), processes=processes, number=number)


def settle_job(options: TrainOptions, hardware: Hardware, progress: ProgressCallback) -> Job:
    """Read the data and decide on everything.

    Raises:
        InputError: options, model or data do not fit together.
    """
    _require_utf8(options)
    require_elsewhere(options.out, options.data)
    model = options.from_model
    if model and model.resolve().is_relative_to(options.out.resolve()):
        raise InputError(
            f"--from {model} lies in the run that is to be written, which would replace it; give "
            "another --out"
        )
    found = scan(options)
    start = settle_stage(options, set(found.names))
    pictures = int(found.usable(options.min_pictures).sum())
    fixed = fixed_settings(start, options)
    name, recipe = settle_recipe(options, pictures=pictures, on_gpu=hardware.on_gpu, fixed=fixed)
    _require_known_names(recipe)
    _require_what_options_are_about(options, recipe)
    if recipe.warmup_epochs >= recipe.epochs:
        logger.warning(
            "the rate rises for %g epochs, of which there are %d, and never falls; give a smaller "
            "--warmup-epochs, or more epochs",
            recipe.warmup_epochs,
            recipe.epochs,
        )
    side = recipe.image_size
    preprocessing = Preprocessing(image_size=(side, side), color="rgb", mean=_MEAN, std=_STD)
    record = start.content.record if start.content else None
    if record:
        preprocessing = record.preprocessing
    template = _template(options, record)
    # What cannot be built fails here, before pictures are read for minutes. There are no more
    # classes than people.
    classes = len(start.classes or found.names)
    spread = spread_head(options, recipe, classes, hardware.processes)
    rows = RowRange(total=classes, processes=hardware.processes) if spread else None
    build_network(recipe, start, preprocessing, classes, rows)
    bank = partial(
        open_bank,
        size=preprocessing.image_size,
        shared=hardware.starts_processes,
        progress=progress,
    )
    data = load_data(options, found, start.classes, start.split_seed(options.seed), bank)
    _warn_of_judges_seen_before(options, start, found.names, data)
    _warn_of_people_unlearned(start.classes, data)
    _warn_where_nothing_judges(options, data)
    _warn_of_losses_that_never_come_in(options, recipe, data)
    recipe.batch_size = min(recipe.batch_size, len(data.rows))
    if hardware.processes > len(data.rows):
        raise InputError(
            f"{hardware.processes} processes for {len(data.rows)} pictures to train on; give fewer "
            "--devices"
        )
    if hardware.processes > recipe.batch_size:
        raise InputError(
            f"{hardware.processes} processes for batches of {recipe.batch_size}; give fewer "
            "--devices or a larger --batch-size"
        )
    _require_work_for_norms(recipe, options.sync_bn, hardware.processes)
    settings = run_folder.settings_of(options, recipe, data.digests)
    return Job(
        options=options,
        recipe=recipe,
        recipe_name=name,
        start=start,
        data=data,
        preprocessing=preprocessing,
        settings=settings,
        template=template,
        head_is_spread=spread_head(options, recipe, len(data.class_names), hardware.processes),
    )


def _template(options: TrainOptions, record: ModelRecord | None) -> str | None:
    """How the faces are aligned: as the model to start from, or `align`, says; or as is given.

    Raises:
        InputError: they say it otherwise.
    """
    data = options.data
    folder = options.root or (data if data.is_dir() else data.parent)
    said = record.template if record else recorded_template(folder)
    if options.template and said not in (None, options.template):
        raise InputError(
            f"--template {options.template}: {options.from_model if record else folder} says "
            f"{said}; leave it out"
        )
    return said or options.template


def _require_utf8(options: TrainOptions) -> None:
    """Refuse paths that the files of a run have no way to write.

    Raises:
        InputError: bytes of one are no UTF-8.
    """
    for name in ("out", "root", "from_model", "val", "pairs", "pairs_root"):
        path = str(getattr(options, name))
        try:
            path.encode()
        except UnicodeEncodeError:
            flag = "from" if name == "from_model" else name.replace("_", "-")
            raise InputError(
                f"--{flag} {path}: TensorBoard and TOML can only hold UTF-8; give a link to it of "
                "another name"
            ) from None


def _require_known_names(recipe: Recipe) -> None:
    """Refuse what nobody knows; losses and architectures are built at once.

    Raises:
        InputError: a name is unknown.
    """
    strength_named(recipe.augment)
    for setting, known in (("optimizer", OPTIMIZERS), ("sampling", SAMPLINGS)):
        given = getattr(recipe, setting)
        if given not in known:
            raise InputError(f"no {setting} named {given!r}; there are {', '.join(known)}")


def _require_what_options_are_about(options: TrainOptions, recipe: Recipe) -> None:
    """Refuse options of pair lists and auxiliary losses that nothing would come of.

    Raises:
        InputError: there are.
    """
    start, weight = options.aux_start, options.aux_weight
    if start != "auto" and not (start.isdecimal() and int(start) >= 1):
        raise InputError(f"--aux-start {start}: give auto or an epoch, from 1")
    if start != "auto" and int(start) > recipe.epochs:
        raise InputError(f"--aux-start {start}: there are {recipe.epochs} epochs")
    if weight is not None and not 0 <= weight < math.inf:
        raise InputError(f"--aux-weight {weight}: give a number from 0")
    about_pairs = {
        "--pairs-root": options.pairs_root,
        "--pairs-format": options.pairs_format,
        "--select pairs": options.select == "pairs",
    }
    about_aux = {
        "--aux-weight": weight is not None,
        "--aux-start": start != "auto",
    }
    for needed, there, flags in (
        ("--pairs", options.pairs, about_pairs),
        ("--aux", recipe.aux, about_aux),
    ):
        idle = [flag for flag, given in flags.items() if given]
        if idle and not there:
            raise InputError(f"{idle[0]} is of no use without {needed}; give both or neither")


def _warn_where_nothing_judges(options: TrainOptions, data: TrainingData) -> None:
    """Say where no picture could be held out, though a share of them was to be."""
    judged = data.validation
    if len(judged.classify_rows) or len(judged.verify_rows) or options.select == "pairs":
        return
    with suppress(ValueError):  # a folder
        if float(options.val) > 0:
            logger.warning(
                "--val %s: nobody has pictures enough for some to be held out, so nothing tells "
                "good epochs from bad ones, and the last is written as the best; give --val DIR, "
                "or --pairs with --select pairs",
                options.val,
            )


def _warn_of_losses_that_never_come_in(
    options: TrainOptions, recipe: Recipe, data: TrainingData
) -> None:
    """Say where `--aux-start auto` cannot find the validation curve flat."""
    if not recipe.aux or options.aux_start != "auto":
        return
    judged = data.validation
    there = len(judged.classify_rows) or len(judged.verify_rows)
    if not (data.pairs if options.select == "pairs" else there):
        reason = "nothing is held out to judge by"
    elif not can_flatten(recipe.epochs):
        reason = f"{recipe.epochs} epochs are too few to tell"
    else:
        return
    logger.warning(
        "the auxiliary losses wait for a flat validation curve, and will not come in: %s; give "
        "--aux-start EPOCH",
        reason,
    )


def _warn_of_judges_seen_before(
    options: TrainOptions, start: Start, names: Sequence[str], data: TrainingData
) -> None:
    """Say where what is held out is, or may be, what the model to start from was trained on.

    Args:
        names: of all people, by the numbers that people who are held out have.
    """
    judged = data.validation
    if judged.bank is not data.bank:  # a folder, which the user chose
        return
    if start.stage == "continue" and len(judged.classify_rows):
        if start.training.get("trained_on") != data.trained_on:
            logger.warning(
                "--from %s may have been trained on pictures that are held out now, as it had "
                "other DATA, --val or --min-pictures; val_accuracy is too high then; give --val "
                "DIR with pictures that it has not seen",
                options.from_model,
            )
    elif start.stage == "finetune" and data.held_out and start.content:
        people = {names[number] for number in np.unique(judged.verify_people)}
        known = people & set(start.content.record.class_names or [])
        if known:
            logger.warning(
                "%d of %d people held out are people that --from %s was trained on, by their "
                "names; val_auc is then not of people whom it never saw; give --val DIR with "
                "others, or --seed and --val of its training",
                len(known),
                len(people),
                options.from_model,
            )


def _warn_of_people_unlearned(classes: Sequence[str] | None, data: TrainingData) -> None:
    """Say how many people of a kept classifier nothing is there of."""
    absent = len(classes or ()) - len(np.unique(data.labels))
    if classes and absent:
        logger.warning(
            "%d of %d people of the classifier of --from have no picture to train on; it unlearns "
            "them, which nothing here judges",
            absent,
            len(classes),
        )


def _require_work_for_norms(recipe: Recipe, sync_bn: str, processes: int) -> None:
    """Refuse batches of which a batch norm would see a single picture.

    Raises:
        InputError: they are.
    """
    least = recipe.batch_size // min(recipe.accumulate, recipe.batch_size // processes)
    if sync_bn == "off":
        least //= processes
    if least < 2:
        raise InputError(
            f"--batch-size {recipe.batch_size}, --accumulate {recipe.accumulate}, {processes} "
            "processes: that is one picture at a time, of which a batch norm learns nothing; give "
            "a larger batch or fewer parts"
        )


def spread_head(options: TrainOptions, recipe: Recipe, classes: int, processes: int) -> bool:
    """Whether each process holds only some classes, or a step trains only some.

    Raises:
        InputError: the options contradict each other.
    """
    sampled = recipe.sample_rate < 1
    if options.head_shards == "auto":
        able = recipe.loss in SHARDED_HEADS and "angle" not in recipe.aux
        return sampled or (able and processes > 1 and classes >= _MANY_CLASSES)
    if options.head_shards == "off" and sampled and processes > 1:
        raise InputError(
            f"--sample-rate {recipe.sample_rate:g} with several processes spreads the classifier "
            "over them; drop --head-shards off"
        )
    return sampled or options.head_shards == "on"
