"""Writing `.safetensors` in pieces."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

from faceidx import processes
from faceidx.errors import InputError
from faceidx.models.tensor_file import hand_over_rows, read_tensors, write_tensors
from faceidx.processes import RowRange, SpreadRows
from tests.processes import run_together


def _tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "wide": torch.randn(7, 3),
        "weight": torch.randn(2, 5, 3, 3).to(memory_format=torch.channels_last),
        "half.é": torch.randn(5).bfloat16(),
        "count": torch.tensor(3),
        "none": torch.zeros(0, 4),
        "flags": torch.tensor([True, False, True]),
        "exact": torch.randn(2, dtype=torch.float64),
    }


def test_a_file_is_byte_for_byte_what_safetensors_writes(tmp_path: Path) -> None:
    tensors, metadata = _tensors(), {"record": '{"name": "Zoë \\  "}'}
    write_tensors(tmp_path / "ours", tensors, metadata)
    plain = {name: tensor.contiguous() for name, tensor in tensors.items()}
    assert (tmp_path / "ours").read_bytes() == save(plain, metadata)
    write_tensors(tmp_path / "bare", tensors)
    assert (tmp_path / "bare").read_bytes() == save(plain)


def _write_together(number: int, folder: Path, count: int) -> None:
    processes._BLOCK_BYTES = 24  # two rows: blocks that do not come out even
    rows = RowRange(total=7, processes=count, number=number)
    tensors: dict[str, torch.Tensor | SpreadRows] = dict(_tensors())
    wide = _tensors()["wide"][rows.first : rows.last]
    tensors["wide"] = SpreadRows(mine=wide, rows=rows)
    if number:
        hand_over_rows(tensors)
    else:
        write_tensors(folder / "together", tensors)


def test_rows_that_lie_in_three_processes_come_together_in_the_file(tmp_path: Path) -> None:
    run_together(3, _write_together, tmp_path, tmp_path, 3)
    write_tensors(tmp_path / "alone", _tensors())
    assert (tmp_path / "together").read_bytes() == (tmp_path / "alone").read_bytes()
    assert torch.equal(load_file(tmp_path / "together")["wide"], _tensors()["wide"])


def test_each_process_reads_its_own_rows_alone(tmp_path: Path) -> None:
    write_tensors(tmp_path / "file", _tensors())
    for number in range(3):
        rows = RowRange(total=7, processes=3, number=number)
        found = read_tensors(tmp_path / "file", lambda name, r=rows: r if name == "wide" else None)
        assert torch.equal(found["wide"], _tensors()["wide"][rows.first : rows.last])
        assert torch.equal(found["weight"], _tensors()["weight"])


def test_a_file_with_another_number_of_rows_is_refused(tmp_path: Path) -> None:
    write_tensors(tmp_path / "file", _tensors())
    with pytest.raises(InputError, match=r"wide has the shape \[7, 3\], not 8 rows"):
        read_tensors(tmp_path / "file", lambda n: RowRange(total=8) if n == "wide" else None)


def test_a_cut_file_is_damaged_in_one_line(tmp_path: Path) -> None:
    write_tensors(tmp_path / "file", _tensors())
    content = (tmp_path / "file").read_bytes()
    (tmp_path / "file").write_bytes(content[:-1])
    with pytest.raises(InputError, match="file is damaged"):
        read_tensors(tmp_path / "file", lambda _: None)
