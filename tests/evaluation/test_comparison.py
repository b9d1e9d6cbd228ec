"""Systems side by side: their figures, and what is said of the differences."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from faceidx.errors import InputError
from faceidx.evaluation.bootstrap import REPLICATES, pair_weights, units_of
from faceidx.evaluation.comparison import CompareOptions, Comparison, compare_systems
from faceidx.evaluation.comparison_table import (
    DIFFERENCE_HEADER,
    difference_in_words,
    difference_rows,
    system_rows,
)
from faceidx.evaluation.folds import assign_folds, fold_accuracy
from faceidx.evaluation.roc import roc_curve
from faceidx.evaluation.verdict import VerifyOptions
from faceidx.evaluation.verification import verify_pairs


class _Pairs:
    """Pairs of twelve people with three pictures each, and the scores of some systems."""

    def __init__(self, folder: Path, number: int = 240, seed: int = 0) -> None:
        self.folder, self.rng = folder, np.random.default_rng(seed)
        people = self.rng.integers(0, 12, size=(2, number))
        self.genuine = np.arange(number) < number // 3
        people[1] = np.where(self.genuine, people[0], (people[0] + 1 + people[1] % 11) % 12)
        pictures = self.rng.integers(0, 3, size=(2, number))
        self.left, self.right = (
            [f"p{person:02}/{picture}" for person, picture in zip(*side, strict=True)]
            for side in zip(people, pictures, strict=True)
        )
        of_pair = self.rng.normal(size=number)  # what makes a pair hard for every system
        self.base = of_pair + 1.5 * self.genuine

    def scores(self, noise: float = 0.5) -> np.ndarray:
        return self.base + noise * self.rng.normal(size=len(self.base))

    def write(
        self,
        name: str,
        scores: np.ndarray,
        *,
        order: np.ndarray | None = None,
        named: bool = True,
        folds: np.ndarray | None = None,
    ) -> Path:
        header = ["left", "right"] * named + ["label"] + ["fold"] * (folds is not None) + ["score"]
        lines = [",".join(header)]
        for i in np.arange(len(scores)) if order is None else order:
            cells = [self.left[i], self.right[i]] * named + [str(int(self.genuine[i]))]
            cells += [] if folds is None else [str(folds[i])]
            lines.append(",".join([*cells, repr(float(scores[i]))]))
        path = self.folder / name
        path.write_text("\n".join(lines) + "\n")
        return path


@pytest.fixture
def pairs(tmp_path: Path) -> _Pairs:
    return _Pairs(tmp_path)


def _compared(*paths: Path, **more: object) -> Comparison:
    return compare_systems(CompareOptions(scores=list(paths), **more))  # type: ignore[arg-type]


def test_each_system_has_the_figures_that_it_has_alone(pairs: _Pairs) -> None:
    paths = [pairs.write(f"{name}.csv", pairs.scores()) for name in "abc"]
    compared = _compared(*paths, seed=3).as_json()
    assert [system["name"] for system in compared["systems"]] == ["a", "b", "c"]
    for path, system in zip(paths, compared["systems"], strict=True):
        alone = verify_pairs(VerifyOptions(pairs=path, seed=3)).as_json()
        assert system["path"] == str(path)
        assert {name: alone[name] for name in system if name in alone} == {
            name: system[name] for name in system if name in alone
        }
        assert {"auc", "auc_ci", "eer", "accuracy", "tar_at_far"} <= set(alone) & set(system)
    assert (compared["pairs"], compared["genuine"], compared["impostor"]) == (240, 80, 160)
    assert [(d["system"], d["to"]) for d in compared["differences"]] == [("b", "a"), ("c", "a")]


def test_differences_are_those_of_the_figures(pairs: _Pairs) -> None:
    compared = _compared(*(pairs.write(f"{n}.csv", pairs.scores()) for n in "ab")).as_json()
    first, second = compared["systems"]
    (difference,) = compared["differences"]
    for figure in ("auc", "eer", "accuracy"):
        assert difference[figure]["difference"] == second[figure] - first[figure]
    for one, other, of_point in zip(
        first["tar_at_far"], second["tar_at_far"], difference["tar_at_far"], strict=True
    ):
        assert of_point["target"] == one["target"]
        assert of_point["difference"] == other["tar"] - one["tar"]


def test_the_interval_of_a_difference_is_that_of_the_same_draws_of_people(pairs: _Pairs) -> None:
    scores = pairs.scores(), pairs.scores(1.0)
    paths = [pairs.write(f"{n}.csv", s) for n, s in zip("ab", scores, strict=True)]
    compared = _compared(*paths, seed=5)
    people = [[name.partition("/")[0] for name in side] for side in (pairs.left, pairs.right)]
    units = units_of(*people, "identities")
    won = [s[pairs.genuine][:, None] > s[~pairs.genuine] for s in scores]
    moved = won[1].astype(float) - won[0]
    found = []
    for weights in pair_weights(units, seed=5, replicates=REPLICATES):
        ours, others = weights[pairs.genuine], weights[~pairs.genuine]
        found.append(ours @ moved @ others / (ours.sum() * others.sum()))
    of_auc = compared.differences[0].auc
    assert compared.method == "bootstrap-identities"
    assert of_auc.interval == pytest.approx(np.quantile(found, [0.025, 0.975]), abs=1e-12)
    beyond = min(np.sum(np.array(found) <= 0), np.sum(np.array(found) >= 0)) + 1
    assert of_auc.p == pytest.approx(min(1, 2 * beyond / (REPLICATES + 1)))
    # Both systems find the same pairs hard: the difference is surer than each figure.
    alone = [np.ptp(s.figures.intervals.auc.interval or (0, 0)) for s in compared.systems]
    assert 0 < np.ptp(of_auc.interval or (0, 0)) < max(alone)


def test_decisions_are_those_at_the_thresholds_of_the_other_folds(pairs: _Pairs) -> None:
    scores = pairs.scores(), pairs.scores(2.0)
    compared = _compared(*(pairs.write(f"{n}.csv", s) for n, s in zip("ab", scores, strict=True)))
    folds = assign_folds(pairs.genuine)
    assert folds is not None
    right = []
    for system in scores:
        by_fold = fold_accuracy(roc_curve(system, pairs.genuine), system, pairs.genuine, folds)
        right.append(
            [
                (score >= by_fold.thresholds[fold]) == genuine
                for score, fold, genuine in zip(system, folds, pairs.genuine, strict=True)
            ]
        )
    only_first = sum(a and not b for a, b in zip(*right, strict=True))
    only_second = sum(b and not a for a, b in zip(*right, strict=True))
    found = compared.as_json()["differences"][0]["accuracy"]["mcnemar"]
    assert (found["n10"], found["n01"]) == (only_first, only_second) and only_first > only_second
    assert found["p"] == pytest.approx(stats.binomtest(only_first, only_first + only_second).pvalue)


def test_the_order_of_the_second_file_is_of_no_matter(pairs: _Pairs) -> None:
    first, scores = pairs.write("a.csv", pairs.scores()), pairs.scores()
    straight = pairs.write("b.csv", scores)
    (pairs.folder / "shuffled").mkdir()
    # Of pairs that are listed twice, the first belongs to the first.
    places = {(a, b): pairs.rng.random() for a, b in zip(pairs.left, pairs.right, strict=True)}
    keys = [places[pair] for pair in zip(pairs.left, pairs.right, strict=True)]
    shuffled = pairs.write("shuffled/b.csv", scores, order=np.argsort(keys, kind="stable"))
    one, other = (_compared(first, second).as_json() for second in (straight, shuffled))
    other["systems"][1]["path"] = one["systems"][1]["path"]
    assert one == other
    assert one["matched_by"] == "names" and not any("rows" in w for w in one["warnings"])


def test_all_systems_have_the_folds_of_the_first_file(pairs: _Pairs) -> None:
    folds = np.arange(240) % 4
    first = pairs.write("a.csv", pairs.scores(), folds=folds)
    second = pairs.write("b.csv", pairs.scores())
    assert [s.figures.folds for s in _compared(first, second).systems] == [4, 4]
    assert [s.figures.folds for s in _compared(second, first).systems] == [10, 10]
    assert [s.figures.folds for s in _compared(first, second, folds=3).systems] == [3, 3]


def test_without_names_rows_are_matched_and_a_warning_says_so(pairs: _Pairs) -> None:
    first = pairs.write("a.csv", pairs.scores(), named=False)
    second = pairs.write("b.csv", pairs.scores(), named=False)
    compared = _compared(first, second).as_json()
    assert (compared["matched_by"], compared["method"]) == ("rows", "delong")
    assert any("rows are taken to be the same pairs" in text for text in compared["warnings"])
    assert any("without names" in text for text in compared["warnings"])
    (difference,) = compared["differences"]
    assert difference["auc"]["ci"] == difference["auc"]["delong_ci"]
    assert difference["auc"]["p"] == difference["auc"]["delong_p"]
    assert (difference["eer"]["ci"], difference["eer"]["p"]) == (None, None)
    assert difference["accuracy"]["ci"] is None and 0 <= difference["accuracy"]["mcnemar"]["p"] <= 1
    assert [point["p"] for point in difference["tar_at_far"]] == [None] * 3


def test_distances_and_rates_finer_than_the_pairs_are_said_as_of_one_system(pairs: _Pairs) -> None:
    scores = pairs.scores()
    paths = [pairs.write("a.csv", scores), pairs.write("away.csv", -scores)]
    said = [w for w in _compared(*paths).warnings if "score lower" in w or "cannot measure" in w]
    assert len(said) == 2 and "160 impostor pairs cannot measure a FAR of 0.001" in said[0]
    assert "genuine pairs of away score lower than impostor pairs" in said[1]


def test_too_many_pairs_for_the_bootstrap_leave_delong_with_a_warning(
    pairs: _Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [pairs.write(f"{n}.csv", pairs.scores()) for n in "ab"]
    monkeypatch.setattr("faceidx.evaluation.bootstrap._MOST_WORK", 240 * REPLICATES)
    assert _compared(*paths).method == "bootstrap-identities"
    monkeypatch.setattr("faceidx.evaluation.bootstrap._MOST_WORK", 240 * REPLICATES - 1)
    compared = _compared(*paths)
    assert compared.method == "delong" and compared.matched_by == "names"
    assert any("too many pairs" in text for text in compared.warnings)


def test_one_pair_of_a_class_leaves_no_folds_and_says_so(tmp_path: Path) -> None:
    for name, scores in (("a", (3, 1, 2)), ("b", (2, 1, 3))):
        rows = [f"{label},{s}" for label, s in zip((1, 0, 0), scores, strict=True)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["label,score", *rows]))
    compared = _compared(tmp_path / "a.csv", tmp_path / "b.csv")
    fields = compared.as_json()
    assert fields["differences"][0]["accuracy"] is None
    assert fields["differences"][0]["auc"] == {
        "difference": -0.5,
        "ci": None,
        "p": None,
        "delong_ci": None,
        "delong_p": None,
    }
    assert any("fewer than two pairs" in text for text in compared.warnings)
    json.dumps(fields, allow_nan=False)
    assert "AUC is 0.50000 lower (not tested)" in list(difference_in_words(compared, 0))


def test_a_clear_difference_is_told_as_one_and_none_as_none(pairs: _Pairs) -> None:
    best, copy = pairs.scores(0.1), pairs.write("copy.csv", 2 * pairs.scores(0) + 1)
    good, same = pairs.write("good.csv", best), pairs.write("same.csv", pairs.scores(0))
    poor = pairs.write("poor.csv", pairs.rng.normal(size=240))
    lines = list(difference_in_words(_compared(good, poor), 0))
    assert lines[0].startswith("AUC is 0.") and "lower" in lines[0]
    assert lines[0].endswith(": more than chance")
    assert "if pairs were independent" in lines[0]
    assert lines[-1].endswith("by McNemar)") and "good alone" in lines[-1]
    compared = _compared(same, copy)
    assert list(difference_in_words(compared, 0))[:2] == [
        "AUC is the same (95 %: +0.00000 to +0.00000; p = 1)",
        "EER is the same (95 %: +0.000 to +0.000 points; p = 1)",
    ]
    assert {len(row) for row in difference_rows(compared, 0)} == {len(DIFFERENCE_HEADER)}
    assert system_rows(compared)[0] == ("", "same", "copy")
    assert system_rows(compared)[1][1] == system_rows(compared)[1][2]


def test_what_cannot_be_compared_is_refused(pairs: _Pairs, tmp_path: Path) -> None:
    good = pairs.write("a.csv", pairs.scores())
    (tmp_path / "list.csv").write_text("left,right,label\na,b,1\n")
    everyone = pairs.genuine
    pairs.genuine = np.ones_like(everyone)
    genuine_only = [pairs.write(f"g{n}.csv", pairs.scores()) for n in "12"]
    for paths, more, words in (
        ([good], {}, "one system alone"),
        ([good, tmp_path / "." / "a.csv"], {}, "a.csv is given twice"),
        ([good, tmp_path / "list.csv"], {}, "list.csv is a list of pairs (csv) without scores"),
        ([good, tmp_path / "none.csv"], {}, "none.csv: no such file"),
        (genuine_only, {}, "g1.csv: all 240 pairs are genuine pairs"),
        ([good, genuine_only[0]], {}, "correct one of the two"),
        ([good, genuine_only[0]], {"fmr": (2.0,)}, "'2.0' is no rate"),
        ([good, genuine_only[0]], {"pictures": tmp_path}, "give --report DIR as well"),
    ):
        with pytest.raises(InputError) as caught:
            _compared(*paths, **more)  # type: ignore[arg-type]
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
