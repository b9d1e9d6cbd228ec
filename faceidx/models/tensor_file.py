"""`.safetensors` files written and read in pieces: no process needs room for all of a tensor.

The format (github: huggingface/safetensors): the header's length as 8 bytes, little-endian, the
header in JSON with name, type, shape and place of each tensor, and then their bytes, one tensor
behind another. What is written is byte for byte what safetensors writes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from faceidx.errors import InputError

if TYPE_CHECKING:
    import torch

    from faceidx.processes import RowRange, SpreadRows

_ALIGNMENT = 8  # of the header
_TYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64",
    "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip


def write_tensors(
    path: Path,
    tensors: Mapping[str, torch.Tensor | SpreadRows],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a file, on process 0; the other processes call `hand_over_rows` meanwhile.

    Raises:
        OSError: the disk is full or failed.
    """
    order = _order(tensors)
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in order:
        tensor, values = tensors[name], _values(tensors[name])
        count = values.element_size()
        for length in tensor.shape:
            count *= length
        kind = _TYPES[str(values.dtype).removeprefix("torch.")]
        header[name] = {
            "dtype": kind,
            "shape": list(tensor.shape),
            "data_offsets": [end, end + count],
        }
        end += count
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in order:
            for block in _blocks(tensors[name]):
                file.write(_bytes(block))


def hand_over_rows(tensors: Mapping[str, torch.Tensor | SpreadRows]) -> None:
    """Give process 0, which is in `write_tensors`, this process's rows of what is spread."""
    for name in _order(tensors):
        if spread := _as_spread(tensors[name]):
            spread.hand_over()


def read_tensors(path: Path, rows_of: Callable[[str], RowRange | None]) -> dict[str, torch.Tensor]:
    """Read every tensor of a file to the CPU.

    Args:
        rows_of: which rows of a tensor are wanted, None for all of it.

    Raises:
        InputError: the file is damaged, or a tensor has another number of rows.
    """
    from safetensors import SafetensorError, safe_open

    found = {}
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                rows, part = rows_of(name), file.get_slice(name)
                if rows is None or not part.get_shape():
                    found[name] = file.get_tensor(name)
                    continue
                if part.get_shape()[:1] != [rows.total]:
                    raise InputError(
                        f"{path}: {name} has the shape {part.get_shape()}, not {rows.total} rows"
                    )
                found[name] = part[rows.first : rows.last]
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged ({error})") from None
    return found


def _order(tensors: Mapping[str, torch.Tensor | SpreadRows]) -> list[str]:
    """Wider types first, so that each tensor begins at a multiple of its type's size."""
    return sorted(tensors, key=lambda name: (-_values(tensors[name]).element_size(), name))


def _values(tensor: torch.Tensor | SpreadRows) -> torch.Tensor:
    """A tensor of the same type, whatever its size."""
    spread = _as_spread(tensor)
    return spread.mine if spread else cast("torch.Tensor", tensor)


def _blocks(tensor: torch.Tensor | SpreadRows) -> Iterator[torch.Tensor]:
    if spread := _as_spread(tensor):
        yield from spread.blocks()
    else:
        yield _values(tensor).detach().cpu().contiguous()


def _as_spread(tensor: torch.Tensor | SpreadRows) -> SpreadRows | None:
    from faceidx.processes import SpreadRows

    return tensor if isinstance(tensor, SpreadRows) else None


def _bytes(tensor: torch.Tensor) -> bytes | memoryview:
    """The memory of a contiguous tensor on the CPU, also of types that NumPy does not know."""
    import torch

    return tensor.reshape(-1).view(torch.uint8).numpy().data
