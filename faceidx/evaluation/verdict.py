"""What `verify-pairs` is asked for and what it answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from faceidx.embedding.pipeline import PipelineOptions
from faceidx.embedding.store import Origin
from faceidx.escape import write_csv
from faceidx.evaluation.figures import Figures, no_figures
from faceidx.evaluation.folds import Folds
from faceidx.evaluation.group_figures import GroupFigures
from faceidx.evaluation.lists.pairs import PairList, ScoreList
from faceidx.evaluation.roc import Roc
from faceidx.evaluation.scoring import MissingPair
from faceidx.models.open import ModelOptions

DEFAULT_TARGETS = (1e-1, 1e-2, 1e-3)
_DEFAULT_AT_FMR = 1e-3
MissingPolicy = Literal["exclude", "reject"]


@dataclass(kw_only=True)
class VerifyOptions:
    """What `verify-pairs` is asked for."""

    pairs: Path
    """A list of pairs, a folder (CFP, IJB) or a file of scores; with `all_pairs` the embeddings."""
    embeddings: Path | None = None
    """Not needed for a file of scores."""
    images: Path | None = None
    """In place of `embeddings`: the folder of the listed pictures, to be embedded by `model`."""
    model: ModelOptions | None = None
    """Alone where the list carries its pictures."""
    pipeline: PipelineOptions = field(default_factory=PipelineOptions)
    format: str = "auto"
    fmr: tuple[float, ...] = DEFAULT_TARGETS
    """False match rates at which TAR is reported."""
    folds: Folds = "auto"
    missing: MissingPolicy = "exclude"
    """`exclude` leaves pairs with a missing picture out of the figures; `reject` counts each as a
    non-match, as ISO/IEC 19795-1 counts a failure to enrol."""
    scores: Path | None = None
    report: Path | None = None
    pictures: Path | None = None
    """Folder of the pictures, for the faces in the report."""
    save_threshold: Path | None = None
    at_fmr: float | None = None
    """False match rate of the saved threshold and the groups', 1e-3 where not given."""
    groups: Path | None = None
    """Table of people or pictures and their groups, whose errors are wanted apart."""
    all_pairs: bool = False
    """Judge every pair of two pictures of `embeddings` whose people are known."""
    overwrite: bool = False
    seed: int = 0
    """Of the stratified folds and the bootstrap."""

    @property
    def chosen_rates(self) -> list[float]:
        """The one that a threshold is chosen for, to be saved or to judge groups at; else none."""
        if self.save_threshold is None and self.groups is None:
            return []
        return [_DEFAULT_AT_FMR if self.at_fmr is None else self.at_fmr]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The scores that figures rest on, in the order of the list."""

    scores: np.ndarray
    """(S,) float32 or float64."""
    genuine: np.ndarray
    """(S,) bool."""
    index: np.ndarray
    """(S,) int64, the pair in the list."""
    rejected: np.ndarray
    """(S,) bool, True where a missing picture stands for a score below all others."""


@dataclass(frozen=True, kw_only=True)
class Scored(ABC):
    """A list of pairs with its scores, and what is known of it with or without figures."""

    listed: PairList | ScoreList
    judged: Judged
    policy: MissingPolicy
    missing: list[MissingPair]
    missing_pictures: dict[str, str]
    """Key to reason of every listed picture without an embedding."""
    pictures: list[str] | None
    """(K,) the embedded picture that stands for each key of the list; None for score files."""
    other_policy: dict[str, Any] | None
    """Figures under the other policy for missing pairs; None where nothing is missing."""
    origin: Origin | None
    """Where the embeddings come from; None for scores computed elsewhere."""
    groups: GroupFigures | None = None
    embedded_here: bool = False
    """Whether the pictures were embedded to be judged, and not before."""
    warnings: list[str] = field(default_factory=list)

    def counts(self) -> tuple[int, int]:
        """Number of genuine and of impostor pairs, those without a score among them."""
        genuine = int(np.count_nonzero(self.listed.genuine))
        return genuine, len(self.listed.genuine) - genuine

    def names(self, pair: int) -> tuple[str, str]:
        """Both pictures of a pair of the list, empty where the list names none."""
        listed = self.listed
        if isinstance(listed, PairList):
            return listed.keys[listed.left[pair]], listed.keys[listed.right[pair]]
        if listed.left is None or listed.right is None:
            return "", ""
        return listed.left[pair], listed.right[pair]

    def sources(self, pair: int) -> tuple[str | bytes, str | bytes]:
        """Where both pictures of a pair are found: their keys, or their bytes in the list."""
        listed = self.listed
        if not isinstance(listed, PairList):
            return self.names(pair)
        left, right = int(listed.left[pair]), int(listed.right[pair])
        if listed.pictures is not None:
            return listed.pictures[left], listed.pictures[right]
        pictures = self.pictures or listed.keys
        return pictures[left], pictures[right]

    @abstractmethod
    def figure_fields(self) -> dict[str, Any]:
        """The figures, as the fields of `--json`."""

    def as_json(self) -> dict[str, Any]:
        """The fields of `--json`."""
        genuine, impostor = self.counts()
        made = self.origin.preprocessing if self.origin and self.embedded_here else {}
        return {
            "pairs": genuine + impostor,
            "genuine": genuine,
            "impostor": impostor,
            "missing": len(self.missing),
            "missing_pairs": [asdict(pair) for pair in self.missing],
            "missing_pictures": [
                {"picture": key, "reason": reason} for key, reason in self.missing_pictures.items()
            ],
            "missing_policy": self.policy,
            "judged": len(self.judged.scores),
            "format": self.listed.format,
            **self.figure_fields(),
            "other_policy": self.other_policy,
            "groups": self.groups.as_json() if self.groups else None,
            "warnings": self.warnings,
            "model": self.origin.model if self.origin else None,
            "fingerprint": self.origin.fingerprint if self.origin else None,
            "engine": made.get("engine"),
            "engine_precision": made.get("precision"),  # `precision` is that of the decisions
            "detect": made.get("detect"),
        }


@dataclass(frozen=True, kw_only=True)
class Verification(Scored):
    """The verdict on a list of pairs."""

    figures: Figures
    roc: Roc

    def figure_fields(self) -> dict[str, Any]:
        """The figures, as the fields of `--json`."""
        return self.figures.as_json()


@dataclass(frozen=True, kw_only=True)
class OneClass(Scored):
    """A list of which only genuine or only impostor pairs can be judged: it has no curve."""

    targets: tuple[float, ...]
    """False match rates, at none of which there is a TAR."""

    def figure_fields(self) -> dict[str, Any]:
        """The figures, all of them None."""
        return no_figures(self.targets)


def write_scores(path: Path, verification: Scored) -> None:
    """Write the scores that the figures rest on: `left,right,label,score`, label 1 for genuine.

    Pairs that are left out are not in it, so that judging the file again gives the same figures.
    """
    judged = verification.judged
    rows = (
        (*verification.names(int(pair)), int(genuine), float(score))
        for pair, genuine, score in zip(judged.index, judged.genuine, judged.scores, strict=True)
    )
    with path.open("w", encoding="utf-8", newline="") as file:
        write_csv(file, ("left", "right", "label", "score"), rows)
