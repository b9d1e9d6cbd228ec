"""ArcFace (Deng et al. 2019, CVPR, arXiv:1801.07698, equation 3): a margin added to the angle."""

from __future__ import annotations

import torch

from faceidx.losses.cosine import CosineHead, add_angle


class ArcFaceHead(CosineHead):
    """t = cos(theta_y + m), m = 0.5 rad and s = 64 in the paper.

    The gradient is that of the formula. arcface_torch (github: deepinsight/insightface) takes the
    target's angle outside of the graph, so that its gradient lacks d cos(theta + m) / d cos(theta)
    = sin(theta + m) / sin(theta); results with it are published, but are those of another gradient.
    """

    def margined(self, target: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        """Add m to the angle."""
        return add_angle(target, self.margin)
