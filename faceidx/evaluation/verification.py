"""`verify-pairs` from the list to the verdict: scores, figures, and the files made of them."""

from __future__ import annotations

import math
from contextlib import ExitStack
from typing import Any

import numpy as np

from faceidx.embedding.store import EmbeddingFile, is_embeddings
from faceidx.errors import InputError
from faceidx.evaluation.all_pairs import judge_all_pairs, require_fitting
from faceidx.evaluation.bootstrap import Units, bootstrap_fits, units_among
from faceidx.evaluation.figures import Figures, doubts, figures_of, no_figures
from faceidx.evaluation.group_figures import GroupFigures, group_figures, group_warnings
from faceidx.evaluation.groups import GroupTable, members_of, read_groups
from faceidx.evaluation.listed_pictures import embed_listed
from faceidx.evaluation.lists import read_list
from faceidx.evaluation.lists.pairs import PairList, ScoreList
from faceidx.evaluation.report_folder import check_pictures, check_report
from faceidx.evaluation.roc import OperatingPoint, Roc, tar_at_far
from faceidx.evaluation.scoring import (
    KnownEmbeddings,
    MissingPair,
    known_embeddings,
    score_pairs,
    units_of_pairs,
)
from faceidx.evaluation.threshold import write_threshold
from faceidx.evaluation.verdict import (
    Judged,
    MissingPolicy,
    OneClass,
    Verification,
    VerifyOptions,
    write_scores,
)
from faceidx.files import refuse_existing, require_parent, together, whole_file
from faceidx.progress import ProgressCallback, silent


def verify_pairs(
    options: VerifyOptions,
    progress: ProgressCallback = silent,
    known: KnownEmbeddings | None = None,
) -> Verification | OneClass:
    """Score a list, compute its figures and write what was asked for.

    Args:
        known: embeddings held elsewhere, in place of `options.embeddings`.

    Raises:
        InputError: the list, the embeddings or the options are wrong, an output exists, or one is
            asked for that a list of one kind of pairs cannot give.
    """
    check_options(options)
    if options.all_pairs:
        all_pairs = judge_all_pairs(options, progress)
        _write(all_pairs, options)
        return all_pairs
    if options.pairs.exists() and is_embeddings(options.pairs):
        raise InputError(
            f"{options.pairs} is an embeddings file; give it by --embeddings, and a list of pairs "
            "or --all-pairs"
        )
    groups = None if options.groups is None else read_groups(options.groups)
    listed = read_list(options.pairs, format=options.format)
    with ExitStack() as stack:
        known = known or embeddings_of(listed, options, stack, progress)
        verification = judge(listed, known, options, progress, groups)
    _write(verification, options)
    return verification


def embeddings_of(
    listed: PairList | ScoreList,
    options: VerifyOptions,
    stack: ExitStack,
    progress: ProgressCallback,
) -> KnownEmbeddings | None:
    """The embeddings of a list's pictures, as the options say; None where they name none.

    Args:
        stack: closes the file that they are read from.
    """
    if options.embeddings is not None:
        return known_embeddings(stack.enter_context(EmbeddingFile(options.embeddings)))
    if options.model is not None:
        return embed_listed(listed, options.images, options.model, options.pipeline, progress)
    return None


def judge(
    listed: PairList | ScoreList,
    known: KnownEmbeddings | None,
    options: VerifyOptions,
    progress: ProgressCallback = silent,
    groups: GroupTable | None = None,
) -> Verification | OneClass:
    """Score a list that was read already and compute its figures; write nothing.

    Args:
        groups: whose figures are wanted apart.

    Raises:
        InputError: embeddings are lacking or not needed, the figures cannot be computed, or what
            was asked for needs both genuine and impostor pairs and one kind is lacking.
    """
    people: list[str] | None = None
    if isinstance(listed, ScoreList):
        if known is not None:
            raise InputError(f"{listed.path} is a file of scores; it needs no embeddings")
        missing, missing_pictures, pictures, way = [], {}, None, ""
        scores, found, units = listed.scores, np.ones(len(listed.scores), bool), named_units(listed)
    else:
        if known is None:
            raise InputError(
                f"{listed.path} is a list of pairs; give --embeddings FILE.h5, or "
                + ("--model MODEL" if listed.pictures else "--images ROOT --model MODEL")
            )
        scored = score_pairs(listed, known, progress)
        missing, missing_pictures = scored.missing, scored.missing_pictures
        pictures, people, way = scored.pictures, scored.people, scored.way.told()
        scores, found, units = scored.scores, scored.found, scored.units

    other: MissingPolicy = "reject" if options.missing == "exclude" else "exclude"
    beside = _other_policy(other, scores, found, listed, units, options) if missing else None
    judged = _apply(options.missing, scores, found, listed.genuine)
    facts: dict[str, Any] = {
        "listed": listed,
        "judged": judged,
        "policy": options.missing,
        "missing": missing,
        "missing_pictures": missing_pictures,
        "pictures": pictures,
        "other_policy": beside,
        "origin": known.origin if known else None,
        "embedded_here": options.model is not None,
    }
    told = [f"the names of the list were found {way}"] if way else []
    if lacking := _lacking(judged, listed):
        _refuse_what_needs_both(options, lacking)
        return OneClass(targets=options.fmr, warnings=[*told, lacking], **facts)
    figures, roc = _figures(judged, listed, units, options)
    named = units is not None or bool(isinstance(listed, ScoreList) and listed.left)
    by_group = None if groups is None else _by_group(groups, people, listed, judged, roc, options)
    return Verification(
        figures=figures,
        roc=roc,
        groups=by_group,
        warnings=told
        + _warnings(figures, roc, missing, missing_pictures, named, options)
        + (group_warnings(by_group) if by_group else []),
        **facts,
    )


def parse_targets(text: str) -> tuple[float, ...]:
    """Parse false match rates such as `1e-1,1e-2,1e-3`; the order is kept, repeats are not.

    Raises:
        InputError: one of them is no number from 0 to 1, or there is none.
    """
    targets = []
    for part in text.split(","):
        try:
            target = float(part)
        except ValueError:
            target = math.nan
        targets.append(require_rate(target, part.strip(), "--fmr"))
    return tuple(dict.fromkeys(targets))


def require_rate(value: float, text: str, option: str) -> float:
    """Return a rate that an option gave; raise `InputError` unless it is from 0 to 1."""
    if not 0 <= value <= 1:
        raise InputError(f"{option}: {text!r} is no rate from 0 to 1")
    return value


def check_options(options: VerifyOptions) -> None:
    """Refuse wrong options before any work is done."""
    if options.all_pairs:
        require_fitting(options)
    for target in options.fmr:
        require_rate(target, str(target), "--fmr")
    if options.images is not None and options.model is None:
        raise InputError("--images ROOT needs --model MODEL, which embeds its pictures")
    if options.model is not None and options.embeddings is not None:
        raise InputError("give --embeddings, or --model and --images, not both")
    if options.at_fmr is not None:
        require_rate(options.at_fmr, str(options.at_fmr), "--at-fmr")
        if options.save_threshold is None and options.groups is None:
            raise InputError(
                "--at-fmr goes with --save-threshold FILE.json or --groups FILE.csv; give one"
            )
    check_pictures(options.pictures, options.report)
    outputs = [o for o in (options.scores, options.report, options.save_threshold) if o is not None]
    for output in outputs:
        refuse_existing(output, overwrite=options.overwrite)
        require_parent(output)
        if output.is_dir() and output is not options.report:
            raise InputError(f"{output} is a folder; give a file")
    given = (options.pairs, options.embeddings, options.pictures, options.groups)
    inputs = [path for path in given if path is not None]
    taken = {path.resolve() for path in inputs}
    for output in outputs:
        if output.resolve() in taken:
            raise InputError(f"{output} is given twice; every output must be a path of its own")
        taken.add(output.resolve())
    if options.report is not None:
        check_report(options.report, outputs + inputs)


def named_units(listed: ScoreList) -> Units | None:
    """Units of scores whose pictures are named; None where they are not, or too many to matter."""
    if not listed.left or not listed.right or not bootstrap_fits(len(listed.scores)):
        return None
    if listed.people is not None:
        return Units(left=listed.people[0], right=listed.people[1], kind="identities")
    names, left, right = listed.numbered()
    return units_of_pairs(names, [""] * len(names), left, right, listed.genuine)


def _apply(
    policy: MissingPolicy, scores: np.ndarray, found: np.ndarray, genuine: np.ndarray
) -> Judged:
    """Leave missing pairs out, or reject them; a score below all others then stands for theirs."""
    if found.all():
        return Judged(scores=scores, genuine=genuine, index=np.arange(len(scores)), rejected=~found)
    if policy == "exclude":
        index = np.flatnonzero(found)
        return Judged(
            scores=scores[index], genuine=genuine[index], index=index, rejected=~found[index]
        )
    below = np.nextafter(scores[found].min(), scores.dtype.type(-np.inf))
    return Judged(
        scores=np.where(found, scores, below),
        genuine=genuine,
        index=np.arange(len(scores)),
        rejected=~found,
    )


def _lacking(judged: Judged, listed: PairList | ScoreList) -> str:
    """Say which kind of pairs there is none of to judge; empty where there are both, or none."""
    genuine = np.count_nonzero(judged.genuine)
    if 0 < genuine < len(judged.genuine) or not len(judged.genuine):
        return ""
    kind, wanted = ("impostor", False) if genuine else ("genuine", True)
    number = int(np.count_nonzero(listed.genuine == wanted))
    why = f"no {kind} pair is in the list; the figures need some"
    if number:
        why = (
            f"all {number:,} {kind} pairs are left out, each with a missing picture; the figures "
            "need some (--missing reject counts them as non-matches)"
        )
    return why


def _refuse_what_needs_both(options: VerifyOptions, lacking: str) -> None:
    """Raise `InputError` where an output is wanted that rests on the curve."""
    for name in ("save_threshold", "report", "groups"):
        if getattr(options, name) is not None:
            raise InputError(f"{options.pairs}: {lacking}; drop --{name.replace('_', '-')}")


def _figures(
    judged: Judged, listed: PairList | ScoreList, units: Units | None, options: VerifyOptions
) -> tuple[Figures, Roc]:
    # All pairs of a long list are judged where they are, without a copy of every column.
    index: np.ndarray | slice = slice(None)
    if len(judged.index) < len(listed.genuine):
        index = judged.index
        fits = units is not None and bootstrap_fits(len(index))
        units = units_among(units, index) if units and fits else None
    try:
        return figures_of(
            judged.scores,
            judged.genuine,
            targets=options.fmr,
            folds=options.folds,
            own_folds=None if listed.folds is None else listed.folds[index],
            units=units,
            rejected=judged.rejected,
            seed=options.seed,
        )
    except InputError as error:
        left_out = len(listed.genuine) - len(judged.index)
        also = f" ({left_out} pairs with a missing picture are left out)" if left_out else ""
        raise InputError(f"{listed.path}: {error}{also}") from None


def _other_policy(
    policy: MissingPolicy,
    scores: np.ndarray,
    found: np.ndarray,
    listed: PairList | ScoreList,
    units: Units | None,
    options: VerifyOptions,
) -> dict[str, Any]:
    """Figures under the policy that was not asked for; null where they cannot be computed."""
    judged = _apply(policy, scores, found, listed.genuine)
    try:
        fields = _figures(judged, listed, units, options)[0].as_json()
    except InputError:  # without the missing pairs one class is empty, or too small for the folds
        fields = no_figures(options.fmr)
    return {"missing_policy": policy, "judged": len(judged.scores), **fields}


def _by_group(
    groups: GroupTable,
    people: list[str] | None,
    listed: PairList | ScoreList,
    judged: Judged,
    roc: Roc,
    options: VerifyOptions,
) -> GroupFigures:
    return group_figures(
        members_of(groups, listed, people),
        _chosen_point(roc, options),
        scores=judged.scores,
        genuine=judged.genuine,
        index=judged.index,
        rejected=judged.rejected,
    )


def _chosen_point(roc: Roc, options: VerifyOptions) -> OperatingPoint:
    """The threshold that is saved, and that groups are judged at."""
    return tar_at_far(roc, options.chosen_rates)[0]


def _warnings(
    figures: Figures,
    roc: Roc,
    missing: list[MissingPair],
    missing_pictures: dict[str, str],
    named: bool,
    options: VerifyOptions,
) -> list[str]:
    warnings = doubts(figures, roc, also=options.chosen_rates)
    if missing_pictures and not missing:
        warnings.append(
            f"{len(missing_pictures)} pictures of templates are missing; "
            "their templates are made from the others"
        )
    if named and figures.intervals.method is None:
        warnings.append(
            "there are too many pairs, or too few people, to draw people for the confidence "
            "interval; it takes the pairs for independent and is too narrow"
        )
    if figures.folds is None:
        warnings.append("a class has fewer than two pairs: accuracy by folds cannot be computed")
    return warnings


def _write(verification: Verification | OneClass, options: VerifyOptions) -> None:
    with together(options.scores, options.save_threshold, options.report):
        _write_each(verification, options)


def _write_each(verification: Verification | OneClass, options: VerifyOptions) -> None:
    if options.scores is not None:
        with whole_file(options.scores) as temporary:
            write_scores(temporary, verification)
    if isinstance(verification, OneClass):
        return
    if options.save_threshold is not None:
        point = _chosen_point(verification.roc, options)
        write_threshold(
            options.save_threshold,
            point,
            options.pairs,
            verification.origin,
            roc=verification.roc,
            calibration=verification.figures.calibration,
            min_cllr=verification.figures.min_cllr,
        )
    if options.report is not None:
        from faceidx.evaluation.report import write_report  # loads matplotlib

        write_report(options.report, verification, options)
