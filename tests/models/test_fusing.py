from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from faceidx.models.fusing import fuse_convolutions
from faceidx.models.torch_runner import Runner
from tests.conftest import FAKE_SIZE, FakeModel


class _Net(nn.Module):
    """Every kind of convolution, with each activation, a branch, and one layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.deep = nn.Conv2d(16, 16, 3, 1, 1, groups=16, bias=False)
        self.wide = nn.Conv2d(16, 16, 3, padding="same")
        self.twice = nn.Conv2d(16, 16, 1)
        self.apart = nn.Conv2d(16, 16, 3, 1, 2, dilation=2)
        self.slopes = nn.PReLU(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.hardtanh(self.stem(x), min_val=0.0, max_val=6.0)
        y = F.relu(self.deep(x))
        y = self.wide(y)
        y = self.twice(F.relu(self.twice(y)))
        z = self.apart(y)  # two see it: its activation is not the only one
        return (self.slopes(z) + F.relu(z) + x).flatten(1)


def _pictures(count: int) -> torch.Tensor:
    pictures = torch.rand(count, 3, *FAKE_SIZE, generator=torch.Generator().manual_seed(1))
    return pictures.to(torch.bfloat16, memory_format=torch.channels_last)


@pytest.fixture
def exact() -> fx.GraphModule:
    torch.manual_seed(0)
    return fx.symbolic_trace(_Net().eval())


def _in_bf16(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network).to(torch.bfloat16, memory_format=torch.channels_last)


@pytest.mark.parametrize("count", [1, 5])
def test_it_gives_what_it_gave_and_is_truer_to_float32(exact: fx.GraphModule, count: int) -> None:
    plain, fused = _in_bf16(exact), _in_bf16(exact)
    assert fuse_convolutions(fused, exact, (4, 3, *FAKE_SIZE))
    functions = [node.target for node in fused.graph.nodes if node.op == "call_function"]
    # What is left: behind a layer used twice, and behind a branch.
    assert functions.count(F.relu) == 2 and functions.count(F.hardtanh) == 0
    pictures = _pictures(count)
    with torch.inference_mode():
        wanted, rows, before = exact(pictures.float()), fused(pictures), plain(pictures)
    assert rows.dtype == torch.bfloat16
    error, usual = ((part.float() - wanted).norm() for part in (rows, before))
    assert error < 0.02 * wanted.norm()
    assert error < 1.2 * usual


def test_what_fx_has_not_followed_is_left_alone() -> None:
    network = _Net().to(torch.bfloat16)
    assert not fuse_convolutions(network, _Net(), (4, 3, *FAKE_SIZE))


def test_a_torch_without_the_operators_runs_it_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("no such operator")

    pictures = FakeModel().projection.astype("uint8").reshape(-1)[: 2 * 16 * 16 * 3]
    batch = pictures.reshape(2, *FAKE_SIZE, 3)
    preprocessing = FakeModel().preprocessing
    torch.manual_seed(0)
    network = _Net().eval()
    usual = Runner(network, preprocessing, device="cpu", precision="bf16")(batch)
    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_convolution_weight", refuse)
    found = Runner(network, preprocessing, device="cpu", precision="bf16")(batch)
    assert abs(found - usual).max() < 0.02 * abs(usual).max()
