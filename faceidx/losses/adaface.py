"""AdaFace (Kim et al. 2022, CVPR, arXiv:2204.00964, section 3.3): a margin by quality."""

from __future__ import annotations

import torch

from faceidx.losses.cosine import CosineHead
from faceidx.processes import gather_rows

# As published.
_CONCENTRATION = 0.33  # h
_NEW_SHARE = 0.01  # 1 - alpha
# Of the authors' code (github: mk-minchul/AdaFace, head.py).
_FIRST_MEAN, _FIRST_STD = 20.0, 100.0
_SHORTEST, _LONGEST = 0.001, 100.0
_EPSILON = 1e-3


class AdaFaceHead(CosineHead):
    """t = cos(theta_y + g_angle) - g_add, g_angle = -m z and g_add = m z + m.

    z, from -1 to 1, says how long an embedding is beside the running mean and standard deviation of
    all lengths, h standard deviations being 1: length stands for the picture's quality, and hard
    pictures of poor quality weigh less. m = 0.4 and s = 64 in the paper. No gradient flows through
    z. The authors train on BGR pictures; here the colour order is the model's.

    With several processes the statistics are those of the whole batch.
    """

    length_mean: torch.Tensor
    length_std: torch.Tensor

    def __init__(
        self,
        dim: int,
        classes: int,
        *,
        scale: float,
        margin: float,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(dim, classes, scale=scale, margin=margin, label_smoothing=label_smoothing)
        self.register_buffer("length_mean", torch.tensor(_FIRST_MEAN))
        self.register_buffer("length_std", torch.tensor(_FIRST_STD))

    def margined(self, target: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        """Shift the angle and the cosine by what the embedding's length says of its quality."""
        z = self._quality(embeddings.detach())
        limit = torch.finfo(target.dtype).eps
        angle = target.clamp(-1 + limit, 1 - limit).acos() - self.margin * z
        shifted = angle.clamp(_EPSILON, torch.pi - _EPSILON).cos()
        return shifted - (self.margin * z + self.margin)

    @torch.no_grad()
    def _quality(self, embeddings: torch.Tensor) -> torch.Tensor:
        """(N, D) to z, (N, 1); in training the running statistics follow first."""
        lengths = embeddings.norm(dim=1, keepdim=True).clamp(_SHORTEST, _LONGEST)
        if self.training:
            batch = gather_rows(lengths).to(self.length_mean.dtype)
            self.length_mean.lerp_(batch.mean(), _NEW_SHARE)
            if len(batch) > 1:  # one picture has no deviation
                self.length_std.lerp_(batch.std(), _NEW_SHARE)
        z = (lengths - self.length_mean) / (self.length_std + _EPSILON)
        return (z * _CONCENTRATION).clamp(-1, 1)
