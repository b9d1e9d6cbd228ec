"""What softmax and the margin losses have in common: scores of classes, each class by its own rows.

As a class's score needs its own weights alone, classes can be spread over processes and sampled
(`sharded.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import nn


class ScoringHead(nn.Module, ABC):
    """A head whose logits are its scale times scores, the right class's with a margin.

    All its parameters have a row a class; what it has else are buffers.
    """

    weight: nn.Parameter
    scale: float
    label_smoothing: float

    @abstractmethod
    def scores(self, embeddings: torch.Tensor, rows: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """(N, D) embeddings and the parameters of some classes, by name, to (N, those classes)."""

    @abstractmethod
    def margined(self, target: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        """(N, 1) scores of the targets and their (N, D) embeddings to (N, 1) with the margin."""
