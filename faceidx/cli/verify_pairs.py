"""`faceidx verify-pairs`: score a list of pairs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import click

from faceidx.cli.frame import FILE, common_options, progress_bar, seed_option
from faceidx.cli.model_options import model_options
from faceidx.cli.pipeline_options import pipeline_options


def _folds(ctx: click.Context, param: click.Parameter, value: str) -> Literal["auto"] | int:
    if value == "auto":
        return "auto"
    if not value.isascii() or not value.isdigit() or int(value) < 2:
        raise click.BadParameter(f"{value!r} is neither auto nor a number from 2", ctx, param)
    return int(value)


@click.command(
    "verify-pairs",
    epilog="""\b
Examples:
  faceidx verify-pairs pairs.txt --embeddings photos.h5
  faceidx verify-pairs pairs.csv --embeddings photos.h5 --missing reject --json
  faceidx verify-pairs pairs.txt --images photos/ --model run/model.safetensors
  faceidx verify-pairs pairs.txt --embeddings photos.h5 --report verdict --pictures photos
  faceidx verify-pairs pairs.txt --embeddings photos.h5 --save-threshold t.json --at-fmr 1e-3
  faceidx verify-pairs scores.csv --fmr 1e-2,1e-4""",
)
@click.argument("pairs", type=FILE)
@click.option("--embeddings", type=FILE, help="Embeddings file of the listed pictures.")
@click.option("--images", type=FILE, metavar="ROOT", help="Embed the listed pictures of a folder.")
@model_options(required=False)
@pipeline_options
@click.option(
    "--format",
    "list_format",
    default="auto",
    show_default=True,
    help="Format of PAIRS: lfw, csv, scores, ...; a wrong name lists them all.",
)
@click.option(
    "--fmr",
    default="1e-1,1e-2,1e-3",
    show_default=True,
    help="False match rates at which the true accept rate is reported.",
)
@click.option(
    "--folds",
    default="auto",
    show_default=True,
    callback=_folds,
    help="Folds of the accuracy: auto takes the list's own, else 10 stratified ones.",
)
@click.option(
    "--missing",
    type=click.Choice(["exclude", "reject"]),
    default="exclude",
    show_default=True,
    help="Leave pairs with a missing picture out, or count each as a non-match.",
)
@click.option("--scores", type=FILE, help="Write left,right,label,score to this CSV file.")
@click.option("--report", type=FILE, help="Write a report to this folder: index.html and more.")
@click.option("--pictures", type=FILE, help="Folder of the pictures: the report shows faces.")
@click.option("--save-threshold", type=FILE, help="Write the threshold at --at-fmr to this file.")
@click.option(
    "--at-fmr",
    type=float,
    help="False match rate that the saved threshold keeps to.  [default: 1e-3]",
)
@click.option("--overwrite", is_flag=True, help="Replace outputs that exist.")
@seed_option
@common_options
def verify_pairs(
    pairs: Path, list_format: str, fmr: str, folds: Literal["auto"] | int, **options: Any
) -> tuple[dict[str, Any], str]:
    """Score the pairs of PAIRS and judge the scores: exact ROC, AUC, EER, TAR at FAR.

    PAIRS is a list of pairs, a folder (CFP, IJB), or a file of scores, which needs no embeddings.
    """
    from faceidx.evaluation import verification

    with progress_bar() as progress:
        verified = verification.verify_pairs(
            verification.VerifyOptions(
                pairs=pairs,
                format=list_format,
                fmr=verification.parse_targets(fmr),
                folds=folds,
                **options,
            ),
            progress,
        )
    result = verified.as_json()
    result |= {name: options[name] for name in ("scores", "report", "save_threshold")}
    return result, summary(result)


def summary(result: Mapping[str, Any]) -> str:
    """The figures as a table for people."""
    from faceidx.escape import for_terminal

    low, high = result["auc_ci"]
    rows = [
        ("pairs", f"{result['pairs']:,}  ({result['genuine']:,} genuine, "
         f"{result['impostor']:,} impostor; {result['format']})"),
        ("missing", _missing(result)),
        ("AUC", f"{result['auc']:.5f}  (95 %: {low:.5f} to {high:.5f}, {result['auc_ci_method']})"),
        ("EER", f"{result['eer']:.3%}"),
        ("accuracy", _accuracy(result)),
        ("threshold", f"{result['threshold']:.6f}  (best accuracy)"),
    ]  # fmt: skip
    rows += [
        (
            f"TAR at FAR {point['target']:g}",
            f"{point['tar']:.3%}  (FAR {point['far']:.3g}, {point['false_matches']:,} false "
            f"matches, threshold {point['threshold']:.6f})",
        )
        for point in result["tar_at_far"]
    ]
    rows += [
        (name.replace("_", " "), str(result[name]))
        for name in ("scores", "report", "save_threshold")
        if result.get(name) is not None
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    lines += [f"note: {warning}" for warning in result["warnings"]]
    return "\n".join(for_terminal(line) for line in lines)


def _accuracy(result: Mapping[str, Any]) -> str:
    if result["accuracy"] is None:
        return "unknown"
    return (
        f"{result['accuracy']:.3%} ± {result['accuracy_std']:.3%}  "
        f"(threshold chosen on the other of {result['folds']} folds)"
    )


def _missing(result: Mapping[str, Any]) -> str:
    if not result["missing"]:
        return "0"
    told = {"exclude": "left out of the figures", "reject": "counted as non-matches"}
    first = result["missing_pairs"][0]
    return (
        f"{result['missing']:,}, {told[result['missing_policy']]}; the first, at line "
        f"{first['line']}: {first['reason']} (all with --json)"
    )
