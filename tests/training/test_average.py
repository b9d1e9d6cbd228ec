from __future__ import annotations

import numpy as np
import torch
from torch import nn

from faceidx.training.average import Average


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def test_the_average_is_that_of_the_formula_over_weights_and_statistics() -> None:
    network = _network()
    average = Average(network, decay=0.6)  # type: ignore[arg-type]
    expected = {n: t.double().clone() for n, t in network.state_dict().items()}
    for step in range(8):
        with torch.no_grad():
            network[0].weight.add_(torch.randn(4, 3))
        network(torch.randn(5, 3))  # moves the norm's statistics
        average.follow(network, step)  # type: ignore[arg-type]
        decay = min(0.6, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value.double()
    for name, value in average.network.state_dict().items():
        if value.is_floating_point():
            np.testing.assert_allclose(value.numpy(), expected[name].numpy(), rtol=1e-5, atol=1e-6)
    assert int(average.network.state_dict()["1.num_batches_tracked"]) == 8


def test_the_average_is_never_trained_itself() -> None:
    average = Average(_network(), decay=0.9)  # type: ignore[arg-type]
    assert not average.network.training
    assert not any(p.requires_grad for p in average.network.parameters())


def test_what_does_not_learn_is_the_networks_own() -> None:
    network = _network()
    network[0].requires_grad_(False)
    average = Average(network, decay=0.9)  # type: ignore[arg-type]
    with torch.no_grad():
        network[0].weight.fill_(7.0)
    average.follow(network, 0)  # type: ignore[arg-type]
    assert (average.network.state_dict()["0.weight"] == 7).all()
