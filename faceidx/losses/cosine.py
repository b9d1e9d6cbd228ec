"""What the margin losses share: cross-entropy over scaled cosines, the target's with a margin."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import nn

from faceidx.losses.scoring_head import ScoringHead


class CosineHead(ScoringHead):
    """L = -log(exp(s t) / (exp(s t) + sum_{j != y} exp(s cos(theta_j)))).

    theta_j is the angle between the embedding and the weight of class j, s the scale, and t what a
    subclass makes of cos(theta_y) in `margined`. All of it is computed in float32 or wider whatever
    the precision of the network: a bf16 cosine times a scale of 64 is off by up to a quarter.

    Args:
        dim: D, the embedding's size.
        classes: number of identities.
        scale: s. Below log((classes - 1) p / (1 - p)) no target can reach the probability p (Wang
            et al. 2017, "NormFace", arXiv:1704.06369, proposition 2).
        margin: m, as the subclass takes it.
        label_smoothing: share of the target spread evenly over all classes.
        centers: weights a class, for a subclass that takes several.
    """

    view_dim: int | None = None
    """Where embeddings are made of views of so many numbers each: while training each view is
    classified by itself, so that each learns. A view of zeros was not looked at."""

    def __init__(
        self,
        dim: int,
        classes: int,
        *,
        scale: float,
        margin: float,
        label_smoothing: float = 0.0,
        centers: int | None = None,
    ) -> None:
        super().__init__()
        shape = (classes, dim) if centers is None else (classes, centers, dim)
        self.weight = nn.Parameter(torch.empty(shape))
        nn.init.normal_(self.weight, std=0.01)
        self.scale = scale
        self.margin = margin
        self.label_smoothing = label_smoothing

    def forward(
        self, embeddings: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, D) embeddings and (N,) labels to the mean loss and (N, classes) logits, no margin."""
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings = at_least_float32(embeddings)
            if self.view_dim and self.training:
                return self._by_views(embeddings, labels, self.view_dim)
            cosines = self.scores(embeddings, dict(self.named_parameters()))
            return self._loss(cosines, embeddings, labels), self.scale * cosines.detach()

    def _loss(
        self, cosines: torch.Tensor, embeddings: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        column = labels[:, None]
        target = self.margined(cosines.gather(1, column), embeddings)
        logits = self.scale * cosines.scatter(1, column, target)
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)

    def _by_views(
        self, embeddings: torch.Tensor, labels: torch.Tensor, dim: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean loss of all views, and each embedding's mean logits."""
        cosines, lengths, places = [], [], []
        for looked, view, weight in views_looked_at(embeddings, self.weight, dim):
            cosines.append(self.scores(view, {"weight": weight}))
            # All that margins see of an embedding; the last view may have fewer numbers.
            lengths.append(view.norm(dim=1, keepdim=True))
            places.append(looked)
        every, place = torch.cat(cosines), torch.cat(places)
        loss = self._loss(every, torch.cat(lengths), labels[place])
        logits = every.new_zeros(len(labels), every.shape[1]).index_add_(0, place, every.detach())
        counts = place.bincount(minlength=len(labels)).clamp(min=1)[:, None]
        return loss, self.scale * logits / counts

    def scores(self, embeddings: torch.Tensor, rows: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """(N, D) embeddings and the `weight` of some classes to (N, those classes) cosines."""
        with torch.autocast(embeddings.device.type, enabled=False):
            weight = F.normalize(at_least_float32(rows["weight"]), dim=-1)
            return F.linear(F.normalize(embeddings), weight).clamp(-1, 1)


def views_looked_at(
    embeddings: torch.Tensor, weight: torch.Tensor, dim: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Cut embeddings that are made of views, of `dim` numbers each, into these.

    Yields:
        Of each view the (n,) places of the embeddings that have it, (n, dim) of it, and its part of
        the (..., D) weight.
    """
    for view, part in zip(embeddings.split(dim, 1), weight.split(dim, -1), strict=True):
        looked = view.detach().any(1).nonzero().squeeze(1)
        yield looked, view[looked], part


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """float64 stays, all else becomes float32."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def add_angle(cosine: torch.Tensor, margin: float) -> torch.Tensor:
    """cos(theta + m), and cos(theta) - m sin(m) where theta + m would exceed pi.

    The continuation keeps the value falling (github: deepinsight/insightface, the MXNet code of
    ArcFace). By the addition theorem no angle is computed; the sine's gradient at theta = 0, which
    is infinite, is cut off.
    """
    sine = (1 - cosine.square()).clamp(min=torch.finfo(cosine.dtype).eps).sqrt()
    shifted = cosine * math.cos(margin) - sine * math.sin(margin)
    beyond = cosine - margin * math.sin(margin)
    return torch.where(cosine >= math.cos(math.pi - margin), shifted, beyond)
