from __future__ import annotations

import numpy as np
import pytest

from faceidx.evaluation.identification import Identification, IdentificationFigures

_PEOPLE = [f"p{n}" for n in range(12)]
_ENROLLED = _PEOPLE[:8]


def _searches(probes: int, seed: int = 0) -> tuple[list[list[str]], list[float], list[str]]:
    """Rankings of the enrolled people in which the own one tends to be in front."""
    chance = np.random.default_rng(seed)
    nearest, best, identities = [], [], []
    for _ in range(probes):
        identity = str(chance.choice([*_PEOPLE, ""]))
        scores = {name: 0.5 * chance.random() for name in _ENROLLED}
        if identity in scores:
            scores[identity] += 0.35 * chance.random()
        ranking = sorted(scores, key=lambda name: -scores[name])
        nearest.append(ranking)
        best.append(scores[ranking[0]])
        identities.append(identity)
    return nearest, best, identities


def _figures(
    searches: tuple[list[list[str]], list[float], list[str]], threshold: float
) -> IdentificationFigures:
    counted = Identification(frozenset(_ENROLLED), threshold)
    for first in range(0, len(searches[0]), 70):  # block after block
        counted.add(*(column[first : first + 70] for column in searches))
    return counted.result()


def test_every_figure_is_that_of_a_naive_loop() -> None:
    nearest, best, identities = searches = _searches(300)
    figures = _figures(searches, 0.5)
    mated = [(n, s, i) for n, s, i in zip(*searches, strict=True) if i in _ENROLLED]
    strangers = [s for s, i in zip(best, identities, strict=True) if i and i not in _ENROLLED]
    assert figures.fpir().errors == sum(score >= 0.5 for score in strangers)
    assert figures.fnir().errors == sum(not (s >= 0.5 and n[0] == i) for n, s, i in mated)
    cmc = [rate.value for rate in figures.cmc()]
    assert cmc == [
        pytest.approx(sum(i in n[:k] for n, _, i in mated) / len(mated)) for k in range(1, 9)
    ]
    assert figures.rank(5).errors == sum(i not in n[:5] for n, _, i in mated)
    assert len(nearest) > len(mated) + len(strangers)  # those of unknown identity count nowhere


@pytest.mark.parametrize("target", [0.03, 0.1, 0.5])
def test_fnir_at_fpir_is_that_of_trying_every_threshold(target: float) -> None:
    searches = _searches(400, seed=1)
    (found,) = _figures(searches, 0.9).at_targets([target])
    best = None
    for threshold in sorted(searches[1]):
        figures = _figures(searches, threshold)
        if (figures.fpir().value or 0) <= target:
            best = figures
            break
    assert best is not None
    assert found.fpir.errors == best.fpir().errors
    assert found.fnir.errors == best.fnir().errors
    assert found.fnir.value == pytest.approx(found.point.fnmr)
    assert found.fpir.value == pytest.approx(found.point.fmr)


def test_rates_that_the_probes_cannot_resolve_are_left_out() -> None:
    searches = _searches(200)
    strangers = sum(bool(i) and i not in _ENROLLED for i in searches[2])
    figures = _figures(searches, 0.5)
    assert figures.at_targets([0.9 / strangers]) == []
    assert len(figures.at_targets([1.1 / strangers])) == 1


def test_intervals_hold_the_value_and_are_null_without_trials() -> None:
    told = _figures(_searches(200), 0.5).as_json()
    for name in ("rank1", "rank5", "fpir", "fnir"):
        low, high = told["identification"]["intervals"][name]
        assert low <= told[name]["value"] <= high
    counted = Identification(frozenset(_ENROLLED), 0.5)
    counted.add([["p1", "p2"]], [0.7], ["p1"])
    told = counted.result().as_json()
    assert told["fpir"] == {"value": None, "errors": 0, "trials": 0}
    assert told["identification"]["intervals"]["fpir"] is None
    assert told["identification"]["fnir_at_fpir"] == []
    assert told["identification"]["cmc"] == [1.0]


def test_no_labelled_probe_is_no_trial() -> None:
    counted = Identification(frozenset(_ENROLLED), 0.5)
    counted.add([["p1"]], [0.7], [""])
    told = counted.result().as_json()
    assert told["rank1"]["trials"] == told["fpir"]["trials"] == 0
    assert told["identification"]["cmc"] == []


def test_a_probe_whose_own_person_is_never_nearest_is_missed_at_any_threshold() -> None:
    counted = Identification(frozenset(_ENROLLED), 0.0)
    counted.add([["p1"], ["p2"], ["p1"]], [0.9, 0.8, 0.1], ["p1", "p1", "stranger"])
    figures = counted.result()
    (found,) = figures.at_targets([1.0])
    assert (found.fnir.errors, found.fnir.trials) == (1, 2)
