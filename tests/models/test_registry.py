from __future__ import annotations

import pytest
import torch

from faceidx.errors import InputError
from faceidx.models.mobilefacenet import MobileFaceNet
from faceidx.models.registry import BACKBONES, create_backbone

_SIZES = [(16, 16), (33, 40), (56, 64), (112, 112), (224, 160)]


def test_the_promised_architectures_are_there() -> None:
    promised = {f"resnet{n}" for n in (18, 34, 50, 101, 152)}
    promised |= {f"iresnet{n}" for n in (18, 34, 50, 100, 200)} | {"mobilefacenet"}
    assert promised <= set(BACKBONES)


@pytest.mark.parametrize("arch", BACKBONES)
def test_a_backbone_gives_a_row_a_picture_at_any_size(arch: str) -> None:
    with torch.device("meta"):  # shapes alone: no arithmetic
        for size in _SIZES:
            backbone = create_backbone(arch, embedding_dim=24, image_size=size).eval()
            assert backbone(torch.zeros(2, 3, *size)).shape == (2, 24), size


@pytest.mark.parametrize("arch", ["resnet10", "iresnet18", "mobilefacenet"])
def test_a_fresh_backbone_tells_pictures_apart(arch: str) -> None:
    torch.manual_seed(0)
    backbone = create_backbone(arch, embedding_dim=24, image_size=(32, 24)).eval()
    with torch.inference_mode():
        one, other = backbone(torch.randn(2, 3, 32, 24))
    assert torch.isfinite(one).all()
    assert not torch.allclose(one, other, rtol=1e-3)


@pytest.mark.parametrize("size", [(128, 120), (130, 200), (224, 224)])
def test_the_stem_of_resnet_follows_the_size_of_the_picture(size: tuple[int, int]) -> None:
    with torch.device("meta"):
        backbone = create_backbone("resnet18", embedding_dim=8, image_size=size).eval()
        assert backbone(torch.zeros(1, 3, *size)).shape == (1, 8)
        convolution = next(m for m in backbone.modules() if isinstance(m, torch.nn.Conv2d))
    assert convolution.kernel_size == ((3, 3) if max(size) <= 128 else (7, 7))


def _parameters_of_iresnet(blocks: list[int]) -> int:
    """Counted from InsightFace's description: a norm has 2 numbers a channel, a PReLU 1."""
    count = 3 * 64 * 9 + 2 * 64 + 64
    inputs = 64
    for outputs, repeats in zip((64, 128, 256, 512), blocks, strict=True):
        for number in range(repeats):
            count += 2 * inputs + 9 * inputs * outputs + 2 * outputs + outputs
            count += 9 * outputs * outputs + 2 * outputs
            count += inputs * outputs + 2 * outputs if number == 0 else 0
            inputs = outputs
    return count + 2 * 512 + (512 * 7 * 7 + 1) * 512 + 2 * 512


@pytest.mark.parametrize(
    ("arch", "blocks"),
    [
        ("iresnet18", [2, 2, 2, 2]),
        ("iresnet34", [3, 4, 6, 3]),
        ("iresnet50", [3, 4, 14, 3]),
        ("iresnet100", [3, 13, 30, 3]),
        ("iresnet200", [6, 26, 60, 6]),
    ],
)
def test_iresnets_have_the_size_of_insightfaces(arch: str, blocks: list[int]) -> None:
    with torch.device("meta"):
        backbone = create_backbone(arch, embedding_dim=512, image_size=(112, 112))
    assert sum(p.numel() for p in backbone.parameters()) == _parameters_of_iresnet(blocks)


def test_the_body_of_resnet_is_torchvisions() -> None:
    import torchvision

    with torch.device("meta"):
        ours = create_backbone("resnet50", embedding_dim=512, image_size=(112, 112)).state_dict()
        theirs = torchvision.models.resnet50().state_dict()
    body = {n: t.shape for n, t in theirs.items() if n.startswith("layer")}
    assert body == {n: t.shape for n, t in ours.items() if n.startswith("layer")}


def test_the_embedding_layer_begins_as_average_pooling() -> None:
    layer = MobileFaceNet(5, (48, 64)).embedding.eval()
    features = torch.randn(2, 512, 3, 4)
    torch.testing.assert_close(layer.spatial(features).flatten(1), features.mean((2, 3)))


def test_what_cannot_be_built_is_an_error() -> None:
    for message, arguments in (
        ("no architecture named 'vgg'", ("vgg", 8, (112, 112))),
        ("too small", ("resnet18", 8, (112, 15))),
        ("an embedding of 0", ("resnet18", 0, (112, 112))),
        ("from 15 to 2490", ("hybrid", 14, (112, 112))),
        ("from 15 to 2490", ("hybrid", 2491, (112, 112))),
        ("from 15 to 2490", ("hybrid_wide", 2491, (112, 112))),
    ):
        arch, dim, size = arguments
        with pytest.raises(InputError, match=message):
            create_backbone(arch, embedding_dim=dim, image_size=size)
