"""CosFace (Wang et al. 2018, CVPR, arXiv:1801.09414, equation 4): a margin off the cosine."""

from __future__ import annotations

import torch

from faceidx.losses.cosine import CosineHead


class CosFaceHead(CosineHead):
    """t = cos(theta_y) - m, m = 0.35 and s = 64 in the paper. Also published as AM-Softmax."""

    def margined(self, target: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        """Take m off the cosine."""
        return target - self.margin
