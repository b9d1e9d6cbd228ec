"""The probes that a report shows: errors first, then what was decided most narrowly."""

from __future__ import annotations

from typing import NamedTuple

from faceidx.gallery.search import Candidate

# What became of a probe; those of the first line are errors.
WRONG_PERSON, FALSE_POSITIVE, MISSED = "wrong person", "stranger taken for somebody", "missed"
RIGHT, RIGHTLY_UNKNOWN, MATCHED, NOT_KNOWN = "right", "rightly unknown", "match", "unknown"
NO_FACE = "cannot be searched"
ERRORS = (WRONG_PERSON, FALSE_POSITIVE, MISSED)


class Case(NamedTuple):
    """A probe, its nearest people and what became of it."""

    key: str
    identity: str
    """Empty where unknown."""
    candidates: list[Candidate]
    verdict: str


class KeptCases:
    """Keeps the probes most worth looking at, as many as are asked for, of any number."""

    def __init__(self, enrolled: frozenset[str], threshold: float, number: int) -> None:
        self._enrolled, self._threshold, self._number = enrolled, threshold, number
        self._kept: list[Case] = []

    def add(self, key: str, identity: str, candidates: list[Candidate]) -> None:
        if not self._number:
            return
        self._kept.append(Case(key, identity, candidates, self._verdict(identity, candidates)))
        if len(self._kept) > 2 * self._number:
            self._kept = self.worst_first()

    def worst_first(self) -> list[Case]:
        return sorted(self._kept, key=self._rank)[: self._number]

    def _verdict(self, identity: str, candidates: list[Candidate]) -> str:
        if not candidates:
            return NO_FACE
        accepted = candidates[0].score >= self._threshold
        if not identity:
            return MATCHED if accepted else NOT_KNOWN
        if identity not in self._enrolled:
            return FALSE_POSITIVE if accepted else RIGHTLY_UNKNOWN
        if not accepted:
            return MISSED
        return RIGHT if candidates[0].identity == identity else WRONG_PERSON

    def _rank(self, case: Case) -> tuple[int, float]:
        if case.verdict == NO_FACE:
            return 2, 0.0
        margin = case.candidates[0].score - self._threshold
        if case.verdict in ERRORS:
            return 0, -abs(margin)  # the clearer the error, the sooner
        return 1, abs(margin)
