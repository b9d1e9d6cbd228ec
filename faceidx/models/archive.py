"""Files that `torch.save` wrote, read without running what they name.

They are pickles, and a pickle can call any function. They are read by torch's `weights_only` reader
alone, which builds tensors and plain containers, and whatever else a file names is the reason to
refuse it. What such a file claims of its size is checked too, before it is believed.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from faceidx.errors import InputError

if TYPE_CHECKING:
    import torch

# The oldest release whose `weights_only` reader holds what it promises: before it a file could
# corrupt memory (CVE-2026-24747).
_SAFE_TORCH = "2.10"
_ZIP_START = b"PK\x03\x04"
# The pickle in an archive names the tensors, whose bytes lie apart: iresnet200's has 0.2 MB. Its
# reader builds objects of many times its size.
_PICKLE_LIMIT = 16 << 20
# What Lightning and the like keep in a checkpoint beside the weights (names of callbacks, options,
# NumPy's numbers). Nothing of it is needed: an empty object of ours takes its place.
_BOOKKEEPING = (
    "pytorch_lightning.",
    "lightning.",
    "lightning_fabric.",
    "omegaconf.",
    "argparse.Namespace",
    "numpy.",
    "pathlib.",
)
# Dictionaries of dictionaries deeper than this hold no network.
_DEPTH = 8


class _StandIn:
    """Takes any arguments and any state, and is nothing."""

    def __new__(cls, *_: object, **__: object) -> _StandIn:
        return super().__new__(cls)

    def __setstate__(self, _: object) -> None:
        return


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Every named tensor of a file that `torch.save` wrote.

    Returns:
        Tensors on the CPU; names of nested dictionaries are joined by dots.

    Raises:
        InputError: the file names code, is a TorchScript archive, claims more than it holds, is
            damaged, holds no tensors; or torch is too old to read it safely.
    """
    import torch
    from torch.serialization import safe_globals

    _require_safe_torch()
    with path.open("rb") as file:
        archive = file.read(len(_ZIP_START)) == _ZIP_START  # as torch tells the two layouts apart
    if archive:
        _check_archive(path)
    try:
        stand_ins = _stand_ins(path) if archive else []
        with safe_globals(stand_ins), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice on how to run what is refused here
            if not archive:
                _check_old_layout(path)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # a damaged file leads the reader to any error there is
        raise InputError(f"{path}: {_reason(error)}") from None
    tensors = dict(_named_tensors(content))
    if not tensors:
        raise InputError(f"{path} holds no named tensors, so no network's state_dict")
    for name, tensor in tensors.items():
        _check_plain(name, tensor, path)
    return tensors


def _require_safe_torch() -> None:
    import torch
    from torch.torch_version import TorchVersion

    if TorchVersion(str(torch.__version__)) < _SAFE_TORCH:
        raise InputError(
            f"torch {torch.__version__} cannot read others' files safely (CVE-2026-24747); "
            f"install torch {_SAFE_TORCH} or newer"
        )


def _check_archive(path: Path) -> None:
    """Raise `InputError` where a zip archive is not what `torch.save` writes of plain tensors."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} is a damaged archive ({error})") from None
    for entry in entries:
        name = PurePosixPath(entry.filename)
        if "code" in name.parts[:-1] or name.name == "constants.pkl":
            raise InputError(
                f"{path} is a TorchScript archive, which holds code, so it is refused; give the "
                "network's state_dict, saved by torch.save(model.state_dict(), ...)"
            )
        if entry.compress_type != zipfile.ZIP_STORED:
            raise InputError(f"{path} is refused: it is compressed, which torch.save never does")
        if name.name == "data.pkl" and entry.file_size > _PICKLE_LIMIT:
            raise InputError(f"{path} is refused: its index of {entry.file_size:,} bytes is no one")
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise InputError(f"{path} is refused: its entries claim more bytes than the file has")
    if not any(PurePosixPath(entry.filename).name == "data.pkl" for entry in entries):
        raise InputError(f"{path} is an archive, but none that torch.save wrote")


def _check_old_layout(path: Path) -> None:
    """Raise `InputError` where a file of before torch 1.6 does not hold all it names.

    Such a file is a pickle of the tensors, which names their storages, then the names of those that
    follow, then their bytes. Of a storage that is named and does not follow torch would take
    whatever its memory held before.

    Raises:
        Exception: what torch's safe reader raises of a file that it does not read.
    """
    import torch
    from torch import _weights_only_unpickler as reader

    named: set[str] = set()

    def without_bytes(storage: Any) -> torch.storage.TypedStorage:
        _, kind, name, _, count, *_ = storage
        named.add(name)
        size = count * torch.empty((), dtype=kind.dtype).element_size()
        return torch.storage.TypedStorage(
            wrap_storage=torch.UntypedStorage(size, device="meta"), dtype=kind.dtype, _internal=True
        )

    with path.open("rb") as file:
        for _ in ("magic number", "protocol", "byte order"):
            reader.load(file)
        tensors: Any = reader.Unpickler(file)
        tensors.persistent_load = without_bytes
        tensors.load()
        follow = {*reader.load(file)}
    if named - follow:
        raise InputError(
            f"{path} is refused: the bytes of {len(named - follow)} tensors are not in it"
        )


def _stand_ins(path: Path) -> list[Any]:
    """What stands for the bookkeeping that an archive names, as `safe_globals` wants it."""
    from torch.serialization import get_unsafe_globals_in_checkpoint

    found = [n for n in get_unsafe_globals_in_checkpoint(str(path)) if n.startswith(_BOOKKEEPING)]
    # An `AttributeDict` is filled like a dictionary, so it must be one.
    return [(OrderedDict if n.endswith(".AttributeDict") else _StandIn, n) for n in found]


def _reason(error: Exception) -> str:
    """Why torch's reader refused a file, in one line; its own message tells how to run it."""
    text = " ".join(str(error).split())
    if named := re.search(r"\bGLOBAL (\S+)", text):
        return (
            f"it is a pickle that names code ({named[1]}), which could run when read, so it is "
            "refused; give the network's state_dict, saved by torch.save(model.state_dict(), ...)"
        )
    if "weights_only" in text.lower() or "unpickl" in type(error).__name__.lower():
        return "it is a pickle of more than plain tensors, so it is refused"
    return f"it is a damaged pickle, or none of torch.save ({text[:200] or type(error).__name__})"


def _named_tensors(content: object) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors in a dictionary and the dictionaries in it, each dictionary once."""
    import torch

    seen: set[int] = set()
    waiting: list[tuple[str, object, int]] = [("", content, 0)]
    while waiting:
        prefix, holder, depth = waiting.pop()
        if not isinstance(holder, dict) or id(holder) in seen or depth > _DEPTH:
            continue
        seen.add(id(holder))
        for key, value in holder.items():
            if not isinstance(key, str):
                continue
            if isinstance(value, torch.Tensor):
                yield prefix + key, value
            else:
                waiting.append((f"{prefix}{key}.", value, depth + 1))


def _check_plain(name: str, tensor: torch.Tensor, path: Path) -> None:
    """Raise `InputError` for anything but a dense tensor whose every number is in the file."""
    import torch

    if (
        type(tensor) not in (torch.Tensor, torch.nn.Parameter)
        or tensor.layout != torch.strided
        or tensor.is_quantized
        or tensor.device.type != "cpu"
    ):
        raise InputError(f"{path}: {name} is no plain tensor, so the file is refused")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise InputError(f"{path} is refused: {name} claims more numbers than the file holds")
