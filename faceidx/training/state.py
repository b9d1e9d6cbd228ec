"""Everything that is needed to go on after an interruption: the folder `state/` of a run.

Tensors lie in `tensors.safetensors`, the rest in `state.json`, with the SHA-256 of the tensors; the
folder is replaced in one step, so a run killed at any moment finds the previous state or the new
one, whole.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from faceidx.errors import InputError
from faceidx.files import sha256_file, whole_folder
from faceidx.models.tensor_file import hand_over_rows, read_tensors, write_tensors
from faceidx.processes import RowRange, SpreadRows, process_number
from faceidx.training.network import TrainingNetwork

_TENSORS, _VALUES = "tensors.safetensors", "state.json"
_VERSION = 2


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
    """The epoch, from 0, in which the auxiliary losses came in, or came in anew."""
    aux_share: float = 1.0
    """What is left of their weight; 0 once they were switched off."""
    rollbacks: list[dict[str, Any]] = field(default_factory=list)
    """Each time that the run diverged and went back."""
    looked: dict[str, float] = field(default_factory=dict)
    """The sums when the training was last looked at."""
    first_loss: float | None = None
    """The classifier's, before anything was learned."""
    seconds: float = 0.0
    """Spent so far, over all interruptions."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Keys and reasons of pictures that could not be read when they were wanted."""
    finished: bool = False


@dataclass(kw_only=True)
class Kept:
    """What has tensors, or numbers, to go on from."""

    network: TrainingNetwork
    optimizer: torch.optim.Optimizer
    average: TrainingNetwork | None = None
    """The weights' moving average."""
    scaler: Any = None
    """Fabric's precision: with fp16 it holds the scale of the loss."""

    def head_names(self) -> dict[int, str]:
        """Of a spread classifier's parameters: place in the optimizer, and name."""
        shard, head = self.network.shard, self.network.head
        if shard is None:
            return {}
        trained = shard.active or dict(head.named_parameters())
        names = {id(parameter): name for name, parameter in trained.items()}
        places = enumerate(p for group in self.optimizer.param_groups for p in group["params"])
        return {place: names[id(p)] for place, p in places if id(p) in names}


def save_state(folder: Path, state: State, kept: Kept, settings: dict[str, Any]) -> None:
    """Replace the saved state by the present one; every process takes part, the first one writes.

    A classifier that is spread over processes is written as one that is not, so the state says
    nothing of how many there were.

    Args:
        settings: what must be the same when the run goes on.

    Raises:
        JobError: the disk is full; the previous state survives.
    """
    tensors = _tensors(kept)
    if process_number() > 0:
        hand_over_rows(tensors)
        return
    values = {
        "version": _VERSION,
        "settings": settings,
        "state": asdict(state),
        "scaler": kept.scaler.state_dict() if kept.scaler else {},
    }
    with whole_folder(folder) as temporary:
        write_tensors(temporary / _TENSORS, tensors)
        values["sha256"] = sha256_file(temporary / _TENSORS)
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
        state, settings = State(**values["state"]), dict(values["settings"])
        digest = sha256_file(folder / _TENSORS)
        if values.get("sha256", digest) != digest:
            raise ValueError(f"{_TENSORS} is not the file that was written")
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InputError(f"{folder} is damaged ({error!r}); start anew with --overwrite") from None
    return state, settings


def load_tensors(folder: Path, kept: Kept) -> None:
    """Put the saved weights and the optimizer's memory back; the folder was read by `read_state`.

    Raises:
        InputError: the file is damaged or belongs to another network.
    """
    path = folder / _TENSORS
    shard, names = kept.network.shard, kept.head_names()

    def rows_of(name: str) -> RowRange | None:
        """Of a spread classifier this process takes its own rows."""
        kind, _, rest = name.partition(".")
        known = int(rest.split(".")[0]) in names if kind == "optimizer" else rest in spread
        return shard.rows if shard and known else None

    spread = set(kept.network.spread_names())
    try:
        tensors = read_tensors(path, rows_of)
        kept.network.load_state_dict(_under(tensors, "network."))
        if kept.average is not None:
            kept.average.load_state_dict(_under(tensors, "average."))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} does not fit ({reason}); start anew with --overwrite") from None
    slots: dict[int, dict[str, torch.Tensor]] = {}
    memory: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in _under(tensors, "optimizer.").items():
        index, slot = name.split(".", 1)
        if shard and shard.active and int(index) in names and tensor.ndim:
            memory.setdefault(names[int(index)], {})[slot] = tensor
        else:
            slots.setdefault(int(index), {})[slot] = tensor
    if shard:
        device = next(kept.network.parameters()).device
        shard.memory = {n: {s: t.to(device) for s, t in m.items()} for n, m in memory.items()}
    groups = kept.optimizer.state_dict()["param_groups"]
    kept.optimizer.load_state_dict({"state": slots, "param_groups": groups})
    scale = json.loads((folder / _VALUES).read_text("utf-8")).get("scaler")
    if kept.scaler and scale:
        kept.scaler.load_state_dict(scale)


def _tensors(kept: Kept) -> dict[str, torch.Tensor | SpreadRows]:
    """All tensors of a state under their names in the file."""
    found: dict[str, torch.Tensor | SpreadRows] = {}
    for kind, network in (("network", kept.network), ("average", kept.average)):
        if network is not None:
            found |= {f"{kind}.{name}": t for name, t in network.state_dict().items()}
    for index, slots in kept.optimizer.state_dict()["state"].items():
        found |= {f"optimizer.{index}.{slot}": t for slot, t in slots.items() if torch.is_tensor(t)}
    shard = kept.network.shard
    if shard is None:
        return found
    names = kept.head_names()
    for index, name in names.items():
        found |= {f"optimizer.{index}.{s}": t for s, t in shard.memory.get(name, {}).items()}
    spread = {f"{kind}.{n}" for kind in ("network", "average") for n in kept.network.spread_names()}
    for name, tensor in found.items():
        of_head = name.startswith(tuple(f"optimizer.{index}." for index in names))
        if isinstance(tensor, torch.Tensor) and tensor.ndim and (of_head or name in spread):
            found[name] = SpreadRows(mine=tensor, rows=shard.rows)
    return found


def _under(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
