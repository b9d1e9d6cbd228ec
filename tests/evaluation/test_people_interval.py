from __future__ import annotations

import numpy as np
import pytest

from faceidx.embedding.store import Origin
from faceidx.evaluation import people_interval
from faceidx.evaluation.bootstrap import Units, bootstrap_figures
from faceidx.evaluation.intervals import Interval, delong_interval
from faceidx.evaluation.people_interval import interval_of_people
from faceidx.evaluation.roc import Roc, auc, roc_curve
from faceidx.evaluation.scoring import KnownEmbeddings


class _Set:
    """Pictures of people of whom some are easier to know again than others, and all their pairs."""

    def __init__(self, seed: int, people: int, pictures: int) -> None:
        rng = np.random.default_rng(seed)
        self.people = np.repeat(np.arange(people), rng.integers(1, 2 * pictures, people))
        noise = rng.uniform(0.5, 1.5, people)[self.people]
        vectors = rng.normal(size=(people, 16))[self.people]
        vectors += noise[:, None] * rng.normal(size=vectors.shape)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        self.vectors = vectors.astype(np.float32)
        left, right = np.triu_indices(len(vectors), 1)
        self.left, self.right = self.people[left], self.people[right]
        self.scores = (self.vectors @ self.vectors.T)[left, right]
        self.genuine = self.left == self.right

    def roc(self) -> Roc:
        return roc_curve(self.scores, self.genuine)

    def known(self) -> KnownEmbeddings:
        return KnownEmbeddings(
            source="test",
            keys=[""] * len(self.people),
            identities=[""] * len(self.people),
            read=lambda rows: self.vectors[rows],
            dim=16,
            origin=Origin(model="", fingerprint=""),
        )

    def interval(self) -> Interval:
        return interval_of_people(self.roc(), self.known(), self.people, seed=0)


def _width(interval: Interval) -> float:
    return interval.high - interval.low


@pytest.mark.parametrize(("seed", "people", "pictures"), [(1, 40, 3), (2, 60, 2), (3, 30, 5)])
def test_it_is_as_wide_as_the_bootstrap_of_people_and_wider_than_of_pairs(
    seed: int, people: int, pictures: int
) -> None:
    drawn = _Set(seed, people, pictures)
    units = Units(left=drawn.left, right=drawn.right, kind="identities")
    values = bootstrap_figures(drawn.scores, drawn.genuine, units, [], replicates=600).auc
    interval = drawn.interval()

    assert _width(interval) == pytest.approx(2 * 1.96 * values.std(), rel=0.12)
    assert _width(interval) > 1.1 * _width(delong_interval(drawn.roc()))
    assert sum(interval) / 2 == pytest.approx(auc(drawn.roc()))


def test_it_follows_from_what_a_small_change_of_each_weight_does() -> None:
    """The derivatives of the AUC of weighted pairs, by brute force."""
    drawn = _Set(4, 12, 4)
    ours, others = drawn.scores[drawn.genuine], drawn.scores[~drawn.genuine]
    wins = (ours[:, None] > others) + 0.5 * (ours[:, None] == others)

    def weighted(weights: np.ndarray) -> float:
        of_ours = weights[drawn.left[drawn.genuine]]
        of_others = (weights[drawn.left] * weights[drawn.right])[~drawn.genuine]
        return float(of_ours @ wins @ of_others / (of_ours.sum() * of_others.sum()))

    number = int(drawn.people.max()) + 1
    small = 1e-4
    slopes = [
        (weighted(1 + small * unit) - weighted(1 - small * unit)) / (2 * small)
        for unit in np.eye(number)
    ]
    margin = 1.96 * np.sqrt(number / (number - 1) * np.sum(np.square(slopes)))

    assert _width(drawn.interval()) == pytest.approx(2 * margin, rel=2e-3)


def test_large_sets_are_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = _Set(5, 40, 12)
    whole = drawn.interval()
    for name, number in (("_REFERENCES", 200), ("_OF_ONE", 12), ("_AT_ONCE", 30), ("_ROWS", 7)):
        monkeypatch.setattr(people_interval, name, number)

    assert drawn.interval() == drawn.interval()
    assert _width(drawn.interval()) == pytest.approx(_width(whole), rel=0.15)


def test_pictures_of_unknown_people_do_not_count() -> None:
    drawn = _Set(6, 20, 3)
    expected = drawn.interval()
    roc = drawn.roc()
    extra = np.eye(16, dtype=np.float32)[:3]
    drawn.vectors = np.concatenate([extra, drawn.vectors])
    drawn.people = np.concatenate([[-1, -1, -1], drawn.people])

    assert interval_of_people(roc, drawn.known(), drawn.people, seed=0) == pytest.approx(expected)
