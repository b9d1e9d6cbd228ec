"""An exponential moving average of the weights: steadier than the weights of the last step."""

from __future__ import annotations

import copy

import torch

from faceidx.training.network import TrainingNetwork

# An average that began with the random first weights would carry them for 1 / (1 - decay) steps;
# its decay grows from 0.1 (as in TensorFlow's ExponentialMovingAverage with num_updates).
_YOUNG = 10


class Average:
    """w_avg <- d w_avg + (1 - d) w after each step; the norms' statistics are averaged alike.

    Args:
        network: to follow; a copy is made.
        decay: d once the average has warmed up, below 1.
    """

    def __init__(self, network: TrainingNetwork, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._decay = decay
        shard = getattr(network, "shard", None)
        # Of a sampled classifier the rows that are drawn learn, as parameters of their own.
        sampled = set(network.spread_names()) if shard and shard.active else set()
        every = dict(network.named_parameters())
        self._fixed = {n for n, p in every.items() if not p.requires_grad} - sampled
        # What does not learn is the network's own, so that it need not be followed.
        for name, own in self.network.named_parameters():
            if name in self._fixed:
                own.data = every[name].data

    @torch.no_grad()
    def follow(self, network: TrainingNetwork, step: int) -> None:
        """Take up the weights after a step, counted from 0 over the whole run."""
        new_share = 1 - min(self._decay, (1 + step) / (_YOUNG + step))
        own, new = self.network.state_dict(), network.state_dict()
        moving = own.keys() - self._fixed
        blended = [name for name in moving if own[name].is_floating_point()]
        torch._foreach_lerp_([own[n] for n in blended], [new[n] for n in blended], new_share)
        for name in moving - set(blended):
            own[name].copy_(new[name])
