"""`faceidx eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from faceidx.cli.frame import common_options, progress_bar, seed_option
from faceidx.cli.judging_options import judging_options, refuse_judging_options
from faceidx.cli.model_options import model_options
from faceidx.cli.paths import FILE
from faceidx.cli.pipeline_options import pipeline_options

if TYPE_CHECKING:
    from faceidx.embedding.pipeline import PipelineOptions
    from faceidx.models.open import ModelOptions


@click.command(
    "eval",
    epilog="""\b
Examples:
  faceidx eval --model run/model.safetensors --data people/
  faceidx eval --model run/model.safetensors --pairs pairs.txt --images photos/
  faceidx eval --model run/model.safetensors --pairs lfw.bin --fmr 1e-2 --seed 1""",
)
@model_options(required=True)
@pipeline_options()
@click.option("--data", type=FILE, metavar="DIR", help="Labelled pictures, for the classifier.")
@click.option("--pairs", type=FILE, metavar="PAIRS", help="List of pairs, for the embedding.")
@click.option(
    "--images",
    type=FILE,
    metavar="ROOT",
    help="Where the list's pictures lie; a .bin set carries them.",
)
@judging_options
@seed_option
@common_options
def evaluate(
    model: ModelOptions,
    pipeline: PipelineOptions,
    pairs: Path | None,
    list_format: str,
    fmr: str,
    **options: Any,
) -> tuple[dict[str, Any], str]:
    """Judge a model: accuracy of its classifier, verification by its embedding.

    The verification is that of `verify-pairs PAIRS --images ROOT` with the same options.
    """
    from faceidx.cli.verify_pairs import summary as verification_summary
    from faceidx.evaluation.model_report import EvalOptions
    from faceidx.evaluation.model_report import evaluate as run
    from faceidx.evaluation.verification import parse_targets

    if pairs is None:
        refuse_judging_options(click.get_current_context(), "goes with --pairs FILE; give both")
    wanted = EvalOptions(
        model=model,
        pipeline=pipeline,
        pairs=pairs,
        format=list_format,
        fmr=parse_targets(fmr),
        **options,
    )
    with progress_bar() as progress:
        result = run(wanted, progress)
    parts = []
    if result["classifier"]:
        parts.append(_classifier_summary(result["classifier"]))
    if result["verification"]:
        parts.append(verification_summary(result["verification"]))
    return result, "\n".join(parts)


def _classifier_summary(found: dict[str, Any]) -> str:
    lines = []
    for rank in (1, 5):
        figure = found[f"rank{rank}"]
        if figure["value"] is not None:
            right = figure["trials"] - figure["errors"]
            lines.append(f"rank-{rank} {figure['value']:.2%}  ({right} of {figure['trials']})")
    lines.append(
        f"{found['images']} pictures, {found['failed']} failed, "
        f"{found['unknown_identities']} of people it was not trained on"
    )
    return "\n".join(lines)
