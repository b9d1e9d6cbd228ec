"""`faceidx classify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from faceidx.cli.frame import common_options, progress_bar
from faceidx.cli.model_options import model_options
from faceidx.cli.paths import FILE, OUTPUT, OUTPUT_FOLDER
from faceidx.cli.pipeline_options import pipeline_options, warn_without_model

if TYPE_CHECKING:
    from faceidx.embedding.pipeline import PipelineOptions
    from faceidx.models.open import ModelOptions


@click.command(
    epilog="""\b
Examples:
  faceidx classify probes.h5 --index gallery --out who.csv
  faceidx classify photos/ --index gallery --model run/model.safetensors --threshold 0.4
  faceidx classify photos/ --model run/model.safetensors
  faceidx classify probes.h5 --index gallery --report who --pictures people/

A threshold for a gallery: faceidx index calibrate gallery --fpir 0.01"""
)
@click.argument("probes", type=FILE)
@click.option("--index", "gallery", type=FILE, metavar="GALLERY", help="Look people up in this.")
@model_options(required=False)
@pipeline_options()
@click.option("--top-k", type=click.IntRange(1), help="People a probe.  [default: 5]")
@click.option(
    "--threshold",
    metavar="T|FILE.json",
    help="Smallest score of a match: a number, or a threshold file of verify-pairs (with a "
    "warning: it is for pairs).  [default: the gallery's calibrated one]",
)
@click.option(
    "--fusion",
    type=click.Choice(["best", "mean", "vote"]),
    help="A person's score: best picture, mean template, or the vote of the nearest pictures.  "
    "[default: that of the calibrated threshold, else best]",
)
@click.option(
    "--neighbours",
    type=click.IntRange(1),
    help="With --fusion vote: nearest pictures that vote.  [default: as for --fusion, else 5]",
)
@click.option("--root", type=FILE, help="For a list: the folder that its paths are relative to.")
@click.option(
    "--out",
    type=OUTPUT,
    metavar="FILE.csv",
    help="Write every answer to this file: .csv, .jsonl, or .txt (a table).",
)
@click.option(
    "--report", type=OUTPUT_FOLDER, help="Write a page to this folder: probes beside faces."
)
@click.option("--pictures", type=FILE, help="Folder of the pictures: the report shows faces.")
@click.option(
    "--gallery-pictures",
    type=FILE,
    help="Folder of the gallery's pictures.  [default: that of --pictures]",
)
@click.option(
    "--annotate", type=OUTPUT_FOLDER, metavar="DIR", help="Write photos with boxes and names."
)
@click.option("--overwrite", is_flag=True, help="Replace an output that exists.")
@common_options
def classify(
    probes: Path,
    gallery: Path | None,
    model: ModelOptions | None,
    pipeline: PipelineOptions,
    **options: Any,
) -> tuple[dict[str, Any], str]:
    """Say who is in each picture of PROBES, or `unknown`.

    PROBES are pictures or an embeddings file. With --index each is looked up among the people of a
    gallery; without, the classifier of --model chooses among those it was trained on.
    """
    from faceidx.embedding.store import is_embeddings

    if gallery is None and model is None:
        raise click.UsageError("give --index GALLERY, or the --model whose classifier is to answer")
    if model is None:
        warn_without_model(click.get_current_context())
    if options["root"] is not None and is_embeddings(probes):
        raise click.UsageError(f"{probes} is no list of pictures (.txt, .csv); leave out --root")
    with progress_bar() as progress:
        if gallery is None:
            from faceidx.evaluation.classifier import NWayOptions, classify_n_way

            assert model is not None
            options = _n_way_options(options)
            result, first = classify_n_way(
                NWayOptions(probes=probes, model=model, pipeline=pipeline, **options), progress
            )
        else:
            from faceidx.gallery.lookup import LookupOptions, look_up

            result, first = look_up(
                LookupOptions(
                    probes=probes, gallery=gallery, model=model, pipeline=pipeline, **options
                ),
                progress,
            )
    return result, _summary(result, [] if result["out"] else first)


def _n_way_options(options: dict[str, Any]) -> dict[str, Any]:
    """Options of the classifier; those of a gallery make no sense there."""
    of_gallery = ("fusion", "neighbours", "report", "pictures", "gallery_pictures", "annotate")
    for name in of_gallery:
        if options[name] is not None:
            raise click.UsageError(f"--{name.replace('_', '-')} goes with --index GALLERY")
    kept = {name: value for name, value in options.items() if name not in of_gallery}
    if kept["threshold"] is not None:
        try:
            kept["threshold"] = float(kept["threshold"])
        except ValueError:
            raise click.UsageError(
                f"--threshold {kept['threshold']} is no number: without --index it is a probability"
            ) from None
    return kept


def _summary(result: dict[str, Any], rows: list[Any]) -> str:
    from faceidx.escape import for_terminal
    from faceidx.tables import FIRST

    lines = [
        f"{for_terminal(row.path)}  {row.rank}  {for_terminal(row.identity)}  {row.score:.4f}  "
        f"{row.decision}"
        for row in rows
        if row.rank is not None
    ]
    if len(rows) == FIRST:
        lines.append(f"(the first {FIRST} answers; --out FILE writes all)")
    lines.append(
        f"{result['probes']} probes: {result['matched']} matched, {result['unknown']} unknown"
    )
    if result["threshold"] is not None:
        lines[-1] += f" at threshold {result['threshold']:.4f}"
    if result["failed"]:
        lines.append(f"{result['failed']} of them could not be embedded")
    for name in ("rank1", "rank5", "fpir", "fnir"):
        figure = result.get(name)
        if figure and figure["value"] is not None:
            lines.append(
                f"{name} {figure['value']:.2%} (of {figure['trials']}{_sure(result, name)})"
            )
    if result.get("report"):
        lines.append(f"report: {for_terminal(str(result['report']))}")
    if result["out"]:
        lines.append(f"all answers: {result['out']}")
    return "\n".join(lines)


def _sure(result: dict[str, Any], name: str) -> str:
    if "identification" not in result:  # the N-way answer of a classifier
        return ""
    low, high = result["identification"]["intervals"][name]
    return f"; 95 % {low:.2%} to {high:.2%}"
