"""The margin heads against loops from their formulas, and against pytorch-metric-learning."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from pytorch_metric_learning import losses as reference
from torch import nn

from faceidx.errors import InputError
from faceidx.losses.adaface import AdaFaceHead
from faceidx.losses.registry import HEADS, create_head
from faceidx.models.record import Head
from faceidx.models.torch_model import class_logits

_CLASSES, _DIM, _CENTERS = 4, 6, 3
_COSINE = ("arcface", "cosface", "adaface", "subcenter-arcface")
_DTYPES = (torch.float32, torch.float64, torch.bfloat16)


def _arcface(theta: float, margin: float, _: float) -> float:
    if theta + margin <= math.pi:
        return math.cos(theta + margin)
    return math.cos(theta) - margin * math.sin(margin)


def _cosface(theta: float, margin: float, _: float) -> float:
    return math.cos(theta) - margin


def _adaface(theta: float, margin: float, z: float) -> float:
    angle = min(max(theta - margin * z, 1e-3), math.pi - 1e-3)
    return math.cos(angle) - (margin * z + margin)


_FORMULAS: dict[str, Callable[[float, float, float], float]] = {
    "arcface": _arcface,
    "cosface": _cosface,
    "adaface": _adaface,
    "subcenter-arcface": _arcface,
}


def _batch(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings of lengths 5 to 40 at all angles, some beyond pi - m, from the first class."""
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(12, _DIM, generator=generator, dtype=torch.float64)
    lengths = torch.linspace(5, 40, 12, dtype=torch.float64)[:, None]
    embeddings = torch.nn.functional.normalize(embeddings) * lengths
    return embeddings.to(dtype), torch.arange(12) % _CLASSES


def _head(loss: str, dtype: torch.dtype = torch.float64, **options: float) -> nn.Module:
    torch.manual_seed(1)
    head = create_head(loss, dim=_DIM, classes=_CLASSES, **options)
    if isinstance(head, AdaFaceHead):  # z over its whole range
        head.length_mean, head.length_std = torch.tensor(22.0), torch.tensor(4.0)
        head.eval()
    with torch.no_grad():
        # Opposite to the first embedding of its class, so that theta + m exceeds pi.
        weight = head.weight.view(_CLASSES, -1, _DIM)
        weight[0] = -_batch()[0][0] + weight[0]
    return head.to(torch.float64 if dtype == torch.float64 else torch.float32)


def _naive(head: nn.Module, loss: str, embeddings: torch.Tensor, labels: torch.Tensor) -> float:
    total = 0.0
    rows = head.weight.detach().double().view(_CLASSES, -1, _DIM)
    for x, y in zip(embeddings.double(), labels.tolist(), strict=True):
        length = float(x.norm())
        logits = []
        for j, centers in enumerate(rows):
            cosine = max(float(torch.dot(x, c) / (x.norm() * c.norm())) for c in centers)
            if j == y:
                z = min(1.0, max(-1.0, (length - 22) / (4 + 1e-3) * 0.33))
                cosine = _FORMULAS[loss](math.acos(cosine), head.margin, z)
            logits.append(head.scale * cosine)
        total += math.log(sum(math.exp(v - logits[y]) for v in logits))
    return total / len(labels)


@pytest.mark.parametrize("loss", _COSINE)
def test_while_training_each_view_is_classified_by_itself(loss: str) -> None:
    """As heads of their own would do it; judged, an embedding counts as a whole."""
    head = _head(loss).train(loss != "adaface")  # whose statistics would move meanwhile
    embeddings, labels = _batch()
    embeddings[3:, :2] = 0  # the first view was seen of three pictures alone
    losses, logits, seen = [], torch.zeros(12, _CLASSES, dtype=torch.float64), []
    for first in range(0, _DIM, 2):
        rows = slice(0, 3) if first == 0 else slice(0, 12)
        alone = _head(loss).train(loss != "adaface")
        alone.weight = nn.Parameter(head.weight.detach()[..., first : first + 2])
        with torch.no_grad():
            mean, part = alone(embeddings[rows, first : first + 2], labels[rows])
        losses.append(mean * len(part))
        logits[rows] += part
        seen.append(len(part))
    with torch.no_grad():
        whole = head(embeddings, labels)
        head.view_dim = 2
        found = head._by_views(embeddings, labels, 2)
        torch.testing.assert_close(found[0], sum(losses) / sum(seen))
        counts = torch.full((12, 1), 2.0, dtype=torch.float64)
        counts[:3] = 3
        torch.testing.assert_close(found[1], logits / counts)
        torch.testing.assert_close(head.eval()(embeddings, labels), whole)
        embeddings[:, :2] = 0  # a view that nothing was seen of
        nothing, _ = head._by_views(embeddings, labels, 2)
        torch.testing.assert_close(nothing, sum(losses[1:]) / sum(seen[1:]))


@pytest.mark.parametrize("dtype", _DTYPES)
@pytest.mark.parametrize("loss", _COSINE)
def test_the_loss_is_that_of_the_formula(loss: str, dtype: torch.dtype) -> None:
    embeddings, labels = _batch(dtype)
    head = _head(loss, dtype)
    value, _ = head(embeddings, labels)
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    tolerance = 1e-9 if dtype == torch.float64 else 1e-5
    assert value.item() == pytest.approx(_naive(head, loss, embeddings, labels), rel=tolerance)


@pytest.mark.parametrize("loss", _COSINE)
def test_the_gradient_is_that_of_the_value(loss: str) -> None:
    embeddings, labels = _batch()
    head = _head(loss, scale=8.0)
    if isinstance(head, AdaFaceHead):  # no gradient flows through the quality
        quality = head._quality(embeddings)
        head._quality = lambda _: quality
    assert torch.autograd.gradcheck(
        lambda x, w: torch.func.functional_call(head, {"weight": w}, (x, labels))[0],
        (embeddings.requires_grad_(), head.weight.detach().clone().requires_grad_()),
        atol=1e-6,
    )


@pytest.mark.parametrize("dtype", _DTYPES)
@pytest.mark.parametrize(
    ("loss", "theirs"),
    [
        ("arcface", lambda: reference.ArcFaceLoss(_CLASSES, _DIM, margin=math.degrees(0.5))),
        ("cosface", lambda: reference.CosFaceLoss(_CLASSES, _DIM, margin=0.35, scale=64)),
        (
            "subcenter-arcface",
            lambda: reference.SubCenterArcFaceLoss(
                num_classes=_CLASSES,
                embedding_size=_DIM,
                margin=math.degrees(0.5),
                sub_centers=_CENTERS,
            ),
        ),
    ],
)
def test_value_and_gradient_equal_those_of_pytorch_metric_learning(
    loss: str, theirs: Callable[[], nn.Module], dtype: torch.dtype
) -> None:
    ours = _head(loss, dtype)
    other = theirs()
    other.W.data = ours.weight.detach().view(-1, _DIM).t().clone().double()
    found, labels = _batch(dtype)
    wanted = found.double()
    found.requires_grad_()
    wanted.requires_grad_()
    value, _ = ours(found, labels)
    expected = other(wanted, labels)
    value.backward()
    expected.backward()
    # bf16 rounds the embeddings alike for both, and the gradient that comes back once more.
    exact = 1e-7 if dtype == torch.float64 else 1e-4
    assert value.item() == pytest.approx(expected.item(), rel=exact)
    rounding = 2**-8 if dtype == torch.bfloat16 else exact
    torch.testing.assert_close(
        found.grad.double(), wanted.grad, rtol=rounding, atol=rounding * wanted.grad.abs().max()
    )
    torch.testing.assert_close(
        ours.weight.grad.view(-1, _DIM).t().double(),
        other.W.grad,
        rtol=exact,
        atol=exact * other.W.grad.abs().max(),
    )


def test_sphereface_equals_pytorch_metric_learning_once_annealed_to_nothing() -> None:
    head = create_head("sphereface", dim=_DIM, classes=_CLASSES).double()
    head.angle.annealed_lambda = lambda: torch.zeros(())  # the published psi, unblended
    other = reference.SphereFaceLoss(_CLASSES, _DIM, margin=4, scale=1)
    embeddings, labels = _batch()
    with torch.no_grad():
        head.weight.copy_(torch.nn.functional.normalize(torch.randn_like(head.weight)))
    other.W.data = head.weight.detach().t().clone()
    found, wanted = embeddings.clone().requires_grad_(), embeddings.clone().requires_grad_()
    value, _ = head(found, labels)
    expected = other(wanted, labels)
    value.backward()
    expected.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-9)
    torch.testing.assert_close(found.grad, wanted.grad)


@pytest.mark.parametrize("loss", HEADS)
def test_logits_are_those_that_the_finished_model_answers_with(loss: str) -> None:
    embeddings, labels = _batch(torch.float32)
    head = create_head(loss, dim=_DIM, classes=_CLASSES)
    _, logits = head(embeddings, labels)
    weights = dict(head.named_parameters())
    answers = class_logits(embeddings, weights, Head(loss=loss, scale=getattr(head, "scale", 1.0)))
    torch.testing.assert_close(logits, answers)


@pytest.mark.parametrize("loss", HEADS)
def test_a_head_learns_to_part_two_clusters(loss: str) -> None:
    torch.manual_seed(0)
    labels = torch.arange(32) % 2
    offset = torch.tensor([[3.0, 0.0, 0.0], [0.0, 3.0, 0.0]])[labels]
    points = torch.randn(32, 3) * 0.3 + offset
    head = create_head(loss, dim=3, classes=2)
    adam = torch.optim.Adam(head.parameters(), lr=0.02)
    for _ in range(100):
        value, logits = head(points, labels)
        adam.zero_grad()
        value.backward()
        adam.step()
    assert (logits.argmax(1) == labels).all()


def test_a_loss_without_a_margin_says_which_have_one() -> None:
    with pytest.raises(InputError, match="--loss softmax takes no --scale or --margin; arcface"):
        create_head("softmax", dim=_DIM, classes=_CLASSES, margin=0.3)


def test_a_margin_in_degrees_is_refused_where_it_is_an_angle() -> None:
    """pytorch-metric-learning has them so; as radians they would make every loss 0."""
    for loss in ("arcface", "adaface", "subcenter-arcface"):
        with pytest.raises(InputError, match=r"--margin 28.6: .*radians.*; 28.6 degrees are 0.499"):
            create_head(loss, dim=_DIM, classes=_CLASSES, margin=28.6)
    create_head("cosface", dim=_DIM, classes=_CLASSES, margin=28.6)


def test_lengths_of_a_batch_move_the_statistics_of_adaface_only_in_training() -> None:
    head = create_head("adaface", dim=_DIM, classes=_CLASSES)
    embeddings, labels = _batch(torch.float32)
    lengths = embeddings.norm(dim=1)
    head.eval()(embeddings, labels)
    assert head.length_mean.item() == 20
    head.train()(embeddings, labels)
    assert head.length_mean.item() == pytest.approx(0.99 * 20 + 0.01 * lengths.mean().item())
    assert head.length_std.item() == pytest.approx(0.99 * 100 + 0.01 * lengths.std().item())
    head(embeddings[:1], labels[:1])  # one picture has no deviation
    assert head.length_std.isfinite()


def test_a_cosine_that_rounding_brings_to_one_has_a_finite_gradient() -> None:
    for loss in _COSINE:
        head = create_head(loss, dim=_DIM, classes=_CLASSES)
        embeddings = head.weight.detach().view(_CLASSES, -1, _DIM)[:, 0].clone().requires_grad_()
        value, _ = head(embeddings, torch.arange(_CLASSES))
        value.backward()
        assert embeddings.grad.isfinite().all()
        assert head.weight.grad.isfinite().all()
