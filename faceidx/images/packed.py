"""insightface's verification sets (`lfw.bin`, `agedb_30.bin`, ...): pictures and labels, pickled.

A pickle is a program, and an honest unpickler runs whatever it names. This one runs none of it:
the opcodes are looked through before anything is loaded, only those that build lists, tuples,
bytes, texts, numbers and truth values are admitted, and the few names that numpy's arrays and
Python 3's bytes in protocol 2 need are answered by inert stand-ins, never by the named function.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from pathlib import Path
from typing import Any, NamedTuple

from faceidx.errors import InputError
from faceidx.escape import for_terminal

# Everything that the pickler makes of lists, tuples, bytes, texts, numbers and truth values in
# protocols 0 to 5, and what arrays add (GLOBAL, STACK_GLOBAL, REDUCE, BUILD). Left out are INST,
# OBJ, NEWOBJ, EXT*, PERSID, dicts, sets, buffers outside the file.
_ADMITTED = frozenset(
    {"PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP"}
    | {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET"}
    | {"EMPTY_LIST", "LIST", "APPEND", "APPENDS"}
    | {"EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
    | {"NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1"}
    | {"FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING"}
    | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
    | {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
    | {"GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"}
)
_BYTES = ("u1",)
_TRUTH_VALUES = ("b1", "u1", "i1")
_PICKLE_STARTS = tuple(b"\x80" + bytes([protocol]) for protocol in range(2, 6))


class PackedSet(NamedTuple):
    """What such a set holds: pair k is made of the pictures 2 k and 2 k + 1."""

    pictures: list[bytes]
    """2 P encoded pictures."""
    genuine: list[bool]
    """P labels: whether the pair shows one person."""


class _Array:
    """Stands for a numpy array or scalar: keeps what describes it, computes nothing."""

    def __init__(self, dtype: object = None, raw: object = b"", shape: object = ()) -> None:
        self.code = dtype.code if isinstance(dtype, _DType) else ""
        self.raw, self.shape = raw, shape

    def __setstate__(self, state: Any) -> None:
        _version, shape, dtype, _fortran, raw = state
        _Array.__init__(self, dtype, raw, shape)

    def row(self, codes: tuple[str, ...]) -> bytes | None:
        """Items of one byte that lie in one row or column; None where it is another array."""
        if self.code not in codes or not isinstance(self.raw, (bytes, bytearray)):
            return None
        sizes = self.shape if isinstance(self.shape, tuple) else (0,)
        longest = max((n for n in sizes if n != 1), default=1)
        one_row = sum(n != 1 for n in sizes) <= 1 and longest == len(self.raw)
        return bytes(self.raw) if one_row else None


class _DType:
    """Stands for a numpy dtype: keeps its code, such as `u1`."""

    def __init__(self, code: object = "", *_: object) -> None:
        self.code = code.decode("latin-1") if isinstance(code, bytes) else str(code)

    def __setstate__(self, state: object) -> None:
        """Byte order and the like: of no matter for items of one byte."""


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _from_buffer(raw: object, dtype: object, shape: object, *_: object) -> _Array:
    return _Array(dtype, raw, shape)


def _scalar(dtype: object, raw: object = b"") -> _Array:
    return _Array(dtype, raw)


def _encode(text: object, *_: object) -> bytes:
    if not isinstance(text, str):
        raise pickle.UnpicklingError("it encodes what is no text")
    return text.encode("latin-1")


_STAND_INS: dict[tuple[str, str], object] = {
    ("_codecs", "encode"): _encode,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
}
for _module in ("numpy.core", "numpy._core"):
    _STAND_INS[f"{_module}.multiarray", "_reconstruct"] = _reconstruct
    _STAND_INS[f"{_module}.multiarray", "scalar"] = _scalar
    _STAND_INS[f"{_module}.numeric", "_frombuffer"] = _from_buffer


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return _STAND_INS[module, name]


def is_packed(path: Path) -> bool:
    """Whether a file begins as a pickle of protocol 2 to 5 does, which no text can.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(2) in _PICKLE_STARTS
    except IsADirectoryError:
        return False
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def read_packed(path: Path) -> PackedSet:
    """Read a set of (2 P pictures, P labels).

    Raises:
        InputError: the file is damaged, holds anything else, or would run code.
    """
    content = _load(path)
    if not isinstance(content, (list, tuple)) or len(content) != 2:
        raise InputError(f"{path}: holds no (pictures, labels); give a verification set")
    pictures = [_picture(path, n, item) for n, item in enumerate(_sequence(path, content[0]))]
    labels = [_label(path, n, item) for n, item in enumerate(_labels(path, content[1]), 1)]
    if len(pictures) != 2 * len(labels):
        raise InputError(
            f"{path}: {len(labels)} labels want {2 * len(labels)} pictures, but there are "
            f"{len(pictures)}; the file is damaged, fetch it again"
        )
    if not labels:
        raise InputError(f"{path}: holds no pairs; give a set with at least one")
    return PackedSet(pictures, labels)


def _load(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a verification set")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        _look_through(data)
        return _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: refused as a verification set ({_one_line(error)}); give a .bin that holds "
            "encoded pictures and labels alone"
        ) from None
    except Exception as error:  # the stream decides what is called on what, so anything can fail
        raise InputError(
            f"{path}: is no whole pickle ({type(error).__name__}: {_one_line(error)}); fetch the "
            "file again"
        ) from None


def _look_through(data: bytes) -> None:
    """Refuse opcodes that are not admitted, and places in the memo that would fill memory."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name not in _ADMITTED:
            raise pickle.UnpicklingError(f"it uses the opcode {opcode.name}")
        if opcode.name.endswith("PUT") and int(argument or 0) > len(data):
            raise pickle.UnpicklingError("its memo is larger than the file")


def _one_line(error: Exception) -> str:
    return for_terminal(" ".join(str(error).split())[:200])


def _sequence(path: Path, item: object) -> list[Any] | tuple[Any, ...]:
    if isinstance(item, (list, tuple)):
        return item
    raise InputError(f"{path}: the pictures are no list; give a verification set")


def _labels(path: Path, item: object) -> list[Any] | tuple[Any, ...]:
    if isinstance(item, _Array):
        item = list(item.row(_TRUTH_VALUES) or b"") or None
    if isinstance(item, (list, tuple)):
        return item
    raise InputError(f"{path}: the labels are no list of truth values; give a verification set")


def _picture(path: Path, number: int, item: object) -> bytes:
    if isinstance(item, _Array):
        item = item.row(_BYTES)
    if not isinstance(item, bytes) or not item:
        raise InputError(
            f"{path}: picture {number} is no encoded picture; give a set of JPEG or PNG bytes"
        )
    return item


def _label(path: Path, number: int, item: object) -> bool:
    if isinstance(item, _Array):
        item = next(iter(item.row(_TRUTH_VALUES) or b""), None)
    if isinstance(item, int) and item in (0, 1):
        return bool(item)
    raise InputError(f"{path}: label {number} is neither true nor false; give a verification set")
