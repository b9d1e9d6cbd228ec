"""Long lists: the fast way through regular lines gives what the careful one gives, in few bytes."""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from faceidx.errors import InputError
from faceidx.evaluation.lists import PairList, ScoreList, labelled, lines, read_list, scores, table
from faceidx.evaluation.lists.pairs import Names

_NAMES = [f"p{number % 7}/{number}.jpg" for number in range(40)]


def _regular(pairs: int) -> dict[str, str]:
    """One list of each format that is read the fast way."""
    rng = random.Random(pairs)
    rows = [
        (rng.choice(_NAMES), rng.choice(_NAMES), rng.randrange(2), rng.choice((1, 3, 10)), n / 7)
        for n in range(pairs)
    ]
    return {
        "pairs01": "".join(f"{a} {b} {g}\n" for a, b, g, _, _ in rows),
        "01pairs": "".join(f"{g}\t{a}\t{b}\n" for a, b, g, _, _ in rows),
        "csv": "left,right,label,fold,note\n"
        + "".join(f"{a},{b},{('no', 'yes')[g]},{f},\n" for a, b, g, f, _ in rows),
        "tsv": "a\tb\tsame\n" + "".join(f"{a}\t{b}\t{g}\n" for a, b, g, _, _ in rows),
        "scores": "score,label,left,right\n"
        + "".join(f"{s!r},{g},{a},{b}\n" for a, b, g, _, s in rows),
        "bob": "".join(f"{g} {n % 2} {a} {s!r}\n" for n, (a, _, g, _, s) in enumerate(rows)),
    }


# What makes a line irregular, and leaves its meaning as it is (but for its number).
_TOUCHES = {
    "a blank line": lambda line: "\n" + line,
    "blanks around": lambda line: f"  {line[:-1]} \n",
    "blanks doubled": lambda line: line.replace(" ", "  "),
    "tabs": lambda line: line.replace(" ", "\t"),
    "quotes": lambda line: f'"{line[:-1].replace(",", chr(34) + "," + chr(34))}"\n',
    "a comment": lambda line: "# as the camera saw them\n" + line,
}
_FITTING = {
    **dict.fromkeys(("csv", "scores"), ("a blank line", "quotes")),
    "tsv": ("a blank line",),
    **dict.fromkeys(
        ("pairs01", "bob"), ("a blank line", "blanks around", "blanks doubled", "tabs", "a comment")
    ),
    "01pairs": ("a blank line", "blanks around", "a comment"),
}


def _content(found: PairList | ScoreList) -> list[Any]:
    sides: list[Any] = [found.left, found.right]
    if isinstance(found, PairList):
        sides = [[found.keys[row] for row in side] for side in sides]
    else:
        sides = [found.scores.tolist(), *(side and list(side) for side in sides)]
    folds = None if found.folds is None else found.folds.tolist()
    return [found.format, *sides, found.genuine.tolist(), folds]


@pytest.mark.parametrize("block", [1, 100, 1 << 17])
@pytest.mark.parametrize(
    ("name", "touch"), [(name, touch) for name, fitting in _FITTING.items() for touch in fitting]
)
def test_an_irregular_line_changes_nothing_about_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, touch: str, block: int
) -> None:
    monkeypatch.setattr(lines, "_BLOCK_CHARACTERS", block)
    path = tmp_path / "list.txt"
    path.write_text(_regular(60)[name])
    expected = read_list(path, format=name)
    rng = random.Random(block)
    written = path.read_text().splitlines(keepends=True)
    for number in rng.sample(range(1, len(written)), 5):
        written[number] = _TOUCHES[touch](written[number])
    path.write_text("".join(written).rstrip("\n"))
    found = read_list(path, format=name)
    assert _content(found) == _content(expected)
    told = "".join(written).split("\n")
    for k, line in enumerate(found.lines):
        if isinstance(found, PairList):
            assert found.keys[found.left[k]] in told[line - 1]


def test_regular_lists_do_take_the_fast_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*_: object) -> object:
        raise AssertionError("the careful way was taken")

    for module in (labelled, scores):
        monkeypatch.setattr(module, "parse_block", slow)
    carefully = []
    csv_rows = table._csv_rows

    def counted(path: Path, delimiter: str, first: int, *more: Any) -> object:
        carefully.append(first)
        return csv_rows(path, delimiter, first, *more)

    monkeypatch.setattr(table, "_csv_rows", counted)
    monkeypatch.setattr(lines, "_BLOCK_CHARACTERS", 1000)
    for name, text in _regular(200).items():
        path = tmp_path / "list.txt"
        path.write_text(text)
        carefully.clear()
        assert len(read_list(path, format=name).genuine) == 200
        assert carefully == ([1] if name in ("csv", "tsv", "scores") else [])  # for the header


@pytest.mark.parametrize("name", ["csv", "scores"])
def test_a_quoted_cell_may_run_on_through_many_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(lines, "_BLOCK_CHARACTERS", 30)
    written = _regular(50)[name].splitlines(keepends=True)
    cells = written[20].rstrip("\n").split(",")
    place = 0 if name == "csv" else 2
    long = "x\n" * 60 + cells[place]
    cells[place] = f'"{long}"'
    written[20] = ",".join(cells) + "\n"
    path = tmp_path / "list.csv"
    path.write_text("".join(written))
    found = read_list(path, format=name)
    assert found.lines.tolist() == [*range(2, 22), *range(82, 112)]
    assert found.left is not None
    left = found.left[19]
    assert (found.keys[left] if isinstance(found, PairList) else left) == long


@pytest.mark.parametrize("name", sorted(_FITTING))
@pytest.mark.parametrize("number", [3, 40, 59])
def test_of_two_faults_in_regular_lines_the_first_is_told(
    tmp_path: Path, name: str, number: int
) -> None:
    written = _regular(60)[name].splitlines(keepends=True)
    faults = {
        "csv": (",,yes,1,\n", "a,b,maybe,1,\n"),
        "tsv": ("a\tb\tmaybe\n", "\t\t1\n"),
        "scores": ("nan,1,a,b\n", "0.5,maybe,a,b\n"),
        "bob": ("1 1 a none\n", "1 1 a\n"),
        "pairs01": ("a b 2\n", "a b\n"),
        "01pairs": ("2\ta\tb\n", "1\ta\n"),
    }[name]
    written[number - 1], written[-1] = faults
    path = tmp_path / "list.txt"
    path.write_text("".join(written))
    with pytest.raises(InputError, match=rf"list\.txt:{number}: "):
        read_list(path, format=name)


@pytest.mark.parametrize(("name", "most"), [("pairs01", 16), ("csv", 18), ("scores", 24)])
def test_a_pair_takes_a_few_bytes_and_names_are_held_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, most: int
) -> None:
    monkeypatch.setattr(lines, "_BLOCK_CHARACTERS", 1 << 13)
    pairs = 40_000
    path = tmp_path / "list.txt"
    path.write_text(_regular(pairs)[name])
    read_list(path)  # what is loaded once is not counted
    tracemalloc.start()
    found = read_list(path)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found.genuine) == pairs
    assert held < most * pairs
    assert peak - held < 2**20  # what is read at once does not grow with the list


def test_names_are_a_sequence_that_holds_each_name_once(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("left,right,label,score\na,b,1,1\nb,c,0,2\na,a,1,3\n")
    found = read_list(path)
    assert isinstance(found, ScoreList) and isinstance(found.left, Names)
    assert (list(found.left), len(found.left)) == (["a", "b", "a"], 3)
    assert found.left[-1] == "a" and list(found.left[1:]) == ["b", "a"] and "c" not in found.left
    assert list(found.right or ()) == ["b", "c", "a"]
    different, left, right = found.numbered()
    assert different == ["a", "b", "c"]
    assert left.tolist() == [0, 1, 0] and right.tolist() == [1, 2, 0]
    assert left.dtype == np.int32
