from __future__ import annotations

import copy
import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from faceidx.models import onednn_graph, torch_runner
from faceidx.models.fidelity import compare
from faceidx.models.onednn_graph import graph_of, split_biases
from faceidx.models.registry import create_backbone
from faceidx.models.torch_runner import CHUNK, Runner
from faceidx.threads import single_threads
from tests.conftest import FAKE_SIZE, FakeModel

_PREPROCESSING = FakeModel().preprocessing


class _Net(nn.Module):
    """Widening and narrowing, a branch, a sum, and one layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, 2, 1)
        self.deep = nn.Conv2d(32, 32, 3, 1, 1, groups=32)
        self.narrow = nn.Conv2d(32, 16, 1)
        self.twice = nn.Conv2d(16, 16, 3, 1, 1)
        self.slopes = nn.PReLU(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem(x))
        x = self.narrow(F.hardtanh(self.deep(x), min_val=0.0, max_val=6.0))
        return (x + self.twice(self.slopes(self.twice(x)))).flatten(1)


def _pictures(count: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (count, *FAKE_SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module", params=["mobilefacenet", "every kind of layer"])
def network(request: pytest.FixtureRequest) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if request.param == "mobilefacenet":
            return create_backbone("mobilefacenet", embedding_dim=8, image_size=FAKE_SIZE).eval()
        return _Net().eval()


def _runner(network: nn.Module, *, compiled: bool = True) -> Runner:
    runner = Runner(
        network,
        _PREPROCESSING,
        device="cpu",
        precision="bf16",
        compiled="onednn" if compiled else False,
    )
    if compiled and not runner.compiled:
        pytest.skip("this torch and this processor have no graph of oneDNN for bf16")
    return runner


def test_it_does_without_torchs_compiler(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _runner(network).compiled == "onednn"  # or there is none here
    monkeypatch.setattr(torch_runner, "_room_for_many", None)
    runner = Runner(network, _PREPROCESSING, device="cpu", precision="bf16", compiled="onednn")
    assert runner.compiled == "onednn"


def test_it_is_as_true_to_float32_as_without(network: nn.Module) -> None:
    exact = Runner(network, _PREPROCESSING, device="cpu", precision="fp32")(_pictures(32))
    found, usual = (
        compare(_runner(network, compiled=c)(_pictures(32)), exact) for c in (True, False)
    )
    assert found is not None and usual is not None
    assert found.least > 0.999
    assert 1 - found.mean < 1.5 * (1 - usual.mean)


def test_a_picture_gives_the_same_bytes_in_any_count_thread_and_run(network: nn.Module) -> None:
    pictures = _pictures(6 * CHUNK + 3)
    first, second = _runner(network), _runner(network)
    rows = first(pictures)
    for _ in range(3):
        np.testing.assert_array_equal(first(pictures), rows)
        np.testing.assert_array_equal(second(pictures), rows)
    alone = [first(pictures[i : i + CHUNK]) for i in range(0, len(pictures), CHUNK)]
    np.testing.assert_array_equal(np.concatenate(alone), rows)
    np.testing.assert_array_equal(first(pictures[: CHUNK - 1]), rows[: CHUNK - 1])


def test_many_threads_run_one_graph_at_once(network: nn.Module) -> None:
    runner = _runner(network)
    chunks = [_pictures(CHUNK) // (i + 1) for i in range(32)]
    wanted = [runner(chunk) for chunk in chunks]
    with single_threads(8, "test") as threads:
        found = list(threads.map(runner._rows, chunks))
    np.testing.assert_array_equal(found, wanted)


def test_what_torchscript_is_told_is_taken_back(network: nn.Module) -> None:
    before = torch.jit.onednn_fusion_enabled()
    _runner(network)
    assert torch.jit.onednn_fusion_enabled() == before
    assert {p.requires_grad for p in network.parameters()} == {True}


def test_biases_in_two_parts_are_truer_than_rounded_ones() -> None:
    torch.manual_seed(0)
    exact = _Net().to(torch.bfloat16).float().eval()  # so that its biases alone are rounded
    for name, bias in exact.named_parameters():
        if name.endswith("bias"):
            nn.init.uniform_(bias, 1, 2)
    rounded = copy.deepcopy(exact).to(torch.bfloat16, memory_format=torch.channels_last)
    split = copy.deepcopy(rounded)
    split_biases(split, exact)
    wrapped = [name for name, _ in split.named_modules() if name.endswith("_layer")]
    assert wrapped == ["deep._layer", "narrow._layer", "twice._layer"]  # not what widens
    pictures = torch.randn(8, 3, *FAKE_SIZE).to(torch.bfloat16, memory_format=torch.channels_last)
    with torch.no_grad():
        wanted = exact(pictures.float())
        errors = [
            (graph_of(network, pictures)(pictures).float() - wanted).norm()
            for network in (rounded, split)
        ]
    assert errors[1] < 0.95 * errors[0]


def test_where_onednn_takes_nothing_one_line_says_so_and_it_runs_as_it_would(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(onednn_graph, "_TAKEN", "no such part")
    with caplog.at_level(logging.WARNING):
        runner = Runner(network, _PREPROCESSING, device="cpu", precision="bf16", compiled="onednn")
    assert runner.compiled is False
    (record,) = caplog.records
    assert "oneDNN takes no part" in record.getMessage() and "\n" not in record.getMessage()
    usual = _runner(network, compiled=False)
    np.testing.assert_array_equal(runner(_pictures(9)), usual(_pictures(9)))


def test_a_network_that_cannot_be_traced_runs_as_it_would(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise NotImplementedError("there is no TorchScript any more")

    monkeypatch.setattr(torch_runner, "graph_of", refuse)
    runner = Runner(network, _PREPROCESSING, device="cpu", precision="bf16", compiled="onednn")
    assert runner.compiled is False
    np.testing.assert_array_equal(
        runner(_pictures(9)), _runner(network, compiled=False)(_pictures(9))
    )


def test_in_float32_it_gives_what_the_network_gives(network: nn.Module) -> None:
    pictures = torch.rand(4, 3, *FAKE_SIZE)
    graph = graph_of(copy.deepcopy(network), torch.zeros_like(pictures))
    with torch.no_grad():
        torch.testing.assert_close(graph(pictures), network(pictures), rtol=1e-3, atol=1e-4)
