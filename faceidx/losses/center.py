"""Center loss (Wen et al. 2016, "A Discriminative Feature Learning Approach for Deep Face
Recognition", ECCV, equations 2 to 4): pull each embedding to the centre of its identity.
"""

from __future__ import annotations

import torch
from torch import nn

from faceidx.processes import gather_rows


class CenterLoss(nn.Module):
    """L = 1/2 mean_i |x_i - c_{y_i}|^2; centres follow the embeddings by the paper's own rule.

    The paper sums over the batch; the mean keeps the weight independent of the batch size. Centres
    are no parameters: after each batch c_j moves by -alpha * sum_{i: y_i=j}(c_j - x_i) / (1 + n_j)
    (equation 4, where 1 + n_j damps identities seen once). Many implementations let the optimizer
    move the centres along the loss's gradient instead, without the 1 / (1 + n_j).

    With several processes the rule sees the whole batch, so centres are the same in all of them.

    Args:
        dim: D, the embedding's size.
        classes: number of identities.
        alpha: the centres' own rate.
    """

    centers: torch.Tensor
    view_dim: int | None = None
    """Where embeddings are made of views of so many numbers each, as in `cosine.CosineHead`: a view
    of zeros was not looked at, so it is no place to pull a centre to."""

    def __init__(self, dim: int, classes: int, alpha: float = 0.5) -> None:
        super().__init__()
        self.alpha = alpha
        self.register_buffer("centers", torch.zeros(classes, dim))

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """(N, D) embeddings and (N,) labels to the loss; in training the centres then move."""
        embeddings = embeddings.float()
        distances = embeddings - self.centers[labels]
        if self.view_dim:
            distances = distances * self._looked_at(embeddings)
        loss = distances.square().sum(1).mean() / 2
        if self.training:
            self._move(embeddings.detach(), labels)
        return loss

    @torch.no_grad()
    def _move(self, embeddings: torch.Tensor, labels: torch.Tensor) -> None:
        embeddings, labels = gather_rows(embeddings), gather_rows(labels)
        seen, rows, counts = labels.unique(return_inverse=True, return_counts=True)
        counts = counts.unsqueeze(1)
        apart = self.centers[labels] - embeddings
        steps = torch.zeros(len(seen), self.centers.shape[1], device=embeddings.device)
        if self.view_dim:
            looked = self._looked_at(embeddings)
            apart = apart * looked
            counts = torch.zeros_like(steps).index_add_(0, rows, looked.to(steps))
        steps.index_add_(0, rows, apart)
        # Not in place: the loss's graph may still hold the centres that it was computed with.
        self.centers = self.centers.index_add(0, seen, steps / (1 + counts), alpha=-self.alpha)

    def _looked_at(self, embeddings: torch.Tensor) -> torch.Tensor:
        """(N, D) bool: what of (N, D) embeddings is of views that were looked at."""
        assert self.view_dim is not None
        views = embeddings.detach().split(self.view_dim, 1)
        return torch.cat([view.any(1, keepdim=True).expand_as(view) for view in views], dim=1)
