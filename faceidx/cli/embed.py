"""`faceidx embed`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from faceidx.cli.frame import EXIT_STRICT, common_options, progress_bar
from faceidx.cli.model_options import model_options
from faceidx.cli.paths import FILE, OUTPUT, OUTPUT_FOLDER
from faceidx.cli.pipeline_options import pipeline_options, warn_of_useless

if TYPE_CHECKING:
    from faceidx.embedding.pipeline import PipelineOptions
    from faceidx.models.open import ModelOptions


logger = logging.getLogger(__name__)

# Where the time goes, as in the result and for people.
_STAGES = {
    "open": "opening the model",
    "decode": "waiting for decoders",
    "model": "the model",
    "write": "waiting for the disk",
}


@click.command(
    epilog="""\b
Examples:
  faceidx embed photos/ --model run/model.safetensors --out photos.h5
  faceidx embed faces.csv --root /data --model m.safetensors --out faces.h5 --flip
  faceidx embed 'shards/{000..009}.tar' --model m.safetensors --out faces.h5
  faceidx embed crops/ --model w600k_r50.onnx --preset insightface --out crops.h5
  faceidx embed photos/ --model run/model.safetensors --out photos.h5 --detect largest
  faceidx embed photos/ --model run/model.safetensors --out photos.h5 --update

The same command goes on after an interruption."""
)
@click.argument("images", type=FILE)
@click.option("--out", type=OUTPUT, required=True, metavar="FILE.h5", help="Where embeddings go.")
@model_options(required=True)
@pipeline_options(detect="none")
@click.option("--root", type=FILE, help="For a list: the folder that its paths are relative to.")
@click.option(
    "--keep-identity",
    is_flag=True,
    help="With --detect all: every face gets its picture's identity.",
)
@click.option("--save-crops", type=OUTPUT_FOLDER, metavar="DIR", help="Write every face, cut out.")
@click.option(
    "--annotate", type=OUTPUT_FOLDER, metavar="DIR", help="Write photos with boxes and names."
)
@click.option(
    "--contact-sheet", type=OUTPUT, metavar="FILE.png", help="The least sure faces on a sheet."
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16"]),
    help="How embeddings are stored: float32, or as the file that is brought up to date has it.",
)
@click.option("--follow-links", is_flag=True, help="Follow links to folders.")
@click.option("--update", is_flag=True, help="Embed what is new or changed, drop what is gone.")
@click.option("--retry-failed", is_flag=True, help="Try pictures again that failed.")
@click.option("--overwrite", is_flag=True, help="Replace a finished output.")
@click.option("--strict", is_flag=True, help=f"Exit with {EXIT_STRICT} when a picture failed.")
@common_options
def embed(
    images: Path,
    model: ModelOptions,
    pipeline: PipelineOptions,
    strict: bool,
    keep_identity: bool,
    save_crops: Path | None,
    annotate: Path | None,
    contact_sheet: Path | None,
    **options: Any,
) -> tuple[dict[str, Any], str, int]:
    """Embed pictures into an HDF5 file.

    IMAGES is a folder (searched recursively; each picture's parent folder is its identity), one
    picture, a list (.txt with a path a line, or .csv with the header path[,identity]), tar shards
    named as WebDataset does (one .tar, or 'shards/{000..009}.tar' in quotes), or a .bin set of
    insightface, whose pictures are named 0, 1, ...

    Pictures are taken as faces that are cut out and aligned, unless --detect says which faces are
    to be found in them: the largest, the most central, or all, named KEY#1, KEY#2, ...
    """
    from faceidx.embedding.embed import EmbedOptions
    from faceidx.embedding.embed import embed as run
    from faceidx.embedding.views import Views

    if pipeline.detect == "none":
        warn_of_useless(click.get_current_context())
    if keep_identity and pipeline.detect != "all":
        logger.warning("--keep-identity is of no use without --detect all")
    pipeline.keep_identity = keep_identity
    with progress_bar() as progress:
        views = Views(crops=save_crops, annotated=annotate, sheet=contact_sheet)
        wanted = EmbedOptions(images=images, model=model, pipeline=pipeline, views=views, **options)
        result = run(wanted, progress)
    summary = "\n".join(filter(None, [_outcome(result), _where_the_time_went(result)]))
    return result, summary, EXIT_STRICT if strict and result["failed"] else 0


def _outcome(result: Mapping[str, Any]) -> str:
    left = f"{result['failed']} failed, {result['ignored']} other files ignored"
    if result["no_face"]:
        left = f"{result['no_face']} without a face, {left}"
    line = f"{result['embedded']} of {result['images']} pictures embedded into {result['out']}"
    line += f" ({left})"
    if result["kept"] or result["removed"]:
        line += f", {result['kept']} of them unchanged, {result['removed']} removed"
    return line


def _where_the_time_went(result: Mapping[str, Any]) -> str:
    """So that a user sees what to buy: more cores or a faster disk, or a GPU."""
    waited = result["waited"]
    total = sum(waited.values())
    if not result["images_per_second"] or not total:
        return ""
    shares = ", ".join(f"{what} {waited[name] / total:.0%}" for name, what in _STAGES.items())
    fidelity = result["fidelity"]
    return (
        f"{result['images_per_second']:.0f} images/s with {result['engine']} in "
        f"{result['precision']} (least cosine to float32 {fidelity['least']:.5f}); "
        f"time went to: {shares}"
    )
