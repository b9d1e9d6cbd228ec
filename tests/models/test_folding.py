from __future__ import annotations

import pytest
import torch
from torch import nn

from faceidx.models.folding import fold_norms
from faceidx.models.registry import create_backbone


def _lived(network: nn.Module) -> nn.Module:
    """A network whose batch norms are no identities, as after training."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            assert module.running_mean is not None and module.running_var is not None
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.6, 1.4)
            nn.init.uniform_(module.weight, 0.6, 1.4)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    return network.eval()


def _norms(network: nn.Module) -> int:
    return sum(isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)) for m in network.modules())


@pytest.mark.parametrize("arch", ["resnet10", "iresnet18", "mobilefacenet"])
def test_a_folded_network_gives_what_the_network_gives(arch: str) -> None:
    network = _lived(create_backbone(arch, embedding_dim=32, image_size=(32, 32)))
    pictures = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        before = network(pictures)
        folded = fold_norms(network)
        apart = (folded(pictures) - before).norm(dim=1) / before.norm(dim=1)
        assert float(apart.max()) < 1e-3
        torch.testing.assert_close(network(pictures), before, rtol=0, atol=0)
    # An iresnet's first norm of each block stands before its convolution, whose padding is zero.
    left = {"resnet10": 0, "iresnet18": 9, "mobilefacenet": 0}[arch]
    assert _norms(folded) == left < _norms(network)


class _Twice(nn.Module):
    """One convolution in two places, and one whose output goes two ways."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fork = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norms[1](self.conv(self.norms[0](self.conv(x))))
        x = self.fork(x)
        return self.norms[2](x) + x


def test_layers_with_two_uses_are_left_alone() -> None:
    network = _lived(_Twice())
    pictures = torch.randn(2, 3, 4, 4)
    folded = fold_norms(network)
    assert _norms(folded) == 3
    with torch.no_grad():
        torch.testing.assert_close(folded(pictures), network(pictures))


class _Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


def test_a_network_that_cannot_be_followed_stays_as_it_is() -> None:
    network = _Branching().eval()
    assert fold_norms(network) is network
