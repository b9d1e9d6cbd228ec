from __future__ import annotations

import pytest
import torch
from torch import nn

from faceidx.images.preprocess import Preprocessing
from faceidx.losses.softmax import SoftmaxHead
from faceidx.models.registry import create_backbone
from faceidx.training.network import TrainingNetwork
from faceidx.training.optimizer import build_optimizer
from faceidx.training.options import Recipe


def _recipe(**more: object) -> Recipe:
    settings: dict[str, object] = {
        "arch": "resnet18", "image_size": 32, "embedding_dim": 8, "loss": "softmax", "epochs": 1,
        "batch_size": 4, "lr": 0.5, "weight_decay": 0.25, "warmup_epochs": 0.0,
        "label_smoothing": 0.0, "augment": "none", **more,
    }  # fmt: skip
    return Recipe(**settings)  # type: ignore[arg-type]


def _network(arch: str = "resnet18", dim: int = 8) -> TrainingNetwork:
    backbone = create_backbone(arch, embedding_dim=dim, image_size=(32, 32))
    usual = Preprocessing(image_size=(32, 32), color="rgb", mean=(0.5,) * 3, std=(0.5,) * 3)
    return TrainingNetwork(backbone, SoftmaxHead(dim, 3), {}, usual)


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_every_weight_is_in_one_group_and_only_matrices_decay(name: str, stage: str) -> None:
    network = _network()
    optimizer = build_optimizer(network, _recipe(optimizer=name), stage)
    grouped = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in grouped} == {id(p) for p in network.parameters()}
    assert len(grouped) == len({id(p) for p in grouped})
    for group in optimizer.param_groups:
        for p in group["params"]:
            assert group["weight_decay"] == (0.25 if p.ndim > 1 else 0)


def test_finetuning_moves_the_first_layers_least_and_the_head_most() -> None:
    network = _network()
    optimizer = build_optimizer(network, _recipe(), "finetune")
    rates = {id(p): g["rate"] for g in optimizer.param_groups for p in g["params"]}
    in_order = [rates[id(p)] for p in network.backbone.parameters()]
    assert in_order == sorted(in_order)
    assert in_order[0] < in_order[-1] == 0.1
    assert {rates[id(p)] for p in network.head.parameters()} == {1.0}


def test_a_backbone_with_weights_outside_of_its_parts_learns_at_one_rate() -> None:
    network = _network()
    network.backbone.register_parameter("loose", nn.Parameter(torch.zeros(2)))
    optimizer = build_optimizer(network, _recipe(), "finetune")
    assert {group["rate"] for group in optimizer.param_groups} == {0.1, 1.0}


@pytest.mark.parametrize("arch", ["resnet18", "iresnet18", "mobilefacenet", "hybrid"])
def test_parts_that_learn_nothing_slow_none_of_those_before_them(arch: str) -> None:
    network = _network(arch, 60)
    optimizer = build_optimizer(network, _recipe(), "finetune")
    rates = {id(p): g["rate"] for g in optimizer.param_groups for p in g["params"]}
    learning = [
        {rates[id(p)] for p in child.parameters() if p.requires_grad}
        for _, child in network.backbone.named_children()
    ]
    in_order = [rate for found in learning if found for rate in found]
    expected = [0.1 * 0.75**before for before in range(len(in_order))]
    assert in_order == pytest.approx(expected[::-1])
