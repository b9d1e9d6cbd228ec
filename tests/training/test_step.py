from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import nn

from faceidx.images.preprocess import Preprocessing
from faceidx.losses.angle import AngleLoss
from faceidx.training.network import Start, TrainingNetwork, build_network
from faceidx.training.options import Recipe
from faceidx.training.step import learn

_BATCH = 8


class _Plain(nn.Module):
    """A network without norms: only there must parts of a batch give the gradient of the whole."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(12, 3)

    def forward(
        self, pictures: torch.Tensor, labels: torch.Tensor, weights: Mapping[str, float]
    ) -> dict[str, torch.Tensor]:
        logits = self.layer(pictures.flatten(1))
        loss = nn.functional.cross_entropy(logits, labels)
        correct = (logits.argmax(1) == labels).sum()
        return {"loss": loss, "correct": correct, "head": loss.detach()}


def _recipe(**more: object) -> Recipe:
    settings: dict[str, object] = {
        "arch": "resnet18", "image_size": 2, "embedding_dim": 8, "loss": "softmax", "epochs": 1,
        "batch_size": _BATCH, "lr": 0.5, "weight_decay": 0.0, "warmup_epochs": 0.0,
        "label_smoothing": 0.0, "augment": "none", **more,
    }  # fmt: skip
    return Recipe(**settings)  # type: ignore[arg-type]


def _step(recipe: Recipe) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    fabric = Fabric(accelerator="cpu", devices=1)
    plain = _Plain()
    network, optimizer = fabric.setup(plain, torch.optim.SGD(plain.parameters(), lr=recipe.lr))
    generator = torch.Generator().manual_seed(1)
    pictures = torch.randn(_BATCH, 2, 2, 3, generator=generator)
    labels = torch.arange(_BATCH) % 3
    sums = learn(fabric, network, optimizer, pictures, labels, {}, recipe)
    return plain.layer.weight.detach(), sums


@pytest.mark.parametrize("parts", [2, 3, 8])
def test_a_batch_in_parts_moves_the_weights_like_the_whole(parts: int) -> None:
    whole, sums = _step(_recipe())
    cut, same = _step(_recipe(accumulate=parts))
    torch.testing.assert_close(cut, whole)
    for name, value in sums.items():
        torch.testing.assert_close(same[name], value)


def test_a_clipped_gradient_has_the_norm_asked_for() -> None:
    before = _Plain().layer.weight.detach()
    free, _ = _step(_recipe())
    clipped, _ = _step(_recipe(clip_norm=0.01))
    # The bias shares the norm; weight and bias together move by rate times 0.01 at most.
    assert (free - before).norm() > 0.5 * 0.01
    assert (clipped - before).norm() <= 0.5 * 0.01 + 1e-6
    direction = nn.functional.cosine_similarity(
        (clipped - before).flatten(), (free - before).flatten(), 0
    )
    assert direction.item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("clip", [0.0, 1.0])
@pytest.mark.parametrize("overflow", ["loss", "gradient"])
def test_fp16_skips_a_step_that_overflows_and_scales_down(overflow: str, clip: float) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    precision = MixedPrecision("16-mixed", "cpu", scaler)
    fabric = Fabric(accelerator="cpu", devices=1, plugins=[precision])
    plain = _Plain()
    recipe = _recipe(clip_norm=clip)
    network, optimizer = fabric.setup(plain, torch.optim.SGD(plain.parameters(), lr=0.5))
    before = plain.layer.weight.detach().clone()
    pictures, labels = torch.ones(_BATCH, 2, 2, 3), torch.arange(_BATCH) % 3
    if overflow == "loss":
        pictures[0] = torch.inf
    else:
        plain.layer.weight.register_hook(lambda gradient: gradient * torch.inf)
    sums = learn(fabric, network, optimizer, pictures, labels, {}, recipe)
    torch.testing.assert_close(plain.layer.weight.detach(), before)
    assert scaler.get_scale() == 2.0**15
    assert all(value.isfinite() for value in sums.values())
    assert sums["skipped"] == (1 if overflow == "loss" else 0)
    if overflow == "loss":  # the next one is learned from, at the smaller scale
        pictures[0] = 1.0
        sums = learn(fabric, network, optimizer, pictures, labels, {}, recipe)
        assert sums["skipped"] == 0 and sums["loss"] > 0
        assert (plain.layer.weight.detach() != before).any()


def _network(recipe: Recipe) -> TrainingNetwork:
    usual = Preprocessing(image_size=(32, 32), color="rgb", mean=(0.5,) * 3, std=(0.5,) * 3)
    return build_network(recipe, Start(stage="pretrain"), usual, classes=3)


def test_the_annealing_counts_batches_however_many_parts_they_come_in() -> None:
    network = _network(_recipe(accumulate=4, loss="sphereface", aux=("angle",), image_size=32))
    parts = [module.parts for module in network.modules() if isinstance(module, AngleLoss)]
    assert parts == [4, 4]


def test_head_and_auxiliary_losses_know_what_a_hybrid_looked_at() -> None:
    both = ("center", "angle")
    network = _network(_recipe(arch="hybrid", embedding_dim=30, loss="cosface", aux=both))
    judges = [network.head, *network.auxiliaries.values()]
    assert [judge.view_dim for judge in judges] == [2, 2, 2]
