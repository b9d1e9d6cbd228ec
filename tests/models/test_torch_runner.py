from __future__ import annotations

import logging
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from faceidx.models import torch_runner
from faceidx.models.registry import create_backbone
from faceidx.models.torch_runner import CHUNK, Runner
from tests.conftest import FAKE_SIZE, FakeModel

_PREPROCESSING = FakeModel().preprocessing


def _pictures(count: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (count, *FAKE_SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return create_backbone("mobilefacenet", embedding_dim=8, image_size=FAKE_SIZE).eval()


def _runner(network: nn.Module, precision: str = "fp32", **options: Any) -> Runner:
    return Runner(network, _PREPROCESSING, device="cpu", precision=precision, **options)


@pytest.mark.parametrize("count", [1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
def test_any_number_of_pictures_comes_out_in_order(network: nn.Module, count: int) -> None:
    pictures = _pictures(count)
    batch = torch.from_numpy((pictures / 255.0 - 0.5) / 0.5).float().permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = network(batch.contiguous()).numpy()
    found = _runner(network)(pictures)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_batch_gives_the_same_bytes(network: nn.Module, precision: str) -> None:
    pictures = _pictures(3 * CHUNK + 5)
    first, second = _runner(network, precision), _runner(network, precision)
    rows = first(pictures)
    for _ in range(3):
        np.testing.assert_array_equal(first(pictures), rows)
        np.testing.assert_array_equal(second(pictures), rows)
    # Whole chunks do not depend on what else is in the batch.
    np.testing.assert_array_equal(first(pictures[CHUNK : 2 * CHUNK]), rows[CHUNK : 2 * CHUNK])


def test_the_rest_of_the_process_keeps_its_threads(network: nn.Module) -> None:
    before = torch.get_num_threads()
    _runner(network)(_pictures(2))
    assert torch.get_num_threads() == before


def test_half_precision_leaves_the_network_itself_alone(network: nn.Module) -> None:
    runner = _runner(network, "bf16")
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    dtypes = {p.dtype for p in runner.network.parameters()}
    assert torch.bfloat16 in dtypes
    rows, exact = runner(_pictures(4)), _runner(network)(_pictures(4))
    assert not np.array_equal(rows, exact)
    np.testing.assert_allclose(rows, exact, atol=0.05 * np.abs(exact).max())


def test_norms_that_stay_keep_their_numbers_in_float32() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.Flatten()).eval()
    network[0].running_mean.fill_(1 / 3)
    runner = _runner(network, "bf16")
    norm = next(m for m in runner.network.modules() if isinstance(m, nn.BatchNorm2d))
    assert norm.running_mean is not None
    assert norm.running_mean.dtype == torch.float32
    assert runner(_pictures(2)).shape == (2, 4 * 14 * 14)


def test_a_failed_compilation_is_one_line_and_no_end(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        def run(_: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no C++ compiler\nwas found")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    with caplog.at_level(logging.WARNING):
        runner = _runner(network, compiled=True)
    assert not runner.compiled
    (record,) = caplog.records
    assert "uncompiled" in record.getMessage() and "\n" not in record.getMessage()
    np.testing.assert_array_equal(runner(_pictures(9)), _runner(network)(_pictures(9)))


def test_many_networks_are_compiled_and_beyond_torchs_limit_it_is_said(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    compiler = torch.compile

    def in_no_time(module: nn.Module, **_: Any) -> Any:
        return compiler(module, dynamic=False, backend="eager")

    monkeypatch.setattr(torch, "compile", in_no_time)
    monkeypatch.setattr(torch_runner, "keep_compiled_code", lambda: None)
    torch._dynamo.reset()
    assert all(_runner(network, compiled=True).compiled for _ in range(10))
    assert "uncompiled" not in caplog.text
    monkeypatch.setattr(torch_runner, "_MOST_COMPILED", 1)
    assert not _runner(network, compiled=True).compiled
    assert "torch runs the model uncompiled" in caplog.text


def test_a_folder_that_torch_chose_for_compiled_code_is_not_used_and_one_of_the_users_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # so that it is put back afterwards
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    cache_dir()  # as an import of torch._dynamo does
    assert "TORCHINDUCTOR_CACHE_DIR" in os.environ
    torch_runner.keep_compiled_code()
    assert cache_dir() == str(tmp_path / "faceidx" / "torch")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "own"))
    torch_runner.keep_compiled_code()
    assert cache_dir() == str(tmp_path / "own")


def test_compiled_code_is_kept_for_the_owner_and_fits_every_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from torch._dynamo.utils import counters
    from torch._inductor import codecache

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # so that it is put back afterwards
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    network = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Flatten()).eval()
    for name in ("_HEADER_DIR", "_HEADER_LOCK_DIR"):  # to be put back, too
        monkeypatch.setattr(codecache, name, str(tmp_path / "shared"))
    runner = _runner(network, compiled=True)
    if not runner.compiled:
        pytest.skip("there is no C++ compiler here")
    assert not (tmp_path / "shared").exists()
    folder = tmp_path / "faceidx"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert any((folder / "torch").iterdir())
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(folder / "torch")
    graphs = counters["stats"]["unique_graphs"]
    for count in (1, CHUNK, 2 * CHUNK + 3):
        np.testing.assert_allclose(
            runner(_pictures(count)), _runner(network)(_pictures(count)), rtol=1e-4, atol=1e-5
        )
    assert counters["stats"]["unique_graphs"] == graphs
    rows = runner(_pictures(2 * CHUNK + 3))
    np.testing.assert_array_equal(runner(_pictures(2 * CHUNK + 3)), rows)
