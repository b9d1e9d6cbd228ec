"""The plain N-way classifier: a linear layer and cross-entropy."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class SoftmaxHead(nn.Module):
    """Cross-entropy of linear logits: L = -log(exp(z_y) / sum_j exp(z_j)), z = W x + b.

    Args:
        dim: D, the embedding's size.
        classes: number of identities.
        label_smoothing: share of the target spread evenly over all classes (Szegedy et al. 2016,
            arXiv:1512.00567, section 7).
    """

    def __init__(self, dim: int, classes: int, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, dim))
        self.bias = nn.Parameter(torch.zeros(classes))
        self.label_smoothing = label_smoothing
        nn.init.normal_(self.weight, std=0.01)

    def forward(
        self, embeddings: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, D) embeddings and (N,) labels to the mean loss and the (N, classes) logits."""
        logits = F.linear(embeddings, self.weight, self.bias).float()
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing), logits
