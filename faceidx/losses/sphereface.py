"""SphereFace (Liu et al. 2017, CVPR, arXiv:1704.08063): A-Softmax as the classifier itself."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from faceidx.losses.angle import AngleLoss
from faceidx.losses.cosine import at_least_float32


class SphereFaceHead(nn.Module):
    """The angle loss over this head's own weights, m = 4; the annealing is part of its state.

    Args:
        dim: D, the embedding's size.
        classes: number of identities.
        margin: m, a whole number.
    """

    def __init__(self, dim: int, classes: int, *, margin: int = 4) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, dim))
        nn.init.normal_(self.weight, std=0.01)
        self.angle = AngleLoss(margin)

    def forward(
        self, embeddings: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, D) embeddings and (N,) labels to the mean loss and (N, classes) logits, no margin."""
        loss = self.angle(embeddings, labels, self.weight)
        # In float32 as the loss is: rounded logits make more of the classes alike.
        with torch.no_grad(), torch.autocast(embeddings.device.type, enabled=False):
            directions = F.normalize(at_least_float32(self.weight))
            logits = F.linear(at_least_float32(embeddings), directions)
        return loss, logits
