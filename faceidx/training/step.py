"""One step: a batch through the network in one part or several, and one move of the weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule

from faceidx.training.options import Recipe


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
        `correct`: to be added up over processes. float64 scalars on the device.
    """
    sums: dict[str, torch.Tensor] = {}
    parts = list(
        zip(pictures.chunk(recipe.accumulate), labels.chunk(recipe.accumulate), strict=True)
    )
    for number, (some, theirs) in enumerate(parts, 1):
        wait = fabric.world_size > 1 and number < len(parts)
        share = len(theirs) / recipe.batch_size
        with fabric.no_backward_sync(network, enabled=wait):
            losses = network(some, theirs, weights)
            # Gradients are averaged over the processes, not added up.
            fabric.backward(losses["loss"] * (share * fabric.world_size))
        for name, value in losses.items():  # added on the device: nobody waits for them
            counted = value.detach().double() * (1.0 if name == "correct" else share)
            sums[name] = sums.get(name, 0.0) + counted
    if recipe.clip_norm:
        # A gradient that overflowed is the business of fp16's scaler, which skips the step.
        fabric.clip_gradients(
            network, optimizer, max_norm=recipe.clip_norm, error_if_nonfinite=False
        )
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return sums
