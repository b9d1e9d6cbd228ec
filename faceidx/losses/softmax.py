"""The plain N-way classifier: a linear layer and cross-entropy."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn

from faceidx.losses.cosine import at_least_float32
from faceidx.losses.scoring_head import ScoringHead


class SoftmaxHead(ScoringHead):
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
        self.scale = 1.0
        self.label_smoothing = label_smoothing
        nn.init.normal_(self.weight, std=0.01)

    def forward(
        self, embeddings: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, D) embeddings and (N,) labels to the mean loss and the (N, classes) logits."""
        logits = self.scores(embeddings, dict(self.named_parameters()))
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing), logits

    def scores(self, embeddings: torch.Tensor, rows: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """(N, D) embeddings and `weight` and `bias` of some classes to (N, those classes)."""
        return at_least_float32(F.linear(embeddings, rows["weight"], rows["bias"]))

    def margined(self, target: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        """A plain classifier has no margin: the (N, 1) scores of the right classes, as they are."""
        return target
