from __future__ import annotations

import csv
import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faceidx.escape import for_csv, for_terminal, write_csv


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("anna/1.jpg", "anna/1.jpg"),
        ("Zoë 日本 🙂", "Zoë 日本 🙂"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\nb\r\tc\x00", r"a\nb\r\tc\x00"),
        ("\x9b2J\x7f", r"\x9b2J\x7f"),  # the one-byte CSI of C1, and DEL
        ("gpj.\u202eexe", r"gpj.\u202eexe"),  # right-to-left override
        ("a\u200bb\u2028c", r"a\u200bb\u2028c"),
        ("\udc80", r"\udc80"),
    ],
)
def test_a_terminal_gets_nothing_that_could_steer_it(text: str, shown: str) -> None:
    assert for_terminal(text) == shown


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_no_text_brings_a_control_or_format_character_to_a_terminal(text: str) -> None:
    shown = for_terminal(text)
    assert all(unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in shown)
    shown.encode("utf-8")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_cell_that_a_spreadsheet_would_run_is_guarded(text: str) -> None:
    assert for_csv(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "anna", "a=b", "1-2", " =1", "'=1"])
def test_other_cells_stay_as_they_are(text: str) -> None:
    assert for_csv(text) == text


def test_a_csv_reads_back_as_it_was_written() -> None:
    file = io.StringIO()
    rows = [
        ["=a,b", 1, 1 / 3, None],
        ['say "x"\nand y', -2, -0.1, ""],
        ["plain", True, float("nan"), "z"],
        ["a\rb", 3, 0.5, None],
    ]
    assert write_csv(file, ["name", "n", "score", "note"], rows) == 4
    found = list(csv.reader(io.StringIO(file.getvalue(), newline="")))
    assert found[0] == ["name", "n", "score", "note"]
    assert found[1] == ["'=a,b", "1", repr(1 / 3), ""]
    assert found[2] == ['say "x"\nand y', "-2", "-0.1", ""]
    assert found[3:] == [["plain", "True", "nan", "z"], ["a\rb", "3", "0.5", ""]]
    assert float(found[1][2]) == 1 / 3


def test_numbers_of_numpy_are_written_as_plain_ones() -> None:
    import numpy as np

    file = io.StringIO()
    write_csv(file, ["a", "b"], [[np.float64(0.1), np.float32(0.1)]])
    assert file.getvalue().splitlines()[1] == "0.1,0.1"
