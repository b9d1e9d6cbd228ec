"""The optimizer: which weights decay, and how fast each part of the network learns."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from faceidx.training.network import TrainingNetwork
from faceidx.training.options import Recipe

OPTIMIZERS = ("sgd", "adamw")
# Finetuning to new identities: the backbone's last part learns at this share of the fresh head's
# rate, and each part before it at this share of the next one's. What it has learned from more
# people than the new set holds should bend, not break, and the first layers least of all.
_LAST_PART_RATE = 0.1
_PART_BEFORE = 0.75


def build_optimizer(network: TrainingNetwork, recipe: Recipe, stage: str) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum or AdamW; no weight decay on biases, norms and PReLU slopes.

    Every group carries `rate`, its factor of the schedule's learning rate.
    """
    groups = []
    for parameters, rate in _parts(network, stage):
        decayed = [p for p in parameters if p.ndim > 1]
        plain = [p for p in parameters if p.ndim <= 1]
        groups.append({"params": decayed, "weight_decay": recipe.weight_decay, "rate": rate})
        groups.append({"params": plain, "weight_decay": 0.0, "rate": rate})
    groups = [group for group in groups if group["params"]]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=recipe.lr)


def _parts(network: TrainingNetwork, stage: str) -> Iterator[tuple[list[nn.Parameter], float]]:
    """Parts of the network and the factor of each one's rate; the head comes last."""
    # A part that has nothing to learn, such as one that pools, is no step between two others.
    parts = [part for part in network.backbone.children() if _learned(part)]
    inside = {id(p) for part in parts for p in _learned(part)}
    if stage != "finetune" or any(id(p) not in inside for p in _learned(network.backbone)):
        parts = [network.backbone]
    for place, part in enumerate(parts):
        before = len(parts) - 1 - place
        rate = _LAST_PART_RATE * _PART_BEFORE**before if stage == "finetune" else 1.0
        yield _learned(part), rate
    yield network.trained_head(), 1.0


def _learned(part: nn.Module) -> list[nn.Parameter]:
    return [p for p in part.parameters() if p.requires_grad]
