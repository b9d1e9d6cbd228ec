"""Every picture of an embeddings file against every other: exact figures in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from faceidx.embedding.store import EmbeddingFile
from faceidx.errors import InputError
from faceidx.evaluation.all_scores import AllScores, score_all_pairs
from faceidx.evaluation.figures import Figures, doubts, figures_of_curve
from faceidx.evaluation.intervals import naive_intervals
from faceidx.evaluation.lists.pairs import PairList
from faceidx.evaluation.people_interval import interval_of_people
from faceidx.evaluation.roc import Roc, counted_curve
from faceidx.evaluation.scoring import known_embeddings
from faceidx.evaluation.verdict import Judged, Verification, VerifyOptions
from faceidx.progress import ProgressCallback, silent

FORMAT = "all-pairs"
# The normal approximation of the AUC's interval takes many people for granted.
_ENOUGH_PEOPLE = 30


@dataclass(frozen=True, kw_only=True)
class AllPairs(Verification):
    """The verdict on all pairs of a file.

    `listed` and `judged` hold the hardest pairs of both classes only; `figures` and `roc` rest on
    all pairs.
    """

    number_of_pictures: int
    """Those whose person is known."""
    number_of_people: int
    without_identity: list[str]
    """Pictures that are in no pair, since nobody knows who they show."""

    def counts(self) -> tuple[int, int]:
        """Number of genuine and of impostor pairs."""
        return self.roc.genuine, self.roc.impostor

    def as_json(self) -> dict[str, Any]:
        """The fields of `--json`."""
        return {
            **super().as_json(),
            "judged": sum(self.counts()),
            "all_pairs": True,
            "pictures": self.number_of_pictures,
            "identities": self.number_of_people,
            "without_identity": len(self.without_identity),
            "pictures_without_identity": self.without_identity,
        }


def judge_all_pairs(options: VerifyOptions, progress: ProgressCallback = silent) -> AllPairs:
    """Score every unordered pair of pictures whose people are known; write nothing.

    Scores are counted in steps of 2^-23, so that memory does not grow with the number of pairs.

    Raises:
        InputError: an option that a list of pairs is needed for was given, or the people known do
            not make both genuine and impostor pairs.
    """
    path = require_fitting(options)
    with EmbeddingFile(path) as file:
        keys, identities = file.paths(), file.identities()
        people = _numbered(identities)
        _require_both(path, people)
        known = known_embeddings(file)
        scores = score_all_pairs(file, people, progress)
        roc = counted_curve(scores.genuine, scores.impostor)
        interval = interval_of_people(roc, known, people, seed=options.seed)
    naive = naive_intervals(roc, options.fmr)
    intervals = replace(
        naive, method="jackknife-identities", auc=naive.auc._replace(interval=interval)
    )
    figures = figures_of_curve(roc, intervals, targets=options.fmr)
    listed, judged = _hardest(path, keys, scores)
    without = [key for key, identity in zip(keys, identities, strict=True) if not identity]
    return AllPairs(
        listed=listed,
        judged=judged,
        figures=figures,
        roc=roc,
        policy="exclude",
        missing=[],
        missing_pictures=known.reasons,
        pictures=listed.keys,
        other_policy=None,
        origin=known.origin,
        warnings=_warnings(figures, roc, people, without, known.reasons, options),
        number_of_pictures=len(keys) - len(without),
        number_of_people=int(people.max()) + 1,
        without_identity=without,
    )


def require_fitting(options: VerifyOptions) -> Path:
    """Return the embeddings file; raise `InputError` where an option needs a list of pairs."""
    if options.embeddings is None:
        raise InputError("--all-pairs needs --embeddings FILE.h5, whose pictures it compares")
    for wrong, option, why in (
        (options.images is not None or options.model is not None, "--images and --model",
         "embed the pictures first"),
        (options.scores is not None, "--scores", "there are too many pairs to list"),
        (options.groups is not None, "--groups", "groups need a list of pairs"),
        (options.missing != "exclude", f"--missing {options.missing}",
         "only embedded pictures make pairs"),
        (options.folds != "auto", "--folds", "all pairs share people and cannot be dealt to folds"),
        (options.format not in ("auto", FORMAT), f"--format {options.format}", "no list is read"),
    ):  # fmt: skip
        if wrong:
            raise InputError(f"--all-pairs does not go with {option}: {why}")
    return options.embeddings


def _numbered(identities: list[str]) -> np.ndarray:
    """Number the people from 0, -1 where unknown."""
    known = np.array([bool(identity) for identity in identities], dtype=bool)
    people = np.full(len(identities), -1, dtype=np.int64)
    if known.any():
        _, numbers = np.unique(np.array(identities, dtype=object)[known], return_inverse=True)
        people[known] = numbers
    return people


def _require_both(path: Path, people: np.ndarray) -> None:
    """Raise before any work is done unless there will be genuine and impostor pairs."""
    pictures = np.bincount(people[people >= 0])
    if not len(pictures):
        raise InputError(
            f"{path} knows no identity of its {len(people)} pictures; --all-pairs needs them to "
            "tell genuine pairs from impostor pairs: embed a folder with one folder a person"
        )
    if len(pictures) == 1:
        raise InputError(
            f"{path}: all pictures with an identity are of one person; --all-pairs needs two or "
            "more for impostor pairs"
        )
    if pictures.max() == 1:
        raise InputError(
            f"{path}: no identity has two pictures; --all-pairs needs some for genuine pairs"
        )


def _hardest(path: Path, keys: list[str], scores: AllScores) -> tuple[PairList, Judged]:
    """Make a list of the hardest pairs, and its scores."""
    both = (scores.highest_impostor, scores.lowest_genuine)
    left = np.concatenate([pairs.left for pairs in both])
    right = np.concatenate([pairs.right for pairs in both])
    rows, places = np.unique(np.concatenate([left, right]), return_inverse=True)
    genuine = np.arange(len(left)) >= len(scores.highest_impostor.scores)
    number = np.arange(len(left))
    listed = PairList(
        path=path,
        format=FORMAT,
        keys=[keys[row] for row in rows],
        left=places[: len(left)],
        right=places[len(left) :],
        genuine=genuine,
        lines=number + 1,
    )
    return listed, Judged(
        scores=np.concatenate([pairs.scores for pairs in both]),
        genuine=genuine,
        index=number,
        rejected=np.zeros(len(left), dtype=bool),
    )


def _warnings(
    figures: Figures,
    roc: Roc,
    people: np.ndarray,
    without: list[str],
    unreadable: dict[str, str],
    options: VerifyOptions,
) -> list[str]:
    warnings = doubts(figures, roc, also=options.chosen_rates)
    if people.max() + 1 < _ENOUGH_PEOPLE:
        warnings.append(
            f"the AUC's confidence interval rests on {people.max() + 1} people; take it as rough"
        )
    warnings.append(
        "the intervals of EER and TAR take pairs for independent, which all pairs of some pictures "
        "are not; they are too narrow"
    )
    if without:
        warnings.append(f"pictures without identity are in no pair ({len(without)} left out)")
    if unreadable:
        warnings.append(f"pictures without embedding are in no pair ({len(unreadable)} left out)")
    return warnings
