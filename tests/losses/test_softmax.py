from __future__ import annotations

import math

import pytest
import torch

from faceidx.errors import InputError
from faceidx.losses.center import CenterLoss
from faceidx.losses.registry import (
    AUXILIARIES,
    AUXILIARY_WEIGHTS,
    HEADS,
    create_auxiliary,
    create_head,
)
from faceidx.losses.softmax import SoftmaxHead


def _naive(
    rows: list[list[float]],
    labels: list[int],
    weight: list[list[float]],
    bias: list[float],
    smoothing: float,
) -> float:
    """Cross-entropy against a target of 1 - s on the label and s spread over all classes."""
    total = 0.0
    for x, y in zip(rows, labels, strict=True):
        logits = [
            sum(a * b for a, b in zip(x, w, strict=True)) + c
            for w, c in zip(weight, bias, strict=True)
        ]
        log_sum = math.log(sum(math.exp(z) for z in logits))
        for j, z in enumerate(logits):
            target = (1 - smoothing) * (j == y) + smoothing / len(logits)
            total -= target * (z - log_sum)
    return total / len(rows)


def _head(smoothing: float = 0.0) -> SoftmaxHead:
    generator = torch.Generator().manual_seed(2)
    head = SoftmaxHead(3, 4, smoothing)
    head.weight.data = torch.randn(4, 3, generator=generator)
    head.bias.data = torch.randn(4, generator=generator)
    return head


_EMBEDDINGS = torch.randn(5, 3, generator=torch.Generator().manual_seed(3))
_LABELS = torch.tensor([0, 3, 3, 1, 2])


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_the_loss_is_the_cross_entropy_worked_out_by_hand(smoothing: float) -> None:
    head = _head(smoothing)
    loss, logits = head(_EMBEDDINGS, _LABELS)
    weight, bias = head.weight.tolist(), head.bias.tolist()
    expected = _naive(_EMBEDDINGS.tolist(), _LABELS.tolist(), weight, bias, smoothing)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(logits, _EMBEDDINGS @ head.weight.T + head.bias)


def test_the_gradient_of_the_logits_is_the_probability_less_the_target() -> None:
    head = _head()
    loss, logits = head(_EMBEDDINGS, _LABELS)
    loss.backward()
    difference = logits.softmax(1).detach()
    difference[torch.arange(5), _LABELS] -= 1
    torch.testing.assert_close(head.bias.grad, difference.mean(0))
    torch.testing.assert_close(head.weight.grad, difference.T @ _EMBEDDINGS / 5)


def test_under_autocast_the_loss_stays_in_float32() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        loss, logits = _head()(_EMBEDDINGS, _LABELS)
    assert loss.dtype == logits.dtype == torch.float32
    assert loss.item() == pytest.approx(_head()(_EMBEDDINGS, _LABELS)[0].item(), rel=2**-6)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("enabled", [False, True], ids=["plain", "autocast"])
def test_every_head_of_the_registry_gives_a_loss_and_logits(name: str, enabled: bool) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        loss, logits = create_head(name, dim=3, classes=4)(_EMBEDDINGS, _LABELS)
    assert loss.shape == ()
    assert logits.shape == (5, 4)
    assert loss.dtype == logits.dtype == torch.float32


def test_every_auxiliary_loss_of_the_registry_can_be_built_and_has_a_weight() -> None:
    assert set(AUXILIARIES) == set(AUXILIARY_WEIGHTS)
    for name in AUXILIARIES:
        create_auxiliary(name, dim=3, classes=4)
    center = create_auxiliary("center", dim=3, classes=4)
    assert isinstance(center, CenterLoss)
    assert center.centers.shape == (4, 3)


def test_an_unknown_loss_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="'hinge'; there are softmax"):
        create_head("hinge", dim=3, classes=4)
    with pytest.raises(InputError, match="'hinge'; there are center, angle"):
        create_auxiliary("hinge", dim=3, classes=4)
