"""`faceidx align`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from faceidx.cli.frame import EXIT_STRICT, common_options, progress_bar
from faceidx.cli.model_options import TEMPLATES
from faceidx.cli.paths import FILE, OUTPUT, OUTPUT_FOLDER
from faceidx.cli.pipeline_options import pipeline_options

if TYPE_CHECKING:
    from faceidx.embedding.pipeline import PipelineOptions


@click.command(
    epilog="""\b
Examples:
  faceidx align photos/ --out faces
  faceidx align lfw/ --out lfw-112 --detect central --contact-sheet least-sure.png
  faceidx align albums/ --out faces --detect all --min-face 60 --min-score 0.8

The same command goes on after an interruption."""
)
@click.argument("images", type=FILE)
@click.option("--out", type=OUTPUT_FOLDER, required=True, metavar="DIR", help="Where the faces go.")
@pipeline_options(detect="largest", model=False)
@click.option(
    "--image-size",
    type=click.IntRange(16),
    default=112,
    show_default=True,
    help="Height of the crops.",
)
@click.option("--image-width", type=click.IntRange(16), help="Their width.  [default: the height]")
@click.option(
    "--template",
    type=click.Choice(TEMPLATES),
    help="Alignment.  [default: facenet at 160 x 160, else arcface]",
)
@click.option("--root", type=FILE, help="For a list: the folder that its paths are relative to.")
@click.option("--follow-links", is_flag=True, help="Follow links to folders.")
@click.option(
    "--contact-sheet", type=OUTPUT, metavar="FILE.png", help="The least sure faces on a sheet."
)
@click.option("--overwrite", is_flag=True, help="Replace a finished output.")
@click.option("--strict", is_flag=True, help=f"Exit with {EXIT_STRICT} when a picture failed.")
@common_options
def align(
    pipeline: PipelineOptions,
    image_size: int,
    image_width: int | None,
    contact_sheet: Path | None,
    strict: bool,
    **options: Any,
) -> tuple[dict[str, Any], str, int]:
    """Find the faces of photos and write them, aligned, to train on or to embed.

    A crop lies under the path of its photo, so that folders stay people and lists of pairs still
    name it; with --detect all the faces of a.jpg are a#1.jpg, a#2.jpg, ..., the largest first.
    align.csv says where each was found, left-out.csv which photos gave none and why.
    """
    from faceidx.embedding.align import AlignOptions
    from faceidx.embedding.align import align as run

    with progress_bar() as progress:
        result = run(
            AlignOptions(
                pipeline=pipeline,
                size=(image_size, image_width or image_size),
                sheet=contact_sheet,
                **options,
            ),
            progress,
        )
    summary = (
        f"{result['faces']} faces of {result['images']} pictures written to {result['out']} "
        f"({result['no_face']} without a face, {result['failed']} failed, {result['ignored']} "
        f"other files ignored), {result['images_per_second']:.0f} images/s"
    )
    return result, summary, EXIT_STRICT if strict and result["failed"] else 0
