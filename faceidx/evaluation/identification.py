"""Figures of open-set identification with labelled probes (ISO/IEC 19795-1:2021; NIST FRVT 1:N).

A probe is mated when its person is enrolled in the gallery, non-mated when its person is known but
not enrolled. Probes of unknown identity count in no figure.

- rank k: share of mated probes whose person is among the k nearest people, at any score. Over k
  this is the CMC curve.
- FPIR: share of non-mated probes whose nearest person scores at or above the threshold.
- FNIR: share of mated probes whose own person is not both nearest and at or above the threshold.
  Over FPIR this is the DET curve of identification.

Three numbers a probe are kept, whatever the size of the gallery.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from faceidx.evaluation.clustered import interval_by_people
from faceidx.evaluation.intervals import Interval
from faceidx.evaluation.roc import OperatingPoint, Roc, roc_curve, tar_at_far

CMC_RANKS = 10
FPIR_TARGETS = (0.001, 0.003, 0.01, 0.03, 0.1)


class Rate(NamedTuple):
    """A figure with its counts."""

    errors: int
    trials: int
    of_success: bool
    """Whether the value is the share of trials without error."""
    interval: Interval | None
    """95 % of the value, with people as the sample; None without trials."""

    @property
    def value(self) -> float | None:
        counted = self.trials - self.errors if self.of_success else self.errors
        return counted / self.trials if self.trials else None

    def as_json(self) -> dict[str, Any]:
        return {"value": self.value, "errors": self.errors, "trials": self.trials}


class NegativesAtPositives(NamedTuple):
    """FNIR at the threshold that keeps FPIR at or below a target."""

    point: OperatingPoint
    """Its matches are identifications, `fmr` is FPIR and `fnmr` is FNIR."""
    fpir: Rate
    fnir: Rate

    def as_json(self) -> dict[str, Any]:
        return {
            "target": self.point.target,
            "threshold": self.point.threshold,
            "fpir": _told(self.fpir),
            "fnir": _told(self.fnir),
        }


@dataclass
class Identification:
    """Figures of probes that are added block after block."""

    enrolled: frozenset[str]
    """The people of the gallery."""
    threshold: float
    _number: dict[str, int] = field(default_factory=dict)
    _blocks: list[tuple[np.ndarray, ...]] = field(default_factory=list)

    def add(
        self, nearest: Sequence[Sequence[str]], scores: Sequence[float], identities: Sequence[str]
    ) -> None:
        """Count probes.

        Args:
            nearest: for each probe its nearest people, best first, `CMC_RANKS` or all there are.
            scores: of the nearest person; -inf where there is none.
            identities: of the probes, empty where unknown.
        """
        rows = [
            (
                self._number.setdefault(identity, len(self._number)),
                identity in self.enrolled,
                list(names).index(identity) + 1 if identity in names else 0,
                score,
            )
            for names, score, identity in zip(nearest, scores, identities, strict=True)
            if identity
        ]
        if rows:
            people, mated, ranks, best = zip(*rows, strict=True)
            self._blocks.append(
                (
                    np.array(people, dtype=np.int64),
                    np.array(mated, dtype=bool),
                    np.array(ranks, dtype=np.int64),
                    np.array(best, dtype=np.float64),
                )
            )

    def result(self) -> IdentificationFigures:
        """The figures of all probes so far."""
        empty = tuple(np.empty(0, dtype=t) for t in (np.int64, bool, np.int64, np.float64))
        columns = zip(empty, *self._blocks, strict=True)
        people, mated, ranks, scores = (np.concatenate(column) for column in columns)
        return IdentificationFigures(
            people=people, mated=mated, ranks=ranks, scores=scores, threshold=self.threshold
        )


@dataclass(frozen=True, kw_only=True)
class IdentificationFigures:
    """What labelled probes say of a gallery and a threshold."""

    people: np.ndarray
    """(Q,) number of each probe's person."""
    mated: np.ndarray
    """(Q,) bool."""
    ranks: np.ndarray
    """(Q,) of the probe's own person, from 1; 0 where not among those looked at."""
    scores: np.ndarray
    """(Q,) float64, of the nearest person."""
    threshold: float

    @property
    def accepted(self) -> np.ndarray:
        """(Q,) bool, whether the nearest person scores at or above the threshold."""
        return self.scores >= self.threshold

    def rank(self, k: int) -> Rate:
        """How many mated probes have their person among the nearest k."""
        missed = (self.ranks == 0) | (self.ranks > k)
        return self._rate(missed, self.mated, of_success=True)

    def cmc(self) -> list[Rate]:
        """Rank 1, 2, ... up to the rank that changes nothing any more, or `CMC_RANKS`."""
        if not self.mated.any():
            return []
        return [self.rank(k) for k in range(1, max(1, int(self.ranks[self.mated].max())) + 1)]

    def fpir(self) -> Rate:
        """False positives among non-mated probes."""
        return self._rate(self.accepted, ~self.mated)

    def fnir(self) -> Rate:
        """False negatives among mated probes."""
        return self._rate(~(self.accepted & (self.ranks == 1)), self.mated)

    def curve(self) -> Roc | None:
        """FNIR over FPIR as an exact curve; None without both mated and non-mated probes.

        The genuine scores are those of mated probes whose person is nearest; the other mated
        probes are missed at any threshold.
        """
        missed = self.mated & (self.ranks != 1)
        usable = np.isfinite(self.scores)
        if not (self.mated.any() and (~self.mated).any()) or (missed | ~usable).all():
            return None
        return roc_curve(self.scores, self.mated, rejected=missed | ~usable)

    def at_targets(self, targets: Sequence[float] = FPIR_TARGETS) -> list[NegativesAtPositives]:
        """FNIR at each FPIR; a target that the probes are too few for is left out.

        (Without one false positive allowed, the threshold says nothing of the rate asked for.)
        """
        curve = self.curve()
        if curve is None:
            return []
        found = []
        for point in tar_at_far(curve, [t for t in targets if t * curve.impostor >= 1]):
            accepted = self.scores >= point.threshold
            fnir = self._rate(~(accepted & (self.ranks == 1)), self.mated)
            found.append(NegativesAtPositives(point, self._rate(accepted, ~self.mated), fnir))
        return found

    def as_json(self) -> dict[str, Any]:
        """`rank1, rank5, fpir, fnir`, and `identification` with intervals, CMC and FNIR at FPIR."""
        named = {
            "rank1": self.rank(1),
            "rank5": self.rank(5),
            "fpir": self.fpir(),
            "fnir": self.fnir(),
        }
        return {
            **{name: rate.as_json() for name, rate in named.items()},
            "identification": {
                "mated": int(self.mated.sum()),
                "non_mated": int((~self.mated).sum()),
                "people": len(np.unique(self.people)),
                "intervals": {name: _interval(rate) for name, rate in named.items()},
                "cmc": [rate.value for rate in self.cmc()],
                "fnir_at_fpir": [point.as_json() for point in self.at_targets()],
            },
        }

    def _rate(self, wrong: np.ndarray, among: np.ndarray, *, of_success: bool = False) -> Rate:
        errors, trials = int(np.count_nonzero(wrong & among)), int(np.count_nonzero(among))
        if not trials:
            return Rate(0, 0, of_success, None)
        _, person = np.unique(self.people[among], return_inverse=True)
        low, high = interval_by_people(
            np.bincount(person, weights=wrong[among]), np.bincount(person)
        )
        interval = Interval(1 - high, 1 - low) if of_success else Interval(low, high)
        return Rate(errors, trials, of_success, interval)


def _interval(rate: Rate) -> list[float] | None:
    return None if rate.interval is None else [rate.interval.low, rate.interval.high]


def _told(rate: Rate) -> dict[str, Any]:
    return {**rate.as_json(), "interval": _interval(rate)}
