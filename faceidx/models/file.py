"""Our model file: one `.safetensors`, weights plus a JSON record in its metadata. No pickle."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from faceidx.errors import InputError
from faceidx.files import whole_file
from faceidx.models.record import ModelRecord, weights_digest
from faceidx.models.tensor_file import write_tensors

if TYPE_CHECKING:
    import torch

    from faceidx.processes import SpreadRows

# The metadata key of the record, and the prefixes under which the two parts' weights lie.
RECORD_KEY = "faceidx"
_BACKBONE, _HEAD = "backbone.", "head."


@dataclass(kw_only=True)
class ModelFile:
    """The content of a model file, on the CPU."""

    record: ModelRecord
    backbone: dict[str, torch.Tensor]
    head: dict[str, torch.Tensor]
    """Weights of the classifier, empty where the file holds none: `weight` (classes, D)
    and, for a plain linear layer, `bias` (classes)."""
    spread: dict[str, SpreadRows] = field(default_factory=dict)
    """Those of the classifier's weights that lie in several processes, to be written."""

    def tensors(self) -> dict[str, torch.Tensor | SpreadRows]:
        """All weights under their names in the file."""
        return {
            **{_BACKBONE + name: t for name, t in self.backbone.items()},
            **{_HEAD + name: t for name, t in self.head.items()},
            **{_HEAD + name: t for name, t in self.spread.items()},
        }


def write_model(path: Path, content: ModelFile) -> None:
    """Write a model file, whole or not at all.

    Raises:
        InputError, JobError: as `files.whole_file`.
    """
    with whole_file(path) as temporary:
        # Not safetensors' `save_file`, whose errors on a full disk are no OSError.
        write_tensors(temporary, content.tensors(), {RECORD_KEY: content.record.to_json()})


def has_record(path: Path) -> bool:
    """Whether a `.safetensors` file was written by faceidx.

    Raises:
        InputError: the file is missing, or no readable `.safetensors` file.
    """
    return RECORD_KEY in _metadata(path)


def read_record(path: Path) -> ModelRecord:
    """Read a model file's record alone, without its weights.

    Raises:
        InputError: the file is missing, damaged, or was not written by faceidx.
    """
    metadata = _metadata(path)
    if RECORD_KEY not in metadata:
        raise InputError(
            f"{path} holds no faceidx record, so its architecture and preprocessing are unknown; "
            "give a model trained by faceidx, or bring it in by `faceidx models import`"
        )
    return ModelRecord.from_json(metadata[RECORD_KEY], str(path))


def read_model(path: Path) -> ModelFile:
    """Read a model file.

    Raises:
        InputError: the file is missing, damaged, or was not written by faceidx.
    """
    record = read_record(path)
    tensors = load_tensors(path)
    return ModelFile(
        record=record,
        backbone=_part(tensors, _BACKBONE),
        head=_part(tensors, _HEAD),
    )


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read every tensor of a `.safetensors` file to the CPU.

    Raises:
        InputError: the file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged ({error})") from None


def _metadata(path: Path) -> dict[str, str]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with safe_open(path, framework="numpy") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        others = "" if path.suffix == ".safetensors" else ", nor what torch.save writes, nor ONNX"
        raise InputError(f"{path} is no readable .safetensors file ({error}){others}") from None


def backbone_digest(content: ModelFile, source: str) -> str:
    """SHA-256 of the backbone's weights; `source` names the file in errors.

    Raises:
        InputError: weights of a type that NumPy has no word for (bfloat16); faceidx writes none.
    """
    try:
        return weights_digest({name: t.numpy() for name, t in content.backbone.items()})
    except TypeError as error:
        raise InputError(f"{source} holds weights of an unknown type ({error})") from None


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
