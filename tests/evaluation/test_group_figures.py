from __future__ import annotations

import csv
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from faceidx.errors import InputError
from faceidx.evaluation import group_figures
from faceidx.evaluation.group_figures import Rate, spread_of
from faceidx.evaluation.intervals import wilson_interval
from faceidx.evaluation.verification import VerifyOptions, verify_pairs
from tests.conftest import RunCli

Write = Callable[..., Path]
Row = tuple[str, str, int, float]

_FIELDS = ("genuine", "impostor", "false_matches", "false_non_matches")


def _write(path: Path, header: str, rows: list[Any]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header.split(","), *rows])
    return path


def _scores(path: Path, rows: list[Row]) -> Path:
    return _write(path, "left,right,label,score", rows)


def _judge(tmp_path: Path, rows: list[Row], groups: dict[str, str], **more: Any) -> dict[str, Any]:
    """Figures of scores whose people have groups; the JSON survives a round trip."""
    result = verify_pairs(
        VerifyOptions(
            pairs=_scores(tmp_path / "s.csv", rows),
            groups=_write(tmp_path / "g.csv", "identity,group", list(groups.items())),
            **more,
        )
    ).as_json()
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    return result


def _drawn(seed: int) -> tuple[list[Row], dict[str, str]]:
    """400 pairs over 20 people of whom four are in no group; scores with ties."""
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for _ in range(400):
        left, right = rng.integers(0, 20, 2)
        if rng.random() < 0.4:
            right = left
        score = round(float(rng.normal() + 1.2 * (left == right)), 1)
        rows.append((f"p{left}/1.jpg", f"p{right}/2.jpg", int(left == right), score))
    groups = {f"p{person}": "abc"[int(rng.integers(3))] for person in range(16)}
    return rows, {**groups, "p99": "empty"}


def _threshold(rows: list[Row], target: float) -> float:
    """The lowest score that lets no more impostors through than the target allows."""
    impostors = [score for _, _, label, score in rows if not label]
    allowed = [
        score
        for *_, score in rows
        if sum(impostor >= score for impostor in impostors) <= target * len(impostors)
    ]
    return min(allowed)


# --- counting ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("target", [0.05, 0.3])
def test_groups_are_counted_as_a_loop_counts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, target: float
) -> None:
    monkeypatch.setattr(group_figures, "_BLOCK", 64)
    rows, groups = _drawn(seed)
    found = _judge(tmp_path, rows, groups, at_fmr=target)["groups"]
    assert found["threshold"] == _threshold(rows, target)

    counts: dict[str, dict[str, int]] = {}
    for left, right, label, score in rows:
        one, other = groups.get(left.split("/")[0]), groups.get(right.split("/")[0])
        place = "ungrouped" if one is None or other is None else one if one == other else "mixed"
        accepted = score >= found["threshold"]
        for where in (place, "overall"):
            count = counts.setdefault(where, dict.fromkeys(_FIELDS, 0))
            count["genuine" if label else "impostor"] += 1
            if accepted != bool(label):
                count["false_non_matches" if label else "false_matches"] += 1

    assert [g["group"] for g in found["groups"]] == ["a", "b", "c", "empty"]
    for group in found["groups"]:
        assert _counts(group) == counts.get(group["group"], dict.fromkeys(_FIELDS, 0))
    assert _counts(found["overall"]) == counts["overall"]
    assert _counts(found["ungrouped"]) == counts["ungrouped"]
    between = found["between"]
    assert (between["impostor"], between["false_matches"]) == (
        counts["mixed"]["impostor"],
        counts["mixed"]["false_matches"],
    )
    assert found["mixed"]["genuine"] == 0
    assert sorted(found["ungrouped_names"]) == ["p16", "p17", "p18", "p19"]


def _counts(fields: dict[str, Any]) -> dict[str, int]:
    return {name: fields[name] for name in _FIELDS}


def test_rates_ratios_and_intervals_follow_from_the_counts(tmp_path: Path) -> None:
    rows, groups = _drawn(9)
    found = _judge(tmp_path, rows, groups, at_fmr=0.3)["groups"]
    overall = found["overall"]
    rates: dict[str, dict[str, float]] = {"fmr": {}, "fnmr": {}}
    for group in found["groups"]:
        for rate, errors, trials in (
            ("fmr", "false_matches", "impostor"),
            ("fnmr", "false_non_matches", "genuine"),
        ):
            if group["group"] == "empty":
                assert group[rate] is group[f"{rate}_ci"] is group[f"{rate}_ratio"] is None
                continue
            rates[rate][group["group"]] = group[errors] / group[trials]
            assert group[rate] == group[errors] / group[trials]
            assert group[f"{rate}_ratio"] == pytest.approx(group[rate] / overall[rate], rel=1e-12)
            wilson = binomtest(group[errors], group[trials]).proportion_ci(method="wilson")
            assert group[f"{rate}_ci"] == pytest.approx([wilson.low, wilson.high], abs=1e-12)
    for rate, of in rates.items():
        highest, lowest = max(of, key=of.__getitem__), min(of, key=of.__getitem__)
        assert (found[f"{rate}_highest"], found[f"{rate}_lowest"]) == (highest, lowest)
        assert found[f"{rate}_ratio"] == pytest.approx(of[highest] / of[lowest], rel=1e-12)


@pytest.mark.parametrize("trials", [1, 7, 400, 10**9])
def test_wilsons_interval_is_that_of_scipy(trials: int) -> None:
    for errors in {0, 1, trials // 3, trials - 1, trials}:
        expected = binomtest(errors, trials).proportion_ci(method="wilson")
        low, high = wilson_interval(errors, trials)
        assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
        assert 0 <= low <= errors / trials <= high <= 1


def test_sides_of_two_groups_are_mixed_where_genuine_and_between_where_not(
    tmp_path: Path,
) -> None:
    rows: list[Row] = [
        ("p/1", "p/2", 1, 0.9),  # young and old: mixed
        ("p/1", "p/3", 1, 0.1),  # young
        ("p/1", "q/2", 0, 0.8),  # young and old: between
        ("p/1", "q/1", 0, 0.2),  # young
        ("p/4", "p/1", 1, 0.9),  # one side unknown
    ]
    ages = {"p/1": "young", "p/2": "old", "p/3": "young", "q/1": "young", "q/2": "old"}
    table = _write(tmp_path / "g.csv", "path,group", list(ages.items()))
    verified = verify_pairs(
        VerifyOptions(pairs=_scores(tmp_path / "s.csv", rows), groups=table, at_fmr=0.5)
    )
    found = verified.as_json()["groups"]
    assert found["threshold"] == 0.8
    assert (found["mixed"]["genuine"], found["mixed"]["false_non_matches"]) == (1, 0)
    assert (found["between"]["impostor"], found["between"]["false_matches"]) == (1, 1)
    assert [_counts(group) for group in found["groups"]] == [
        dict(zip(_FIELDS, (0, 0, 0, 0), strict=True)),
        dict(zip(_FIELDS, (1, 1, 0, 1), strict=True)),
    ]
    assert (found["ungrouped"]["genuine"], found["ungrouped_names"]) == (1, ["p/4"])
    assert "1 genuine pairs have their sides in two groups" in verified.warnings[-1]


def test_the_threshold_never_lets_through_more_than_the_target(tmp_path: Path) -> None:
    rows, groups = _drawn(1)
    result = _judge(tmp_path, rows, groups, fmr=(1e-3,))
    found, point = result["groups"], result["tar_at_far"][0]
    assert found["target"] == 1e-3  # the default
    assert (found["threshold"], found["overall"]["fmr"]) == (point["threshold"], point["far"])


def test_groups_that_no_pair_reaches_are_an_error(tmp_path: Path) -> None:
    rows, _ = _drawn(0)
    with pytest.raises(InputError, match=r"g\.csv: no pair .* names 'P1' and the list 'p\d+'"):
        _judge(tmp_path, rows, {"P1": "a"})


@pytest.mark.parametrize(
    ("rates", "ratio", "ends"),
    [
        ({}, None, (None, None)),
        ({"a": Rate(1, 2)}, None, ("a", "a")),
        ({"a": Rate(0, 2), "b": Rate(1, 2)}, None, ("b", "a")),
        ({"a": Rate(0, 2), "b": Rate(0, 9)}, None, ("a", "a")),
        ({"a": Rate(1, 10), "b": Rate(3, 10), "c": Rate(6, 20)}, 3, ("b", "a")),
    ],
)
def test_a_ratio_needs_two_groups_with_errors(
    rates: dict[str, Rate], ratio: float | None, ends: tuple[str | None, str | None]
) -> None:
    spread = spread_of(rates)
    assert spread.ratio == (None if ratio is None else pytest.approx(ratio))
    assert (spread.highest, spread.lowest) == ends


# --- missing pictures --------------------------------------------------------------------------


def test_rejected_pairs_are_non_matches_of_their_group(tmp_path: Path, embeddings: Write) -> None:
    keys = ["ann/1.jpg", "ann/2.jpg", "bob/1.jpg", "bob/2.jpg"]
    vectors = np.eye(4)[[0, 0, 1, 1]]
    rows = [(one, other, 1) for one, other in pairwise(keys) if one[:3] == other[:3]]
    rows += [("ann/1.jpg", "ann/gone.jpg", 1), ("ann/1.jpg", "bob/1.jpg", 0)]
    rows += [("bob/gone.jpg", "ann/1.jpg", 0)]
    options = VerifyOptions(
        pairs=_write(tmp_path / "p.csv", "left,right,label", rows),
        embeddings=embeddings(keys, vectors=vectors),
        groups=_write(tmp_path / "g.csv", "identity,group", [("ann", "a"), ("bob", "b")]),
        at_fmr=0.0,
    )
    for policy, errors, trials, between in (("exclude", 0, 1, 1), ("reject", 1, 2, 2)):
        options.missing = policy  # type: ignore[assignment]
        found = verify_pairs(options).as_json()["groups"]
        ann, bob = found["groups"]
        assert (ann["false_non_matches"], ann["genuine"]) == (errors, trials)
        assert (bob["false_non_matches"], bob["genuine"]) == (0, 1)
        assert (found["between"]["false_matches"], found["between"]["impostor"]) == (0, between)
    options.at_fmr = 1.0  # a threshold below all scores accepts every pair that has one
    found = verify_pairs(options).as_json()["groups"]
    assert (found["groups"][0]["false_non_matches"], found["between"]["false_matches"]) == (1, 1)


def test_identities_of_the_embeddings_come_before_folders(tmp_path: Path) -> None:
    from faceidx.embedding.store import Origin, write_embeddings

    keys = ["x/1.jpg", "x/2.jpg", "x/3.jpg"]
    write_embeddings(
        tmp_path / "e.h5",
        origin=Origin(model="tiny", fingerprint="f" * 64),
        vectors=np.eye(3, dtype=np.float32),
        norms=np.ones(3),
        paths=keys,
        identities=["ann", "ann", "bob"],
    )
    rows = [(keys[0], keys[1], 1), (keys[0], keys[2], 0)]
    options = VerifyOptions(
        pairs=_write(tmp_path / "p.csv", "left,right,label", rows),
        embeddings=tmp_path / "e.h5",
        groups=_write(tmp_path / "g.csv", "identity,group", [("ann", "a"), ("x", "folder")]),
    )
    found = verify_pairs(options).as_json()["groups"]
    assert [(g["group"], g["genuine"]) for g in found["groups"]] == [("a", 1), ("folder", 0)]
    assert found["ungrouped_names"] == ["bob"]


# --- what is told ------------------------------------------------------------------------------


def test_one_warning_names_the_groups_with_few_errors(tmp_path: Path) -> None:
    rows, groups = _drawn(3)
    warnings = _judge(tmp_path, rows, groups, at_fmr=0.3)["warnings"]
    about = [warning for warning in warnings if "of 3 groups (a, b, c)" in warning]
    assert len(about) == 1
    assert about[0].startswith("fewer than 30 errors stand behind the FMR of 3 groups")
    assert not any("ratio is unknown" in warning for warning in warnings)


def test_a_group_without_error_is_why_there_is_no_ratio(tmp_path: Path) -> None:
    rows: list[Row] = [("a/1", "a/2", 1, 0.9), ("b/1", "b/2", 1, 0.2), ("a/1", "b/1", 0, 0.5)]
    result = _judge(tmp_path, rows, {"a": "A", "b": "B"}, at_fmr=0.0)
    assert result["groups"]["fnmr_ratio"] is None
    assert (result["groups"]["fnmr_highest"], result["groups"]["fnmr_lowest"]) == ("B", "A")
    told = [warning for warning in result["warnings"] if "ratio" in warning]
    assert told[-1] == "the FNMR's ratio is unknown: there is no error in the group A"
    assert result["groups"]["fmr_highest"] is None  # both groups lack impostor pairs


def test_groups_with_many_errors_draw_no_warning(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows: list[Row] = []
    for number in range(4000):
        person, other = f"p{number % 2}", f"p{number % 2 + 2 * (number // 2 % 2)}"
        same = int(person == other)
        rows.append((f"{person}/1", f"{other}/2", same, float(rng.normal() + same)))
    groups = {"p0": "even", "p2": "even", "p1": "odd", "p3": "odd"}
    result = _judge(tmp_path, rows, groups, at_fmr=0.1, fmr=(0.1,))
    assert result["warnings"] == []
    assert 1 <= result["groups"]["fmr_ratio"] < 2


def test_without_the_option_there_is_none(tmp_path: Path) -> None:
    rows, _ = _drawn(0)
    verified = verify_pairs(VerifyOptions(pairs=_scores(tmp_path / "s.csv", rows)))
    assert verified.as_json()["groups"] is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"groups": Path("none.csv")}, r"none\.csv: no such file"),
        ({"groups": Path("s.csv")}, r"s\.csv:1: .*`identity` or `path`"),
        ({"at_fmr": 2.0}, "--at-fmr: '2.0' is no rate"),
        ({"scores": Path("g.csv"), "overwrite": True}, "a path of its own"),
        ({"pairs": Path("plain.csv")}, "does not name the pictures"),
    ],
)
def test_wrong_options_are_refused_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    rows, groups = _drawn(0)
    _scores(tmp_path / "s.csv", rows)
    _write(tmp_path / "g.csv", "identity,group", list(groups.items()))
    _write(tmp_path / "plain.csv", "label,score", [(1, 0.9), (0, 0.1)])
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    given = {"pairs": Path("s.csv"), "groups": Path("g.csv"), **options}
    with pytest.raises(InputError, match=words):
        verify_pairs(VerifyOptions(**given))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_report_has_a_section_where_groups_are_asked_for(tmp_path: Path) -> None:
    rows, groups = _drawn(0)
    hostile = "<script>alert(1)</script> $x"
    groups = {person: hostile if group == "a" else group for person, group in groups.items()}
    _judge(tmp_path, rows, groups, at_fmr=0.25, report=tmp_path / "with")
    page = (tmp_path / "with" / "index.html").read_text("utf-8")
    assert "<h2>Groups</h2>" in page
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; $x" in page
    assert f"--groups {tmp_path / 'g.csv'}" in page and "--at-fmr 0.25" in page
    verify_pairs(VerifyOptions(pairs=tmp_path / "s.csv", report=tmp_path / "without"))
    page = (tmp_path / "without" / "index.html").read_text("utf-8")
    assert "<h2>Groups</h2>" not in page and "--groups" not in page


def test_the_command_line_shows_a_table(
    tmp_path: Path, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows, groups = _drawn(9)
    _scores(tmp_path / "s.csv", rows)
    groups = {p: "\x1b[31mred" if group == "a" else group for p, group in groups.items()}
    _write(tmp_path / "g.csv", "identity,group", list(groups.items()))
    words = ("verify-pairs", "s.csv", "--groups", "g.csv", "--at-fmr", "0.3")
    result = run_cli.json(*words)["groups"]
    out, _ = run_cli(*words)
    lines = out.splitlines()
    assert "\x1b" not in out
    header = next(i for i, line in enumerate(lines) if line.startswith("Group "))
    assert [line.split("  ")[0] for line in lines[header + 1 : header + 8]] == [
        "\\x1b[31mred", "b", "c", "empty", "between groups", "in no group", "all pairs",
    ]  # fmt: skip
    shown = result["groups"][1]
    assert f"{shown['false_matches']} of {shown['impostor']}" in lines[header + 2]
    assert f"g.csv, at threshold {result['threshold']:.6f}" in out
    assert any(line.startswith("FMR ratio") for line in lines)
    assert "4 names, the first p" in out
