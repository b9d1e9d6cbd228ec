"""Embedding on a GPU: as on the CPU up to rounding, batches in flight at once told apart."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from faceidx.embedding import embed as module_of_embed
from faceidx.embedding import shards
from faceidx.embedding.embed import EmbedOptions, embed
from faceidx.embedding.making import Crew
from faceidx.embedding.pipeline import PipelineOptions
from faceidx.images.preprocess import Preprocessing
from faceidx.models.face_model import mirror, normalize
from faceidx.models.open import ModelOptions
from faceidx.models.registry import create_backbone
from faceidx.models.torch_runner import Runner
from tests.conftest import HALF, RunCli

_SIZE = (32, 32)
_PREPROCESSING = Preprocessing(image_size=_SIZE, color="bgr", mean=HALF, std=HALF)
_BATCH = 16


def _pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *_SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    network = create_backbone("iresnet18", embedding_dim=64, image_size=_SIZE)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # what they have seen is all they know: fp16 would overflow
    with torch.no_grad():
        network.train()(torch.randn(64, 3, *_SIZE))
    return network.eval()


def _runner(network: nn.Module, device: str, precision: str, *, compiled: bool = False) -> Runner:
    return Runner(
        network,
        _PREPROCESSING,
        device=device,
        precision=precision,
        batch_size=_BATCH,
        compiled=compiled,
    )


@pytest.mark.parametrize(
    ("precision", "compiled", "least"),
    [("fp32", False, 0.9999), ("bf16", False, 0.999), ("bf16", True, 0.999), ("fp16", True, 0.999)],
)
def test_it_gives_what_the_cpu_gives(
    network: nn.Module, precision: str, compiled: bool, least: float
) -> None:
    pictures = _pictures(2 * _BATCH + 5)
    wanted, _ = normalize(_runner(network, "cpu", "fp32")(pictures))
    runner = _runner(network, "cuda", precision, compiled=compiled)
    assert runner.compiled == compiled and runner.captured
    found, _ = normalize(runner(pictures))
    assert (found * wanted).sum(1).min() > least


@pytest.mark.parametrize("compiled", [False, True])
def test_batches_in_flight_at_once_are_told_apart(network: nn.Module, compiled: bool) -> None:
    runner = _runner(network, "cuda", "bf16", compiled=compiled)
    batches = [_pictures(count, seed) for seed, count in enumerate([_BATCH, 3, _BATCH, 1, 7])]
    alone = [runner(batch) for batch in batches]
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 1, 3]):
        begun = [runner.begin(batch) for batch in batches]
        found = {place: begun[place]() for place in order}
        for place, rows in enumerate(alone):
            np.testing.assert_array_equal(found[place], rows)


@pytest.mark.parametrize("compiled", [False, True])
def test_mirror_images_are_made_on_the_card(network: nn.Module, compiled: bool) -> None:
    runner = _runner(network, "cuda", "bf16", compiled=compiled)
    for count in (_BATCH, 5, 2 * _BATCH + 1):
        batch = _pictures(count)
        found = runner.begin(batch, flip=True)()
        np.testing.assert_array_equal(found, runner(batch) + runner(mirror(batch)))


def test_the_command_embeds_what_it_embeds_on_the_cpu(
    run_cli: RunCli, pictures: Path, fake_model_file: Path, tmp_path: Path
) -> None:
    rows = {}
    for device in ("cpu", "cuda"):
        out = tmp_path / f"{device}.h5"
        words = ("--model", fake_model_file, "--device", device, "--batch-size", 4, "--flip")
        result = run_cli.json("embed", pictures, *words, "--out", out, "--precision", "fp32")
        assert result["device"] == device and result["embedded"] == 11
        with h5py.File(out) as file:
            rows[device] = file["embeddings"][:], file["paths"][:].tolist()
    assert rows["cpu"][1] == rows["cuda"][1]
    assert (rows["cpu"][0] * rows["cuda"][0]).sum(1).min() > 0.9999


def test_without_a_size_of_batches_there_is_no_graph_and_the_same_comes_out(
    network: nn.Module,
) -> None:
    free = Runner(network, _PREPROCESSING, device="cuda", precision="bf16")
    assert not free.captured
    pictures = _pictures(_BATCH)
    found, wanted = (normalize(r(pictures))[0] for r in (free, _runner(network, "cuda", "bf16")))
    assert (found * wanted).sum(1).min() > 0.9999


@pytest.mark.parametrize("compiled", [False, True])
def test_several_processes_that_feed_a_gpu_give_what_one_gives(
    compiled: bool,
    pictures: Path,
    fake_model_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shards, "SHARD_SIZE", 3)
    found = {}
    for feeders in (1, 3):
        monkeypatch.setattr(module_of_embed, "crew_for", lambda *_, n=feeders: Crew(["cuda"], n))
        model = ModelOptions(
            path=fake_model_file, device="cuda", engine="torch", precision="bf16", compiled=compiled
        )
        out = tmp_path / f"{feeders}.h5"
        options = EmbedOptions(
            images=pictures, out=out, model=model, pipeline=PipelineOptions(batch_size=4)
        )
        assert embed(options)["embedded"] == 11
        with h5py.File(out) as file:
            found[feeders] = file["embeddings"][:].tobytes(), file["paths"][:].tolist()
    assert found[1] == found[3]
