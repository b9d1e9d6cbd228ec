"""Everything that is needed to go on after an interruption: the folder `state/` of a run.

Tensors lie in `tensors.safetensors`, the rest in `state.json`; the folder is replaced in one step,
so a run killed at any moment finds the previous state or the new one, whole.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from faceidx.errors import InputError
from faceidx.files import whole_folder

_TENSORS, _VALUES = "tensors.safetensors", "state.json"
_VERSION = 1


@dataclass(kw_only=True)
class State:
    """Where a run stands. What is drawn at random follows from seed, epoch and step alone."""

    epoch: int = 0
    """Epochs done."""
    step: int = 0
    """Steps done of the epoch that is under way."""
    sums: dict[str, float] = field(default_factory=dict)
    """Sums over the steps done of that epoch."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """The lines of `metrics.jsonl`."""
    aux_started: int | None = None
    """The epoch, from 0, in which the auxiliary losses came in."""
    seconds: float = 0.0
    """Spent so far, over all interruptions."""
    finished: bool = False


@dataclass(kw_only=True)
class Kept:
    """What has tensors, or numbers, to go on from."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    average: nn.Module | None = None
    """The weights' moving average."""
    scaler: Any = None
    """Fabric's precision: with fp16 it holds the scale of the loss."""


def save_state(folder: Path, state: State, kept: Kept, settings: dict[str, Any]) -> None:
    """Replace the saved state by the present one.

    Args:
        settings: what must be the same when the run goes on.

    Raises:
        JobError: the disk is full; the previous state survives.
    """
    from safetensors.torch import save_file

    tensors = {f"network.{name}": t for name, t in kept.network.state_dict().items()}
    if kept.average is not None:
        tensors |= {f"average.{name}": t for name, t in kept.average.state_dict().items()}
    for index, slots in kept.optimizer.state_dict()["state"].items():
        tensors |= {
            f"optimizer.{index}.{slot}": t for slot, t in slots.items() if torch.is_tensor(t)
        }
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    values = {
        "version": _VERSION,
        "settings": settings,
        "state": asdict(state),
        "scaler": kept.scaler.state_dict() if kept.scaler else {},
    }
    with whole_folder(folder) as temporary:
        save_file(tensors, temporary / _TENSORS)
        (temporary / _VALUES).write_text(json.dumps(values), "utf-8")


def read_state(folder: Path) -> tuple[State, dict[str, Any]] | None:
    """Read where a run stands and its settings; None where no state was saved.

    Raises:
        InputError: the state is damaged or of a newer version.
    """
    path = folder / _VALUES
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text("utf-8"))
        if values["version"] > _VERSION:
            raise InputError(f"{folder} was written by a newer faceidx; update faceidx to go on")
        return State(**values["state"]), values["settings"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error!r}); start anew with --overwrite") from None


def load_tensors(folder: Path, kept: Kept) -> None:
    """Put the saved weights and the optimizer's memory back.

    Raises:
        InputError: the file is damaged or belongs to another network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / _TENSORS
    try:
        tensors = load_file(path)
        kept.network.load_state_dict(_under(tensors, "network."))
        if kept.average is not None:
            kept.average.load_state_dict(_under(tensors, "average."))
    except (SafetensorError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} does not fit ({reason}); start anew with --overwrite") from None
    slots: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in _under(tensors, "optimizer.").items():
        index, slot = name.split(".", 1)
        slots.setdefault(int(index), {})[slot] = tensor
    groups = kept.optimizer.state_dict()["param_groups"]
    kept.optimizer.load_state_dict({"state": slots, "param_groups": groups})
    scale = json.loads((folder / _VALUES).read_text("utf-8")).get("scaler")
    if kept.scaler and scale:
        kept.scaler.load_state_dict(scale)


def _under(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
