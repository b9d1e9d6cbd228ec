"""A FAISS file of exact search (`IndexFlatIP`), written and checked without loading the vectors.

The file is a header of 45 bytes and then the vectors, row after row (faiss/impl/index_write.cpp,
`write_index` of `IndexFlat`; the same since FAISS 1.5). Writing it block by block keeps a build's
memory at one block, and reading the header first keeps a file that lies about its size away from
FAISS's own reader, which is not hardened against hostile files.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from faceidx.errors import InputError

# fourcc, dimension, rows, two numbers that FAISS ignores, trained, metric, count of floats
_HEADER = struct.Struct("<4siqqqBiQ")
_FOURCC = b"IxFI"  # flat, inner product
_IGNORED = 1 << 20
_INNER_PRODUCT = 0
VECTORS_OFFSET = _HEADER.size


def file_size(dim: int, count: int) -> int:
    """Bytes of the file of `count` vectors of `dim` numbers."""
    return _HEADER.size + 4 * dim * count


def write_flat(path: Path, dim: int, blocks: Iterable[np.ndarray]) -> int:
    """Write (n, D) float32 blocks as one `IndexFlatIP` file; return the number of rows."""
    count = 0
    with path.open("wb") as file:
        file.write(bytes(_HEADER.size))
        for block in blocks:
            file.write(np.ascontiguousarray(block, dtype="<f4").data)
            count += len(block)
        file.seek(0)
        file.write(_header(dim, count))
    return count


def require_flat(file: BinaryIO, name: str, dim: int, count: int) -> None:
    """Raise `InputError` unless the file is exactly a flat index of `count` x `dim` vectors."""
    file.seek(0, 2)
    size = file.tell()
    file.seek(0)
    if size != file_size(dim, count) or file.read(_HEADER.size) != _header(dim, count):
        raise InputError(
            f"{name} is no exact index of {count} vectors of {dim} numbers as the manifest says; "
            "rebuild the gallery with `faceidx index import`"
        )


def _header(dim: int, count: int) -> bytes:
    return _HEADER.pack(_FOURCC, dim, count, _IGNORED, _IGNORED, True, _INNER_PRODUCT, dim * count)
