"""Pairs whose labels are not known, as those of a test that is to be handed in: scores alone."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from faceidx.errors import InputError
from faceidx.evaluation.figures import no_figures
from faceidx.evaluation.lists.gathered import Pairs
from faceidx.evaluation.lists.labelled import spaced_pictures
from faceidx.evaluation.lists.lines import parse_lines, split
from faceidx.evaluation.lists.pairs import PairList
from faceidx.evaluation.scoring import score_pairs
from faceidx.evaluation.verdict import VerifyOptions
from faceidx.evaluation.verification import check_options, embeddings_of
from faceidx.files import together, whole_file
from faceidx.progress import ProgressCallback, silent
from faceidx.tables import write_csv


def score_unlabelled(options: VerifyOptions, progress: ProgressCallback = silent) -> dict[str, Any]:
    """Score every pair of a list and write `left,right,label,score`, the label empty.

    A pair with a missing picture keeps its line, without a score.

    Returns:
        `pairs, missing, missing_pairs, format, scores`; what only labels could give is None.

    Raises:
        InputError: the list, the embeddings or the options are wrong, or an output exists.
    """
    if options.scores is None:
        raise InputError("--unlabelled gives scores and no figures; say where with --scores FILE")
    judging = (options.report, options.save_threshold, options.groups, options.pictures)
    if options.all_pairs or any(option is not None for option in judging):
        raise InputError(
            "--unlabelled gives scores alone; drop --all-pairs, --report, --save-threshold, "
            "--groups and --pictures"
        )
    check_options(options)
    listed = read_unlabelled(options.pairs)
    with ExitStack() as stack:
        known = embeddings_of(listed, options, stack, progress)
        if known is None:
            raise InputError(
                f"{listed.path} is a list of pairs; give --embeddings FILE.h5, or --images ROOT "
                "--model MODEL"
            )
        scored = score_pairs(listed, known, progress)
    rows = (
        (listed.keys[left], listed.keys[right], "", float(score) if found else "")
        for left, right, score, found in zip(
            listed.left, listed.right, scored.scores, scored.found, strict=True
        )
    )
    with (
        together(options.scores),
        whole_file(options.scores) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        write_csv(file, ("left", "right", "label", "score"), rows)
    missing = [{k: v for k, v in asdict(m).items() if k != "genuine"} for m in scored.missing]
    return {
        "pairs": len(listed.left),
        "missing": len(missing),
        "missing_pairs": missing,
        "format": listed.format,
        **dict.fromkeys(("genuine", "impostor")),
        **no_figures(options.fmr),
        "scores": options.scores,
    }


def read_unlabelled(path: Path) -> PairList:
    """Read lines `left right`; `genuine` means nothing then.

    Raises:
        ListError: a line is not understood.
    """
    pairs = Pairs()
    parse = parse_lines(path, lambda line: split(line, 2) or spaced_pictures(line), "`left right`")
    for line, (left, right) in parse:
        pairs.add(line, left, right, False)
    return pairs.finish(path, "unlabelled")
