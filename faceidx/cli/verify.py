"""`faceidx verify`: two pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from faceidx.cli.frame import common_options, progress_bar
from faceidx.cli.model_options import model_options
from faceidx.cli.paths import FILE
from faceidx.cli.pipeline_options import pipeline_options

if TYPE_CHECKING:
    from faceidx.embedding.pipeline import PipelineOptions
    from faceidx.models.open import ModelOptions

# Beyond a million to one the line from scores to likelihood ratios is not worth its digits.
_CERTAIN = 6


@click.command(
    epilog="""\b
Examples:
  faceidx verify a.jpg b.jpg --model run/model.safetensors --threshold t.json
  faceidx verify a.jpg b.jpg --model w600k_r50.onnx --preset insightface --threshold 0.3
  faceidx verify a.jpg b.jpg --model run/model.safetensors --json

The threshold file: faceidx verify-pairs pairs.txt --images photos/ --model
run/model.safetensors --save-threshold t.json --at-fmr 1e-3"""
)
@click.argument("left", type=FILE)
@click.argument("right", type=FILE)
@model_options(required=True)
@pipeline_options()
@click.option(
    "--threshold",
    metavar="T|FILE.json",
    help="Smallest score of a match: a number, or a threshold file of verify-pairs, which also "
    "says what scores mean.",
)
@click.option(
    "--threshold-file", type=FILE, metavar="FILE.json", help="The same, for a file alone."
)
@common_options
def verify(
    left: Path,
    right: Path,
    model: ModelOptions,
    pipeline: PipelineOptions,
    **options: Any,
) -> tuple[dict[str, Any], str]:
    """Say whether the pictures LEFT and RIGHT show one person.

    In photos the faces are found where the record of the model says how it wants them aligned, or
    with --detect; other pictures are taken as faces cut out already. The score is the cosine of
    their embeddings. With a threshold file the answer says how often other people score as high,
    and how often one person scores as low.
    """
    from faceidx.evaluation.one_pair import PairOptions, verify_pair

    with progress_bar() as progress:
        verdict = verify_pair(
            PairOptions(left=left, right=right, model=model, pipeline=pipeline, **options), progress
        )
    result = verdict.as_json()
    return result, _summary(result)


def _summary(result: Mapping[str, Any]) -> str:
    rows = [("score", f"{result['score']:.6f}"), ("verdict", _verdict(result))]
    if result["fmr_at_score"] is not None:
        share = result["fmr_at_score"]
        rows.append(("means", _meaning(share["false_matches"], share["impostor"], "impostor")))
    if result["fnmr_at_score"] is not None:
        share = result["fnmr_at_score"]
        rows.append(("", _meaning(share["false_non_matches"], share["genuine"], "genuine")))
    if result["likelihood_ratio"] is not None:
        ratio = likelihood_ratio(result["likelihood_ratio"]["log10"])
        beyond = " (extrapolated beyond the scores of the list)" if _beyond(result) else ""
        rows.append(("likelihood ratio", f"{ratio}{beyond}"))
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    return "\n".join([*lines, *(f"note: {warning}" for warning in result["warnings"])])


def _verdict(result: Mapping[str, Any]) -> str:
    if result["match"] is None:
        return "none (no threshold)"
    asked = result["target_fmr"]  # the rate reached may be 0, for want of impostor pairs
    rate = "" if asked is None else f", FMR {_percent(asked)}"
    verdict = "same person" if result["match"] else "different people"
    return f"{verdict} (threshold {result['threshold']:.6f}{rate})"


def _meaning(errors: int, trials: int, kind: str) -> str:
    direction = "high" if kind == "impostor" else "low"
    if errors:
        share = _percent(errors / trials)
        return f"at most {errors:,} of {trials:,} {kind} pairs score this {direction} ({share})"
    # The rule of three: after none in n trials, the rate is below 3/n with 95 % confidence.
    bound = _percent(min(1.0, 3 / trials))
    return (
        f"none of {trials:,} {kind} pairs scores this {direction} "
        f"(up to {bound} may: 3/{trials:,}, 95 % confidence)"
    )


def likelihood_ratio(log10: float) -> str:
    """A likelihood ratio in words, with two digits."""
    if abs(log10) > _CERTAIN:
        ratio = f"more than {10**_CERTAIN:,} : 1"
    else:
        value = float(f"{10 ** abs(log10):.2g}")
        if value == 1:
            return "1 : 1: it speaks for neither"
        ratio = f"{value:,.0f} : 1" if value >= 10 else f"{value:g} : 1"
    return f"{ratio} for {'one person' if log10 > 0 else 'two people'}"


def _beyond(result: Mapping[str, Any]) -> bool:
    """Whether the score lies beyond all scores of a kind that the file rests on."""
    shares = (result["fmr_at_score"], result["fnmr_at_score"])
    return any(share is not None and share["at_most"] == 0 for share in shares)


def _percent(rate: float) -> str:
    return f"{100 * rate:.3g} %"
