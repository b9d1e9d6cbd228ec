"""One step: a batch through the network in one part or several, and one move of the weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule, _unwrap_objects

from faceidx.processes import add_up
from faceidx.training.options import Recipe


def parts_of_batch(total: int, parts: int, processes: int, number: int) -> list[np.ndarray]:
    """Cut a batch into the parts that go through the network one after another.

    A part consists of the same pictures however many processes share in it, so that norms and
    centres, which see a part at a time, do not depend on their number.

    Args:
        total: pictures of the batch, not fewer than processes.
        parts: wanted; there are fewer where a process would otherwise get no picture.

    Returns:
        Of each part the places, in the batch, of this process's pictures; one or more.
    """
    several = np.array_split(np.arange(total), min(parts, total // processes))
    # Where a part does not come out even, another process has one picture more each time.
    return [
        np.array_split(part, processes)[(number + turn) % processes]
        for turn, part in enumerate(several)
    ]


def learn(
    fabric: Fabric,
    network: _FabricModule,
    optimizer: torch.optim.Optimizer,
    pictures: torch.Tensor,
    labels: torch.Tensor,
    weights: Mapping[str, float],
    recipe: Recipe,
) -> dict[str, torch.Tensor]:
    """Move the weights along the gradient of the whole batch's mean loss, over all processes.

    Each part's loss weighs what its pictures are of the batch: neither the number of parts nor that
    of the processes changes the gradient, even where they do not divide the batch. (Norms see a
    part at a time, and center loss moves its centres after each.) Gradients are synchronised once.

    Args:
        network: as Fabric set it up.
        pictures: (n, H, W, 3) this process's pictures of the batch.
        labels: (n,).
        weights: of the auxiliary losses.

    Returns:
        This process's share of the batch's mean losses, and its number of right answers as
        `correct`: to be added up over processes. float64 scalars on the device. In fp16 a part
        whose loss overflowed is left out, and `skipped` is the share of such parts.
    """
    sums: dict[str, torch.Tensor] = {}
    world = fabric.world_size
    places = parts_of_batch(recipe.batch_size, recipe.accumulate, world, fabric.global_rank)
    sizes = [len(part) for part in places]
    parts = list(zip(pictures.split(sizes), labels.split(sizes), strict=True))
    for number, (some, theirs) in enumerate(parts, 1):
        wait = world > 1 and number < len(parts)
        share = len(theirs) / recipe.batch_size
        with fabric.no_backward_sync(network, enabled=wait):
            losses = network(some, theirs, weights)
            # Gradients are averaged over the processes, not added up.
            fabric.backward(losses["loss"] * (share * world))
        for name, value in _counted(losses, share, scaled=is_scaled(fabric)).items():
            sums[name] = sums.get(name, 0.0) + value  # on the device: nobody waits for it
    own = _own_gradients(network)
    if own and is_scaled(fabric) and world > 1:
        _tell_of_overflow(optimizer, own)
    if recipe.clip_norm:
        fabric.strategy.precision.unscale_gradients(_unwrap_objects(optimizer))
        _clip(optimizer, own, recipe.clip_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return sums


def _own_gradients(network: _FabricModule) -> list[torch.Tensor]:
    """Gradients that this process has for itself: those of its classes, where they are spread."""
    shard = getattr(network, "shard", None)
    if shard is None:
        return []
    return [p.grad for p in shard.trained(network.head) if p.grad is not None]


def _shared_gradients(
    optimizer: torch.optim.Optimizer, own: list[torch.Tensor]
) -> list[torch.Tensor]:
    """Gradients that all processes have alike."""
    apart = {id(gradient) for gradient in own}
    every = [p.grad for group in optimizer.param_groups for p in group["params"]]
    return [g for g in every if g is not None and id(g) not in apart]


def _tell_of_overflow(optimizer: torch.optim.Optimizer, own: list[torch.Tensor]) -> None:
    """Bring what is no number in one process's own gradients into those that all have alike.

    Then all processes skip the step, or none does: fp16's scaler decides by the gradients.
    """
    nothing = add_up(torch.stack([gradient.sum() for gradient in own]).sum()) * 0
    min(_shared_gradients(optimizer, own), key=torch.Tensor.numel).add_(nothing)


def _clip(optimizer: torch.optim.Optimizer, own: list[torch.Tensor], longest: float) -> None:
    """Shorten the gradient of all processes to a norm.

    One that overflowed becomes no number throughout; fp16's scaler skips the step.
    """
    shared = _shared_gradients(optimizer, own)
    square = torch.nn.utils.get_total_norm(shared).square()
    if own:
        square = square + add_up(torch.nn.utils.get_total_norm(own).square())
    factor = (longest / (square.sqrt() + 1e-6)).clamp(max=1)  # as torch's clip_grad_norm_
    torch._foreach_mul_([*shared, *own], factor)


def is_scaled(fabric: Fabric) -> bool:
    """Whether fp16's scaler is at work, which skips a step that overflows and scales down."""
    return getattr(fabric.strategy.precision, "scaler", None) is not None


def _counted(
    losses: Mapping[str, torch.Tensor], share: float, *, scaled: bool
) -> dict[str, torch.Tensor]:
    """What a part of the batch adds to the batch's figures."""
    counted = {
        name: value.detach().double() * (1.0 if name == "correct" else share)
        for name, value in losses.items()
    }
    if not scaled:
        return counted
    there = torch.stack([value.isfinite() for value in counted.values()]).all()
    kept = {name: torch.where(there, value, 0.0) for name, value in counted.items()}
    return {**kept, "skipped": share * (~there).double()}
