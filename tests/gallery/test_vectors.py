from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest

from faceidx.errors import InputError
from faceidx.gallery.vectors import Vectors
from tests.gallery.conftest import unit


def _vectors(path: Path, rows: np.ndarray, *, thrifty: bool) -> Vectors:
    path.write_bytes(b"abc" + rows.astype("<f4").tobytes())
    return Vectors(path.open("rb", buffering=0), str(path), 3, *rows.shape, thrifty=thrifty)


@pytest.mark.parametrize("thrifty", [False, True])
def test_rows_are_those_of_the_file_in_any_order(tmp_path: Path, thrifty: bool) -> None:
    rows = unit(np.random.default_rng(0).standard_normal((300, 7)).astype(np.float32))
    vectors = _vectors(tmp_path / "v", rows, thrifty=thrifty)
    wanted = np.array([299, 0, 0, 17])
    np.testing.assert_array_equal(vectors.rows(wanted), rows[wanted])
    assert vectors.rows(wanted[:0]).shape == (0, 7)
    np.testing.assert_array_equal(vectors.block(250, 400), rows[250:])


def test_a_file_that_is_cut_meanwhile_is_one_line(tmp_path: Path) -> None:
    rows = unit(np.random.default_rng(0).standard_normal((300, 7)).astype(np.float32))
    vectors = _vectors(tmp_path / "v", rows, thrifty=True)
    with (tmp_path / "v").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(InputError, match="was cut while it was read"):
        vectors.rows(np.array([1, 200]))
    with pytest.raises(InputError, match="does not hold 300 vectors of 7 numbers"):
        Vectors((tmp_path / "v").open("rb", buffering=0), "v", 3, 300, 7)


def test_thrifty_rows_leave_nothing_resident(tmp_path: Path) -> None:
    rows = np.zeros((60_000, 512), np.float32)  # 117 MiB
    vectors = _vectors(tmp_path / "v", rows, thrifty=True)
    every = np.arange(0, 60_000, 50)
    before = _mapped()
    vectors.rows(every)
    assert _mapped() - before < 8 << 20


def _mapped() -> int:
    """Bytes of files that are resident."""
    pages = int(Path("/proc/self/statm").read_text().split()[2])
    return pages * resource.getpagesize()
