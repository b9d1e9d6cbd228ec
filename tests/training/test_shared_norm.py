"""Batch norm over several processes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from faceidx.progress import ProgressCallback
from faceidx.training.launch import Hardware, launch
from faceidx.training.shared_norm import settle_norms, share_statistics


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.PReLU(), nn.Flatten(), nn.Linear(180, 4),
        nn.BatchNorm1d(4),
    ).double()  # fmt: skip


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    pictures = torch.randn(8, 3, 8, 8, generator=rng, dtype=torch.float64)
    return pictures, torch.randint(0, 4, (8,), generator=rng)


def _step(network: nn.Module, run: nn.Module, part: slice) -> list[torch.Tensor]:
    """Gradients and buffers after one step."""
    pictures, labels = _batch()
    nn.functional.cross_entropy(run(pictures[part]), labels[part]).backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    return [*gradients, *network.buffers()]


def _in_parts(fabric: Fabric, job: None, progress: ProgressCallback) -> list[np.ndarray]:
    network = _network()
    share_statistics(network)
    run = fabric.setup_module(network)
    size = 8 // fabric.world_size
    part = slice(fabric.global_rank * size, (fabric.global_rank + 1) * size)
    return [tensor.numpy() for tensor in _step(network, run, part)]


def test_two_halves_of_a_batch_give_the_gradients_and_statistics_of_the_whole() -> None:
    network = _network()
    whole = _step(network, network, slice(0, 8))
    hardware = Hardware(on_gpu=False, devices=2, num_nodes=1, precision="fp32")
    halves = launch(hardware, _in_parts, None, lambda _: None)
    assert len(halves) == len(whole) == 15
    for mine, theirs in zip(halves, whole, strict=True):
        np.testing.assert_allclose(mine, theirs.numpy(), atol=1e-12)


def test_gpus_get_torchs_own_shared_norm_under_the_names_of_the_plain_one() -> None:
    plain, shared = _network(), _network()
    settle_norms(shared, "on", on_gpu=True, pictures=64)
    assert sum(isinstance(module, nn.SyncBatchNorm) for module in shared.modules()) == 2
    assert shared.state_dict().keys() == plain.state_dict().keys()
    plain.load_state_dict(shared.state_dict())
    shared.load_state_dict(plain.state_dict())
    pictures, _ = _batch()
    assert torch.equal(shared.eval()(pictures), plain.eval()(pictures))


@pytest.mark.parametrize(
    ("wanted", "on_gpu", "pictures", "shared"),
    [
        ("auto", False, 64, True),
        ("auto", True, 16, False),
        ("auto", True, 15, True),
        ("on", False, 64, True),
        ("off", False, 4, False),
        ("off", True, 4, False),
    ],
)
def test_auto_shares_norms_on_the_cpu_and_where_a_gpu_has_few_pictures(
    wanted: str, on_gpu: bool, pictures: int, shared: bool
) -> None:
    network = _network()
    settle_norms(network, wanted, on_gpu=on_gpu, pictures=pictures)
    kinds = {type(m) for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    assert (kinds == {nn.BatchNorm1d, nn.BatchNorm2d}) is not shared


def test_one_process_computes_as_torch_does() -> None:
    plain, shared = _network(), _network()
    share_statistics(shared)
    pictures, _ = _batch()
    for mode in (True, False):
        plain.train(mode)
        shared.train(mode)
        assert torch.allclose(shared(pictures), plain(pictures), atol=1e-12)
    assert shared.state_dict().keys() == plain.state_dict().keys()
