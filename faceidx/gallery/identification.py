"""Figures of open-set identification with labelled probes (ISO/IEC 19795-1:2021).

A probe is mated when its person is enrolled in the gallery, non-mated when its person is known but
not enrolled. Probes of unknown identity count in no figure.

- rank k: share of mated probes whose person is among the k nearest people, at any score.
- FPIR: share of non-mated probes whose nearest person scores at or above the threshold.
- FNIR: share of mated probes whose own person is not both nearest and at or above the threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from faceidx.gallery.search import Candidate

RANKS = (1, 5)


@dataclass
class IdentificationCounts:
    """Counts that probes are added to, block after block."""

    enrolled: frozenset[str]
    """The people of the gallery."""
    threshold: float
    mated: int = 0
    non_mated: int = 0
    misses_at_1: int = 0
    misses_at_5: int = 0
    false_positives: int = 0
    false_negatives: int = 0

    def add(self, candidates: Sequence[Sequence[Candidate]], identities: Sequence[str]) -> None:
        """Count probes.

        Args:
            candidates: for each probe its nearest people, best first, five or all there are.
            identities: of the probes, empty where unknown.
        """
        for nearest, identity in zip(candidates, identities, strict=True):
            if not identity:
                continue
            accepted = bool(nearest) and nearest[0].score >= self.threshold
            if identity not in self.enrolled:
                self.non_mated += 1
                self.false_positives += accepted
                continue
            names = [candidate.identity for candidate in nearest[: max(RANKS)]]
            self.mated += 1
            self.misses_at_1 += identity not in names[:1]
            self.misses_at_5 += identity not in names
            self.false_negatives += not (accepted and identity == names[0])

    def figures(self) -> dict[str, dict[str, Any]]:
        """`rank1, rank5, fpir, fnir`, each `{value, errors, trials}`.

        The value of a rank is the share of trials without error, that of FPIR and FNIR the share
        with error; None where there are no trials.
        """
        return {
            "rank1": _figure(self.misses_at_1, self.mated, of_success=True),
            "rank5": _figure(self.misses_at_5, self.mated, of_success=True),
            "fpir": _figure(self.false_positives, self.non_mated),
            "fnir": _figure(self.false_negatives, self.mated),
        }


def _figure(errors: int, trials: int, *, of_success: bool = False) -> dict[str, Any]:
    counted = trials - errors if of_success else errors
    return {"value": counted / trials if trials else None, "errors": errors, "trials": trials}
