"""Angle loss: A-Softmax of SphereFace (Liu et al. 2017, arXiv:1704.08063, equations 6 to 8)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from faceidx.losses.cosine import at_least_float32, views_looked_at

# Annealing of the authors' code (github: wy1iu/sphereface, margin_inner_product_layer):
# lambda = max(LAMBDA_MIN, LAMBDA_BASE / (1 + LAMBDA_GAMMA * step)).
LAMBDA_BASE, LAMBDA_GAMMA, LAMBDA_MIN = 1000.0, 0.12, 5.0


class AngleLoss(nn.Module):
    """Cross-entropy of |x| psi(theta_y) against |x| cos(theta_j), with unit class weights, no bias.

    psi(theta) = (-1)^k cos(m theta) - 2 k for theta in [k pi / m, (k + 1) pi / m]. Trained from the
    start psi diverges, so the target's cosine is (lambda cos(theta) + psi(theta)) / (1 + lambda)
    with lambda annealed from 1000 to 5; the step of the annealing is part of the module's state.

    Args:
        margin: m, a whole number.
    """

    step: torch.Tensor
    view_dim: int | None = None
    """Where embeddings are made of views, as in `cosine.CosineHead`: while training each has its
    own angle, as an embedding with views of zeros can come no nearer to any class."""

    def __init__(self, margin: int = 4) -> None:
        super().__init__()
        self.margin = margin
        self.parts = 1
        """Parts that a batch comes in: it is one step of the annealing all the same."""
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(
        self, embeddings: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor
    ) -> torch.Tensor:
        """(N, D) embeddings, (N,) labels and (classes, D) class weights to the mean loss."""
        if self.training:
            self.step += 1
        # In float32 whatever the precision: near the steps of psi a rounded cosine is another k.
        with torch.autocast(embeddings.device.type, enabled=False):
            return self._loss(at_least_float32(embeddings), labels, at_least_float32(weight))

    def _loss(
        self, embeddings: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor
    ) -> torch.Tensor:
        if self.view_dim and self.training:
            views = list(views_looked_at(embeddings, weight, self.view_dim))
            labels = torch.cat([labels[looked] for looked, _, _ in views])
        else:
            views = [(labels, embeddings, weight)]
        lengths = torch.cat([view.norm(dim=1, keepdim=True) for _, view, _ in views])
        cosines = torch.cat([_cosines(view, part) for _, view, part in views])
        target = cosines.gather(1, labels[:, None])
        blend = self.annealed_lambda()
        margined = (blend * target + _psi(target, self.margin)) / (1 + blend)
        logits = lengths * cosines.scatter(1, labels[:, None], margined)
        return F.cross_entropy(logits, labels)

    def annealed_lambda(self) -> torch.Tensor:
        """The present lambda, a scalar tensor."""
        batches = (self.step + self.parts - 1) // self.parts
        return (LAMBDA_BASE / (1 + LAMBDA_GAMMA * batches)).clamp(min=LAMBDA_MIN)


def _cosines(embeddings: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return F.linear(F.normalize(embeddings), F.normalize(weight)).clamp(-1, 1)


def _psi(cosine: torch.Tensor, margin: int) -> torch.Tensor:
    """(-1)^k cos(m theta) - 2 k, with cos(m theta) as the Chebyshev polynomial T_m of the cosine.

    The polynomial has a finite gradient where that of acos is infinite, at theta = 0 and pi.
    """
    k = (cosine.detach().acos() * margin / math.pi).floor().clamp(0, margin - 1)
    previous, multiple = torch.ones_like(cosine), cosine
    for _ in range(margin - 1):
        previous, multiple = multiple, 2 * cosine * multiple - previous
    sign = 1 - 2 * (k % 2)
    return sign * multiple - 2 * k
