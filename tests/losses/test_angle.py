from __future__ import annotations

import math

import pytest
import torch

from faceidx.losses.angle import LAMBDA_MIN, AngleLoss

_CLASSES, _DIM = 4, 3


def _psi(theta: torch.Tensor, margin: int) -> torch.Tensor:
    """Equation 6's psi, by the angle itself and the k whose interval it lies in."""
    for k in range(margin):
        if k * math.pi / margin <= theta.item() <= (k + 1) * math.pi / margin:
            return (-1) ** k * torch.cos(margin * theta) - 2 * k
    raise AssertionError(f"{theta} is no angle")


def _naive(
    embeddings: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor, margin: int, blend: float
) -> torch.Tensor:
    """Equation 7 with the target's cosine blended with psi, a sample and a class at a time."""
    total = torch.zeros((), dtype=torch.float64)
    for x, y in zip(embeddings, labels.tolist(), strict=True):
        length = x.norm()
        logits = []
        for j, w in enumerate(weight):
            theta = torch.acos(torch.dot(x, w) / (length * w.norm()))
            cosine = torch.cos(theta)
            if j == y:
                cosine = (blend * cosine + _psi(theta, margin)) / (1 + blend)
            logits.append(length * cosine)
        total = total - torch.log_softmax(torch.stack(logits), 0)[y]
    return total / len(labels)


def _batch(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Samples at angles spread over all four intervals of psi from their class's weight."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(_CLASSES, _DIM, generator=generator, dtype=torch.float64)
    labels = torch.arange(16) % _CLASSES
    unit = torch.nn.functional.normalize(weight)[labels]
    other = torch.randn(16, _DIM, generator=generator, dtype=torch.float64)
    other = torch.nn.functional.normalize(other - (other * unit).sum(1, keepdim=True) * unit)
    angles = (torch.arange(16, dtype=torch.float64) + 0.4)[:, None] * math.pi / 16
    lengths = 0.5 + torch.rand(16, 1, generator=generator, dtype=torch.float64) * 3
    embeddings = lengths * (angles.cos() * unit + angles.sin() * other)
    return embeddings.to(dtype), labels, weight.to(dtype)


def _at_step(step: int, margin: int = 4) -> AngleLoss:
    loss = AngleLoss(margin).eval()
    loss.step.fill_(step)
    return loss


@pytest.mark.parametrize("margin", [1, 2, 3, 4])
@pytest.mark.parametrize("step", [0, 1, 100, 10**6])
def test_value_and_gradient_are_those_of_the_formula(step: int, margin: int) -> None:
    embeddings, labels, weight = (t.requires_grad_(t.is_floating_point()) for t in _batch())
    blend = max(5.0, 1000 / (1 + 0.12 * step))
    expected = _naive(embeddings, labels, weight, margin, blend)
    value = _at_step(step, margin)(embeddings, labels, weight)
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    wanted = torch.autograd.grad(expected, (embeddings, weight))
    found = torch.autograd.grad(value, (embeddings, weight))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_each_view_of_an_embedding_has_an_angle_of_its_own() -> None:
    """With the zeros of a view that was not looked at, a picture is far from its own class."""
    embeddings, labels, weight = _batch()
    views = torch.cat([embeddings, torch.zeros_like(embeddings)], dim=1)
    views[8:] = views[8:].roll(_DIM, dims=1)  # the second half is seen by the other network
    loss = _at_step(10**6).train()
    loss.view_dim = _DIM
    value = loss(views, labels, torch.cat([weight, weight], dim=1))
    assert value.item() == pytest.approx(
        _naive(embeddings, labels, weight, 4, LAMBDA_MIN).item(), rel=1e-5
    )


def test_half_precision_costs_no_more_than_the_rounding_of_the_input() -> None:
    embeddings, labels, weight = _batch(torch.bfloat16)
    value = _at_step(10**6)(embeddings, labels, weight)
    expected = _naive(embeddings.double(), labels, weight.double(), 4, LAMBDA_MIN)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)


def test_autocast_leaves_the_cosines_in_float32() -> None:
    embeddings, labels, weight = _batch(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        under = _at_step(10**6)(embeddings, labels, weight)
    assert under.item() == _at_step(10**6)(embeddings, labels, weight).item()


def test_without_annealing_it_is_the_sphereface_loss_of_pytorch_metric_learning() -> None:
    # That one has no annealed lambda: the two agree in the limit of lambda = 0, which ours never
    # reaches (it stops at 5), so lambda is forced here. Both have |x| as scale and unit weights.
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    embeddings, labels, weight = _batch()
    theirs = losses.SphereFaceLoss(_CLASSES, _DIM, margin=4, scale=1)
    theirs.W.data = weight.t().clone()
    ours = AngleLoss(4).eval()
    ours.annealed_lambda = lambda: torch.zeros(())  # type: ignore[method-assign]
    expected = theirs(embeddings, labels).item()
    assert ours(embeddings, labels, weight).item() == pytest.approx(expected, rel=1e-5)


def test_the_gradient_is_finite_where_the_angle_is_0_or_pi() -> None:
    weight = torch.eye(3).requires_grad_()
    embeddings = torch.tensor([[2.0, 0, 0], [-2.0, 0, 0], [0, 0, 0]]).requires_grad_()
    loss = _at_step(10**6)(embeddings, torch.tensor([0, 0, 1]), weight)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(embeddings.grad).all()
    assert torch.isfinite(weight.grad).all()


def test_lambda_is_annealed_by_training_alone_and_kept_in_the_state() -> None:
    loss = AngleLoss()
    found = []
    for _ in range(3):
        loss(*_batch(torch.float32))
        found.append(loss.annealed_lambda().item())
    assert found == pytest.approx([1000 / 1.12, 1000 / 1.24, 1000 / 1.36])
    loss.eval()(*_batch(torch.float32))
    assert loss.annealed_lambda().item() == pytest.approx(found[-1])
    again = AngleLoss()
    again.load_state_dict(loss.state_dict())
    assert again.annealed_lambda().item() == pytest.approx(found[-1])
    assert _at_step(10**6).annealed_lambda().item() == 5


def test_a_batch_in_parts_is_one_step_of_the_annealing() -> None:
    loss = AngleLoss()
    loss.parts = 3
    found = []
    for _ in range(7):
        loss(*_batch(torch.float32))
        found.append(loss.annealed_lambda().item())
    assert found == pytest.approx([1000 / 1.12] * 3 + [1000 / 1.24] * 3 + [1000 / 1.36])
