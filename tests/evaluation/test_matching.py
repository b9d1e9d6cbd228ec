"""The same pairs are found in two files, and anything else is refused with its place."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from faceidx.errors import InputError
from faceidx.evaluation.lists import read_list
from faceidx.evaluation.lists.pairs import ScoreList
from faceidx.evaluation.matching import match_pairs, short_names

PAIRS = [("a/1", "a/2", 1, 0.9), ("a/1", "b/1", 0, 0.3), ("b/1", "b/2", 1, 0.8)]


def _listed(path: Path, rows: list[tuple[str, str, int, float]]) -> ScoreList:
    path.write_text(
        "left,right,label,score\n" + "".join(f"{a},{b},{g},{s}\n" for a, b, g, s in rows)
    )
    listed = read_list(path)
    assert isinstance(listed, ScoreList)
    return listed


def _unnamed(path: Path, labels: list[int]) -> ScoreList:
    path.write_text("label,score\n" + "".join(f"{label},0.{i}\n" for i, label in enumerate(labels)))
    listed = read_list(path)
    assert isinstance(listed, ScoreList)
    return listed


def _refused(first: ScoreList, other: ScoreList) -> str:
    with pytest.raises(InputError) as caught:
        match_pairs(first, other)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("seed", range(5))
def test_pairs_are_found_in_any_order_of_rows_and_names(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = [f"{person}/{number}" for person in "abc" for number in range(2)]
    rows = []
    for _ in range(60):  # of 42 possible ones: many pairs occur more than once
        left, right = rng.choice(names, 2)
        rows.append((str(left), str(right), int(left[0] == right[0]), float(rng.random())))
    turned = [
        (right, left, label, score) if rng.random() < 0.5 else (left, right, label, score)
        for left, right, label, score in rows
    ]
    shuffled = [turned[i] for i in rng.permutation(len(turned))]
    first, other = _listed(tmp_path / "a.csv", rows), _listed(tmp_path / "b.csv", shuffled)
    found = match_pairs(first, other)
    assert sorted(found) == list(range(60))
    for row, match in enumerate(found):
        assert {*rows[row][:2]} == {*shuffled[match][:2]}
        assert rows[row][2] == shuffled[match][2]
    for pair, number in Counter((*sorted(row[:2]), row[2]) for row in rows).items():
        if number == 1:  # then the score itself must have been found
            row = next(i for i, r in enumerate(rows) if (*sorted(r[:2]), r[2]) == pair)
            assert rows[row][3] == shuffled[found[row]][3]


def test_of_equal_pairs_the_ones_of_one_direction_belong_together(tmp_path: Path) -> None:
    there, back = ("a", "b", 0, 0.1), ("b", "a", 0, 0.2)
    first = _listed(tmp_path / "a.csv", [there, back, there])
    other = _listed(tmp_path / "b.csv", [back, there, there])
    assert match_pairs(first, other).tolist() == [1, 0, 2]


def test_the_first_pair_that_a_file_lacks_is_named_and_all_are_counted(tmp_path: Path) -> None:
    whole, part = _listed(tmp_path / "a.csv", PAIRS), _listed(tmp_path / "b.csv", PAIRS[:1])
    text = _refused(whole, part)
    assert text.startswith(
        f"{tmp_path}/a.csv:3: the pair 'a/1' and 'b/1' is not in {tmp_path}/b.csv"
    )
    assert f"{tmp_path}/b.csv lacks 2 of the 3 pairs of {tmp_path}/a.csv" in text
    assert "which lacks 0 of its 1" in text
    assert "--missing reject" in text
    text = _refused(part, whole)
    assert text.startswith(
        f"{tmp_path}/a.csv:3: the pair 'a/1' and 'b/1' is not in {tmp_path}/b.csv"
    )
    assert (
        f"{tmp_path}/a.csv lacks 0 of the 1 pairs of {tmp_path}/b.csv, which lacks 2 of its 3"
        in text
    )


def test_a_pair_must_occur_as_often_in_both(tmp_path: Path) -> None:
    twice = _listed(tmp_path / "a.csv", [*PAIRS, PAIRS[0]])
    once = _listed(tmp_path / "b.csv", [*PAIRS, PAIRS[1]])
    text = _refused(twice, once)
    assert text.startswith(f"{tmp_path}/a.csv:5: the pair 'a/1' and 'a/2' is not so often in ")
    assert "lacks 1 of the 4 pairs" in text and "which lacks 1 of its 4" in text


def test_labels_that_contradict_are_named_with_both_lines(tmp_path: Path) -> None:
    first = _listed(tmp_path / "a.csv", PAIRS)
    turned = [PAIRS[2], ("b/1", "a/1", 1, 0.5), PAIRS[0]]
    text = _refused(first, _listed(tmp_path / "b.csv", turned))
    assert text == (
        f"{tmp_path}/b.csv:3: the pair 'b/1' and 'a/1' is one person here, but two people in "
        f"{tmp_path}/a.csv:3; correct one of the two"
    )


def test_files_without_a_common_pair_show_how_each_names_its_pictures(tmp_path: Path) -> None:
    other = [(f"{a}.jpg", f"{b}.jpg", g, s) for a, b, g, s in PAIRS]
    text = _refused(_listed(tmp_path / "a.csv", PAIRS), _listed(tmp_path / "b.csv", other))
    assert "no pair in common" in text
    assert "a.csv:2 names the pair 'a/1' and 'a/2'" in text
    assert "b.csv:2 the pair 'a/1.jpg' and 'a/2.jpg'" in text


def test_without_names_rows_belong_together(tmp_path: Path) -> None:
    first = _unnamed(tmp_path / "a.csv", [1, 0, 1])
    assert match_pairs(first, _unnamed(tmp_path / "b.csv", [1, 0, 1])).tolist() == [0, 1, 2]
    assert match_pairs(first, _listed(tmp_path / "c.csv", PAIRS)).tolist() == [0, 1, 2]


def test_rows_without_names_must_agree_in_number_and_labels(tmp_path: Path) -> None:
    first = _unnamed(tmp_path / "a.csv", [1, 0, 1, 1])
    text = _refused(first, _unnamed(tmp_path / "b.csv", [1, 0, 1]))
    assert text.startswith(f"{tmp_path}/b.csv holds 3 scores and {tmp_path}/a.csv 4")
    text = _refused(first, _unnamed(tmp_path / "b.csv", [1, 0, 0, 0]))
    assert text.startswith(f"{tmp_path}/b.csv:4: score 3 is of two people here, but of one person")
    assert f"in {tmp_path}/a.csv:4" in text and "2 labels differ" in text


def test_scores_of_bob_are_matched_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("ann ann p1 0.9\nann bob p2 0.1\n")
    (tmp_path / "b").write_text("ann bob p2 0.2\nann ann p1 0.8\n")
    first, other = read_list(tmp_path / "a"), read_list(tmp_path / "b")
    assert isinstance(first, ScoreList) and isinstance(other, ScoreList)
    assert match_pairs(first, other).tolist() == [1, 0]


def test_files_are_named_as_shortly_as_tells_them_apart() -> None:
    def names(*paths: str) -> list[str]:
        return short_names([Path(path) for path in paths])

    assert names("x/old.csv", "y/new.csv") == ["old", "new"]
    assert names("runs/a/scores.csv", "runs/b/scores.csv") == ["a/scores.csv", "b/scores.csv"]
    assert names("s.csv", "b/s.csv") == ["s.csv", "b/s.csv"]
    assert names("s.csv", "s.tsv") == ["s.csv", "s.tsv"]
    assert names("1/a/s.csv", "2/a/s.csv", "t.csv") == ["1/a/s.csv", "2/a/s.csv", "t.csv"]
