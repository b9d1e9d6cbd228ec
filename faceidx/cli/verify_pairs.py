"""`faceidx verify-pairs`: score a list of pairs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from click.core import ParameterSource

from faceidx.cli.frame import aligned, common_options, progress_bar, seed_option
from faceidx.cli.judging_options import judging_options, refuse_judging_options
from faceidx.cli.model_options import model_options
from faceidx.cli.paths import FILE, OUTPUT, OUTPUT_FOLDER
from faceidx.cli.pipeline_options import pipeline_options, warn_without_model

if TYPE_CHECKING:
    from faceidx.evaluation.comparison import Comparison
    from faceidx.evaluation.group_figures import GroupFigures

# What goes with --compare.
_COMPARED = {
    *("pairs", "compare", "list_format", "fmr", "folds", "seed"),
    *("report", "pictures", "overwrite", "as_json", "config", "verbose"),
}


@click.command(
    "verify-pairs",
    epilog="""\b
Examples:
  faceidx verify-pairs pairs.txt --embeddings photos.h5
  faceidx verify-pairs pairs.csv --embeddings photos.h5 --missing reject --json
  faceidx verify-pairs pairs.txt --images photos/ --model run/model.safetensors
  faceidx verify-pairs lfw.bin --model run/model.safetensors
  faceidx verify-pairs pairs.txt --embeddings photos.h5 --report verdict --pictures photos
  faceidx verify-pairs pairs.txt --embeddings photos.h5 --save-threshold t.json --at-fmr 1e-3
  faceidx verify-pairs pairs.txt --embeddings photos.h5 --groups groups.csv --at-fmr 1e-2
  faceidx verify-pairs test.txt --unlabelled --images . --model face.safetensors --scores out.csv
  faceidx verify-pairs --all-pairs --embeddings photos.h5 --fmr 1e-3,1e-6
  faceidx verify-pairs scores.csv --fmr 1e-2,1e-4
  faceidx verify-pairs --compare old.csv new.csv --report comparison --pictures photos""",
)
@click.argument("pairs", type=FILE, nargs=-1)
@click.option(
    "--compare",
    is_flag=True,
    help="PAIRS are files of scores of the same pairs, one a system: compare each with the first.",
)
@click.option(
    "--all-pairs",
    is_flag=True,
    help="In place of PAIRS: all pictures of --embeddings against all others.",
)
@click.option(
    "--unlabelled",
    is_flag=True,
    help="PAIRS says `left right` a line and no more: write --scores, and judge nothing.",
)
@click.option("--embeddings", type=FILE, help="Embeddings file of the listed pictures.")
@click.option("--images", type=FILE, metavar="ROOT", help="Embed the listed pictures of a folder.")
@model_options(required=False)
@pipeline_options()
@judging_options
@click.option("--scores", type=OUTPUT, help="Write left,right,label,score to this CSV file.")
@click.option(
    "--report", type=OUTPUT_FOLDER, help="Write a report to this folder: index.html and more."
)
@click.option("--pictures", type=FILE, help="Folder of the pictures: the report shows faces.")
@click.option("--save-threshold", type=OUTPUT, help="Write the threshold at --at-fmr to this file.")
@click.option(
    "--at-fmr",
    type=float,
    help="False match rate that the threshold of --save-threshold and --groups keeps to."
    "  [default: 1e-3]",
)
@click.option(
    "--groups",
    type=FILE,
    metavar="FILE.csv",
    help="Both errors of each group at one threshold; columns identity,group or path,group.",
)
@click.option("--overwrite", is_flag=True, help="Replace outputs that exist.")
@seed_option
@common_options
def verify_pairs(
    pairs: tuple[Path, ...],
    compare: bool,
    list_format: str,
    fmr: str,
    folds: Literal["auto"] | int,
    unlabelled: bool,
    **options: Any,
) -> tuple[dict[str, Any], str]:
    """Score the pairs of PAIRS and judge the scores: exact ROC, AUC, EER, TAR at FAR.

    PAIRS is a list of pairs (as LFW, CALFW, CPLFW, AgeDB, VoxCeleb and CMU have them, or a CSV or
    TSV with two columns of names and a label), a folder (CFP, IJB), or a file of scores, which
    needs no embeddings. insightface's .bin sets carry their pictures: for them --model is enough.
    With --all-pairs every picture of an embeddings file is compared with every other. With
    --compare two or more files of scores stand for as many systems.
    """
    from faceidx.evaluation import verification
    from faceidx.evaluation.unlabelled import score_unlabelled

    if compare and unlabelled:
        raise click.UsageError("--compare takes files of scores; drop --unlabelled.")
    if compare:
        kept = {name: options[name] for name in ("report", "pictures", "overwrite", "seed")}
        targets = verification.parse_targets(fmr)
        return _compared(pairs, format=list_format, fmr=targets, folds=folds, **kept)
    context = click.get_current_context()
    if unlabelled:
        refuse_judging_options(context, "does not go with --unlabelled, which judges nothing")
    if options["model"] is None:
        warn_without_model(context)
    with progress_bar() as progress:
        wanted = verification.VerifyOptions(
            pairs=_judged(pairs, options["embeddings"], all_pairs=options["all_pairs"]),
            format=list_format,
            fmr=verification.parse_targets(fmr),
            folds=folds,
            **options,
        )
        if unlabelled:
            scored = score_unlabelled(wanted, progress)
            counts = f"{scored['pairs']:,} pairs, {scored['missing']:,} of them without score"
            told = f"{scored['scores']}: {counts}"
            return scored, told
        verified = verification.verify_pairs(wanted, progress)
    result = verified.as_json()
    result |= {name: options[name] for name in ("scores", "report", "save_threshold")}
    return result, summary(result, verified.groups)


def _judged(pairs: tuple[Path, ...], embeddings: Path | None, *, all_pairs: bool) -> Path:
    """Return what is judged: PAIRS, or with --all-pairs the embeddings."""
    if all_pairs and pairs:
        raise click.UsageError("--all-pairs compares the pictures of --embeddings; give no PAIRS")
    if len(pairs) > 1:
        raise click.UsageError(
            f"{len(pairs)} PAIRS are given; give one, or --compare for files of scores."
        )
    judged = embeddings if all_pairs else next(iter(pairs), None)
    if judged is None:
        lacking = "--all-pairs needs --embeddings FILE.h5" if all_pairs else "PAIRS is missing"
        raise click.UsageError(lacking)
    return judged


def _compared(scores: tuple[Path, ...], **options: Any) -> tuple[dict[str, Any], str]:
    from faceidx.evaluation.comparison import CompareOptions, compare_systems

    context = click.get_current_context()
    for option in context.command.params:
        given = context.get_parameter_source(option.name or "") is not ParameterSource.DEFAULT
        if given and option.name not in _COMPARED:
            raise click.UsageError(
                f"{option.opts[0]} does not go with --compare, which takes files of scores."
            )
    compared = compare_systems(CompareOptions(scores=list(scores), **options))
    result = compared.as_json() | {"report": options["report"]}
    return result, comparison_summary(compared, options["report"])


def comparison_summary(compared: Comparison, report: Path | None = None) -> str:
    """The systems as columns of a table, and each difference in words."""
    from faceidx.escape import for_terminal
    from faceidx.evaluation.comparison_table import difference_in_words, system_rows

    result, (first, *others) = compared.as_json(), compared.systems
    lines = [
        f"{result['pairs']:,} pairs  ({result['genuine']:,} genuine, {result['impostor']:,} "
        f"impostor; matched by {compared.matched_by})",
        *aligned(system_rows(compared)).split("\n"),
    ]
    for number, other in enumerate(others):
        lines += ["", f"{other.name} against {first.name}  ({compared.method})"]
        lines += [f"  {words}" for words in difference_in_words(compared, number)]
    lines += ["", *(f"note: {warning}" for warning in compared.warnings)]
    lines += [] if report is None else [f"report: {report}"]
    return "\n".join(for_terminal(line) for line in lines)


def summary(result: Mapping[str, Any], groups: GroupFigures | None = None) -> str:
    """The figures as a table for people."""
    from faceidx.escape import for_terminal
    from faceidx.evaluation.group_table import HEADER, group_facts, group_rows

    rows = [
        ("pairs", f"{result['pairs']:,}  ({result['genuine']:,} genuine, "
         f"{result['impostor']:,} impostor; {result['format']})"),
        ("pictures", _pictures(result)) if result.get("all_pairs")
        else ("missing", _missing(result)),
    ]  # fmt: skip
    rows += [("figures", "none")] if result["auc"] is None else _figures(result)
    if result.get("other_policy"):
        rows.append(_other_policy(result["other_policy"]))
    if groups is not None:
        rows += group_facts(groups)
    rows += [
        (name.replace("_", " "), str(result[name]))
        for name in ("scores", "report", "save_threshold")
        if result.get(name) is not None
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    if groups is not None:
        lines += ["", *aligned([HEADER, *group_rows(groups)]).split("\n"), ""]
    lines += [f"note: {warning}" for warning in result["warnings"]]
    return "\n".join(for_terminal(line) for line in lines)


def _figures(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    low, high = result["auc_ci"]
    rows = [
        ("AUC", f"{result['auc']:.5f}  (95 %: {low:.5f} to {high:.5f}, {result['auc_ci_method']})"),
        ("EER", f"{result['eer']:.3%}  ({_sure(result['eer_ci'], result['eer_ci_naive'])})"),
        ("accuracy", _accuracy(result)),
        ("threshold", f"{result['threshold']:.6f}  (best accuracy)"),
        ("Cllr", _cllr(result)),
    ]
    return rows + [
        (
            f"TAR at FAR {point['target']:g}",
            f"{point['tar']:.3%}  ({_sure(point['tar_ci'], point['tar_ci_naive'])}; FAR "
            f"{point['far']:.3g}, {point['false_matches']:,} false matches, threshold "
            f"{point['threshold']:.6f})",
        )
        for point in result["tar_at_far"]
    ]


def _accuracy(result: Mapping[str, Any]) -> str:
    if result.get("all_pairs"):
        return "unknown  (all pairs share people, so that they make no folds)"
    if result["accuracy"] is None:
        return "unknown"
    return (
        f"{result['accuracy']:.3%} ± {result['accuracy_std']:.3%}  "
        f"({_sure(result['accuracy_ci'], result['accuracy_ci_naive'])}; threshold chosen on the "
        f"other of {result['folds']} folds)"
    )


def _sure(interval: list[float] | None, naive: list[float]) -> str:
    """The interval to quote, or the naive one where there is none."""
    low, high = interval or naive
    return f"95 %{'' if interval else ' of independent pairs'}: {low:.3%} to {high:.3%}"


def _pictures(result: Mapping[str, Any]) -> str:
    return f"{result['pictures']:,} of {result['identities']:,} people"


def _cllr(result: Mapping[str, Any]) -> str:
    if result["min_cllr"] is None:
        return "unknown"
    best = f"{result['min_cllr']:.4f} at best"
    if result["cllr"] is None:
        return f"{best}  (no calibration can be fitted)"
    return f"{result['cllr']:.4f} after calibration, {best}"


def _other_policy(other: Mapping[str, Any]) -> tuple[str, str]:
    """The figures that the other policy for missing pairs gives, in one line."""
    name = f"with {other['missing_policy']}"
    if other["auc"] is None:
        return name, "no figures: one kind of pairs is lacking, or too few are left"
    told = [f"AUC {other['auc']:.5f}", f"EER {other['eer']:.3%}"]
    told += [] if other["accuracy"] is None else [f"accuracy {other['accuracy']:.3%}"]
    told += [f"TAR {p['tar']:.3%} at FAR {p['target']:g}" for p in other["tar_at_far"]]
    return name, ", ".join(told)


def _missing(result: Mapping[str, Any]) -> str:
    if not result["missing"]:
        return "0"
    told = {"exclude": "left out of the figures", "reject": "counted as non-matches"}
    # Names of pictures are for -v and for what is asked for with --json.
    first = result["missing_pairs"][0]
    names = (first["left"], first["right"])
    why = {p["reason"]: "" for p in result["missing_pictures"] if p["picture"] in names}
    return (
        f"{result['missing']:,}, {told[result['missing_policy']]}; the first, at line "
        f"{first['line']}: {'; '.join(why) or 'a template without pictures'} (all with --json; -v "
        "names them)"
    )
